"""Checks of a workflow's graph before it runs, and the order in which units are initialized."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import networkx as nx

from veloflow.errors import ControlError

if TYPE_CHECKING:
    from veloflow.core.unit import Unit
    from veloflow.core.workflow import Workflow

__all__ = ["check_control", "control_order", "data_graph", "initialization_order", "listed"]


def check_control(workflow: Workflow) -> None:
    """Check that every unit can run and that the end can be reached.

    Raises:
        ControlError: the end has no way to it, a unit cannot be reached, or a loop can never
            start because none of its units ignores its gate.
    """
    graph = workflow.graph
    reached = {workflow.start} | nx.descendants(graph, workflow.start)
    lost = [unit for unit in graph if unit not in reached and unit is not workflow.end]
    if lost:
        names = listed(repr(unit.path) for unit in lost)
        raise ControlError(
            f"no control link leads to {names}; link {'it' if len(lost) == 1 else 'them'} after "
            "another unit (a >> b) or take the unit out"
        )
    if workflow.end not in reached:
        raise ControlError(
            f"the end of workflow {workflow.path!r} is never reached; link the unit that decides "
            "when the work is done to it: decision >> wf.end"
        )
    _check_loops(workflow)


def _check_loops(workflow: Workflow) -> None:
    """Every loop needs a unit that runs on any signal: else its join waits for itself for ever."""
    waiting = workflow.graph.subgraph([unit for unit in workflow.graph if not unit.ignores_gate])
    if nx.is_directed_acyclic_graph(waiting):
        return
    loop = [before.path for before, _ in nx.find_cycle(waiting)]
    raise ControlError(
        f"the loop {listed(loop, ' >> ')} >> {loop[0]} has no repeater, so each of its units "
        "waits for another; put a Repeater at its entry: start >> repeater >> … >> repeater"
    )


def data_graph(workflow: Workflow) -> nx.MultiDiGraph[Unit]:  # type: ignore[explicit-any]
    """Return the data links between the units of a workflow, as edges from source to reader.

    A link from or to a unit inside a nested workflow counts for the nested workflow. Edges have
    the attributes ``source`` and ``input``: the names at both ends.
    """
    from veloflow.core.workflow import Workflow as _Workflow

    graph: nx.MultiDiGraph[Unit] = nx.MultiDiGraph()  # type: ignore[explicit-any]  # its stubs
    graph.add_nodes_from(workflow)
    for unit in workflow:
        inner = unit.all_units() if isinstance(unit, _Workflow) else ()
        for reader in (unit, *inner):
            for name, link in reader.data_links.items():
                source: Unit | None = link.source
                while source is not None and source not in workflow.graph:
                    source = source._workflow
                if source is not None and source is not unit:
                    graph.add_edge(source, unit, source=link.attribute, input=name)
    return graph


def initialization_order(workflow: Workflow) -> list[Unit]:
    """Return the units so that each follows those that its data comes from.

    Ties, and the units of a data loop, come in the order of control, breadth first from the
    start.
    """
    place = {unit: number for number, unit in enumerate(control_order(workflow))}
    graph = nx.DiGraph(data_graph(workflow))
    if nx.is_directed_acyclic_graph(graph):
        return list(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
    loops = nx.condensation(graph)
    members: dict[int, list[Unit]] = {
        node: sorted(data["members"], key=place.__getitem__) for node, data in loops.nodes.items()
    }
    order = nx.lexicographical_topological_sort(loops, key=lambda node: place[members[node][0]])
    return [unit for node in order for unit in members[node]]


def control_order(workflow: Workflow) -> list[Unit]:
    """Return the units in the order of control: breadth first from the start, the rest last."""
    order = [workflow.start, *(v for _, v in nx.bfs_edges(workflow.graph, workflow.start))]
    reached = set(order)
    return order + [unit for unit in workflow if unit not in reached]


def round_of(workflow: Workflow) -> list[Unit]:
    """Return the units that every round of the workflow's one loop passes, in their order.

    They are the dominators of the way back, seen from the loop's boundary. Without a loop, or with
    several boundaries, there are none.
    """
    boundaries = [unit for unit in workflow if unit.is_boundary]
    if len(boundaries) != 1:
        return []
    boundary = boundaries[0]
    ends = [one for one in workflow.predecessors(boundary) if one is not workflow.start]
    graph: nx.DiGraph[Unit] = nx.DiGraph()  # type: ignore[explicit-any]  # its stubs
    graph.add_edges_from(
        (before, after)
        for before, after in workflow.graph.edges
        if after not in (boundary, workflow.end)
    )
    sink = workflow.end  # here it stands for the way back
    graph.add_edges_from((end, sink) for end in ends)
    if not (ends and boundary in graph and nx.has_path(graph, boundary, sink)):
        return []
    dominators = nx.immediate_dominators(graph, boundary)
    chain: list[Unit] = []
    unit = dominators[sink]
    while unit is not boundary:
        chain.append(unit)
        unit = dominators[unit]
    return [boundary, *reversed(chain)]


def listed(names: Iterable[str], sign: str = ", ", *, most: int = 5) -> str:
    """Return the names joined by ``sign``, the first ones when there are many."""
    every = list(names)
    return sign.join([*every[:most], "…"] if len(every) > most else every)

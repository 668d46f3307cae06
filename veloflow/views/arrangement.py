"""How the control graph is laid out: what goes down, what runs back up, what stands abreast.

A loop drawn as one long chain is tall, and says little. So the part of a loop from its trainers on
is drawn upwards, each trainer beside the unit that it trains: the picture of a forward and a
backward pass. Loops without trainers are drawn downwards with the closing link going back up.
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from veloflow.core import Unit, Workflow

__all__ = ["Arrangement"]

Link = tuple[Unit, Unit]


class Arrangement:
    """Which end of each control link is drawn above, and in which row each unit stands.

    Args:
        workflow: one level; nested workflows count as units.

    Attributes:
        upward: the control links whose end is drawn above their beginning.
        abreast: units that share a row: a trainer after what it trains.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.upward = _links_up(workflow)
        down: nx.DiGraph[Unit] = nx.DiGraph()
        down.add_nodes_from(workflow.graph)
        for link in workflow.graph.edges:
            down.add_edge(*(reversed(link) if link in self.upward else link))
        self.abreast = _pairs(workflow, down)
        self._rows = _rows(down, self.abreast)

    def row(self, unit: Unit) -> int:
        """Return the row in which a unit stands, counted from the top."""
        return self._rows[unit]


def _links_up(workflow: Workflow) -> set[Link]:
    """Return the links that close loops, and those into and between what runs back up."""
    graph = workflow.graph
    closing = set(_closing_links(graph, workflow.start))
    down = nx.DiGraph(graph)
    down.remove_edges_from(closing)
    up = set(closing)
    for loop in nx.strongly_connected_components(graph):
        trainers = [unit for unit in loop if unit.group == "trainer"] if len(loop) > 1 else []
        if not trainers:
            continue
        inside = down.subgraph(loop)
        back = _reached(inside, trainers)
        up.update(link for link in inside.edges if link[1] in back)
    return up


def _reached(graph: nx.DiGraph[Unit], starts: list[Unit]) -> set[Unit]:
    found, waiting = set(starts), list(starts)
    while waiting:
        new = set(graph.successors(waiting.pop())) - found
        found |= new
        waiting.extend(new)
    return found


def _closing_links(graph: nx.DiGraph[Unit], start: Unit) -> Iterator[Link]:
    """Yield the links that lead back to a unit on the way here from the start."""
    on_the_way: set[Unit] = set()
    for before, after, label in nx.dfs_labeled_edges(graph, start):
        if label == "forward":
            on_the_way.add(after)
        elif label == "reverse":
            on_the_way.discard(after)
        elif after in on_the_way:
            yield before, after


def _pairs(workflow: Workflow, down: nx.DiGraph[Unit]) -> list[Link]:
    """Return (trained unit, trainer), one trainer a unit, unless rows would clash."""
    pairs: dict[Unit, Unit] = {}
    for unit in workflow:
        if unit.group == "trainer":
            known = [one for one in vars(unit).values() if isinstance(one, Unit)]
            near = [one for one in known if one in workflow.graph and one.group == "forward"]
            if len(near) == 1:
                pairs.setdefault(near[0], unit)
    abreast = list(pairs.items())
    return abreast if nx.is_directed_acyclic_graph(_merged(down, abreast)) else []


def _merged(down: nx.DiGraph[Unit], pairs: list[Link]) -> nx.DiGraph[Unit]:
    place = {trainer: trained for trained, trainer in pairs}
    merged: nx.DiGraph[Unit] = nx.DiGraph()
    merged.add_nodes_from(place.get(unit, unit) for unit in down)
    merged.add_edges_from((place.get(a, a), place.get(b, b)) for a, b in down.edges)
    return merged


def _rows(down: nx.DiGraph[Unit], pairs: list[Link]) -> dict[Unit, int]:
    merged = _merged(down, pairs)
    rows = dict.fromkeys(down, 0)
    if nx.is_directed_acyclic_graph(merged):
        for number, layer in enumerate(nx.topological_generations(merged)):
            rows.update(dict.fromkeys(layer, number))
    rows.update({trainer: rows[trained] for trained, trainer in pairs})
    return rows

"""A list of layers, with branches, becomes forward units and the units of the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veloflow.units.gradient import Backward, GradientUnit
from veloflow.units.joining import ErrorSum, Join
from veloflow.units.layer import Branches, Layer, Rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veloflow.core import Unit, Workflow
    from veloflow.units.device_unit import DeviceUnit
    from veloflow.units.forward import Forward
    from veloflow.units.loader import Loader

__all__ = ["Node", "layers_in", "make_backward", "make_forwards"]


@dataclass(frozen=True, eq=False)
class Node:
    """A layer's place in the graph.

    Attributes:
        layer: its recipe.
        forward: the unit made from it.
        sources: the nodes whose outputs it reads; None is the loader.
    """

    layer: Layer
    forward: Forward
    sources: tuple[Node | None, ...]

    @property
    def is_trained(self) -> bool:
        """Whether an error must come here: for this layer's parameters, or for some before it."""
        if issubclass(self.layer.gradient, GradientUnit):
            return True
        return any(source is not None and source.is_trained for source in self.sources)


def layers_in(layers: Sequence[Layer | Branches]) -> list[Layer]:
    """Return all layers, branch after branch, each join behind its branches."""
    found: list[Layer] = []
    for one in layers:
        if isinstance(one, Branches):
            for branch in one.branches:
                found += layers_in(branch)
            found.append(one.join)
        else:
            found.append(one)
    return found


def make_forwards(
    wf: Workflow, loader: Loader, layers: Sequence[Layer | Branches]
) -> tuple[Node, ...]:
    """Make the forward units and link their data; return their nodes in the order of running."""
    nodes: list[Node] = []
    _grow(wf, layers, None, nodes)
    for node in nodes:
        for number, source in enumerate(node.sources):
            mine = f"branch{number}" if isinstance(node.forward, Join) else "input"
            if source is None:
                node.forward.link_data(loader, **{mine: "minibatch_data"})
            else:
                node.forward.link_data(source.forward, **{mine: "output"})
        node.forward.link_data(loader, *node.forward.loader_inputs)
    return tuple(nodes)


def _grow(
    wf: Workflow, layers: Sequence[Layer | Branches], source: Node | None, nodes: list[Node]
) -> Node | None:
    """Add nodes for ``layers`` behind ``source``; return the last of them."""
    for one in layers:
        if isinstance(one, Branches):
            sources = tuple(_grow(wf, branch, source, nodes) for branch in one.branches)
            layer = one.join
        else:
            sources, layer = (source,), one
        source = Node(layer, layer.forward(wf), sources)
        nodes.append(source)
    return source


def make_backward(
    wf: Workflow, evaluator: Unit, nodes: Sequence[Node], rates: Rates
) -> tuple[DeviceUnit, ...]:
    """Make the units of the backward pass and link their errors, in the order of running.

    A node that several others read has the sum of their errors. Nodes before all trained layers
    have no gradient units.
    """
    units: list[DeviceUnit] = []
    errors: dict[Node, list[tuple[Unit, str]]] = {node: [] for node in nodes}
    errors[nodes[-1]].append((evaluator, "err_output"))
    for node in reversed(nodes):
        if not node.is_trained:
            continue
        source, attribute = errors[node][0]
        if len(errors[node]) > 1:
            total = ErrorSum(wf).link_errors(*errors[node])
            source, attribute = total, "total"
            units.append(total)
        unit = _gradient_of(wf, node, rates).link_data(source, err_output=attribute)
        units.append(unit)
        for number, before in enumerate(node.sources):
            if before is not None and before.is_trained:
                name = f"err_input{number}" if isinstance(node.forward, Join) else "err_input"
                errors[before].append((unit, name))
    return tuple(units)


def _gradient_of(wf: Workflow, node: Node, rates: Rates) -> Backward:
    layer = node.layer
    if issubclass(layer.gradient, GradientUnit):
        own: Rates = {**rates, **layer.rates}
        return layer.gradient(wf, node.forward, **own)
    return layer.gradient(wf, node.forward)

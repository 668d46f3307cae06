"""Drawing a workflow: control links, data links, gates, kinds of unit, shares of the time.

``to_dot`` says what is drawn; how it looks is in ``theme``, where things stand in ``arrangement``,
and how it becomes a file in ``render``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import graphviz

from veloflow.core import Unit, Workflow
from veloflow.errors import InputError
from veloflow.views import theme
from veloflow.views.arrangement import Arrangement
from veloflow.views.gates import GateNames
from veloflow.views.render import check_suffix, render, write
from veloflow.views.times import duration, shares

__all__ = ["draw", "svg_text", "to_dot"]

#: with more units than this, data links lose their labels: they would be most of the picture
MANY_UNITS = 150
#: so many names stand on a data link; the others are in its tooltip
NAMES_SHOWN = 4
_WIDTH = 42  # of a gate's formula, in characters


def to_dot(workflow: Workflow, times: Mapping[str, float] | None = None) -> graphviz.Digraph:
    """Return the drawing of a workflow in DOT.

    Args:
        workflow: what to draw; it need not be initialized.
        times: seconds by unit path, as in a result: units are coloured by their share of the
            whole instead of by their kind, which their borders still show.

    Raises:
        InputError: the times are of other units.
    """
    return _Drawing(workflow, times).dot


def draw(workflow: Workflow, path: str | Path, times: Mapping[str, float] | None = None) -> str:
    """Draw a workflow into a file, whose suffix says the format; return its path.

    Formats are svg, png, pdf, dot and gv. The file is replaced whole or not at all.

    Raises:
        InputError: no such format, the times are of other units, or nothing here can draw.
        StorageError: the file cannot be written.
    """
    path = Path(path)
    kind = check_suffix(path)
    write(path, render(to_dot(workflow, times).source, kind))
    return str(path)


def svg_text(workflow: Workflow, times: Mapping[str, float] | None = None) -> str:
    """Return the drawing as an SVG document, as notebooks show it.

    Raises:
        InputError: the times are of other units, or nothing here can draw.
    """
    return render(to_dot(workflow, times).source, "svg").decode()


class _Drawing:
    """A drawing being made."""

    def __init__(self, workflow: Workflow, times: Mapping[str, float] | None) -> None:
        self._root = workflow
        self._units = [workflow, *workflow.all_units()]
        self._ids = {unit: _identifier(unit, n) for n, unit in enumerate(self._units)}
        self._gates = GateNames(workflow)
        self._times = times
        self._shares = None if times is None else self._own_shares(times)
        self._largest = self._largest_share()
        self._arrangements = {
            one: Arrangement(one) for one in self._units if isinstance(one, Workflow)
        }
        self.dot = graphviz.Digraph(
            theme.printable(workflow.name),
            graph_attr=theme.GRAPH,
            node_attr=theme.NODE,
            edge_attr=theme.EDGE,
        )
        self._add_legend()
        self._add_level(self.dot, workflow)
        self._add_data_links()

    def _own_shares(self, times: Mapping[str, float]) -> dict[str, float]:
        if not any(unit.path in times for unit in self._units[1:]):
            raise InputError(
                f"the times are not of workflow {self._root.name!r}: none of its units is among "
                f"{', '.join(list(times)[:3]) or 'them'}"
            )
        return shares(times)

    def _largest_share(self) -> float:
        found = self._shares or {}
        return max((found.get(u.path, 0.0) for u in self._units if not _is_nested(u)), default=0.0)

    def _add_legend(self) -> None:
        inner = [unit for unit in self._units[1:] if not isinstance(unit, Workflow)]
        groups = list(dict.fromkeys(unit.group for unit in self._units[1:]))
        known = [name for name in theme.KINDS if name in groups]
        note = f"{len(inner)} units"
        if self._times is not None:
            whole = sum(self._times.get(unit.path, 0.0) for unit in inner)
            note += f", {duration(whole)} in them"
        label = theme.legend(
            self._root.name,
            note,
            [*known, *(name for name in groups if name not in known)],
            set(self._signs()),
            None if self._shares is None else self._largest,
        )
        self.dot.attr(label=label, labelloc="b", labeljust="l")

    def _signs(self) -> Iterator[str]:
        """Yield what the legend must explain."""
        for unit in self._units[1:]:
            if unit.data_links:
                yield "data"
            if unit.ignores_gate:
                yield "hexagon"
            if self._gates.text(unit.gate_block):
                yield "block"
            if self._gates.text(unit.gate_skip):
                yield "skip"

    # -- units --------------------------------------------------------------------------------

    def _add_level(self, dot: graphviz.Digraph, workflow: Workflow) -> None:
        """Add the units of one workflow and the control links between them."""
        for unit in workflow:
            if isinstance(unit, Workflow):
                with _subgraph(dot, self._cluster(unit)) as inner:
                    inner.attr(**self._cluster_look(unit))
                    self._add_level(inner, unit)
            else:
                dot.node(self._ids[unit], **self._look(unit))
        for units in self._arrangements[workflow].abreast:
            with _subgraph(dot, None) as row:
                row.attr(rank="same")
                for unit in units:
                    row.node(self._ids[unit])
        for before, after in workflow.graph.edges:
            self._add_control_link(dot, before, after)

    def _cluster(self, workflow: Unit) -> str:
        return f"cluster_{self._ids[workflow]}"

    def _look(self, unit: Unit) -> dict[str, str]:
        kind = theme.kind_of(unit)
        look = {"fillcolor": kind.fill, "color": kind.line, **_shape(unit)}
        if self._shares is not None:
            look["fillcolor"] = theme.heat(self._shares.get(unit.path, 0.0), self._largest)
        lines = [f"<B>{theme.escape(unit.name)}</B>", *self._small_lines(unit)]
        look["label"] = theme.unit_label(lines)
        look["tooltip"] = theme.tooltip(_description(unit))
        return look

    def _cluster_look(self, workflow: Workflow) -> dict[str, str]:
        kind = theme.kind_of(workflow)
        lines = [f"<B>{theme.escape(workflow.name)}</B>", *self._small_lines(workflow)]
        return {
            "label": theme.unit_label(lines, "LEFT"),
            "labelloc": "t",
            "style": "rounded,filled",
            "fillcolor": kind.fill,
            "color": kind.line,
            "fontsize": theme.NODE["fontsize"],
            "margin": "14",
            "tooltip": theme.tooltip(_description(workflow)),
        }

    def _small_lines(self, unit: Unit) -> Iterator[str]:
        """Yield what stands below the name: the class, the gates, the time."""
        is_plain = self._shares is not None  # else there are too many colours in one box
        kind = type(unit).__name__
        is_known = unit.group == "plumbing" or type(unit) is Workflow or unit.name.startswith(kind)
        if not is_known:
            yield _small(kind, theme.INK if is_plain else theme.FAINT)
        gates = (
            ("block", unit.gate_block, theme.BLOCK),
            ("skip", unit.gate_skip, theme.SKIP),
        )
        for word, gate, colour in gates:
            text = self._gates.text(gate)
            for line in textwrap.wrap(f"{word}: {text}", _WIDTH) if text else ():
                yield _small(line, theme.INK if is_plain else colour)
        if self._shares is not None and self._times is not None:
            share = self._shares.get(unit.path, 0.0)
            if share >= 0.0005 or (unit.group != "plumbing" and unit.path in self._times):
                text = f"{100 * share:.1f} %  ·  {duration(self._times[unit.path])}"
                yield f"<B>{_small(text, theme.INK)}</B>"

    # -- links --------------------------------------------------------------------------------

    def _add_control_link(self, dot: graphviz.Digraph, before: Unit, after: Unit) -> None:
        is_upward = (before, after) in self._arrangements[before.workflow].upward
        self._add_edge(
            dot,
            before,
            after,
            is_upward=is_upward,
            color=theme.CONTROL,
            penwidth="1.5",
            weight="1" if is_upward else "4",
            tooltip=theme.tooltip(f"{before.path} → {after.path}"),
        )

    def _add_data_links(self) -> None:
        """Add one dashed edge for all data links from one unit to another."""
        links: dict[tuple[Unit, Unit], list[tuple[str, str]]] = {}
        for reader in self._units[1:]:
            for name, link in reader.data_links.items():
                if link.source in self._ids and link.source is not self._root:
                    links.setdefault((link.source, reader), []).append((link.attribute, name))
        for (source, reader), names in links.items():
            self._add_data_link(source, reader, names)

    def _add_data_link(self, source: Unit, reader: Unit, names: list[tuple[str, str]]) -> None:
        look = {"color": theme.DATA, "fontcolor": theme.DATA, "style": "dashed", "weight": "0"}
        shown = list(dict.fromkeys(attribute for attribute, _ in names))
        if len(self._units) <= MANY_UNITS:
            rest = len(shown) - NAMES_SHOWN
            lines = shown if rest <= 1 else [*shown[:NAMES_SHOWN], f"and {rest} more"]
            look["label"] = theme.edge_label(lines)
        texts = (a if a == b else f"{a} as {b}" for a, b in names)
        tooltip = theme.tooltip(f"{source.path} → {reader.path}:", *texts)
        look["tooltip"] = look["labeltooltip"] = tooltip
        above, below = self._rows(source, reader)
        if above == below:
            look["constraint"] = "false"
        self._add_edge(self.dot, source, reader, is_upward=above > below, **look)

    def _rows(self, one: Unit, other: Unit) -> tuple[int, int]:
        """Return the rows of both, seen from the innermost workflow that holds both."""
        outer, others = _around(one), _around(other)
        level, first = next((w, u) for w, u in outer.items() if w in others)
        arrangement = self._arrangements[level]
        return arrangement.row(first), arrangement.row(others[level])

    def _add_edge(
        self, dot: graphviz.Digraph, tail: Unit, head: Unit, *, is_upward: bool, **look: str
    ) -> None:
        """Add an arrow from tail to head; an upward one has its ends changed for the layout."""
        start, end = self._ids[tail], self._ids[head]
        if isinstance(tail, Workflow):
            start = self._ids[tail.end]
            if tail not in _around(head):
                look["ltail"] = self._cluster(tail)
        if isinstance(head, Workflow):
            end = self._ids[head.start]
            if head not in _around(tail):
                look["lhead"] = self._cluster(head)
        if not is_upward:
            dot.edge(start, end, **look)
            return
        ends = {"ltail": look.pop("lhead", ""), "lhead": look.pop("ltail", "")}
        dot.edge(end, start, dir="back", **look, **{k: v for k, v in ends.items() if v})


def _identifier(unit: Unit, number: int) -> str:
    """Return the unit's path, or a number if DOT would read something else in it."""
    return unit.path if re.fullmatch(r"[\w./ -]+", unit.path) else f"unit {number}"


def _is_nested(unit: Unit) -> bool:
    return isinstance(unit, Workflow)


def _around(unit: Unit) -> dict[Workflow, Unit]:
    """Return each workflow around a unit, innermost first, and what of it holds the unit."""
    found: dict[Workflow, Unit] = {}
    while not (isinstance(unit, Workflow) and unit.is_root):
        found[unit.workflow] = unit
        unit = unit.workflow
    return found


def _subgraph(dot: graphviz.Digraph, name: str | None) -> AbstractContextManager[graphviz.Digraph]:
    return cast("AbstractContextManager[graphviz.Digraph]", dot.subgraph(name=name))


def _shape(unit: Unit) -> dict[str, str]:
    """Return the shape: heavy at start and end, a hexagon for what ignores its gate."""
    if unit.ignores_gate:
        return {"shape": "hexagon", "style": "filled", "margin": "0.02,0.04"}
    if unit in (unit.workflow.start, unit.workflow.end):
        return {"penwidth": "2.6"}
    return {}


def _small(text: str, colour: str) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{colour}">{theme.escape(text)}</FONT>'


def _description(unit: Unit) -> str:
    first = (type(unit).__doc__ or "").strip().partition("\n")[0]
    return f"{unit.path} ({type(unit).__name__}): {first}".rstrip(": ")

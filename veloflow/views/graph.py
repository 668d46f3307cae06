"""Drawing a workflow: control links, data links, gates, kinds of unit, shares of the time."""

from __future__ import annotations

import io
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import graphviz

from veloflow.core import Bool, Workflow
from veloflow.core.checks import data_graph
from veloflow.errors import InputError, StorageError

if TYPE_CHECKING:
    from veloflow.core import Unit

__all__ = ["draw", "svg_text", "to_dot"]

#: kind of unit -> colour of its box
COLOURS = {
    "plumbing": "#e8e8e8",
    "loader": "#cfe8fc",
    "forward": "#d5f0d0",
    "evaluator": "#fff0c2",
    "decision": "#fbd9b5",
    "trainer": "#f6cdd6",
    "service": "#e4dcf5",
    "workflow": "#ffffff",
}
_CONTROL = "#333333"
_DATA = "#3b78b5"
FORMATS = (".svg", ".png", ".pdf", ".dot", ".gv")


def to_dot(workflow: Workflow, times: Mapping[str, float] | None = None) -> graphviz.Digraph:
    """Return the drawing of a workflow in DOT.

    Args:
        workflow: what to draw.
        times: seconds by unit path; colours units by their share instead of by kind.
    """
    dot = graphviz.Digraph(workflow.name)
    dot.attr(rankdir="TB", fontname="Helvetica", nodesep="0.35", ranksep="0.45", bgcolor="white")
    dot.attr("node", fontname="Helvetica", fontsize="11", style="filled,rounded", shape="box")
    dot.attr("edge", fontname="Helvetica", fontsize="9")
    _add_units(dot, workflow, times, _names_of_gates(workflow))
    _add_links(dot, workflow)
    return dot


def _add_units(
    dot: graphviz.Digraph,
    workflow: Workflow,
    times: Mapping[str, float] | None,
    names: Mapping[Bool, str],
) -> None:
    for unit in workflow:
        if isinstance(unit, Workflow):
            with dot.subgraph(name=f"cluster_{unit.path}") as inner:
                inner.attr(label=unit.name, style="rounded", color="#888888")
                inner.node(unit.path, shape="point", style="invis")
                _add_units(inner, unit, times, names)
                _add_links(inner, unit)
        else:
            dot.node(unit.path, label=_label(unit, times, names), **_look(unit, times))


def _label(unit: Unit, times: Mapping[str, float] | None, names: Mapping[Bool, str]) -> str:
    lines = [unit.name]
    kind = type(unit).__name__
    if not unit.name.startswith(kind) and unit.group != "plumbing":
        lines.append(f"({kind})")
    for word, gate in (("block", unit.gate_block), ("skip", unit.gate_skip)):
        text = _gate_text(gate, names)
        if text:
            lines.append(f"{word}: {text}")
    if times and unit.path in times:
        lines.append(f"{100 * _share(unit, times):.1f} %")
    return "\n".join(lines)


def _look(unit: Unit, times: Mapping[str, float] | None) -> dict[str, str]:
    colour = COLOURS.get(unit.group, COLOURS["service"])
    if times is not None:
        depth = round(255 - 190 * _share(unit, times))
        colour = f"#ff{depth:02x}{round(depth * 0.85):02x}"
    look = {"fillcolor": colour, "color": "#666666"}
    if unit.group == "plumbing":
        look["shape"] = "diamond" if unit.ignores_gate else "ellipse"
    elif unit.ignores_gate:
        look["shape"] = "octagon"
    return look


def _share(unit: Unit, times: Mapping[str, float]) -> float:
    return times.get(unit.path, 0.0) / (sum(times.values()) or 1.0)


def _names_of_gates(workflow: Workflow) -> dict[Bool, str]:
    """Find the units' attributes that gates are made of: Bool -> ``decision.complete``."""
    names: dict[Bool, str] = {}
    for unit in workflow.all_units():
        for name, value in vars(unit).items():
            if isinstance(value, Bool) and not name.startswith("_"):
                names[value] = f"{unit.name}.{name}"
    return names


def _gate_text(gate: Bool, names: Mapping[Bool, str]) -> str:
    """Write a gate as a formula; '' for one that is closed to nobody and follows nothing."""
    if gate in names:
        return names[gate]
    parts = [_gate_text(one, names) or str(one.value).lower() for one in gate.operands]
    if gate.sign == "~":
        return f"not {parts[0]}"
    if parts:
        word = {"&": " and ", "|": " or ", "^": " xor "}[gate.sign]
        return f"({word.join(parts)})"
    return "always" if gate.value else ""


def _add_links(dot: graphviz.Digraph, workflow: Workflow) -> None:
    for before, after in workflow.graph.edges:
        dot.edge(before.path, after.path, color=_CONTROL, penwidth="1.6")
    names: dict[tuple[Unit, Unit], list[str]] = {}
    for source, reader, link in data_graph(workflow).edges(data=True):
        same = link["source"] == link["input"]
        text = link["input"] if same else f"{link['source']} as {link['input']}"
        names.setdefault((source, reader), []).append(text)
    for (source, reader), texts in names.items():
        dot.edge(
            source.path, reader.path, label="\n".join(texts), color=_DATA, fontcolor=_DATA,
            style="dashed", arrowhead="vee", constraint="false",
        )  # fmt: skip


def draw(workflow: Workflow, path: Path, times: Mapping[str, float] | None = None) -> None:
    """Draw a workflow into a file; the format goes by the suffix.

    Raises:
        InputError: no such format.
        StorageError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"cannot draw {path}: the format {suffix or '(none)'!r} is unknown; "
            f"use one of {', '.join(FORMATS)}"
        )
    content = _render(to_dot(workflow, times), suffix[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def svg_text(workflow: Workflow) -> str:
    """Return the drawing as SVG, for notebooks."""
    return _render(to_dot(workflow), "svg").decode()


def _render(dot: graphviz.Digraph, kind: str) -> bytes:
    if kind in ("dot", "gv"):
        return str(dot.source).encode()
    if shutil.which("dot"):
        drawn: bytes = dot.pipe(format=kind)
        return drawn
    return _render_embedded(str(dot.source), kind)


def _render_embedded(source: str, kind: str) -> bytes:
    """Draw with the layout that comes from PyPI, on machines without Graphviz."""
    if kind in ("svg", "png"):
        return _embedded_dot(source, kind)
    from PIL import Image

    page = io.BytesIO()
    picture = Image.open(io.BytesIO(_embedded_dot(source, "png")))
    picture.convert("RGB").save(page, "PDF", resolution=96.0)
    return page.getvalue()


def _embedded_dot(source: str, kind: str) -> bytes:
    program = shutil.which("graphviz-pure", path=sysconfig.get_path("scripts"))
    program = program or shutil.which("graphviz-pure")
    if program is None:
        raise InputError("there is no Graphviz: install it, or pip install graphviz-pure")
    done = subprocess.run(
        [program, f"-T{kind}"], input=source.encode(), capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        raise InputError(f"the drawing failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout

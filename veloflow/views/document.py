"""Reports of a run as a document, Markdown or HTML: tables, curves, the drawn graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veloflow.errors import DataError, InputError, NotFoundError
from veloflow.views.charts import bars, curves
from veloflow.views.graph import svg_text
from veloflow.views.render import write
from veloflow.views.times import duration, shares, times_of

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["read_result", "write_report"]

_CLASSES = ("train", "validation", "test")
_KNOWN = frozenset({
    "workflow", "options", "seed", "device", "epochs", "best", "unit_seconds", "seconds",
    "parameters_sha256", "labels", "statistics",
})  # fmt: skip


@dataclass
class _Document:
    """The parts of a report in their order: text in Markdown's words, tables, pictures."""

    parts: list[tuple[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(("heading", text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        texts = [[_cell(one) for one in row] for row in rows]
        self.parts.append(("table", (list(columns), texts)))

    def picture(self, name: str, svg: str) -> None:
        self.parts.append(("picture", (name, svg)))


def read_result(path: Path) -> dict[str, Any]:
    """Return the record of a run, as ``--result`` writes it.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is no result.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no result file {path}; make one with veloflow run … --result {path}"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read the result file {path}: {error}") from error
    if not isinstance(record, dict) or not {"workflow", "epochs", "seconds"} <= set(record):
        raise DataError(f"{path} is no result of veloflow run --result")
    return record


def write_report(record: Mapping[str, Any], path: Path, workflow: Workflow | None = None) -> None:
    """Write a report of a run to a .md file, with its pictures beside it, or to one .html file.

    Args:
        record: of the run, see :func:`read_result`.
        path: of the file.
        workflow: to be drawn; None for no drawing.

    Raises:
        InputError: another suffix.
        StorageError: it cannot be written.
    """
    if path.suffix not in (".md", ".html"):
        raise InputError(f"{path}: {path.suffix!r} is no report; use .md or .html")
    document = _document(record, workflow)
    title = f"Run of {record['workflow']}"
    if path.suffix == ".html":
        write(path, _html(title, document).encode())
        return
    lines = [f"# {title}", ""]
    for kind, content in document.parts:
        match kind:
            case "heading":
                lines += [f"## {content}", ""]
            case "table":
                columns, rows = content
                lines += [_row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
            case _:
                name, svg = content
                picture = path.with_name(f"{path.stem}-{name}.svg")
                write(picture, svg.encode())
                lines += [f"![{name}]({picture.name})", ""]
    write(path, "\n".join(lines).encode())


def _document(record: Mapping[str, Any], workflow: Workflow | None) -> _Document:
    document = _Document()
    options = ", ".join(f"{k}={v}" for k, v in record.get("options", {}).items())
    best = ", ".join(f"{_words(k)} {_cell(v)}" for k, v in record.get("best", {}).items())
    rows: list[tuple[str, Any]] = [
        ("workflow", record["workflow"]), ("options", options or "none"),
        ("seed", record.get("seed", "")), ("device", record.get("device", "")),
        ("time", duration(float(record["seconds"]))), ("best", best or "none"),
        ("SHA-256 of the parameters", record.get("parameters_sha256", "")),
    ]  # fmt: skip
    more = {k: v for k, v in record.items() if k not in _KNOWN and isinstance(v, str | int | float)}
    document.table(("what", "value"), [*rows, *((_words(k), v) for k, v in more.items())])
    _epochs(document, record["epochs"])
    _data(document, record.get("labels", {}))
    _statistics(document, record)
    times = times_of(record) if record.get("unit_seconds") else {}
    if times:
        document.heading("Time")
        ordered = sorted(times, key=lambda unit: -times[unit])
        part = shares(times)
        spent = [(unit, duration(times[unit]), f"{part[unit]:.1%}") for unit in ordered]
        document.table(("unit", "time", "share"), spent)
    if workflow is not None:
        document.heading("Graph")
        document.picture("graph", svg_text(workflow, times or None))
    return document


def _epochs(document: _Document, epochs: Sequence[Mapping[str, Any]]) -> None:
    found = [(kind, name) for kind in _CLASSES for name in _measures(epochs, kind)]
    if not found:
        return
    document.heading("Epochs")
    for measure in dict.fromkeys(name for _, name in found):
        lines = {
            kind: [
                (float(one["epoch"]), float(one[kind][measure]))
                for one in epochs
                if measure in one.get(kind, {})
            ]
            for kind in _CLASSES
        }
        document.picture(measure, curves(_words(measure), "epoch", lines))
    rows = [
        [one["epoch"], *(one.get(kind, {}).get(name, "") for kind, name in found)] for one in epochs
    ]
    document.table(("epoch", *(f"{kind} {_words(name)}" for kind, name in found)), rows)


def _measures(epochs: Sequence[Mapping[str, Any]], kind: str) -> list[str]:
    names = dict.fromkeys(name for one in epochs for name in one.get(kind, {}))
    values = {name: [one.get(kind, {}).get(name) for one in epochs] for name in names}
    return [
        name for name in names
        if name not in ("samples", "n_errors")
        and all(isinstance(value, int | float | None) for value in values[name])
    ]  # fmt: skip


def _data(document: _Document, labels: Mapping[str, Mapping[str, int]]) -> None:
    if not labels:
        return
    document.heading("Samples of each label")
    kinds = [kind for kind in _CLASSES if kind in labels]
    known = dict.fromkeys(raw for kind in kinds for raw in labels[kind])
    rows = [(raw, *(labels[kind].get(raw, 0) for kind in kinds)) for raw in known]
    document.table(("label", *kinds), rows)


def _statistics(document: _Document, record: Mapping[str, Any]) -> None:
    found: Mapping[str, Sequence[Mapping[str, Any]]] = record.get("statistics", {})
    if found:
        document.heading("Parameters")
        names = ("minimum", "mean", "maximum", "deviation", "norm", "gradient_norm", "change")
        rows = [
            (name, *(one[-1].get(each, "") for each in names), len(one[-1].get("similar", ())))
            for name, one in found.items()
        ]
        columns = ("parameter", *map(_words, names), "groups of kernels alike")
        document.table(columns, rows)
        lines = {
            name: [(float(one["epoch"]), float(one["norm"])) for one in records]
            for name, records in found.items()
            if not name.endswith("/bias")
        }
        document.picture("norms", curves("norm of weights", "epoch", lines))
    for name, one in record.items():
        if isinstance(one, Mapping) and {"counts", "edges", "total"} <= set(one):
            title = f"{name}, {one['total']} values"
            picture = name.replace("/", "-").replace(" ", "-")
            document.picture(picture, bars(title, one["edges"], one["counts"]))


def _words(name: str) -> str:
    return name.replace("_percent", ", %").replace("_", " ")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"


_CSS = (
    "body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em } "
    "table { border-collapse: collapse; margin: 1em 0; overflow-wrap: anywhere } "
    "td, th { border: 1px solid #ccc; padding: 2px 8px; text-align: left } "
    "svg { max-width: 100%; height: auto }"
)


def _html(title: str, document: _Document) -> str:
    body = [f"<h1>{escape(title)}</h1>"]
    for kind, content in document.parts:
        match kind:
            case "heading":
                body.append(f"<h2>{escape(content)}</h2>")
            case "table":
                columns, rows = content
                lines = ["".join(f"<th>{escape(one)}</th>" for one in columns)]
                lines += ["".join(f"<td>{escape(one)}</td>" for one in row) for row in rows]
                body.append("<table>" + "".join(f"<tr>{one}</tr>" for one in lines) + "</table>")
            case _:
                svg = content[1]
                body.append(svg[svg.index("<svg") :])  # without the XML's own heading
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_CSS}</style><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )

"""A Graphviz layout written as a PDF page, for machines whose Graphviz has no PDF.

The layout is Graphviz's own list of drawing operations (``dot -Tjson``): paths, ellipses, texts.
PDF has the same notions, so each becomes a line of the page's content, and the picture stays
sharp at any size. Texts use Helvetica, one of the fonts that every reader has and for whose widths
the layout was made; so only what Windows-1252 can write can be written.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from veloflow.errors import InputError

__all__ = ["pdf_of_layout"]

Operation = Mapping[str, Any]
Colour = tuple[float, float, float, float]

_MARGIN = 14.4  # points around the picture, as much as Graphviz's own `pad` of theme.GRAPH
_LARGEST = 14400.0  # points: PDF pages may not be larger
_BOLD = 1  # in the operation that sets the character of a font
_CIRCLE = 0.5522847498  # where the control points of a quarter of a circle stand


def pdf_of_layout(layout: bytes) -> bytes:
    """Return a PDF of one page from what ``dot -Tjson`` wrote.

    Raises:
        InputError: a text has characters that the fonts of PDF readers lack.
    """
    graph = json.loads(layout)
    *_, width, height = (float(number) for number in graph["bb"].split(","))
    pen = _Pen()
    for operation in _operations(graph):
        pen.draw(operation)
    size = (width + 2 * _MARGIN, height + 2 * _MARGIN)
    scale = min(1.0, _LARGEST / max(size))
    matrix = f"{_n(scale)} 0 0 {_n(scale)} {_n(_MARGIN * scale)} {_n(_MARGIN * scale)} cm"
    content = "\n".join(["1 j", matrix, *pen.lines])
    return _file(content.encode("cp1252"), (size[0] * scale, size[1] * scale))


def _operations(graph: Mapping[str, Any]) -> Iterator[Operation]:
    """Yield all drawing operations, the lowest first: page, clusters, edges, units."""
    objects = graph.get("objects", [])
    clusters = [one for one in objects if "pos" not in one]
    units = [one for one in objects if "pos" in one]
    for part in (graph, *clusters, *graph.get("edges", []), *units):
        for name in ("_draw_", "_hdraw_", "_tdraw_", "_ldraw_"):
            # each list of operations starts with a pen of its own
            yield from ({"op": "new"}, *part.get(name, ()))


class _Pen:
    """The state of drawing, and the page's content so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._line: Colour = (0.0, 0.0, 0.0, 1.0)
        self._fill = self._line
        self._style = ""
        self._size = 14.0
        self._bold = False

    def draw(self, operation: Operation) -> None:
        """Add one operation."""
        _HANDLERS[operation["op"]](self, operation)

    def reset(self, operation: Operation) -> None:
        """Forget colours, styles and fonts."""
        self._line = self._fill = (0.0, 0.0, 0.0, 1.0)
        self._style, self._bold = "1 w [] 0 d", False

    def set_line(self, operation: Operation) -> None:
        """Set the colour of lines and texts."""
        self._line = _colour(operation["color"])

    def set_fill(self, operation: Operation) -> None:
        """Set the colour of areas."""
        self._fill = _colour(operation["color"])

    def set_style(self, operation: Operation) -> None:
        """Set the width of lines, or their dashes."""
        style = operation["style"]
        if style.startswith("setlinewidth("):
            width = float(style.partition("(")[2].rstrip(")"))
            self._style = f"{_n(width)} w " + self._style.partition(" w ")[2]
        else:
            dashes = {"dashed": "[5 2]", "dotted": "[1 5]"}.get(style, "[]")
            self._style = self._style.partition(" w ")[0] + f" w {dashes} 0 d"

    def set_font(self, operation: Operation) -> None:
        """Set the size of texts."""
        self._size = float(operation["size"])

    def set_character(self, operation: Operation) -> None:
        """Set whether texts are bold."""
        self._bold = bool(operation["fontchar"] & _BOLD)

    def polygon(self, operation: Operation) -> None:
        """Add a closed path of straight lines."""
        first, *rest = operation["points"]
        self._path([_move(first), *(f"{_xy(point)} l" for point in rest), "h"], operation)

    def polyline(self, operation: Operation) -> None:
        """Add an open path of straight lines."""
        first, *rest = operation["points"]
        self._path([_move(first), *(f"{_xy(point)} l" for point in rest)], operation)

    def bezier(self, operation: Operation) -> None:
        """Add a path of curves."""
        first, *rest = operation["points"]
        curves = (rest[start : start + 3] for start in range(0, len(rest), 3))
        self._path([_move(first), *(f"{_points(three)} c" for three in curves)], operation)

    def ellipse(self, operation: Operation) -> None:
        """Add an ellipse, as four curves."""
        x, y, a, b = operation["rect"]
        p, q = _CIRCLE * a, _CIRCLE * b
        curves = (
            ((x + a, y + q), (x + p, y + b), (x, y + b)),
            ((x - p, y + b), (x - a, y + q), (x - a, y)),
            ((x - a, y - q), (x - p, y - b), (x, y - b)),
            ((x + p, y - b), (x + a, y - q), (x + a, y)),
        )
        self._path([_move((x + a, y)), *(f"{_points(three)} c" for three in curves)], operation)

    def text(self, operation: Operation) -> None:
        """Add a line of text."""
        text = operation["text"].replace("\\\\", "\\")  # the layout doubles it
        x, y = operation["pt"]
        x -= {"l": 0.0, "c": 0.5, "r": 1.0}[operation["align"]] * operation["width"]
        font = "/F2" if self._bold else "/F1"
        self.lines.append(
            f"BT {font} {_n(self._size)} Tf {_rgb(self._line)} rg {_xy((x, y))} Td "
            f"({_literal(text)}) Tj ET"
        )

    def _path(self, steps: Iterable[str], operation: Operation) -> None:
        """Add a path: capital letters of operations mean filled areas."""
        is_filled = operation["op"].isupper() and operation["op"] != "L" and self._fill[3] > 0
        is_drawn = self._line[3] > 0
        if is_filled or is_drawn:
            paint = {(True, True): "B", (True, False): "f", (False, True): "S"}
            colours = f"{_rgb(self._line)} RG {_rgb(self._fill)} rg {self._style}"
            self.lines.append(" ".join([colours, *steps, paint[is_filled, is_drawn]]))


_HANDLERS: Mapping[str, Callable[[_Pen, Operation], None]] = {
    "new": _Pen.reset,
    "c": _Pen.set_line,
    "C": _Pen.set_fill,
    "S": _Pen.set_style,
    "F": _Pen.set_font,
    "t": _Pen.set_character,
    "P": _Pen.polygon,
    "p": _Pen.polygon,
    "L": _Pen.polyline,
    "B": _Pen.bezier,
    "b": _Pen.bezier,
    "E": _Pen.ellipse,
    "e": _Pen.ellipse,
    "T": _Pen.text,
}


def _colour(text: str) -> Colour:
    """Return red, green, blue and opacity, in [0, 1], of ``#rrggbb`` or ``#rrggbbaa``."""
    numbers = bytes.fromhex(text.removeprefix("#").ljust(8, "f"))
    red, green, blue, opacity = (number / 255 for number in numbers)
    return red, green, blue, opacity


def _rgb(colour: Sequence[float]) -> str:
    return " ".join(_n(part) for part in colour[:3])


def _n(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _xy(point: Sequence[float]) -> str:
    return f"{_n(point[0])} {_n(point[1])}"


def _points(points: Iterable[Sequence[float]]) -> str:
    return " ".join(_xy(point) for point in points)


def _move(point: Sequence[float]) -> str:
    return f"{_xy(point)} m"


def _literal(text: str) -> str:
    """Return text as it stands between the brackets of a PDF string."""
    text = text.replace("→", "->")
    try:
        text.encode("cp1252")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{text!r} has characters that this PDF writer has no font for; draw it as .svg or "
            ".png, or install Graphviz with the packages of your system, which writes them"
        ) from error
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _file(content: bytes, size: tuple[float, float]) -> bytes:
    """Return a PDF file of one page."""
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /{} /Encoding /WinAnsiEncoding >>"
    packed = zlib.compress(content)
    head = f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_xy(size)}] /Contents 4 0 R "
            "/Resources << /Font << /F1 5 0 R /F2 6 0 R >> >> >>"
        ).encode(),
        head.encode() + packed + b"\nendstream",
        font.format("Helvetica").encode(),
        font.format("Helvetica-Bold").encode(),
    ]
    page = bytearray(b"%PDF-1.4\n")
    places = []
    for number, thing in enumerate(objects, 1):
        places.append(len(page))
        page += f"{number} 0 obj\n".encode() + thing + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    end = f"xref\n0 {count}\n0000000000 65535 f \n{table}"
    trailer = f"trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{len(page)}\n%%EOF\n"
    return bytes(page) + (end + trailer).encode()

"""A chart of curves, as SVG or PNG: a list of strokes and words, and two ways to draw them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from veloflow.errors import InputError
from veloflow.views.theme import FAINT, INK

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Curve", "draw_chart"]

_WIDTH, _HEIGHT = 860, 460
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 30, 250, 50
_COLOURS = ("#0f7f8f", "#b42318", "#8a5a00", "#4338ca", "#15803d", "#a21caf", "#64748b", "#ea580c")
_DASHES = ((), (7, 4), (2, 3))

Place = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A name and points (x, y)."""

    name: str
    points: Sequence[Place]


@dataclass(frozen=True)
class _Stroke:
    points: Sequence[Place]
    colour: str
    width: float = 1.0
    dash: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Words:
    place: Place
    text: str
    colour: str = INK
    anchor: str = "start"


def draw_chart(path: Path, title: str, x: str, y: str, curves: Sequence[Curve]) -> None:
    """Write a chart.

    Args:
        path: a .svg or .png file.
        title, x, y: what it shows, and what the axes are.
        curves: which; points that are not finite are left out.

    Raises:
        InputError: the file is of another kind.
    """
    strokes, words = _lay_out(title, x, y, curves)
    if path.suffix == ".svg":
        path.write_text(_svg(strokes, words), encoding="utf-8")
    elif path.suffix == ".png":
        _png(strokes, words).save(path)
    else:
        raise InputError(f"{path}: a chart is a .svg or a .png file")


def _lay_out(
    title: str, x: str, y: str, curves: Sequence[Curve]
) -> tuple[list[_Stroke], list[_Words]]:
    shown = [
        Curve(one.name, [p for p in one.points if math.isfinite(p[0]) and math.isfinite(p[1])])
        for one in curves
    ]
    points = [point for one in shown for point in one.points]
    x_ticks = _ticks(0.0, max((p[0] for p in points), default=1.0))
    y_ticks = _ticks(0.0, max((p[1] for p in points), default=1.0))
    x_end, y_end = x_ticks[-1], y_ticks[-1]
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(point: Place) -> Place:
        return _LEFT + wide * point[0] / x_end, _TOP + high * (1 - point[1] / y_end)

    strokes, words = [], [_Words((_LEFT, 20), title)]
    for tick in x_ticks:
        at = place((tick, 0))
        strokes.append(_Stroke([at, (at[0], at[1] + 5)], FAINT))
        words.append(_Words((at[0], at[1] + 20), f"{tick:g}", FAINT, "middle"))
    for tick in y_ticks:
        at = place((0, tick))
        strokes.append(_Stroke([at, (_LEFT + wide, at[1])], "#e5e7eb"))
        words.append(_Words((_LEFT - 8, at[1] + 4), f"{tick:g}", FAINT, "end"))
    words.append(_Words((_LEFT + wide / 2, _HEIGHT - 12), x, FAINT, "middle"))
    words.append(_Words((8, _TOP - 10), y, FAINT))
    for number, one in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        strokes.append(_Stroke([place(point) for point in one.points], colour, 2.0, dash))
        row = _TOP + 10 + 18 * number
        legend = _LEFT + wide + 20
        strokes.append(_Stroke([(legend, row), (legend + 22, row)], colour, 2.0, dash))
        words.append(_Words((legend + 28, row + 4), one.name))
    return strokes, words


def _ticks(low: float, high: float) -> list[float]:
    """Return about six round numbers from ``low`` to beyond ``high``."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * 5 >= span)
    return [low + step * number for number in range(math.ceil(span / step - 1e-9) + 1)]


def _svg(strokes: Sequence[_Stroke], words: Sequence[_Words]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="Helvetica, Arial, sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for one in strokes:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in one.points)
        dash = f' stroke-dasharray="{" ".join(map(str, one.dash))}"' if one.dash else ""
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{one.colour}" '
            f'stroke-width="{one.width:g}"{dash}/>'
        )
    for word in words:
        x, y = word.place
        lines.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{word.colour}" text-anchor="{word.anchor}">'
            f"{html.escape(word.text)}</text>"
        )
    return "\n".join([*lines, "</svg>\n"])


def _png(strokes: Sequence[_Stroke], words: Sequence[_Words]) -> Image.Image:
    """Draw twice as large: thin lines stay smooth."""
    from PIL import Image, ImageDraw, ImageFont

    scale = 2
    image = Image.new("RGB", (_WIDTH * scale, _HEIGHT * scale), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12 * scale)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for one in strokes:
        points = [(x * scale, y * scale) for x, y in one.points]
        if len(points) > 1:
            draw.line(points, fill=one.colour, width=max(1, round(one.width * scale)))
    for word in words:
        place = word.place[0] * scale, word.place[1] * scale
        draw.text(place, word.text, fill=word.colour, font=font, anchor=anchors[word.anchor])
    return image

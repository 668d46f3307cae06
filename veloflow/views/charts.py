"""Curves as SVG: small charts for reports, without a library for plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "curves"]

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 34, 34
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")
_STYLE = "text { font: 12px sans-serif; fill: #333 } .axis { stroke: #999 } .grid { stroke: #eee }"


def curves(
    title: str,
    x_name: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = False,
) -> str:
    """Return an SVG with a line for each sequence of points (x, y); y may be on a log scale.

    Points that are not finite, or not positive on a log scale, are left out.
    """
    kept = {
        name: [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)]
        for name, points in lines.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    xs = [x for points in kept.values() for x, _ in points] or [0.0]
    ys = [math.log10(y) if log else y for points in kept.values() for _, y in points] or [0.0]
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    ticks = _ticks(min(ys), max(ys), log=log)
    y_low, y_high = min(ticks[0], *ys), max(ticks[-1], *ys)

    def at(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + right, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [_text(_LEFT, 16, title, "start")]
    for tick in ticks:
        left, height = at(x_low, tick)
        parts.append(f'<path class="grid" d="M{left},{height}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, height + 4, _number(10**tick if log else tick), "end"))
    for x in _whole(x_low, x_high):
        parts.append(_text(at(x, y_low)[0], _HEIGHT - _BOTTOM + 16, _number(x), "middle"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 4, x_name, "middle"))
    corner = _HEIGHT - _BOTTOM
    parts.append(f'<path class="axis" fill="none" d="M{_LEFT},{_TOP}V{corner}H{_WIDTH - _RIGHT}"/>')
    for number, (name, points) in enumerate(kept.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(x, math.log10(y) if log else y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(places) == 1:
            parts.append(f'<circle cx="{places[0][0]}" cy="{places[0][1]}" r="3" fill="{colour}"/>')
        place = _WIDTH - _RIGHT - 110 * (len(kept) - number) + 20
        parts.append(f'<path stroke="{colour}" stroke-width="2" d="M{place - 18},12h14"/>')
        parts.append(_text(place, 16, name, "start"))
    return _svg(parts)


def bars(title: str, edges: Sequence[float], counts: Sequence[float]) -> str:
    """Return an SVG of a histogram: ``counts`` (n,) between ``edges`` (n + 1,)."""
    low, high, most = edges[0], edges[-1], max([*counts, 1])
    width = _WIDTH - _LEFT - _RIGHT
    parts = [_text(_LEFT, 16, title, "start")]
    for number, count in enumerate(counts):
        left, right = (
            _LEFT + (edge - low) / (high - low) * width for edge in edges[number : number + 2]
        )
        height = count / most * (_HEIGHT - _TOP - _BOTTOM)
        parts.append(
            f'<rect x="{left:.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" fill="{_COLOURS[0]}" '
            f'width="{max(right - left - 0.5, 0.5):.1f}" height="{height:.1f}"/>'
        )
    for edge, place in ((low, _LEFT), ((low + high) / 2, _LEFT + width / 2), (high, _LEFT + width)):
        parts.append(_text(place, _HEIGHT - _BOTTOM + 16, _number(edge), "middle"))
    parts.append(_text(_LEFT - 6, _TOP + 4, _number(most), "end"))
    return _svg(parts)


def _svg(parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.3g}"


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Return round numbers around a range; exponents on a log scale."""
    if log:
        first, last = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        return [float(n) for n in range(first, last + 1, max(1, (last - first) // 5))]
    spread = high - low or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(spread / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if spread / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def _whole(low: float, high: float) -> list[float]:
    step = max(1, math.ceil((high - low) / 8))
    return [float(x) for x in range(math.ceil(low), math.floor(high) + 1, step)]

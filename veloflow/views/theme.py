"""The look of drawn graphs: colours by kind of unit, fonts, the scale of shares, the legend."""

from __future__ import annotations

import html
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import graphviz

if TYPE_CHECKING:
    from veloflow.core import Unit

__all__ = [
    "BLOCK",
    "CONTROL",
    "DATA",
    "EDGE",
    "FAINT",
    "GRAPH",
    "HEAT",
    "INK",
    "KINDS",
    "NODE",
    "SKIP",
    "Kind",
    "edge_label",
    "escape",
    "heat",
    "kind_of",
    "legend",
    "printable",
    "tooltip",
    "unit_label",
]

INK = "#1f2937"
FAINT = "#6b7280"
CONTROL = "#2b3440"
DATA = "#0f7f8f"
BLOCK = "#b42318"
SKIP = "#8a5a00"

_FONT = "Helvetica"  # by this name layouts know its widths, and SVG gets a substitute added
GRAPH = {
    "rankdir": "TB",
    "bgcolor": "white",
    "fontname": _FONT,
    "fontcolor": INK,
    "nodesep": "0.45",
    "ranksep": "0.42",
    "pad": "0.2",
    "compound": "true",
}
NODE = {
    "fontname": _FONT,
    "fontsize": "12",
    "fontcolor": INK,
    "shape": "box",
    "style": "rounded,filled",
    "penwidth": "1.4",
    "margin": "0.13,0.06",
    "height": "0.4",
}
EDGE = {"fontname": _FONT, "fontsize": "9", "arrowsize": "0.75"}


@dataclass(frozen=True)
class Kind:
    """How a kind of unit looks: the colour inside its box, and that of its border."""

    fill: str
    line: str


#: by ``Unit.group``; fills are light enough for dark text, borders tell the kinds apart in grey too
KINDS = {
    "plumbing": Kind("#eef0f3", "#8a93a3"),
    "loader": Kind("#fff2c6", "#bf9210"),
    "forward": Kind("#dcebfb", "#3576ba"),
    "evaluator": Kind("#ecdffa", "#8a55c7"),
    "decision": Kind("#ffe1cc", "#d06a1c"),
    "trainer": Kind("#d9f1de", "#35894c"),
    "service": Kind("#fbdfea", "#bd4b7f"),
    "workflow": Kind("#fafbfc", "#8a93a3"),
}
_OTHER = Kind("#ffffff", "#4b5563")

_COLUMNS = 4  # of the legend
_WORDS = {
    "block": "while it is true, a signal stops here",
    "skip": "while it is true, a signal passes, and the unit does not run",
    "hexagon": "runs on any signal; other units wait for all that lead to them",
}

#: from no share of the time to the largest
HEAT = ("#ffffff", "#ffeedd", "#ffd2a8", "#ffae70", "#f98a45", "#ec6a26")


def kind_of(unit: Unit) -> Kind:
    """Return the look of a unit's kind; of a neutral one if the kind is not known here."""
    return KINDS.get(unit.group, _OTHER)


def heat(share: float, largest: float) -> str:
    """Return the colour of a share of the time, the largest share having the strongest."""
    place = (len(HEAT) - 1) * min(share / largest, 1.0) if largest > 0 else 0.0
    low = min(int(place), len(HEAT) - 2)
    return _mix(HEAT[low], HEAT[low + 1], place - low)


def _mix(one: str, other: str, part: float) -> str:
    pairs = ((int(one[n : n + 2], 16), int(other[n : n + 2], 16)) for n in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def printable(text: str) -> str:
    """Return text with a box for what cannot be printed, and must not be in SVG."""
    return "".join(c if c.isprintable() else "\N{WHITE SQUARE}" for c in text)


def escape(text: str) -> str:
    """Return text for use inside an HTML-like label."""
    return html.escape(printable(text))


def tooltip(*lines: str) -> str:
    """Return lines for use as a tooltip."""
    return str(graphviz.escape("\n".join(printable(line) for line in lines)))


def unit_label(lines: Iterable[str], align: str = "CENTER") -> str:
    """Return the lines in a unit's box, which are HTML-like already, as a label."""
    rows = "".join(f'<TR><TD ALIGN="{align}">{line}</TD></TR>' for line in lines)
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>>'


def edge_label(lines: Iterable[str]) -> str:
    """Return lines of text as a label that keeps clear of its edge."""
    text = "<BR/>".join(escape(line) for line in lines)
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="3"><TR><TD>{text}</TD></TR></TABLE>>'


def legend(
    title: str, note: str, groups: Iterable[str], signs: Container[str], largest: float | None
) -> str:
    """Return the title and the legend as an HTML-like label.

    Args:
        title: the workflow's name.
        note: what to say beside it.
        groups: the kinds of unit that are in the drawing.
        signs: which of "data", "block", "skip" and "hexagon" are in it.
        largest: the largest share of the time, or None where times are not drawn.
    """
    chips = [_chip(name, KINDS.get(name, _OTHER), plain=largest is not None) for name in groups]
    chips += ["<TD></TD>"] * (-len(chips) % _COLUMNS)
    lines = [_line("control", CONTROL, "SOLID")]
    lines += [_line("data", DATA, "DASHED")] if "data" in signs else []
    words = [f"{sign}: {text}" for sign, text in _WORDS.items() if sign in signs]
    rows = [
        f'<FONT POINT-SIZE="15"><B>{escape(title)}</B></FONT>'
        f'<FONT POINT-SIZE="10" COLOR="{FAINT}">&#160;&#160;{escape(note)}</FONT>',
        _table(chips[start : start + _COLUMNS] for start in range(0, len(chips), _COLUMNS)),
        _table([lines]),
        *([] if largest is None else [_table([[_scale(largest)]])]),
        *(f'<FONT POINT-SIZE="9" COLOR="{FAINT}">&#160;{escape(line)}</FONT>' for line in words),
    ]
    cells = "".join(f'<TR><TD ALIGN="LEFT">{row}</TD></TR>' for row in rows)
    cells = f'<TR><TD HEIGHT="12"></TD></TR>{cells}'  # keeps clear of the units
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="2">{cells}</TABLE>>'


def _table(rows: Iterable[Iterable[str]]) -> str:
    inside = "".join(f"<TR>{''.join(row)}</TR>" for row in rows)
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="3" CELLPADDING="3" ALIGN="LEFT">'
        f"{inside}</TABLE>"
    )


def _chip(name: str, kind: Kind, *, plain: bool) -> str:
    fill = "#ffffff" if plain else kind.fill
    return (
        f'<TD BORDER="1" STYLE="ROUNDED" COLOR="{kind.line}" BGCOLOR="{fill}">'
        f'<FONT POINT-SIZE="9">{escape(name)}</FONT></TD>'
    )


def _line(name: str, colour: str, style: str) -> str:
    sample = (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
        f'<TR><TD BORDER="2" SIDES="B" STYLE="{style}" COLOR="{colour}" WIDTH="26" HEIGHT="6">'
        '</TD></TR><TR><TD HEIGHT="6"></TD></TR></TABLE>'
    )
    text = f'<FONT POINT-SIZE="9" COLOR="{colour}">{name} links</FONT>'
    return f"<TD>{sample}</TD><TD>{text}</TD>"


def _scale(largest: float) -> str:
    steps = "".join(f'<TD BGCOLOR="{colour}" WIDTH="14" HEIGHT="9"></TD>' for colour in HEAT)
    bar = (
        f'<TABLE BORDER="1" COLOR="{FAINT}" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
        f"<TR>{steps}</TR></TABLE>"
    )
    text = '<FONT POINT-SIZE="9">{}</FONT>'
    low, high = text.format("share of the time: 0 %"), text.format(f"{100 * largest:.0f} %")
    return f"<TD>{low}</TD><TD>{bar}</TD><TD>{high}</TD>"

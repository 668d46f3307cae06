"""How the sharing of parameters goes, in words: while a run goes on, and in its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["amount", "sharing_rows", "sharing_words"]

_KINDS = ("parameters", "updates", "control")


def amount(count: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def sharing_words(values: Mapping[str, Any]) -> str:
    """Return one line of a :class:`~veloflow.core.SharingStatus`."""
    slaves = values.get("slaves", 1)
    head = f"{values['sharing']}, {slaves} slave{'s' * (slaves != 1)}"
    return ", ".join([head, *(f"{name} {text}" for name, text in _facts(values))])


def sharing_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and texts of what a run's result says of its sharing; none without."""
    if not record.get("sharing"):
        return []
    mode = str(record["sharing"])
    auto = record.get("auto")
    codec = record.get("codec", "plain")
    if auto:
        mode, codec = f"auto, at last {auto['sharing']}", auto["codec"]
    rows = [("sharing", mode + ("" if codec == "plain" else f" with {codec}"))]
    rows += [("why", one["reason"]) for one in auto["choices"][-1:]] if auto else []
    return rows + _facts(record)


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if "waiting" in values:
        facts.append(("waiting", f"{100 * values['waiting']['share']:.0f} %"))
    if "staleness" in values:
        stale = values["staleness"]
        facts.append(("staleness", f"{stale['mean']:.1f} (at most {stale['max']})"))
    if values.get("effective_batch"):
        facts.append(("effective batch", f"{values['effective_batch']:.0f}"))
    moved = values.get("bytes", {})
    facts += [(name, amount(moved[name])) for name in _KINDS if moved.get(name)]
    return facts

"""Gates in words: ``not decision.complete`` for the Bool that closes a unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from veloflow.core import Bool, Unit, Workflow

__all__ = ["GateNames"]

_WORDS = {"&": "and", "|": "or", "^": "xor"}


class GateNames:
    """Finds where the truth values of a workflow are kept, and writes gates with those names.

    A value has the name of the unit's attribute that holds it; a gate that several units share
    and no attribute holds has the name of the first of these gates.

    Args:
        workflow: any workflow; values of the workflows around it are found too.
    """

    def __init__(self, workflow: Workflow) -> None:
        root = workflow
        while not root.is_root:
            root = root.workflow
        units = [root, *root.all_units()]
        self._names: dict[Bool, str] = {}
        for unit in units:
            for attribute, value in _kept(unit):
                self._names.setdefault(value, f"{unit.path}.{attribute}")
        gates = [gate for unit in units for gate in _gates(unit)]
        uses = Counter(gate for gate, _ in gates)
        for gate, name in gates:
            if uses[gate] > 1 and not gate.operands:
                self._names.setdefault(gate, name)

    def text(self, gate: Bool) -> str:
        """Return the gate as a formula; '' for one that is open and that nothing is known of."""
        if gate in self._names or gate.operands:
            return self._formula(gate)
        return "true, until it is set" if gate.value else ""

    def _formula(self, value: Bool, outer: str = "") -> str:
        if value in self._names:
            return self._names[value]
        if not value.operands:
            return f"unnamed (now {str(value.value).lower()})"
        if value.sign == "~":
            return f"not {self._formula(value.operands[0], value.sign)}"
        words = f" {_WORDS[value.sign]} "
        text = words.join(self._formula(one, value.sign) for one in value.operands)
        return text if outer in ("", value.sign) else f"({text})"


def _kept(unit: Unit) -> Iterator[tuple[str, Bool]]:
    """Yield the truth values among a unit's own public attributes."""
    for attribute, value in vars(unit).items():
        if isinstance(value, Bool) and not attribute.startswith("_"):
            yield attribute, value


def _gates(unit: Unit) -> Iterator[tuple[Bool, str]]:
    if isinstance(unit, Workflow) and unit.is_root:
        return  # a root has no gates
    yield unit.gate_block, f"{unit.path}.gate_block"
    yield unit.gate_skip, f"{unit.path}.gate_skip"

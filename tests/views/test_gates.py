"""Gates in words: which names are found, and how formulas are written."""

from __future__ import annotations

import pytest
from pictures import Part

from veloflow.core import Bool, Workflow
from veloflow.views.gates import GateNames


@pytest.fixture
def parts():
    wf = Workflow(name="root")
    return wf, Part(wf, name="a"), Part(wf, name="b"), Part(wf, name="c")


FORMULAS = [
    (lambda a, b, c: a.ready, "a.ready"),
    (lambda a, b, c: ~a.ready, "not a.ready"),
    (lambda a, b, c: a.ready & b.busy, "a.ready and b.busy"),
    (lambda a, b, c: ~(a.ready | b.ready), "not (a.ready or b.ready)"),
    (lambda a, b, c: ~a.ready & b.ready, "not a.ready and b.ready"),
    (lambda a, b, c: a.ready & b.ready & c.ready, "a.ready and b.ready and c.ready"),
    (lambda a, b, c: a.ready & (b.ready | c.ready), "a.ready and (b.ready or c.ready)"),
    (lambda a, b, c: a.ready ^ b.ready, "a.ready xor b.ready"),
    (lambda a, b, c: ~Bool(True), "not unnamed (now true)"),
    (lambda a, b, c: Bool(True), "true, until it is set"),
    (lambda a, b, c: Bool(), ""),
]


@pytest.mark.parametrize(("make", "text"), FORMULAS, ids=[text for _, text in FORMULAS])
def test_formula_has_the_names_of_attributes(parts, make, text):
    wf, *units = parts
    gate = units[0].gate_block = make(*units)
    assert GateNames(wf).text(gate) == text


def test_composed_value_kept_by_a_unit_goes_by_its_name(parts):
    wf, a, b, _ = parts
    a.both = a.ready & b.ready
    b.gate_block = ~a.both
    assert GateNames(wf).text(b.gate_block) == "not a.both"


def test_value_kept_by_the_workflow_is_found(parts):
    wf, a, *_ = parts
    wf.enough = Bool()
    a.gate_skip = wf.enough
    assert GateNames(wf).text(a.gate_skip) == "root.enough"


def test_gate_that_units_share_goes_by_the_first_of_them(parts):
    wf, a, b, c = parts
    a.gate_skip = c.gate_block = Bool()
    names = GateNames(wf)
    assert names.text(a.gate_skip) == names.text(c.gate_block) == "a.gate_skip"
    assert names.text(b.gate_skip) == ""


def test_values_of_and_around_a_nested_workflow_are_found(parts):
    wf, a, *_ = parts
    inner = Workflow(wf, name="inner")
    unit = Part(inner, name="unit")
    unit.gate_block = a.ready | unit.busy
    assert GateNames(inner).text(unit.gate_block) == "a.ready or inner/unit.busy"

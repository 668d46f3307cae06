"""Bools: setting, composing, following, and letting go of what nobody holds."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veloflow.core import Bool


def test_a_bool_is_set_and_read():
    gate = Bool()
    assert not gate
    gate.set(True)
    assert gate
    assert gate.value is True
    assert repr(gate) == "Bool(True)"


@pytest.mark.parametrize("truth", [1, "yes", [0]])
def test_any_truth_becomes_true_itself(truth):
    gate = Bool(truth)
    assert gate.value is True
    gate.set(0)
    assert gate.value is False


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_composing_computes_the_value_at_once(left, right):
    a, b = Bool(left), Bool(right)
    assert (~a).value is (not left)
    assert (a & b).value is (left and right)
    assert (a | b).value is (left or right)
    assert (a ^ b).value is (left != right)


def test_a_composed_bool_follows_each_of_its_operands():
    a, b = Bool(), Bool(True)
    both = a & b
    a.set(True)
    assert both
    b.set(False)
    assert not both


def test_following_goes_through_any_depth():
    complete = Bool()
    gate = ~(~(~complete))
    assert gate
    complete.set(True)
    assert not gate


def test_two_ways_to_the_same_operand_agree_in_the_end():
    """`a ^ ~a` is true whatever `a` is, though its operands change one after the other."""
    a = Bool()
    always, never = a ^ ~a, a & ~a
    for value in (True, False, True):
        a.set(value)
        assert always
        assert not never


def test_the_same_operand_twice():
    a = Bool()
    twice, differs = a & a, a ^ a
    a.set(True)
    assert twice
    assert not differs


def test_a_composed_bool_cannot_be_set():
    a = Bool()
    with pytest.raises(TypeError, match="follows its operands: set one of them"):
        (~a).set(True)
    assert not a


def test_a_bool_tells_what_it_is_composed_of():
    a, b = Bool(), Bool()
    assert (a.sign, a.operands) == ("", ())
    assert ((~a).sign, (~a).operands) == ("~", (a,))
    for composed, sign in ((a & b, "&"), (a | b, "|"), (a ^ b, "^")):
        assert (composed.sign, composed.operands) == (sign, (a, b))


def test_operands_live_as_long_as_what_is_composed_of_them():
    outer = ~(Bool() | Bool())
    gc.collect()
    inner = outer.operands[0]
    inner.operands[1].set(True)
    assert not outer


def test_nobody_keeps_a_composed_bool_alive_but_its_holder():
    a = Bool()
    gate = ~a
    gone = weakref.ref(gate)
    del gate
    assert gone() is None
    a.set(True)  # and there is nobody to tell


def test_composing_again_and_again_does_not_grow_the_operand():
    """A unit that asks `if a & ~b:` in every run must not fill the memory while a and b rest."""
    a, b = Bool(), Bool()
    kept = ~a
    for _ in range(1000):
        assert not (a & ~b)
    assert len(a._followers) == 1
    assert not b._followers
    a.set(True)
    assert not kept


def test_a_follower_that_dies_while_others_are_told_hides_no_change():
    """Its neighbours are told though the list of followers shrinks meanwhile."""
    a = Bool()
    dying = [~a]

    class Killer(type(~a)):
        """Lets go of the first follower as soon as it is told."""

        def update(self) -> None:
            dying.clear()
            super().update()

    killer = Killer("~", lambda value, _: not value, a)
    last = ~a
    a.set(True)
    assert not dying
    assert not killer
    assert not last


TREES = st.recursive(
    st.integers(0, 3),
    lambda inner: st.one_of(
        st.tuples(st.just("~"), inner),
        st.tuples(st.sampled_from("&|^"), inner, inner),
    ),
    max_leaves=12,
)


def composed(tree, leaves):
    """Return the Bool that a tree of operators makes of the leaves."""
    match tree:
        case int():
            return leaves[tree]
        case "~", inner:
            return ~composed(inner, leaves)
        case sign, left, right:
            a, b = composed(left, leaves), composed(right, leaves)
            return a & b if sign == "&" else a | b if sign == "|" else a ^ b


def computed(tree, values):
    """Return what plain logic makes of the same tree."""
    match tree:
        case int():
            return values[tree]
        case "~", inner:
            return not computed(inner, values)
        case sign, left, right:
            a, b = computed(left, values), computed(right, values)
            return a and b if sign == "&" else a or b if sign == "|" else a != b


@given(TREES, st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_any_composition_follows_any_changes_as_logic_says(tree, changes):
    leaves, values = [Bool() for _ in range(4)], [False] * 4
    gate = composed(tree, leaves)
    assert bool(gate) == computed(tree, values)
    for number, value in changes:
        leaves[number].set(value)
        values[number] = value
        assert bool(gate) == computed(tree, values)

"""Formulas: what operators build, and the order in which they are walked."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from veloflow.devices import expressions as ex
from veloflow.devices.numpy_lowering import substitute

X, Y = ex.element("x"), ex.element("y")


@pytest.mark.parametrize(
    ("formula", "operation", "operands"),
    [
        (X + 1, "add", (X, ex.Const(1.0))),
        (1 + X, "add", (ex.Const(1.0), X)),
        (X - Y, "subtract", (X, Y)),
        (1 - X, "subtract", (ex.Const(1.0), X)),
        (X * 2, "multiply", (X, ex.Const(2.0))),
        (2 * X, "multiply", (ex.Const(2.0), X)),
        (X / Y, "divide", (X, Y)),
        (1 / X, "divide", (ex.Const(1.0), X)),
        (X**3, "power", (X, ex.Const(3.0))),
        (-X, "negative", (X,)),
        (abs(X), "absolute", (X,)),
        (X < Y, "less", (X, Y)),
        (X <= Y, "less_equal", (X, Y)),
        (X > Y, "less", (Y, X)),
        (X >= Y, "less_equal", (Y, X)),
        (X.equals(1), "equal", (X, ex.Const(1.0))),
        (X.differs(Y), "not_equal", (X, Y)),
        (ex.where(X, 1, Y), "where", (X, ex.Const(1.0), Y)),
        (ex.maximum(0, X), "maximum", (ex.Const(0.0), X)),
    ],
)
def test_operators_build_nodes(formula, operation, operands):
    assert formula == ex.Apply(operation, operands)


def test_every_operation_of_one_operand_has_a_function():
    unary = {name for name, count in ex.OPERATIONS.items() if count == 1} - {"negative"}
    for name in unary:
        assert getattr(ex, name)(X) == ex.Apply(name, (X,))
        assert inspect.getdoc(getattr(ex, name))


def test_numpy_numbers_leave_the_operators_to_us():
    assert np.float32(2) * X == 2.0 * X
    assert np.float64(2) + X == 2.0 + X


def test_wrong_number_of_operands_is_refused():
    with pytest.raises(TypeError, match="add takes 2"):
        ex.Apply("add", (X,))
    with pytest.raises(KeyError):
        ex.Apply("nonsense", (X,))


def test_walk_yields_each_node_once_and_operands_first():
    shared = X * Y
    formula = ex.tanh(shared) + shared
    nodes = list(ex.walk(formula, shared - 1))
    assert len(nodes) == len(set(nodes))
    for place, node in enumerate(nodes):
        if isinstance(node, ex.Apply):
            assert all(operand in nodes[:place] for operand in node.operands)
    assert nodes[-1] == shared - 1


def test_walk_of_a_shared_formula_is_linear():
    formula = X
    for _ in range(200):
        formula = formula * formula  # a tree of 2 ** 200 leaves, a graph of 201 nodes
    assert len(list(ex.walk(formula))) == 201


def test_names_come_in_order_of_first_use():
    formula = ex.element("b") * ex.scalar("s") + ex.element("a") * ex.scalar("r") - ex.element("b")
    assert ex.elements_of(formula) == ["b", "a"]
    assert ex.scalars_of(formula) == ["s", "r"]


def test_substitution():
    formula = ex.tanh(X) * X + ex.scalar("x")
    assert substitute(formula, {"x": Y + 1}) == ex.tanh(Y + 1) * (Y + 1) + ex.scalar("x")
    assert substitute(formula, {}) == formula

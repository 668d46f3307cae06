"""A function over items: alone, farmed out, and with what cannot travel."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from veloflow.errors import GraphError, InputError, UnitError
from veloflow.units import FarmMap


def square(x):
    return {"square": x * x, "row": np.full(3, x)}


def fail(x):
    if x == 2:
        raise ValueError("two is too much")
    return {}


def definition(function, items):
    def build(wf):
        wf.start >> FarmMap(wf, function, items=items, name="map") >> wf.end

    return build


@pytest.mark.parametrize("sharing", [None, "sync", "async"])
def test_results_stand_in_the_order_of_the_items(sharing):
    build = definition(square, [{"x": x} for x in range(20)])
    graph = veloflow.run(build, device="numpy", sharing=sharing).graph
    outputs = graph["map"].outputs
    assert [one["square"] for one in outputs] == [x * x for x in range(20)]
    assert all((one["row"] == x).all() for x, one in enumerate(outputs))
    assert graph["map"].progress().done == 20


def test_no_items_at_all():
    build = definition(square, [])
    assert veloflow.run(build, device="numpy", sharing="sync").graph["map"].outputs == []


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ([{"x": 1}, {"x": object()}], "item 1: 'x' is object"),
        ([3], "item 0 is int"),
        ([{"x": np.array(["text"])}], "item 0: 'x' is ndarray"),
        ([{"x": [1, {2: 3}]}], "item 0: 'x' is list"),
    ],
)
def test_what_cannot_travel_is_named(items, word):
    with pytest.raises(InputError, match=word):
        veloflow.run(definition(square, items), device="numpy")


def test_a_result_that_cannot_travel_is_named():
    with pytest.raises(InputError, match="the result of item 0 is int"):
        veloflow.run(definition(lambda x: x, [{"x": 1}]), device="numpy")


@pytest.mark.parametrize("sharing", [None, "sync"])
def test_an_error_of_the_function_comes_out(sharing):
    build = definition(fail, [{"x": x} for x in range(4)])
    with pytest.raises(UnitError, match="two is too much"):
        veloflow.run(build, device="numpy", sharing=sharing)


def test_items_are_given_in_one_way():
    def build(wf):
        wf.start >> FarmMap(wf, square) >> wf.end

    with pytest.raises(GraphError, match="items"):
        veloflow.run(build, device="numpy")

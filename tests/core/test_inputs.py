"""Shapes as inputs declare them: names, numbers, ``*rest`` and ``...``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veloflow.core import Input
from veloflow.core.inputs import match_shape


def match(spec, shape, **dims: object) -> tuple[str, dict[str, object]]:
    """Match and return what is wrong, and what the names stand for now."""
    return match_shape(spec, shape, dims, dict.fromkeys(dims, "before"), "here"), dims


@pytest.mark.parametrize(
    ("spec", "shape", "dims"),
    [
        ("batch features", (60, 64), {"batch": 60, "features": 64}),
        ("n n", (5, 5), {"n": 5}),
        ("batch *sample", (60, 8, 8, 3), {"batch": 60, "sample": (8, 8, 3)}),
        ("batch *sample", (60,), {"batch": 60, "sample": ()}),
        ("batch ...", (60, 8, 8), {"batch": 60}),
        ("batch ...", (60,), {"batch": 60}),
        ("... classes", (60, 10), {"classes": 10}),
        ("*all classes", (60, 7, 10), {"all": (60, 7), "classes": 10}),
        ("batch ... channels", (60, 8, 8, 3), {"batch": 60, "channels": 3}),
        ("batch 3", (60, 3), {"batch": 60}),
        ("2 ... 3", (2, 3), {}),
        ("...", (1, 2, 3), {}),
        ("", (1, 2, 3), {}),
        ("*all", (), {"all": ()}),
    ],
)
def test_a_shape_that_fits_gives_names_to_sizes(spec, shape, dims):
    assert match(spec, shape) == ("", dims)


@pytest.mark.parametrize(
    ("spec", "shape", "wrong"),
    [
        ("batch features", (60,), "it has 1 dimensions"),
        ("batch features", (60, 8, 8), "it has 3 dimensions"),
        ("batch ... channels", (60,), "it has 1 dimensions"),
        ("batch", (), "it has 0 dimensions"),
        ("batch 3", (60, 4), "4 where 3 must be"),
        ("... 3", (60, 8, 1), "1 where 3 must be"),
        ("n n", (5, 6), "'n' is 6 here and 5 in here"),
        ("*all n n", (1, 5, 6), "'n' is 6 here and 5 in here"),
    ],
)
def test_a_shape_that_does_not_fit_is_explained(spec, shape, wrong):
    assert match(spec, shape)[0] == wrong


@pytest.mark.parametrize(
    ("spec", "shape", "dims", "wrong"),
    [
        ("batch", (50,), {"batch": 60}, "'batch' is 50 here and 60 in before"),
        ("*sample", (8, 9), {"sample": (8, 8)}, "'sample' is (8, 9) here and (8, 8) in before"),
        ("*n", (8,), {"n": 8}, "'n' is (8,) here and 8 in before"),
    ],
)
def test_names_mean_the_same_in_all_inputs(spec, shape, dims, wrong):
    assert match(spec, shape, **dims) == (wrong, dims)


@pytest.mark.parametrize("spec", ["*a *b", "... n ...", "*a n ..."])
def test_only_one_word_may_stand_for_many_sizes(spec):
    with pytest.raises(ValueError, match="more than one of the words in"):
        Input(spec)


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 5), st.sampled_from(["...", "*r"]))
def test_many_takes_what_the_other_words_leave(sizes, place, many):
    """However many words stand before it and behind it, every size is given out once."""
    before = min(place, len(sizes))
    behind = min(len(sizes) - before, 2)
    rest = len(sizes) - before - behind
    words = [f"d{n}" for n in range(before)] + [many] + [f"e{n}" for n in range(behind)]
    wrong, dims = match(" ".join(words), tuple(sizes))
    assert wrong == ""
    given_out = [dims[f"d{n}"] for n in range(before)]
    given_out += dims.get("r", sizes[before : before + rest])
    given_out += [dims[f"e{n}"] for n in range(behind)]
    assert given_out == sizes

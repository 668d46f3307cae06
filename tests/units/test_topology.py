"""A network in one line of text."""

from __future__ import annotations

import pytest

from veloflow.errors import GraphError, InputError
from veloflow.units import topology


def texts(text, **options):
    """Return what the layers are called."""
    return [layer.text for layer in topology(text, **options)]


def test_velesline_of_lines():
    assert texts("12x256x256-32C4-MP2-64C4-MP3-32N-4N") == [
        "conv(32, (4, 4), 'tanh')", "max_pool((2, 2))", "conv(64, (4, 4), 'tanh')",
        "max_pool((3, 3))", "dense(32, 'tanh')", "softmax(4)",
    ]  # fmt: skip


def test_an_input_that_is_no_image():
    assert texts("64-50N-10N") == ["dense(50, 'tanh')", "softmax(10)"]


def test_every_part():
    layers = topology("28x28-20C5x3/2p1-AP2/1-D0.25-9N-3N", activation="relu", last="linear")
    assert [layer.text for layer in layers] == [
        "conv(20, (5, 3), 'relu')", "avg_pool((2, 2))", "dropout(0.25)", "dense(9, 'relu')",
        "linear(3)",
    ]  # fmt: skip
    assert layers[0].forward.keywords["stride"] == 2
    assert layers[0].forward.keywords["padding"] == 1
    assert layers[1].forward.keywords["stride"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12x256x256-32Q4-4N", "character 12: '32Q4' is no part"),
        ("32C4-MP2", "character 6: the last part is 'MP2'; end with a dense layer"),
        ("32C4--4N", "character 6: '' is no part"),
        ("4N-", "character 4: the last part is ''"),
        ("-4N", "character 1: '' is no part"),
        ("0N", "character 1: the last part is '0N'"),
        ("28x28", "has no layers"),
        ("64", "has no layers"),
        ("64-32-4N", "character 4: '32' is no part"),
        ("", "has no layers"),
        ("32C4-28x28-4N", "character 6: '28x28' is no part"),
    ],
)
def test_errors_name_the_place(text, message):
    with pytest.raises(GraphError, match=message):
        topology(text)


def test_unknown_activation():
    with pytest.raises(InputError, match="tahn"):
        topology("3N", activation="tahn")

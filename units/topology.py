"""A network in one line of text: ``topology("12x256x256-32C4-MP2-64C4-MP3-32N-4N")``.

Parts are joined by ``-``. The first may tell the size of the input; that is for the reader only:

    input     = number [x number [x number]]   12x256x256: anything, height, width; 64: features
    conv      = number C size [/ stride] [p padding]      32C4, 20C5x3, 64C3/2p1
    max pool  = MP size [/ stride]             MP2, MP3/2
    avg pool  = AP size [/ stride]             AP2
    dense     = number N                       32N
    dropout   = D share                        D0.5
    size      = number [x number]              5: 5 x 5; 5x3: 5 high, 3 wide

The last part is a dense layer: it becomes ``softmax`` (or ``linear``). The notation is that of
Ciresan, Meier and Schmidhuber, "Multi-column deep neural networks for image classification" (2012),
as Veles read it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, cast

from veloflow.errors import GraphError
from veloflow.units.activation import activation_of
from veloflow.units.all2all import dense, linear, softmax
from veloflow.units.convolution import conv
from veloflow.units.dropout import dropout
from veloflow.units.pooling import avg_pool, max_pool

if TYPE_CHECKING:
    from veloflow.units.layer import Layer

__all__ = ["topology"]

_SIZE = r"(?P<height>[1-9]\d*)(?:x(?P<width>[1-9]\d*))?(?:/(?P<stride>[1-9]\d*))?"
_INPUT = re.compile(r"[1-9]\d*(x[1-9]\d*){0,2}")
_CONV = re.compile(rf"(?P<count>[1-9]\d*)C{_SIZE}(?:p(?P<padding>\d+))?")
_POOL = re.compile(rf"(?P<kind>MP|AP){_SIZE}")
_DENSE = re.compile(r"(?P<count>[1-9]\d*)N")
_DROPOUT = re.compile(r"D(?P<share>0?\.\d+)")


def topology(
    text: str, *, activation: str = "tanh", last: Literal["softmax", "linear"] = "softmax"
) -> list[Layer]:
    """Return the layers that ``text`` describes.

    Args:
        text: see the grammar at the top.
        activation: of the convolutions and of the dense layers but the last.
        last: what the last dense layer is.

    Raises:
        GraphError: the text is not of the grammar; the message says where.
    """
    activation_of(activation, "topology")
    parts = [(match.start(1), match[1]) for match in re.finditer(r"(?:^|-)([^-]*)", text)]
    layers: list[Layer] = []
    for number, (place, part) in enumerate(parts):
        if number == 0 and _INPUT.fullmatch(part):
            continue
        is_last = number == len(parts) - 1
        if text:
            layers.append(_layer(text, place, part, activation, last if is_last else ""))
    if not layers:
        raise GraphError(f"topology {text!r} has no layers; give some: '64C5-MP2-10N'")
    return layers


def _layer(text: str, place: int, part: str, activation: str, last: str) -> Layer:
    if match := _DENSE.fullmatch(part):
        neurons = int(match["count"])
        if last:
            return softmax(neurons) if last == "softmax" else linear(neurons)
        return dense(neurons, activation)
    if last:
        raise _error(text, place, f"the last part is {part!r}; end with a dense layer, such as 10N")
    if match := _CONV.fullmatch(part):
        return conv(
            int(match["count"]),
            _size(match),
            activation=cast("Any", activation),
            stride=int(match["stride"] or 1),
            padding=int(match["padding"] or 0),
        )
    if match := _POOL.fullmatch(part):
        pool = max_pool if match["kind"] == "MP" else avg_pool
        return pool(_size(match), stride=int(match["stride"]) if match["stride"] else None)
    if match := _DROPOUT.fullmatch(part):
        return dropout(float(match["share"]))
    raise _error(
        text, place, f"{part!r} is no part; there are 32C5, MP2, AP2, 100N, D0.5 and their like"
    )


def _size(match: re.Match[str]) -> tuple[int, int]:
    height = int(match["height"])
    return height, int(match["width"] or height)


def _error(text: str, place: int, what: str) -> GraphError:
    return GraphError(f"topology {text!r}, character {place + 1}: {what}")

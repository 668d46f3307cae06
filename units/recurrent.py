"""Recurrent layers: plain RNN, LSTM and GRU, and their gradients.

Shapes: x is (batch, time, ...), seen as (batch, time, inputs); W, the weights, is (gates * cells,
inputs); U, the recurrent weights, is (gates * cells, cells); b is (gates * cells,); y is (batch,
cells), the last state, or (batch, time, cells), all of them. States before the first step are 0.

Gates lie as torch has them, so weights can be taken over from there. What a layer does with a
sequence is in units/recurrence.py, what a step does with its gates in units/gates.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Unpack, final, get_args

from veloflow.errors import GraphError, nearest
from veloflow.units.gates import (
    Nonlinearity,
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    rnn_backward,
    rnn_forward,
)
from veloflow.units.layer import Layer, Rates, trained_layer
from veloflow.units.recurrence import GDRecurrent, Recurrent

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices import Array, Launch
    from veloflow.units.filling import Filling
    from veloflow.units.forward import Forward

__all__ = [
    "GDGRU",
    "GDLSTM",
    "GDRNN",
    "GRU",
    "LSTM",
    "RNN",
    "gru",
    "lstm",
    "rnn",
]

# -- the plain recurrent layer ---------------------------------------------------------------------


@final
class RNN(Recurrent):
    """A plain recurrent layer (Elman, 1990): h' = f(W x + U h + b), f = tanh or relu.

    Args:
        nonlinearity: "tanh" (the plain one, not LeCun's) or "relu".
        cells, return_sequences, masked, weights_filling, recurrent_filling, bias_filling: see
            :class:`Recurrent`.
    """

    gates = 1

    def __init__(
        self,
        workflow: Workflow,
        cells: int,
        *,
        nonlinearity: Nonlinearity = "tanh",
        return_sequences: bool = False,
        masked: bool = False,
        weights_filling: Filling | None = None,
        recurrent_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, cells, return_sequences=return_sequences, masked=masked,
            weights_filling=weights_filling, recurrent_filling=recurrent_filling,
            bias_filling=bias_filling, name=name,
        )  # fmt: skip
        known = get_args(Nonlinearity)
        if nonlinearity not in known:
            raise GraphError(
                f"unit {self.path!r} has no nonlinearity {nonlinearity!r}"
                f"{nearest(nonlinearity, known)}; give 'tanh' or 'relu'"
            )
        self.nonlinearity: Nonlinearity = nonlinearity

    def bind_steps(self) -> Launch:
        """Bind h' = f(sums + product)."""
        assert self.bias is not None
        arrays = {
            "sums": self.inflow,
            "bias": self.bias.value,
            "product": self.product,
            "states": self.states,
            "lengths": self.lengths,
        }
        steps = rnn_forward(self.sizes, self.nonlinearity)
        return self.device.recurrence(steps, arrays, self.recurrent.value, self.entering)


@final
class GDRNN(GDRecurrent):
    """The gradient of :class:`RNN`: d = dL/dh' f'(h'), where a sequence is over 0."""

    forward: RNN
    forward_kind: ClassVar[type[Forward]] = RNN

    def initialize(self) -> None:
        """Declare what passes by sequences that are over."""
        super().initialize()
        self._carry = self.declare(*self.product.shape)

    def bind_steps(self) -> Launch:
        """Bind the deltas."""
        forward = self.forward
        arrays = {
            "states": forward.states,
            "errors": self.errors,
            "product": self.product,
            "carry": self._carry,
            "deltas": self.deltas,
            "lengths": forward.lengths,
        }
        steps = rnn_backward(forward.sizes, forward.nonlinearity)
        return self.device.recurrence(steps, arrays, forward.recurrent.value)


# -- LSTM ------------------------------------------------------------------------------------------


@final
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter, Schmidhuber, 1997; forget gate: Gers et al., 2000).

    With s the sigmoid, and W, U, b in the order of the gates i, f, g, o:

        i = s(Wi x + Ui h + bi)    f = s(Wf x + Uf h + bf)    o = s(Wo x + Uo h + bo)
        g = tanh(Wg x + Ug h + bg)
        c' = f c + i g             h' = o tanh(c')
    """

    gates = 4

    def initialize(self) -> None:
        """Declare output, parameters, and what is kept of each step."""
        super().initialize()
        self.memory = self.declare(*self.states.shape)
        self.squashed = self.declare(self.steps, self.rows, self.cells)

    def bind_steps(self) -> Launch:
        """Bind the gates."""
        assert self.bias is not None
        arrays = {
            "gates": self.inflow,
            "bias": self.bias.value,
            "product": self.product,
            "cells": self.memory,
            "squashed": self.squashed,
            "states": self.states,
            "lengths": self.lengths,
        }
        steps = lstm_forward(self.sizes)
        return self.device.recurrence(steps, arrays, self.recurrent.value, self.entering)


@final
class GDLSTM(GDRecurrent):
    """The gradient of :class:`LSTM`.

    With a = tanh(c') and dc = dL/dc' + dL/dh' o (1 - a^2): di = dc g i (1 - i), df = dc c f (1 -
    f), dg = dc i (1 - g^2), do = dL/dh' a o (1 - o); and dc f goes to the cell before.
    """

    forward: LSTM
    forward_kind: ClassVar[type[Forward]] = LSTM

    def initialize(self) -> None:
        """Declare what goes from step to step."""
        super().initialize()
        self._carry = self.declare(*self.product.shape)
        self._err_cells = self.declare(*self.product.shape)

    def bind_steps(self) -> Launch:
        """Bind the deltas."""
        forward = self.forward
        arrays = {
            "gates": forward.inflow,
            "cells": forward.memory,
            "squashed": forward.squashed,
            "errors": self.errors,
            "product": self.product,
            "err_cells": self._err_cells,
            "carry": self._carry,
            "deltas": self.deltas,
            "lengths": forward.lengths,
        }
        steps = lstm_backward(forward.sizes)
        return self.device.recurrence(steps, arrays, forward.recurrent.value)


# -- GRU -------------------------------------------------------------------------------------------


@final
class GRU(Recurrent):
    """The gated recurrent unit (Cho et al., 2014), with the reset gate after the product.

    With s the sigmoid, and W, U, b (bias), c (recurrent bias) in the order of the gates r, z, n:

        r = s(Wr x + br + Ur h + cr)        z = s(Wz x + bz + Uz h + cz)
        n = tanh(Wn x + bn + r (Un h + cn))
        h' = (1 - z) n + z h
    """

    gates = 3
    has_recurrent_bias = True

    def initialize(self) -> None:
        """Declare output, parameters, and what is kept of each step."""
        super().initialize()
        self.inner = self.declare(self.steps, self.rows, self.cells)

    def bind_steps(self) -> Launch:
        """Bind the gates."""
        assert self.bias is not None
        assert self.recurrent_bias is not None
        arrays = {
            "gates": self.inflow,
            "bias": self.bias.value,
            "recurrent_bias": self.recurrent_bias.value,
            "product": self.product,
            "inner": self.inner,
            "states": self.states,
            "lengths": self.lengths,
        }
        steps = gru_forward(self.sizes)
        return self.device.recurrence(steps, arrays, self.recurrent.value, self.entering)


@final
class GDGRU(GDRecurrent):
    """The gradient of :class:`GRU`.

    With q = Un h + cn: dn = dL/dh' (1 - z) (1 - n^2), dz = dL/dh' (h - n) z (1 - z), dr = dn q r
    (1 - r); by the products with U it is dr, dz and dn r; and dL/dh' z goes to the state before.
    """

    forward: GRU
    forward_kind: ClassVar[type[Forward]] = GRU

    def initialize(self) -> None:
        """Declare what goes from step to step."""
        super().initialize()
        self._carry = self.declare(*self.product.shape)
        self._recurrent_deltas = self.declare(*self.deltas.shape)

    @property
    def recurrent_deltas(self) -> Array:
        """The gradient by the products with U."""
        return self._recurrent_deltas

    def bind_steps(self) -> Launch:
        """Bind the deltas."""
        forward = self.forward
        arrays = {
            "gates": forward.inflow,
            "inner": forward.inner,
            "states": forward.states,
            "errors": self.errors,
            "product": self.product,
            "carry": self._carry,
            "deltas": self.deltas,
            "recurrent_deltas": self._recurrent_deltas,
            "lengths": forward.lengths,
        }
        steps = gru_backward(forward.sizes)
        return self.device.recurrence(steps, arrays, forward.recurrent.value)


# -- the short form --------------------------------------------------------------------------------


class RecurrentOptions(Rates, total=False):
    """What a recurrent layer may be told: its own rates, what it gives, and how it begins."""

    return_sequences: bool
    masked: bool
    weights_filling: Filling
    recurrent_filling: Filling
    bias_filling: Filling
    name: str


def rnn(
    cells: int,
    nonlinearity: Nonlinearity = "tanh",
    **options: Unpack[RecurrentOptions],
) -> Layer:
    """Return a plain recurrent layer, h' = f(W x + U h + b)."""
    make = partial(RNN, nonlinearity=nonlinearity)
    return _recurrent(f"rnn({cells}, {nonlinearity!r})", make, GDRNN, cells, options)


def lstm(cells: int, **options: Unpack[RecurrentOptions]) -> Layer:
    """Return a layer of long short-term memory."""
    return _recurrent(f"lstm({cells})", LSTM, GDLSTM, cells, options)


def gru(cells: int, **options: Unpack[RecurrentOptions]) -> Layer:
    """Return a layer of gated recurrent units."""
    return _recurrent(f"gru({cells})", GRU, GDGRU, cells, options)


def _recurrent(
    text: str,
    forward: Callable[..., Recurrent],
    gradient: type[GDRecurrent],
    cells: int,
    options: RecurrentOptions,
) -> Layer:
    make = partial(forward, cells=cells)
    return trained_layer(text, make, gradient, options, RecurrentOptions.__optional_keys__)

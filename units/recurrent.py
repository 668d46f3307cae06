"""Recurrent layers: plain RNN, LSTM and GRU with backpropagation through time, masked where short.

Shapes: x is (batch, time, ...), seen as (batch, time, inputs); W, the weights, is (gates * cells,
inputs); U, the recurrent weights, is (gates * cells, cells); b is (gates * cells,); y is (batch,
cells), the last state, or (batch, time, cells), all of them. States before the first step are 0.

Gates lie as torch has them, so weights can be taken over from there. Inside, time comes first: one
product with W serves all time steps, each step is one product with U and one pass over memory, and
the gradients of the weights are one product each at the end.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack, final

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array
from veloflow.devices.expressions import Expression, element, maximum, tanh, where
from veloflow.devices.parameters import ALIGNMENT
from veloflow.errors import DataError, GraphError, ShapeError, nearest
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gates import GRU_BACKWARD, GRU_FORWARD, LSTM_BACKWARD, LSTM_FORWARD, bind_gates
from veloflow.units.gradient import GradientUnit
from veloflow.units.layer import Layer, Rates, trained_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch
    from veloflow.devices.parameters import Parameter

__all__ = [
    "GDGRU",
    "GDLSTM",
    "GDRNN",
    "GRU",
    "LSTM",
    "RNN",
    "GDRecurrent",
    "Recurrent",
    "gru",
    "lstm",
    "rnn",
]

_Step = Callable[[], None]


class Recurrent(Forward):
    """A layer that reads a sequence step by step. An outline: subclasses say what a step does.

    Args:
        cells: how many numbers the state has.
        return_sequences: give the states of all steps, not only the last one.
        masked: link the loader's ``minibatch_lengths``, in the short form.
        weights_filling, recurrent_filling, bias_filling: initial values; by default uniform in
            +-1 / sqrt(cells), as in torch.

    ``minibatch_lengths``, int32 (batch,), may be linked to how many steps of each sequence are
    real, from 0 on. After these a sequence keeps its state, so the last state is that at its end;
    where all states are given, they are 0 from there on.

    Attributes:
        recurrent: the recurrent weights U.
        recurrent_bias: added to the product with U, or None (only GRU has one).
        inflow: (time, rows, gates * cells), the products with W; LSTM and GRU turn them into what
            the gates let through.
        states: (time + 1, rows, cells), the states before and after each step; there may be more
            rows than samples, for each step begins where a device can begin a buffer.
    """

    #: how many blocks of ``cells`` rows W and U have
    gates: ClassVar[int]
    #: whether a bias is added to the product with U
    has_recurrent_bias: ClassVar[bool] = False

    input = Input[Array]("batch time ...")
    minibatch_lengths = Input[Array]("batch", dtype="int32", optional=True)

    def __init__(
        self,
        workflow: Workflow,
        cells: int,
        *,
        return_sequences: bool = False,
        masked: bool = False,
        weights_filling: Filling | None = None,
        recurrent_filling: Filling | None = None,
        bias_filling: Filling | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if cells < 1:
            raise ShapeError(f"unit {self.path!r}: {cells} cells; give at least one")
        self.cells = cells
        self.return_sequences = return_sequences
        if masked:  # what the short form links differs from unit to unit here
            self.loader_inputs = ("minibatch_lengths",)  # type: ignore[misc]
        self.weights_filling = Uniform() if weights_filling is None else weights_filling
        self.recurrent_filling = recurrent_filling or self.weights_filling
        self.bias_filling = self.weights_filling if bias_filling is None else bias_filling
        self.recurrent: Parameter
        self.recurrent_bias: Parameter | None = None
        self.states: Array

    # -- what subclasses fill in --------------------------------------------------------------

    @abstractmethod
    def bind_steps(self) -> list[_Step]:
        """Bind what makes states[step + 1] of inflow[step], biases, product and states[step].

        The product, of states[step] and U, is there from the second step on.
        """

    # -- the work -----------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many time steps there are."""
        return self.input.shape[1]

    @property
    def rows(self) -> int:
        """How many rows a step has: the batch, and so many more that steps begin aligned."""
        least = ALIGNMENT // math.gcd(ALIGNMENT, self.cells)
        return -(-len(self.input) // least) * least

    def parameters(self) -> list[Parameter]:
        """Return the parameters: W, U, and the biases."""
        found = [*super().parameters(), self.recurrent_bias]
        found.insert(1, self.recurrent)
        return [one for one in found if one is not None]

    def initialize(self) -> None:
        """Declare output, parameters, and what is kept of each step.

        Raises:
            ShapeError: there are no steps.
        """
        batch, steps = self.input.shape[:2]
        if steps < 1:
            raise ShapeError(f"unit {self.path!r}: sequences of {steps} steps have no state")
        inputs, columns = math.prod(self.input.shape[2:]), self.gates * self.cells
        given = (steps,) if self.return_sequences else ()
        self.output = self.declare(batch, *given, self.cells)
        self.weights = self._declare_parameter("weights", columns, inputs)
        self.recurrent = self._declare_parameter("recurrent", columns, self.cells)
        self.bias = self._declare_parameter("bias", columns)
        if self.has_recurrent_bias:
            self.recurrent_bias = self._declare_parameter("recurrent_bias", columns)
        self.sequence = self.declare(steps * self.rows, inputs)
        self.inflow = self.declare(steps, self.rows, columns)
        self.product = self.declare(self.rows, columns)
        self.states = self.declare(steps + 1, self.rows, self.cells)
        self.lengths = self.declare(self.rows, dtype="int32")
        self.inward = self.declare(steps * self.rows, dtype="int32")
        self.outward = self.declare(batch * steps, dtype="int32")

    def prepare(self) -> None:
        """Fill the parameters and bind the steps."""
        self._fill()
        self.lengths.write(self.steps)
        self._write_places()
        device, batch = self.device, len(self.input)
        assert self.weights is not None
        self._launches: list[_Step] = [
            device.gather(
                self.input.reshape(batch * self.steps, self.weights.shape[1]),
                self.inward,
                self.sequence,
            ),
            device.gemm(
                self.sequence, self.weights.value, self.flat(self.inflow),
                transpose_b=True,
            ),
        ]  # fmt: skip
        for step, launch in enumerate(self.bind_steps()):
            if step:  # before the first the state is 0
                self._launches.append(self._bind_product(step))
            self._launches.append(launch)
        self._launches.append(self._bind_output())

    def _fill(self) -> None:
        default = 1 / math.sqrt(self.cells)
        fillings = [self.weights_filling, self.recurrent_filling]
        fillings += [self.bias_filling, self.bias_filling]
        for parameter, filling in zip(self.parameters(), fillings, strict=False):
            random = self._random(parameter.name.rpartition("/")[2])
            parameter.value.write(filling.fill(random, parameter.shape, default))

    def _bind_product(self, step: int) -> Launch:
        return self.device.gemm(
            self.step_of(self.states, step),
            self.recurrent.value,
            self.product,
            transpose_b=True,
        )

    def _bind_output(self) -> Launch:
        batch, cells = len(self.input), self.cells
        after = self.device.view(self.states, self.rows * cells, (self.steps * self.rows, cells))
        if self.return_sequences:
            return self.device.gather(
                after, self.outward, self.output.reshape(batch * self.steps, cells)
            )
        start = self.steps * self.rows * cells
        return self.device.copy(self.device.view(self.states, start, (batch, cells)), self.output)

    def step_of(self, array: Array, step: int) -> Array:
        """Return the part (rows, columns) of an array (steps, rows, columns)."""
        _, rows, columns = array.shape
        return self.device.view(array, step * rows * columns, (rows, columns))

    def flat(self, array: Array, first: int = 0, last: int | None = None) -> Array:
        """Return the steps from ``first`` to before ``last`` as a matrix, one row a sample."""
        steps, rows, columns = array.shape
        count = (steps if last is None else last) - first
        return self.device.view(array, first * rows * columns, (count * rows, columns))

    @property
    def is_masked(self) -> bool:
        """Whether sequences may end early."""
        return self.has_input("minibatch_lengths")

    def step_scalars(self, step: int) -> dict[str, int]:
        """Return what kernels of :mod:`veloflow.units.gates` are told of a step."""
        masked = int(self.is_masked)
        return {"step": step, "rows": self.rows, "width": self.cells, "masked": masked}

    def _write_places(self) -> None:
        """Write where each real step of each sample lies, batch first and time first; -1: none."""
        batch, steps, rows = len(self.input), self.steps, self.rows
        sample, step = np.arange(rows), np.arange(steps)
        lengths = np.asarray(self.lengths.read())
        is_real = (sample < batch) & (step[:, None] < lengths)
        self.inward.write(np.where(is_real, sample * steps + step[:, None], -1).reshape(-1))
        outward = np.where(is_real, step[:, None] * rows + sample, -1).T[:batch]
        self.outward.write(outward.reshape(-1))

    def _take_lengths(self) -> None:
        lengths = np.asarray(self.minibatch_lengths.read())
        if lengths.min(initial=0) < 0 or lengths.max(initial=0) > self.steps:
            raise DataError(
                f"unit {self.path!r}: a sequence of {self.steps} steps has the length "
                f"{lengths.max() if lengths.min() >= 0 else lengths.min()}"
            )
        padded: NDArray[np.int32] = np.zeros(self.rows, np.int32)
        padded[: len(lengths)] = lengths
        self.lengths.write(padded)
        self._write_places()

    def run(self) -> None:
        """Compute ``output``.

        Raises:
            DataError: a length is below 0 or above the number of steps.
        """
        if self.is_masked:
            self._take_lengths()
        for launch in self._launches:
            launch()


class GDRecurrent(GradientUnit):
    """Backpropagation through time (Werbos, 1990) and the update of the weights. An outline.

    With the deltas d, the gradient by the sums of each step: dL/dW = d^T x, dL/db = sum of d,
    dL/dU = d^T (states before the step), dL/dx = d W; and d U goes to the step before.
    """

    forward: Recurrent
    forward_kind: ClassVar[type[Forward]] = Recurrent

    # -- what subclasses fill in --------------------------------------------------------------

    @abstractmethod
    def bind_steps(self) -> list[_Step]:
        """Bind what makes the deltas of each step of its error, in the order of time.

        The error is ``errors`` at ``error_place(step)``, ``product`` unless it is the last step,
        and what the subclass itself passes from step to step.
        """

    @property
    def recurrent_deltas(self) -> Array:
        """The gradient by the products with U, as ``deltas``; by default it is that by the sums."""
        return self.deltas

    # -- the work -----------------------------------------------------------------------------

    def is_bias(self, parameter: Parameter) -> bool:
        """Whether it moves as a bias does: both biases do."""
        return parameter is self.forward.recurrent_bias or super().is_bias(parameter)

    def initialize(self) -> None:
        """Declare ``err_input``, the deltas, and what goes from step to step."""
        super().initialize()
        forward = self.forward
        steps = forward.steps if forward.return_sequences else 1
        self.errors = self.declare(steps, forward.rows, forward.cells)
        self.deltas = self.declare(*forward.inflow.shape)
        self.product = self.declare(forward.rows, forward.cells)
        if self.needs_err_input:
            self._err_sequence = self.declare(*forward.sequence.shape)

    def error_place(self, step: int) -> int:
        """Return which of ``errors`` is that of the step; -1 for none."""
        if self.forward.return_sequences:
            return step
        return 0 if step == self.forward.steps - 1 else -1

    def step_scalars(self, step: int) -> dict[str, int]:
        """Return what kernels of :mod:`veloflow.units.gates` are told of a step."""
        last = int(step == self.forward.steps - 1)
        return {**self.forward.step_scalars(step), "last": last, "at": self.error_place(step)}

    def prepare(self) -> None:
        """Bind the steps, the gradients and the updates."""
        forward = self.forward
        self._launches: list[_Step] = [self._bind_errors()]
        for step, launch in reversed([*enumerate(self.bind_steps())]):
            self._launches.append(launch)
            if step:
                deltas = forward.step_of(self.recurrent_deltas, step)
                self._launches.append(
                    self.device.gemm(deltas, forward.recurrent.value, self.product)
                )
        self._launches += self._bind_gradients()
        if self.needs_err_input:
            self._launches += self._bind_err_input()
        self._prepare_updates()

    def _bind_errors(self) -> Launch:
        forward, cells = self.forward, self.forward.cells
        batch, steps = len(self.err_output), forward.steps
        if forward.return_sequences:
            source = self.err_output.reshape(batch * steps, cells)
            return self.device.gather(source, forward.inward, forward.flat(self.errors))
        target = self.device.view(self.errors, 0, (batch, cells))
        return self.device.copy(self.err_output, target)

    def _bind_gradients(self) -> list[Launch]:
        forward, device = self.forward, self.device
        assert forward.weights is not None
        assert forward.bias is not None
        deltas = forward.flat(self.deltas)
        first = min(1, forward.steps - 1)  # the state before the first step is 0
        launches = [
            device.gemm(
                forward.flat(self.recurrent_deltas, first),
                forward.flat(forward.states, first, forward.steps),
                forward.recurrent.gradient,
                transpose_a=True,
            ),
            device.gemm(deltas, forward.sequence, forward.weights.gradient, transpose_a=True),
        ]
        sums = [(forward.bias, deltas)]
        if forward.recurrent_bias is not None:
            sums.append((forward.recurrent_bias, forward.flat(self.recurrent_deltas)))
        for bias, matrix in sums:
            launches.append(
                device.reduce("sum", element("d"), {"d": matrix}, bias.gradient, axis=0)
            )
        return launches

    def _bind_err_input(self) -> list[Launch]:
        forward = self.forward
        assert forward.weights is not None
        batch, inputs = len(self.err_output), forward.weights.shape[1]
        target = self.err_input.reshape(batch * forward.steps, inputs)
        return [
            self.device.gemm(forward.flat(self.deltas), forward.weights.value, self._err_sequence),
            self.device.gather(self._err_sequence, forward.outward, target),
        ]

    def backpropagate(self) -> None:
        """Compute the gradients."""
        for launch in self._launches:
            launch()


# -- the plain recurrent layer ---------------------------------------------------------------------

#: f(x), and f' in terms of y = f(x)
_NONLINEARITIES: dict[
    str, tuple[Callable[[Expression], Expression], Callable[[Expression], Expression]]
] = {
    "tanh": (tanh, lambda y: 1 - y * y),
    "relu": (lambda x: maximum(x, 0.0), lambda y: y > 0),
}


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
        nonlinearity: Literal["tanh", "relu"] = "tanh",
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
        if nonlinearity not in _NONLINEARITIES:
            raise GraphError(
                f"unit {self.path!r} has no nonlinearity {nonlinearity!r}"
                f"{nearest(nonlinearity, _NONLINEARITIES)}; give 'tanh' or 'relu'"
            )
        self.function, self.derivative = _NONLINEARITIES[nonlinearity]

    def bind_steps(self) -> list[_Step]:
        """Bind h' = f(sums + product)."""
        return [self._bind_step(step) for step in range(self.steps)]

    def _bind_step(self, step: int) -> _Step:
        assert self.bias is not None
        arrays = {
            "sums": self.step_of(self.inflow, step),
            "bias": self.bias.value.reshape(1, self.cells),
            "product": self.product,
            "before": self.step_of(self.states, step),
            "after": self.step_of(self.states, step + 1),
            "lengths": self.lengths,
        }
        names = ("sums", "bias", "product") if step else ("sums", "bias")
        terms = [element(name) for name in names]
        state = self.function(sum(terms[1:], terms[0]))
        if self.is_masked:
            state = where(element("lengths") > step, state, element("before"))
        return self.device.elementwise({"after": state}, arrays)


@final
class GDRNN(GDRecurrent):
    """The gradient of :class:`RNN`: d = dL/dh' f'(h'), where a sequence is over 0."""

    forward: RNN
    forward_kind: ClassVar[type[Forward]] = RNN

    def initialize(self) -> None:
        """Declare what passes by sequences that are over."""
        super().initialize()
        self._carry = self.declare(*self.product.shape)

    def bind_steps(self) -> list[_Step]:
        """Bind the deltas."""
        return [self._bind_step(step) for step in range(self.forward.steps)]

    def _bind_step(self, step: int) -> _Step:
        forward, at = self.forward, self.error_place(step)
        is_last, masked = step == forward.steps - 1, forward.is_masked
        arrays = {
            "product": self.product,
            "carry": self._carry,
            "state": forward.step_of(forward.states, step + 1),
            "delta": forward.step_of(self.deltas, step),
            "lengths": forward.lengths,
        }
        terms = [element(name) for name in ("product", "carry")[: 1 + masked] if not is_last]
        if at >= 0:
            arrays["error"] = forward.step_of(self.errors, at)
            terms.append(element("error"))
        error = sum(terms[1:], terms[0])
        delta = error * forward.derivative(element("state"))
        if not masked:
            return self.device.elementwise({"delta": delta}, arrays)
        goes_on = element("lengths") > step
        formulas = {"delta": where(goes_on, delta, 0.0), "carry": where(goes_on, 0.0, error)}
        return self.device.elementwise(formulas, arrays)


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

    def bind_steps(self) -> list[_Step]:
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
        launch = bind_gates(self.device, LSTM_FORWARD, arrays, self.rows, self.cells)
        return [partial(launch, **self.step_scalars(step)) for step in range(self.steps)]


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

    def bind_steps(self) -> list[_Step]:
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
        launch = bind_gates(self.device, LSTM_BACKWARD, arrays, forward.rows, forward.cells)
        return [partial(launch, **self.step_scalars(step)) for step in range(forward.steps)]


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

    def bind_steps(self) -> list[_Step]:
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
        launch = bind_gates(self.device, GRU_FORWARD, arrays, self.rows, self.cells)
        return [partial(launch, **self.step_scalars(step)) for step in range(self.steps)]


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

    def bind_steps(self) -> list[_Step]:
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
        launch = bind_gates(self.device, GRU_BACKWARD, arrays, forward.rows, forward.cells)
        return [partial(launch, **self.step_scalars(step)) for step in range(forward.steps)]


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
    nonlinearity: Literal["tanh", "relu"] = "tanh",
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

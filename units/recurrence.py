"""The outlines of recurrent layers: reading step by step, and errors going back through time.

The layers themselves are in units/recurrent.py. Inside, time comes first: one product with the
weights serves all time steps, each step is one product with the recurrent weights and one pass over
memory (see units/gates.py), and the gradients of the weights are one product each at the end.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from veloflow.core import Input
from veloflow.devices import Array, Inputs
from veloflow.devices.parameters import ALIGNMENT
from veloflow.errors import DataError, ShapeError
from veloflow.units.filling import Filling, Uniform
from veloflow.units.forward import Forward
from veloflow.units.gates import Sizes
from veloflow.units.gradient import GradientUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Launch
    from veloflow.devices.parameters import Parameter

__all__ = ["GDRecurrent", "Recurrent"]


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
    def bind_steps(self) -> Launch:
        """Bind what makes all the states of ``entering``, the biases and U."""

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
        self._launches: list[Launch] = [
            device.gather(
                self.input.reshape(batch * self.steps, self.weights.shape[1]),
                self.inward,
                self.sequence,
            ),
            self.bind_steps(),
            self._bind_output(),
        ]  # fmt: skip

    def _fill(self) -> None:
        default = 1 / math.sqrt(self.cells)
        fillings = [self.weights_filling, self.recurrent_filling]
        fillings += [self.bias_filling, self.bias_filling]
        for parameter, filling in zip(self.parameters(), fillings, strict=False):
            random = self._random(parameter.name.rpartition("/")[2])
            parameter.value.write(filling.fill(random, parameter.shape, default))

    def _bind_output(self) -> Launch:
        batch, cells = len(self.input), self.cells
        after = self.device.view(self.states, self.rows * cells, (self.steps * self.rows, cells))
        if self.return_sequences:
            return self.device.gather(
                after, self.outward, self.output.reshape(batch * self.steps, cells)
            )
        start = self.steps * self.rows * cells
        return self.device.copy(self.device.view(self.states, start, (batch, cells)), self.output)

    def flat(self, array: Array, first: int = 0, last: int | None = None) -> Array:
        """Return the steps from ``first`` to before ``last`` as a matrix, one row a sample."""
        steps, rows, columns = array.shape
        count = (steps if last is None else last) - first
        return self.device.view(array, first * rows * columns, (count * rows, columns))

    @property
    def is_masked(self) -> bool:
        """Whether sequences may end early."""
        return self.has_input("minibatch_lengths")

    @property
    def entering(self) -> Inputs:
        """What enters the steps."""
        assert self.weights is not None
        values = self.sequence.reshape(self.steps, self.rows, self.sequence.shape[1])
        return Inputs(values, self.weights.value)

    @property
    def sizes(self) -> Sizes:
        """What the steps are made for."""
        kind, every = self.states.dtype, self.return_sequences
        return Sizes(self.steps, self.rows, self.cells, kind, self.is_masked, every)

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
    def bind_steps(self) -> Launch:
        """Bind what makes the deltas of all steps, from the last one on, of ``errors`` and U."""

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

    def prepare(self) -> None:
        """Bind the steps, the gradients and the updates."""
        self._launches: list[Launch] = [self._bind_errors(), self.bind_steps()]
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
        forward, flat = self.forward, self.forward.flat
        assert forward.weights is not None
        assert forward.bias is not None
        before = flat(forward.states, 0, forward.steps)
        entered: list[tuple[Array | None, Parameter]] = [
            (forward.sequence, forward.weights), (None, forward.bias),
        ]  # fmt: skip
        fed_back: list[tuple[Array | None, Parameter]] = [(before, forward.recurrent)]
        if forward.recurrent_bias is not None:
            fed_back.append((None, forward.recurrent_bias))
        groups = [(self.deltas, entered), (self.recurrent_deltas, fed_back)]
        if self.recurrent_deltas is self.deltas:
            groups = [(self.deltas, fed_back + entered)]
        return [
            self.device.joint_products(
                flat(deltas), [one for one, _ in pairs], [one.gradient for _, one in pairs]
            )
            for deltas, pairs in groups
        ]

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

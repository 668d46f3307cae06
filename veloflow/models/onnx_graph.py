"""A small builder of ONNX graphs, which the nodes of units are written with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.devices.expressions import Apply, Const, Element, Expression, Index, walk
from veloflow.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from veloflow.core import Unit
    from veloflow.devices.parameters import Parameter
    from veloflow.units.activation import Activation

__all__ = ["OPSET", "OnnxGraph"]

#: the version of the operators that files are written for: ONNX 1.15, of October 2023
OPSET = 20

#: operations of formulas that one node says; the others are in :meth:`OnnxGraph.formula`
_NODES = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow",
    "maximum": "Max", "minimum": "Min", "negative": "Neg", "absolute": "Abs", "sign": "Sign",
    "exp": "Exp", "log": "Log", "tanh": "Tanh", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos",
    "floor": "Floor",
}  # fmt: skip
#: activations that ONNX has by name
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus"}
_COMPARISONS = {
    "less": ("Less", False), "less_equal": ("LessOrEqual", False),
    "equal": ("Equal", False), "not_equal": ("Equal", True),
}  # fmt: skip


class OnnxGraph:
    """An ONNX graph that grows node by node. Tensors are known by their names, which are strings.

    Args:
        dtype: of activations and parameters.

    Attributes:
        dtype: the same.
        outputs: (unit, attribute) -> the tensor that holds it.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.outputs: dict[tuple[Unit, str], str] = {}
        self.nodes: list[tuple[str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = []
        self.initializers: dict[str, NDArray[Any]] = {}
        self._channels_first: dict[str, str] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._prefix = ""
        self._count = 0

    # -- what nodes of units are made of ------------------------------------------------------

    def input(self, unit: Unit, name: str = "input") -> str:
        """Return the tensor that the unit's input reads.

        Raises:
            GraphError: nobody has said how that becomes a tensor.
        """
        link = unit.data_links[name]
        found = self.outputs.get((link.source, link.attribute))
        if found is None:
            raise GraphError(
                f"unit {unit.path!r}: its input {name!r} is {link.source.path!r}.{link.attribute}, "
                "for which there is no ONNX tensor"
            )
        return found

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node of the operator ``kind`` and return its (first) output."""
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node of the operator ``kind`` and return all its outputs."""
        self._count += 1
        name = f"{self._prefix}{kind}_{self._count}"
        results = tuple(f"{name}_{n}" if n else name for n in range(outputs))
        self.nodes.append((kind, name, inputs, results, attributes))
        return results

    def constant(self, values: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Return a tensor with these values, by default of the graph's dtype."""
        array = np.ascontiguousarray(values, self.dtype if dtype is None else dtype)
        array = array.reshape(np.shape(values))  # a scalar stays one
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.initializers[self._constants[key]] = array
        return self._constants[key]

    def parameter(self, parameter: Parameter, values: NDArray[Any] | None = None) -> str:
        """Return the tensor of a unit's parameter; ``values`` may have another layout."""
        array = np.array(parameter.value.read()) if values is None else values
        name = parameter.name if parameter.name not in self.initializers else ""
        if not name:
            return self.constant(array)
        self.initializers[name] = np.ascontiguousarray(array, self.dtype)
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Return ``x`` with another shape, in which one size may be -1 and 0 keeps a size."""
        return self.op("Reshape", x, self.constant(list(shape), "int64"))

    def flat(self, x: str) -> str:
        """Return ``x`` as a matrix of (batch, all the rest)."""
        return self.op("Flatten", x, axis=1)

    def cast(self, x: str, dtype: DTypeLike) -> str:
        """Return ``x`` in another dtype."""
        return self.op("Cast", x, to=np.dtype(dtype))

    def channels_first(self, x: str) -> str:
        """Return images (batch, height, width, channels) as (batch, channels, height, width)."""
        if x not in self._channels_first:
            self._channels_first[x] = self.op("Transpose", x, perm=[0, 3, 1, 2])
        return self._channels_first[x]

    def channels_last(self, x: str) -> str:
        """Return images (batch, channels, height, width) as (batch, height, width, channels)."""
        result = self.op("Transpose", x, perm=[0, 2, 3, 1])
        self._channels_first[result] = x  # so no node turns it back; what is not read goes
        return result

    def activation(self, activation: Activation, x: str, shape: Sequence[int]) -> str:
        """Return f(x) for x of (batch, *shape), of the same shape."""
        formula = activation.formula
        if formula is None:
            return x
        if activation.name in _ACTIVATIONS:
            return self.op(_ACTIVATIONS[activation.name], x)
        if not any(isinstance(node, Index) for node in walk(formula)):
            return self.formula(formula, x=x)
        y = self.formula(formula, columns=math.prod(shape), x=self.flat(x))
        return self.reshape(y, (0, *shape))

    def formula(self, formula: Expression, *, columns: int = 0, **elements: str) -> str:
        """Return a formula of elements, computed by the operators that it is made of.

        Args:
            formula: as devices compute it.
            columns: of the elements, matrices, if the formula asks for their number: ``index(1)``.
            **elements: the tensors, by the names that the formula has for them.

        Raises:
            GraphError: the formula asks for rows' numbers, or for numbers given at each launch.
        """
        found: dict[Expression, str] = {}
        for node in walk(formula):
            match node:
                case Const(value):
                    found[node] = self.constant(value)
                case Element(name):
                    found[node] = elements[name]
                case Index(1) if columns:
                    found[node] = self.constant(np.arange(columns))
                case Apply(operation, operands):
                    found[node] = self._apply(operation, [found[one] for one in operands])
                case _:
                    raise GraphError(f"a formula with {node} is none that ONNX can express")
        return found[formula]

    def _apply(self, operation: str, operands: list[str]) -> str:
        if operation in _NODES:
            return self.op(_NODES[operation], *operands)
        if operation in _COMPARISONS:
            kind, is_negated = _COMPARISONS[operation]
            result = self.op(kind, *operands)
            return self.cast(self.op("Not", result) if is_negated else result, self.dtype)
        if operation == "log1p":  # what ONNX has not, it loses digits of small x that 1 + x rounds
            return self.op("Log", self.op("Add", operands[0], self.constant(1.0)))
        if operation == "where":
            condition = self.op("Not", self.op("Equal", operands[0], self.constant(0.0)))
            return self.op("Where", condition, *operands[1:])
        raise GraphError(f"ONNX has no operator for {operation!r} in a formula")

    # -- what the export does -----------------------------------------------------------------

    def begin(self, unit: Unit) -> None:
        """Name the nodes that follow after ``unit``."""
        self._prefix = f"{unit.path}/"

    def used(self, results: Sequence[str]) -> None:
        """Take nodes and values out that none of ``results`` needs."""
        needed, kept = set(results), []
        for node in reversed(self.nodes):
            if needed.intersection(node[3]):
                kept.append(node)
                needed.update(node[2])
        self.nodes = kept[::-1]
        self.initializers = {k: v for k, v in self.initializers.items() if k in needed}

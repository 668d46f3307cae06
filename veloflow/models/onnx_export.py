"""ONNX files of trained models: raw samples in, outputs out, the normalization included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import veloflow
import veloflow.models.onnx_layers
import veloflow.models.onnx_maps
import veloflow.models.onnx_sequences
from veloflow.errors import RunError
from veloflow.models.onnx_graph import OPSET, OnnxGraph
from veloflow.models.onnx_nodes import add_normalizer, add_unit
from veloflow.runtime.storage.files import write_atomically
from veloflow.units.extras import needs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.models.inference import InferenceGraph

__all__ = ["compare", "export_onnx"]

#: what onnxruntime and the inference graph may differ by
TOLERANCE = 1e-5


def export_onnx(model: InferenceGraph, path: str | Path) -> Path:
    """Write a trained model as an ONNX file (IR 9, opset 20), checked by ONNX's own checker.

    Its input ``input`` is (batch, *sample shape), raw samples of the run's dtype (int32 where the
    loader gives whole numbers); its output ``output`` is (batch, *output shape). A classifier's
    metadata has the ``labels`` in the order of the columns, as JSON. Where layers look at the
    lengths of sequences there is another input, ``lengths``, int32 (batch,). The file of a
    self-organizing map gives the ``winners`` as well, int32 (batch,).

    Raises:
        GraphError: a unit has no form in ONNX; the message names it.
        InputError: the package ``onnx`` is missing.
        StorageError: the file cannot be written; an older one is untouched.
    """
    onnx = needs("onnx", "onnx", "to export a model")
    graph = OnnxGraph(model.checkpoint.settings["dtype"])
    dtype = np.dtype(model.loader.sample_dtype or graph.dtype)
    x = add_normalizer(model.loader.normalizer, graph, "input", model.sample_shape)
    graph.outputs[model.feed, "minibatch_data"] = x
    graph.outputs[model.feed, "minibatch_lengths"] = "lengths"
    for unit in model.units:
        add_unit(unit, graph)
    result = graph.outputs[model.output_name]
    graph.nodes.append(("Identity", "output", (result,), ("output",), {}))
    names = ["output"]
    winners = graph.outputs.get((model.output_name[0], "winners"))
    if winners is not None:
        graph.nodes.append(("Identity", "winners", (winners,), ("winners",), {}))
        names.append("winners")
    graph.used(names)
    proto = _model(onnx, graph, model, dtype)
    onnx.checker.check_model(proto, full_check=True)
    path = Path(path)
    write_atomically(path, [proto.SerializeToString()])
    return path


def _model(onnx: Any, graph: OnnxGraph, model: InferenceGraph, dtype: np.dtype[Any]) -> Any:
    helper = onnx.helper

    def tensor(name: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(kind), ["batch", *shape]
        )

    nodes = [
        helper.make_node(
            kind, inputs, outputs, name=name,
            **{key: _attribute(helper, value) for key, value in attributes.items()},
        )
        for kind, name, inputs, outputs, attributes in graph.nodes
    ]  # fmt: skip
    inputs = [tensor("input", dtype, model.sample_shape)]
    if any("lengths" in node[2] for node in graph.nodes):
        inputs.append(tensor("lengths", np.dtype("int32"), ()))
    outputs = [tensor("output", graph.dtype, model.output.shape[1:])]
    if any(node[1] == "winners" for node in graph.nodes):
        outputs.append(tensor("winners", np.dtype("int32"), ()))
    made = helper.make_graph(
        nodes,
        model.checkpoint.workflow,
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.initializers.items()],
    )
    proto = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,  # of the same release as the opset
        producer_name="veloflow",
        producer_version=veloflow.__version__,
    )
    about = {"workflow": model.checkpoint.workflow}
    if model.classifies:
        about["labels"] = json.dumps(model.labels)
    helper.set_model_props(proto, about)
    return proto


def _attribute(helper: Any, value: Any) -> Any:
    is_dtype = isinstance(value, np.dtype)
    return helper.np_dtype_to_tensor_dtype(value) if is_dtype else value


def compare(model: InferenceGraph, path: str | Path, raw: NDArray[Any]) -> float:
    """Return the largest difference between the file in onnxruntime and the model, on raw samples.

    Differences are relative where outputs are larger than 1.

    Raises:
        RunError: it is more than 1e-5.
        DataError: the samples have another shape than the model takes, or hold NaN.
        InputError: the package ``onnxruntime`` is missing.
    """
    runtime = needs("onnxruntime", "onnx", "to check an ONNX file")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtype = model.loader.sample_dtype or model.checkpoint.settings["dtype"]
    prepared = model.prepared(raw)
    given = raw.reshape(len(raw), *model.sample_shape).astype(dtype)
    feeds = {"input": given}
    if len(session.get_inputs()) > 1:
        feeds["lengths"] = model.loader.lengths_of(prepared)
    (found,) = session.run(["output"], feeds)
    expected = model.run(raw)
    difference = np.abs(found.astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
    largest = float(difference.max(initial=0.0))
    if not largest <= TOLERANCE:
        raise RunError(f"{path} gives outputs that differ by {largest:.2g} from the model's own")
    return largest

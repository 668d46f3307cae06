"""Trained models in use: inference graphs, predictions, ONNX files. Training is not needed here."""

from veloflow.models.inference import InferenceGraph, open_model
from veloflow.models.onnx_export import export_onnx
from veloflow.models.onnx_graph import OnnxGraph
from veloflow.models.onnx_nodes import has_onnx_node, onnx_node
from veloflow.models.prediction import predict

__all__ = [
    "InferenceGraph",
    "OnnxGraph",
    "export_onnx",
    "has_onnx_node",
    "onnx_node",
    "open_model",
    "predict",
]

"""The library of units, imported as veloflow.units: loaders, layers, gradient descent, decision."""

if __name__ == "units":
    raise ImportError(
        "this folder is imported as 'veloflow.units': as plain 'units' each module would load "
        "twice under two names; write 'from veloflow.units import ...'"
    )

from veloflow.units.all2all import (
    All2All,
    All2AllLinear,
    All2AllReLU,
    All2AllSigmoid,
    All2AllSoftmax,
    All2AllSoftplus,
    All2AllTanh,
    GDLinear,
    GDReLU,
    GDSigmoid,
    GDSoftmax,
    GDSoftplus,
    GDTanh,
    GradientDescent,
)
from veloflow.units.datasets import DigitsLoader, WineLoader
from veloflow.units.decision import Decision, DecisionGD, DecisionMSE
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.evaluator import Evaluator, EvaluatorMSE, EvaluatorSoftmax
from veloflow.units.filling import Constant, Filling, Gaussian, Uniform
from veloflow.units.forward import Forward
from veloflow.units.fullbatch import ArrayLoader, FullBatchLoader, Samples
from veloflow.units.gradient import GradientUnit
from veloflow.units.idx import IDXLoader, read_idx
from veloflow.units.images import ImageFolderLoader
from veloflow.units.loader import Loader
from veloflow.units.normalization import Normalizer, normalizer_of
from veloflow.units.stream import StreamLoader
from veloflow.units.table import TableLoader

__all__ = [
    "All2All",
    "All2AllLinear",
    "All2AllReLU",
    "All2AllSigmoid",
    "All2AllSoftmax",
    "All2AllSoftplus",
    "All2AllTanh",
    "ArrayLoader",
    "Constant",
    "Decision",
    "DecisionGD",
    "DecisionMSE",
    "DeviceUnit",
    "DigitsLoader",
    "Evaluator",
    "EvaluatorMSE",
    "EvaluatorSoftmax",
    "Filling",
    "Forward",
    "FullBatchLoader",
    "GDLinear",
    "GDReLU",
    "GDSigmoid",
    "GDSoftmax",
    "GDSoftplus",
    "GDTanh",
    "Gaussian",
    "GradientDescent",
    "GradientUnit",
    "IDXLoader",
    "ImageFolderLoader",
    "Loader",
    "Normalizer",
    "Samples",
    "StreamLoader",
    "TableLoader",
    "Uniform",
    "WineLoader",
    "normalizer_of",
    "read_idx",
]

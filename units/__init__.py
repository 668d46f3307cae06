"""The library of units, imported as veloflow.units: loaders, layers, gradient descent, decision."""

if __name__ == "units":
    raise ImportError(
        "this folder is imported as 'veloflow.units': as plain 'units' each module would load "
        "twice under two names; write 'from veloflow.units import ...'"
    )

from veloflow.units.activation import Activation, leaky_relu
from veloflow.units.activation_layer import Activate, GDActivate, GDMul, Mul, activation, mul
from veloflow.units.all2all import (
    All2All,
    All2AllLinear,
    All2AllReLU,
    All2AllSigmoid,
    All2AllSoftmax,
    All2AllSoftplus,
    All2AllTanh,
    Dense,
    GDDense,
    GDLinear,
    GDReLU,
    GDSigmoid,
    GDSoftmax,
    GDSoftplus,
    GDTanh,
    GradientDescent,
    dense,
    linear,
    relu,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from veloflow.units.checkpoint import Checkpoint
from veloflow.units.convolution import (
    Conv,
    ConvLinear,
    ConvReLU,
    ConvSigmoid,
    ConvSoftplus,
    ConvTanh,
    GDConv,
    GDConvLinear,
    GDConvReLU,
    GDConvSigmoid,
    GDConvSoftplus,
    GDConvTanh,
    conv,
)
from veloflow.units.datasets import DigitsLoader, WineLoader, digits
from veloflow.units.decision import Decision, DecisionGD, DecisionMSE
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.dropout import Dropout, GDDropout, dropout
from veloflow.units.evaluator import Evaluator, EvaluatorMSE, EvaluatorSoftmax
from veloflow.units.farm_map import FarmMap
from veloflow.units.filling import (
    Constant,
    FanIn,
    Filling,
    Gabor,
    Gaussian,
    Glorot,
    He,
    Orthogonal,
    Uniform,
)
from veloflow.units.forward import Forward
from veloflow.units.fullbatch import ArrayLoader, FullBatchLoader, Samples
from veloflow.units.gradient import Backward, GradientUnit
from veloflow.units.idx import IDXLoader, read_idx
from veloflow.units.images import ImageFolderLoader
from veloflow.units.joining import (
    Concat,
    ErrorSum,
    GDConcat,
    GDJoin,
    GDProduct,
    GDSum,
    Join,
    Product,
    Sum,
    parallel,
    residual,
)
from veloflow.units.layer import Branches, Layer
from veloflow.units.learning_rate import (
    ArbitraryStep,
    Cosine,
    Exp,
    Fixed,
    Inv,
    LearningRateAdjust,
    Policy,
    StepExp,
    WarmUp,
)
from veloflow.units.loader import Loader
from veloflow.units.normalization import Normalizer, normalizer_of
from veloflow.units.pooling import (
    AvgPooling,
    GDAvgPooling,
    GDMaxPooling,
    GDPooling,
    MaxPooling,
    Pooling,
    avg_pool,
    max_pool,
)
from veloflow.units.recurrent import (
    GDGRU,
    GDLSTM,
    GDRNN,
    GRU,
    LSTM,
    RNN,
    GDRecurrent,
    Recurrent,
    gru,
    lstm,
    rnn,
)
from veloflow.units.rollback import (
    OnPlateau,
    Rollback,
)
from veloflow.units.solvers import (
    AdaDelta,
    AdaGrad,
    Adam,
    AdamW,
    Hyperparameters,
    Momentum,
    Nesterov,
    RMSprop,
    Rprop,
    Solver,
)
from veloflow.units.splitting import GDSlice, GDSplit, Slice, Split, channels
from veloflow.units.standard import StandardUnits, standard_workflow
from veloflow.units.stream import StreamLoader
from veloflow.units.table import TableLoader

__all__ = [
    "GDGRU",
    "GDLSTM",
    "GDRNN",
    "GRU",
    "LSTM",
    "RNN",
    "Activate",
    "Activation",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "All2All",
    "All2AllLinear",
    "All2AllReLU",
    "All2AllSigmoid",
    "All2AllSoftmax",
    "All2AllSoftplus",
    "All2AllTanh",
    "ArbitraryStep",
    "ArrayLoader",
    "AvgPooling",
    "Backward",
    "Branches",
    "Checkpoint",
    "Concat",
    "Constant",
    "Conv",
    "ConvLinear",
    "ConvReLU",
    "ConvSigmoid",
    "ConvSoftplus",
    "ConvTanh",
    "Cosine",
    "Decision",
    "DecisionGD",
    "DecisionMSE",
    "Dense",
    "DeviceUnit",
    "DigitsLoader",
    "Dropout",
    "ErrorSum",
    "Evaluator",
    "EvaluatorMSE",
    "EvaluatorSoftmax",
    "Exp",
    "FanIn",
    "FarmMap",
    "Filling",
    "Fixed",
    "Forward",
    "FullBatchLoader",
    "GDActivate",
    "GDAvgPooling",
    "GDConcat",
    "GDConv",
    "GDConvLinear",
    "GDConvReLU",
    "GDConvSigmoid",
    "GDConvSoftplus",
    "GDConvTanh",
    "GDDense",
    "GDDropout",
    "GDJoin",
    "GDLinear",
    "GDMaxPooling",
    "GDMul",
    "GDPooling",
    "GDProduct",
    "GDReLU",
    "GDRecurrent",
    "GDSigmoid",
    "GDSlice",
    "GDSoftmax",
    "GDSoftplus",
    "GDSplit",
    "GDSum",
    "GDTanh",
    "Gabor",
    "Gaussian",
    "Glorot",
    "GradientDescent",
    "GradientUnit",
    "He",
    "Hyperparameters",
    "IDXLoader",
    "ImageFolderLoader",
    "Inv",
    "Join",
    "Layer",
    "LearningRateAdjust",
    "Loader",
    "MaxPooling",
    "Momentum",
    "Mul",
    "Nesterov",
    "Normalizer",
    "OnPlateau",
    "Orthogonal",
    "Policy",
    "Pooling",
    "Product",
    "RMSprop",
    "Recurrent",
    "Rollback",
    "Rprop",
    "Samples",
    "Slice",
    "Solver",
    "Split",
    "StandardUnits",
    "StepExp",
    "StreamLoader",
    "Sum",
    "TableLoader",
    "Uniform",
    "WarmUp",
    "WineLoader",
    "activation",
    "avg_pool",
    "channels",
    "conv",
    "dense",
    "digits",
    "dropout",
    "gru",
    "leaky_relu",
    "linear",
    "lstm",
    "max_pool",
    "mul",
    "normalizer_of",
    "parallel",
    "read_idx",
    "relu",
    "residual",
    "rnn",
    "sigmoid",
    "softmax",
    "softplus",
    "standard_workflow",
    "tanh",
]


def __getattr__(name: str) -> object:
    """Find a unit that another package adds through the entry-point group ``veloflow.units``."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="veloflow.units", name=name):
        found: object = entry.load()
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

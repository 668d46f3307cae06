"""The library of units, imported as veloflow.units: loaders, layers, gradient descent, decision.

The names below are loaded when first used: a definition, and each slave that runs it, waits for
those units alone that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ == "units":
    raise ImportError(
        "this folder is imported as 'veloflow.units': as plain 'units' each module would load "
        "twice under two names; write 'from veloflow.units import ...'"
    )

from veloflow.late import late_names, names_for_checkers

if TYPE_CHECKING:
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
    from veloflow.units.array_files import ArrayFileLoader
    from veloflow.units.attention import GDSelfAttention, SelfAttention, attention
    from veloflow.units.augmentation import Augmentation
    from veloflow.units.batch_norm import BatchNorm, GDBatchNorm, batch_norm
    from veloflow.units.checkpoint import Checkpoint
    from veloflow.units.convolution import (
        Conv,
        ConvLinear,
        Convolution,
        ConvReLU,
        ConvSigmoid,
        ConvSoftplus,
        ConvTanh,
        GDConv,
        GDConvLinear,
        GDConvolution,
        GDConvReLU,
        GDConvSigmoid,
        GDConvSoftplus,
        GDConvTanh,
        conv,
    )
    from veloflow.units.cutter import Cutter, GDCutter, cut
    from veloflow.units.datasets import (
        BreastCancerLoader,
        DigitsLoader,
        WineLoader,
        digits,
    )
    from veloflow.units.decision import Decision, DecisionGD, DecisionMSE
    from veloflow.units.deconvolution import Deconv, GDDeconv, deconv
    from veloflow.units.depooling import Depooling, GDDepooling, depool
    from veloflow.units.device_unit import DeviceUnit
    from veloflow.units.download import download, unpack
    from veloflow.units.dropout import Dropout, GDDropout, dropout
    from veloflow.units.embedding import (
        Embedding,
        GDEmbedding,
        GDMeanOverTime,
        GDPositionalEncoding,
        MeanOverTime,
        PositionalEncoding,
        embedding,
        mean_over_time,
        positional_encoding,
    )
    from veloflow.units.evaluator import (
        Evaluator,
        EvaluatorMSE,
        EvaluatorMultiLabel,
        EvaluatorSoftmax,
    )
    from veloflow.units.farm_map import FarmMap
    from veloflow.units.files import FileLoader
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
    from veloflow.units.image_saver import ImageSaver
    from veloflow.units.images import ImageFolderLoader, ImageListLoader, ImageLoader
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
    from veloflow.units.kohonen import Kohonen, KohonenTrainer, KohonenUnits, kohonen_workflow
    from veloflow.units.kohonen_decision import DecisionKohonen, EvaluatorKohonen
    from veloflow.units.layer import Branches, Layer
    from veloflow.units.layer_norm import GDLayerNorm, LayerNorm, layer_norm
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
    from veloflow.units.local_response import GDLocalResponse, LocalResponse, lrn
    from veloflow.units.metrics import (
        AUC,
        F1,
        R2,
        Accuracy,
        MeanAbsoluteError,
        Metric,
        TopKError,
    )
    from veloflow.units.normalization import Normalizer, RangeLinear, normalizer_of
    from veloflow.units.observing import Observer
    from veloflow.units.picking import (
        GDPicking,
        MaxAbsPooling,
        Picking,
        StochasticAbsPooling,
        StochasticPooling,
        max_abs_pool,
        stochastic_abs_pool,
        stochastic_pool,
    )
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
    from veloflow.units.rbm import RBM, GDContrastive, rbm
    from veloflow.units.recurrence import GDRecurrent, Recurrent
    from veloflow.units.recurrent import GDGRU, GDLSTM, GDRNN, GRU, LSTM, RNN, gru, lstm, rnn
    from veloflow.units.rollback import (
        EpochWatcher,
        OnPlateau,
        Rollback,
    )
    from veloflow.units.sequences import DatasetLoader
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
    from veloflow.units.sound import SoundLoader
    from veloflow.units.splitting import GDSlice, GDSplit, Slice, Split, channels
    from veloflow.units.standard import StandardUnits, standard_workflow
    from veloflow.units.statistics import (
        Accumulator,
        Histogram,
        ParameterStatistics,
        similar_kernels,
    )
    from veloflow.units.stream import StreamLoader
    from veloflow.units.table import TableLoader
    from veloflow.units.text import TextLoader, Vocabulary
    from veloflow.units.tied import GDTied, GDTiedConv, Tied, TiedConv, tied, tied_conv
    from veloflow.units.topology import (
        topology,
    )
    from veloflow.units.zero_filter import GDZeroFilter, ZeroFilter, zero_filter

__all__ = [
    "AUC",
    "F1",
    "GDGRU",
    "GDLSTM",
    "GDRNN",
    "GRU",
    "LSTM",
    "R2",
    "RBM",
    "RNN",
    "Accumulator",
    "Accuracy",
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
    "ArrayFileLoader",
    "ArrayLoader",
    "Augmentation",
    "AvgPooling",
    "Backward",
    "BatchNorm",
    "Branches",
    "BreastCancerLoader",
    "Checkpoint",
    "Concat",
    "Constant",
    "Conv",
    "ConvLinear",
    "ConvReLU",
    "ConvSigmoid",
    "ConvSoftplus",
    "ConvTanh",
    "Convolution",
    "Cosine",
    "Cutter",
    "DatasetLoader",
    "Decision",
    "DecisionGD",
    "DecisionKohonen",
    "DecisionMSE",
    "Deconv",
    "Dense",
    "Depooling",
    "DeviceUnit",
    "DigitsLoader",
    "Dropout",
    "Embedding",
    "EpochWatcher",
    "ErrorSum",
    "Evaluator",
    "EvaluatorKohonen",
    "EvaluatorMSE",
    "EvaluatorMultiLabel",
    "EvaluatorSoftmax",
    "Exp",
    "FanIn",
    "FarmMap",
    "FileLoader",
    "Filling",
    "Fixed",
    "Forward",
    "FullBatchLoader",
    "GDActivate",
    "GDAvgPooling",
    "GDBatchNorm",
    "GDConcat",
    "GDContrastive",
    "GDConv",
    "GDConvLinear",
    "GDConvReLU",
    "GDConvSigmoid",
    "GDConvSoftplus",
    "GDConvTanh",
    "GDConvolution",
    "GDCutter",
    "GDDeconv",
    "GDDense",
    "GDDepooling",
    "GDDropout",
    "GDEmbedding",
    "GDJoin",
    "GDLayerNorm",
    "GDLinear",
    "GDLocalResponse",
    "GDMaxPooling",
    "GDMeanOverTime",
    "GDMul",
    "GDPicking",
    "GDPooling",
    "GDPositionalEncoding",
    "GDProduct",
    "GDReLU",
    "GDRecurrent",
    "GDSelfAttention",
    "GDSigmoid",
    "GDSlice",
    "GDSoftmax",
    "GDSoftplus",
    "GDSplit",
    "GDSum",
    "GDTanh",
    "GDTied",
    "GDTiedConv",
    "GDZeroFilter",
    "Gabor",
    "Gaussian",
    "Glorot",
    "GradientDescent",
    "GradientUnit",
    "He",
    "Histogram",
    "Hyperparameters",
    "IDXLoader",
    "ImageFolderLoader",
    "ImageListLoader",
    "ImageLoader",
    "ImageSaver",
    "Inv",
    "Join",
    "Kohonen",
    "KohonenTrainer",
    "KohonenUnits",
    "Layer",
    "LayerNorm",
    "LearningRateAdjust",
    "Loader",
    "LocalResponse",
    "MaxAbsPooling",
    "MaxPooling",
    "MeanAbsoluteError",
    "MeanOverTime",
    "Metric",
    "Momentum",
    "Mul",
    "Nesterov",
    "Normalizer",
    "Observer",
    "OnPlateau",
    "Orthogonal",
    "ParameterStatistics",
    "Picking",
    "Policy",
    "Pooling",
    "PositionalEncoding",
    "Product",
    "RMSprop",
    "RangeLinear",
    "Recurrent",
    "Rollback",
    "Rprop",
    "Samples",
    "SelfAttention",
    "Slice",
    "Solver",
    "SoundLoader",
    "Split",
    "StandardUnits",
    "StepExp",
    "StochasticAbsPooling",
    "StochasticPooling",
    "StreamLoader",
    "Sum",
    "TableLoader",
    "TextLoader",
    "Tied",
    "TiedConv",
    "TopKError",
    "Uniform",
    "Vocabulary",
    "WarmUp",
    "WineLoader",
    "ZeroFilter",
    "activation",
    "attention",
    "avg_pool",
    "batch_norm",
    "channels",
    "conv",
    "cut",
    "deconv",
    "dense",
    "depool",
    "digits",
    "download",
    "dropout",
    "embedding",
    "gru",
    "kohonen_workflow",
    "layer_norm",
    "leaky_relu",
    "linear",
    "lrn",
    "lstm",
    "max_abs_pool",
    "max_pool",
    "mean_over_time",
    "mul",
    "normalizer_of",
    "parallel",
    "positional_encoding",
    "rbm",
    "read_idx",
    "relu",
    "residual",
    "rnn",
    "sigmoid",
    "similar_kernels",
    "softmax",
    "softplus",
    "standard_workflow",
    "stochastic_abs_pool",
    "stochastic_pool",
    "tanh",
    "tied",
    "tied_conv",
    "topology",
    "unpack",
    "zero_filter",
]


_own = late_names(__name__, names_for_checkers(__file__))


def __getattr__(name: str) -> object:
    """Load a unit, or find one that another package adds: entry-point group ``veloflow.units``."""
    if name in __all__:
        return _own(name)
    from importlib.metadata import entry_points

    for entry in entry_points(group="veloflow.units", name=name):
        found: object = entry.load()
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

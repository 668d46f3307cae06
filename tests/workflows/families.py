"""A small workflow of every family of units, for tests that run each of them on slaves.

A family is a function that fills an empty workflow in; it trains for two epochs in well under a
second. Slaves import this file by its path, so it needs nothing but veloflow.
"""

from collections.abc import Callable

from veloflow import Workflow
from veloflow.units import (
    AUC,
    Adam,
    ArrayLoader,
    Cosine,
    Layer,
    Rollback,
    TopKError,
    activation,
    attention,
    avg_pool,
    batch_norm,
    channels,
    conv,
    cut,
    deconv,
    dense,
    depool,
    digits,
    embedding,
    gru,
    kohonen_workflow,
    layer_norm,
    lrn,
    lstm,
    max_abs_pool,
    mean_over_time,
    mul,
    parallel,
    positional_encoding,
    rbm,
    residual,
    rnn,
    softmax,
    standard_workflow,
    stochastic_abs_pool,
    stochastic_pool,
    tanh,
    tied,
    tied_conv,
    zero_filter,
)

__all__ = ["FAMILIES", "build"]


def _images(wf: Workflow) -> ArrayLoader:
    """Return a loader of some digits as images of 8 x 8 pixels, a few of them for validation."""
    data, labels = digits()
    data = data[:360].reshape(-1, 8, 8, 1)
    return ArrayLoader(wf, data[60:], labels[60:360], validation=(data[:60], labels[:60]),
                       minibatch_size=60)  # fmt: skip


def _trained(wf: Workflow, layers: list[Layer], **more: object) -> None:
    rates = {"learning_rate": 0.05, "gradient_moment": 0.9, "max_epochs": 2, **more}
    standard_workflow(wf, loader=_images(wf), layers=layers, **rates)


def branches(wf: Workflow) -> None:
    """Sums, products, concatenation, slices."""
    same = conv(4, 3, "tanh", padding=1)
    _trained(wf, [same, residual(same), parallel([same], [conv(4, 1, "sigmoid")], join="product"),
                  parallel([channels(0, 2), conv(3, 1)], []), softmax(10)])  # fmt: skip


def convolutions(wf: Workflow) -> None:
    """Groups of channels, strides, uneven padding, and transposed convolutions with them."""
    _trained(wf, [conv(4, 3, "tanh", padding=1, stride=2), conv(6, (2, 3), "relu", groups=2),
                  deconv(4, 3, "sigmoid", stride=2, groups=2), deconv(2, 2),
                  softmax(10)])  # fmt: skip


def activations(wf: Workflow) -> None:
    """A factor that is taken from the first minibatch, and activations alone and in layers."""
    _trained(wf, [mul(), dense(20, "gelu"), dense(20, "linear"), activation("tanhlog"), mul(),
                  dense(20, "silu"), activation("sincos"), softmax(10)])  # fmt: skip


def normalizing(wf: Workflow) -> None:
    """Batch, layer and local response normalisation."""
    _trained(wf, [conv(6, 3, "linear"), batch_norm(), activation("relu"), lrn(n=3), avg_pool(2),
                  dense(20, "linear"), batch_norm(), layer_norm(), softmax(10)])  # fmt: skip


def picking(wf: Workflow) -> None:
    """Stochastic pooling, depooling, cutting."""
    _trained(wf, [conv(4, 3, "tanh", padding=1), stochastic_pool(3, 2, name="stochastic"),
                  conv(4, 2), max_abs_pool(2), softmax(10)])  # fmt: skip


def sharing(wf: Workflow) -> None:
    """Weights that two layers use, and masked ones."""
    _trained(wf, [tanh(16, name="a"), zero_filter(2), tanh(16, name="b"), tanh(16, shares="b"),
                  softmax(10)])  # fmt: skip


def autoencoder(wf: Workflow) -> None:
    """Tied weights; images go through pooling by chance and back."""
    layers = [conv(1, 3, "tanh", padding=1), cut(1),
              stochastic_abs_pool(3, 2, name="pool", picks_always=True), depool("pool"),
              tanh(16, name="encoder"), tied("encoder"), dense((8, 8, 1))]  # fmt: skip
    _trained(wf, layers, loss="mse", target="minibatch_data", learning_rate=0.002)


def _sequences(wf: Workflow, *layers: Layer) -> None:
    """Train on rows of pixels as steps of time."""
    data, labels = digits()
    loader = ArrayLoader(wf, data[:120].reshape(-1, 8, 8), labels[:120],
                         validation=(data[120:150].reshape(-1, 8, 8), labels[120:150]),
                         minibatch_size=40)  # fmt: skip
    standard_workflow(wf, loader=loader, layers=[*layers, softmax(10)], learning_rate=0.1,
                      gradient_moment=0.9, max_epochs=2)  # fmt: skip


def convolutional_autoencoder(wf: Workflow) -> None:
    """Tied weights of a convolution; images go through pooling by chance and back."""
    layers = [conv(4, 3, "linear", name="encoder"),
              stochastic_abs_pool(3, 2, name="pool", picks_always=True), depool("pool"),
              tied_conv("encoder")]  # fmt: skip
    _trained(wf, layers, loss="mse", target="minibatch_data", learning_rate=1e-4)


def recurrent_rnn(wf: Workflow) -> None:
    """A plain recurrent layer."""
    _sequences(wf, rnn(9, "relu"))


def recurrent_lstm(wf: Workflow) -> None:
    """Two LSTM layers."""
    _sequences(wf, lstm(8, return_sequences=True), lstm(5))


def recurrent_gru(wf: Workflow) -> None:
    """Gated recurrent units."""
    _sequences(wf, gru(7))


def tokens(wf: Workflow) -> None:
    """Embedding, positions, attention, mean over time; samples that have weights."""
    data, labels = digits()
    loader = ArrayLoader(wf, (4 * data[:150] + 4).astype(int), labels[:150], minibatch_size=40,
                         validation_ratio=0.2, weights=data[:150, 20] + 2)  # fmt: skip
    layers = [embedding(9, 6, padding=0), positional_encoding(), attention(2, causal=True),
              mean_over_time(), softmax(10)]  # fmt: skip
    standard_workflow(wf, loader=loader, layers=layers, learning_rate=0.1, solver="adam",
                      max_epochs=2)  # fmt: skip


def machine(wf: Workflow) -> None:
    """A restricted Boltzmann machine."""
    _trained(wf, [rbm(6, k=2)], loss="mse", target="minibatch_data")


def batch_map(wf: Workflow) -> None:
    """A self-organizing map, moved once an epoch."""
    kohonen_workflow(wf, loader=_images(wf), shape=(3, 4), classes=10, max_epochs=2)


def online_map(wf: Workflow) -> None:
    """A self-organizing map, moved sample by sample."""
    kohonen_workflow(wf, loader=_images(wf), shape=(3, 4), rule="online", max_epochs=2)


def solvers(wf: Workflow) -> None:
    """Three solvers, clipping, limits, steps of two minibatches; metrics; back to the best."""
    layers = [tanh(16, solver=Adam(), gradient_moment=0, learning_rate=0.05, max_norm=1),
              tanh(12, solver_bias="rprop", gradient_moment_bias=0),
              softmax(10, solver="nesterov")]  # fmt: skip
    _trained(wf, layers, learning_rate=3.0, clip_norm=0.5, accumulate=2, policy=Cosine(20),
             metrics=[AUC(), TopKError(3)], label_smoothing=0.1, class_weights=[1, 2] * 5,
             watchers=[Rollback(wf, patience=1, minus=0.5)], monitor="auc")  # fmt: skip


FAMILIES: dict[str, Callable[[Workflow], None]] = {
    one.__name__: one
    for one in (
        branches,
        convolutions,
        activations,
        normalizing,
        picking,
        sharing,
        autoencoder,
        convolutional_autoencoder,
        recurrent_rnn,
        recurrent_lstm,
        recurrent_gru,
        tokens,
        machine,
        batch_map,
        online_map,
        solvers,
    )
}


def build(wf: Workflow, *, family: str) -> None:
    """Fill in the workflow of a family."""
    FAMILIES[family](wf)

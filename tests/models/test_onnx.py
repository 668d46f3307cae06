"""ONNX files: onnxruntime gives what the model gives, on real data, for every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import model_of

import veloflow.units
from veloflow.errors import GraphError, RunError
from veloflow.models import export_onnx, has_onnx_node, onnx_node
from veloflow.models.onnx_export import compare
from veloflow.units import (
    ArrayLoader,
    Forward,
    Layer,
    TextLoader,
    activation,
    attention,
    avg_pool,
    batch_norm,
    channels,
    conv,
    cut,
    depool,
    digits,
    dropout,
    embedding,
    gru,
    kohonen_workflow,
    layer_norm,
    linear,
    lrn,
    lstm,
    max_abs_pool,
    max_pool,
    mean_over_time,
    mul,
    parallel,
    positional_encoding,
    rbm,
    relu,
    residual,
    rnn,
    sigmoid,
    softmax,
    softplus,
    standard_workflow,
    stochastic_abs_pool,
    stochastic_pool,
    tanh,
    tied,
    tied_conv,
    zero_filter,
)
from veloflow.units.activation import ACTIVATIONS
from veloflow.units.gradient import Backward
from veloflow.units.normalization import ExternalMean

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

#: public forward units that ONNX cannot express, and why
NOT_IN_ONNX: dict[str, str] = {}


def network(wf, *, layers, normalization="none", shape=(64,), loss="softmax", target=None, **more):
    """Wire layers on the digits."""
    data, labels = digits()
    samples = (data * 8 + 8).reshape(-1, *shape)
    targets = None if target is None else samples.reshape(len(samples), -1)[:, :target] / 16
    loader = ArrayLoader(
        wf, samples, None if targets is not None else labels, targets=targets,
        minibatch_size=100, normalization=normalization, validation_ratio=0.2,
    )  # fmt: skip
    standard_workflow(
        wf, loader=loader, layers=layers, loss=loss, learning_rate=0.05, max_epochs=1, **more
    )


def exported(build, folder, *, runs=False):
    """Export, compare on the digits, and return the file's model."""
    with model_of(build, runs=runs) as model:
        path = export_onnx(model, folder / "model.onnx")
        samples = (digits()[0] * 8 + 8).astype(np.float32)
        assert compare(model, path, samples[:500]) <= 1e-5
    return onnx.load(path)


def named(function, **options):
    """Return a build function with its options given."""

    def build(wf):
        function(wf, **options)

    return build


DENSE = [tanh(20), sigmoid(15), dropout(0.5), relu(15), softplus((3, 4)), linear(9), softmax(10)]
IMAGES = [
    conv(4, 3, padding=1), max_pool(3, 2), conv(5, (2, 3), stride=(1, 2), activation="relu"),
    avg_pool(2), tanh(12), softmax(10),
]  # fmt: skip


def test_dense_layers(tmp_path):
    file = exported(named(network, layers=DENSE, normalization="pointwise"), tmp_path, runs=True)
    assert file.opset_import[0].version == 20
    assert {one.key: one.value for one in file.metadata_props}["labels"] == json.dumps([*range(10)])
    assert [one.name for one in file.graph.initializer if one.name.endswith("/weights")] == [
        "All2AllTanh/weights", "All2AllSigmoid/weights", "All2AllReLU/weights",
        "All2AllSoftplus/weights", "All2AllLinear/weights", "All2AllSoftmax/weights",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 2)])
def test_convolutions_and_pooling(tmp_path, shape):
    file = exported(named(network, layers=IMAGES, shape=shape), tmp_path)
    kinds = [node.op_type for node in file.graph.node]
    # channels go first once and last once: between layers nothing is turned
    assert kinds.count("Transpose") == (1 if len(shape) == 2 else 2)


@pytest.mark.parametrize("pool", [max_pool, max_abs_pool])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_depooling_goes_back_to_the_winners(tmp_path, pool, size, stride):
    for number, shape in enumerate([(8, 8), (4, 8, 2)]):
        layers = [conv(3, 2, padding=1), pool(size, stride, name="pool"), activation("tanh"),
                  depool("pool"), tanh(12), softmax(10)]  # fmt: skip
        if number:  # one channel, which is not written, and a pooling layer that comes first
            layers = [pool(size, stride, name="pool"), depool("pool"), softmax(10)]
        exported(named(network, layers=layers, shape=shape), tmp_path)


def test_depooling_by_chance_is_refused(tmp_path):
    layers = [stochastic_abs_pool(2, name="pool", picks_always=True), depool("pool"), softmax(10)]
    with pytest.raises(GraphError, match="unit 'pool' picks by chance in use too"):
        exported(named(network, layers=layers, shape=(8, 8)), tmp_path)


@pytest.mark.parametrize("normalization", ["none", "pointwise"])
def test_a_map_gives_winners_and_where_they_lie(tmp_path, normalization):
    data = (digits()[0] * 8 + 8).astype(np.float32)

    def build(wf):
        loader = ArrayLoader(wf, data, minibatch_size=100, normalization=normalization)
        kohonen_workflow(wf, loader=loader, shape=(4, 5), max_epochs=3)

    with model_of(build, runs=True) as model:
        path = export_onnx(model, tmp_path / "map.onnx")
        assert compare(model, path, data) <= 1e-5
        weights = np.array(model.units[-1].weights.value.read(), np.float64)
        x = model.prepared(data)
        expected = np.square(x[:, None] - weights[None]).sum(axis=2).argmin(axis=1)
    session = runtime.InferenceSession(str(path))
    assert [one.name for one in session.get_outputs()] == ["output", "winners"]
    output, winners = session.run(None, {"input": data})
    assert winners.dtype == np.int32
    assert np.count_nonzero(winners != expected) <= 1  # two may be equally near but for rounding
    np.testing.assert_allclose(output, weights[winners], rtol=1e-6)


def test_a_boltzmann_machine_gives_the_probabilities_of_its_hidden_units(tmp_path):
    given = {"layers": [rbm(12, k=2)], "loss": "mse", "target": 64}
    with model_of(named(network, **given), runs=True) as model:
        path = export_onnx(model, tmp_path / "rbm.onnx")
        data = (digits()[0] * 8 + 8).astype(np.float32)[:300]
        assert compare(model, path, data) <= 1e-5
        unit = model.units[-1]
        w, b = (np.array(one.value.read(), np.float64) for one in (unit.weights, unit.bias))
        found = model.run(data)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(data @ w.T + b))), atol=1e-6)
    given["layers"] = [rbm(12, draw_input=True)]
    with pytest.raises(GraphError, match="'RBM' draws its input by chance"):
        exported(named(network, **given), tmp_path)


def test_every_activation_of_convolutions_and_alone(tmp_path):
    layers = [conv(3, 2, activation=kind) for kind in ("linear", "tanh", "sigmoid", "softplus")]
    alone = [activation(kind) for kind in ACTIVATIONS]
    exported(named(network, layers=[*layers, *alone, softmax(10)], shape=(8, 8)), tmp_path)


def test_branches(tmp_path):
    layers = [
        mul(0.1), residual(tanh(64)), parallel([tanh(5)], [relu(5)], join="product"),
        parallel([tanh(3)], [channels(1, 4)], []), softmax(10),
    ]  # fmt: skip
    exported(named(network, layers=layers), tmp_path)


def test_normalization_and_pooling_that_picks(tmp_path):
    layers = [
        mul(0.1), conv(4, 3, "linear"), batch_norm(), activation("tanh"), lrn(n=3, alpha=0.1),
        stochastic_pool(2, 1), max_abs_pool((2, 3), 1), layer_norm(2), cut((0, 1)),
        stochastic_abs_pool(2), tanh(8), zero_filter(2), batch_norm(affine=False), softmax(10),
    ]  # fmt: skip
    exported(named(network, layers=layers, shape=(8, 8)), tmp_path, runs=True)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 0), (3, (2, 0, 1, 1))])
def test_tied_decoders(tmp_path, stride, padding):
    layers = [
        mul(0.1), conv(3, 2, "tanh", name="a", stride=stride, padding=padding),
        tied_conv("a", "gelu"), tanh(9, name="b"), tied("b", "tanh"), softmax(10),
    ]  # fmt: skip
    exported(named(network, layers=layers, shape=(8, 4, 2)), tmp_path)


def test_what_picks_by_chance_in_use_is_refused(tmp_path):
    layers = [stochastic_pool(2, picks_always=True), softmax(10)]
    with (
        model_of(named(network, layers=layers, shape=(8, 8))) as model,
        pytest.raises(GraphError, match="picks by chance in use"),
    ):
        export_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "kind",
    [
        "none", "linear", "range_linear", "mean_disp", "exp", "pointwise", "internal_mean",
        "standard",
        ExternalMean(np.arange(64.0), scale=0.5),
    ],
    ids=str,
)  # fmt: skip
def test_every_normalization(tmp_path, kind):
    exported(named(network, layers=[tanh(5), softmax(10)], normalization=kind), tmp_path)


def test_regression(tmp_path):
    file = exported(
        named(network, layers=[tanh(5), linear(3)], loss="mse", target=3), tmp_path, runs=True
    )
    assert [dim.dim_value for dim in file.graph.output[0].type.tensor_type.shape.dim][1:] == [3]
    assert "labels" not in {one.key for one in file.metadata_props}


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("make", [lstm, gru, rnn], ids=lambda one: one.__name__)
def test_recurrent_layers(tmp_path, make, sequences):
    layers = [make(6, return_sequences=True), make(5, return_sequences=sequences), softmax(10)]
    exported(named(network, layers=layers, shape=(8, 8)), tmp_path)


@pytest.mark.parametrize(
    "layers",
    [
        [lstm(5, masked=True)],
        [gru(5, masked=True, return_sequences=True), rnn(4, "relu", masked=True)],
        [positional_encoding(), attention(2, masked=True), mean_over_time(masked=True)],
        [attention(3, causal=True), mean_over_time()],
    ],
    ids=str,
)
def test_texts_of_uneven_lengths(tmp_path, layers):
    texts = [("a b c d", 0), ("b", 1), ("c a a", 1), ("d d d d d d d d", 0), ("a z", 1)]

    def build(wf):
        loader = TextLoader(wf, texts, length=7, minibatch_size=3)
        every = [embedding(10, 6, padding=0), *layers, softmax(2)]
        standard_workflow(wf, loader=loader, layers=every, max_epochs=1)

    with model_of(build) as model:
        path = export_onnx(model, tmp_path / "model.onnx")
        rows = np.stack([model.loader.vocabulary.encode(t.split(), 7) for t, _ in texts])
        assert compare(model, path, rows) <= 1e-5


def test_a_difference_is_an_error(tmp_path):
    with model_of(named(network, layers=[softmax(10)])) as model:
        path = export_onnx(model, tmp_path / "model.onnx")
        weights = model.units[0].weights.value
        weights.write(np.array(weights.read()) * 1.01)
        with pytest.raises(RunError, match=r"differ by .* from the model's own"):
            compare(model, path, digits()[0][:5] * 8 + 8)


class Twice(Forward):
    """y = 2 x, of somebody else's."""

    def initialize(self):
        self.output = self.declare(*self.input.shape)

    def prepare(self):
        from veloflow.devices.expressions import element

        self._launch = self.device.elementwise(
            {"y": element("x") * 2.0}, {"x": self.input, "y": self.output}
        )

    def run(self):
        self._launch()


class GDTwice(Backward):
    """The gradient of Twice, which nobody needs here."""

    forward_kind = Twice

    def prepare(self):
        pass

    def run(self):
        pass


def test_a_unit_without_a_form_is_named_and_then_given_one(tmp_path):
    build = named(network, layers=[Layer("twice", Twice, GDTwice), softmax(10)])
    with (
        model_of(build) as model,
        pytest.raises(GraphError, match=r"unit 'Twice' \(Twice\) has no form in ONNX; register"),
    ):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())

    @onnx_node(Twice)
    def _twice(unit, graph):
        return graph.op("Mul", graph.input(unit), graph.constant(2.0))

    exported(build, tmp_path)


def test_every_public_forward_unit_can_be_exported_or_it_is_listed_why_not():
    public = [getattr(veloflow.units, name) for name in veloflow.units.__all__]
    forwards = [one for one in public if isinstance(one, type) and issubclass(one, Forward)]
    finished = [one for one in forwards if "__final__" in vars(one)]  # the others are outlines
    missing = {one.__name__ for one in finished if not has_onnx_node(one)}
    assert missing == set(NOT_IN_ONNX)

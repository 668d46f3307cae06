"""The short form: the same graph as by hand, and lists of layers that make no network."""

from __future__ import annotations

import numpy as np
import pytest
from harness import trained, workflow_on
from networks import graph_of

from veloflow.core import Repeater
from veloflow.errors import GraphError
from veloflow.units import (
    All2AllSoftmax,
    All2AllTanh,
    ArrayLoader,
    Checkpoint,
    Constant,
    DecisionGD,
    Dropout,
    EvaluatorSoftmax,
    Exp,
    GDDropout,
    GDSoftmax,
    GDTanh,
    LearningRateAdjust,
    Uniform,
    WineLoader,
    dropout,
    linear,
    relu,
    sigmoid,
    softmax,
    softplus,
    standard_workflow,
    tanh,
)
from veloflow.units.solvers import Hyperparameters


def build_long(wf):
    """Wire a network with everything by hand."""
    repeater = Repeater(wf)
    loader = WineLoader(wf, minibatch_size=20, normalization="pointwise", validation_ratio=0.3)
    fc1 = All2AllTanh(wf, 8)
    drop = Dropout(wf, 0.25)
    fc2 = All2AllTanh(wf, 6, weights_filling=Uniform(0.2))
    fc3 = All2AllSoftmax(wf, 3)
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=5, fail_iterations=50)
    checkpoint = Checkpoint(wf, every_epochs=2)
    rates = {"learning_rate": 0.2, "gradient_moment": 0.5, "weights_decay": 1e-3}
    gd3 = GDSoftmax(wf, fc3, **rates)
    gd2 = GDTanh(wf, fc2, **{**rates, "learning_rate": 0.1})
    back = GDDropout(wf, drop)
    gd1 = GDTanh(wf, fc1, **rates)
    adjust = LearningRateAdjust(wf, Exp(0.99))
    adjust.add(gd1, gd2, gd3)

    wf.start >> repeater >> loader >> fc1 >> drop >> fc2 >> fc3 >> evaluator >> decision
    decision >> checkpoint >> gd3 >> gd2 >> back >> gd1 >> adjust >> repeater
    decision >> wf.end

    fc1.link_data(loader, input="minibatch_data")
    drop.link_data(fc1, input="output")
    drop.link_data(loader, "minibatch_class", "minibatch_position", "epoch_number")
    fc2.link_data(drop, input="output")
    fc3.link_data(fc2, input="output")
    evaluator.link_data(fc3, "output").link_data(loader, labels="minibatch_labels")
    decision.link_data(evaluator, "n_err", "samples", "loss")
    decision.link_data(loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number")
    checkpoint.link_data(decision, "improved").link_data(loader, "epoch_ended", "epoch_number")
    gd3.link_data(evaluator, "err_output")
    gd2.link_data(gd3, err_output="err_input")
    back.link_data(gd2, err_output="err_input")
    gd1.link_data(back, err_output="err_input")
    adjust.link_data(loader, "minibatch_class")

    wf.end.gate_block = ~decision.complete
    gd3.gate_block = decision.complete
    for unit in (gd3, gd2, back, gd1):
        unit.gate_skip = decision.gd_skip


def build_short(wf):
    """Say the same in the short form."""
    standard_workflow(
        wf,
        loader=WineLoader(wf, minibatch_size=20, normalization="pointwise", validation_ratio=0.3),
        layers=[
            tanh(8),
            dropout(0.25),
            tanh(6, weights_filling=Uniform(0.2), learning_rate=0.1),
            softmax(3),
        ],
        learning_rate=0.2,
        gradient_moment=0.5,
        weights_decay=1e-3,
        max_epochs=5,
        fail_iterations=50,
        policy=Exp(0.99),
        checkpoint_epochs=2,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_forms_are_one(dtype):
    from veloflow.devices.parameters import Parameters

    long, short = (trained(build, dtype=dtype) for build in (build_long, build_short))
    assert graph_of(short) == graph_of(long)
    assert short["DecisionGD"].epochs == long["DecisionGD"].epochs
    saved = [wf.find_service(Parameters).save() for wf in (short, long)]
    assert saved[0].keys() == saved[1].keys()
    for name, values in saved[0].items():
        np.testing.assert_array_equal(values, saved[1][name], err_msg=name)


def standard(layers, **options):
    """Fill a workflow in and return its units."""
    wf = workflow_on()
    loader = ArrayLoader(wf, np.zeros((4, 2)), np.zeros(4, int))
    return standard_workflow(wf, loader=loader, layers=layers, **options)


def test_units_are_given_back_in_the_order_of_the_layers():
    units = standard([dropout(0.1), tanh(4), dropout(0.2), softmax(2)])
    assert [unit.name for unit in units.forwards] == [
        "Dropout", "All2AllTanh", "Dropout_2", "All2AllSoftmax"
    ]  # fmt: skip
    assert [unit.forward for unit in units.gradients] == list(units.forwards[1:])
    assert units.adjust is None
    assert units.checkpoint is None


@pytest.mark.parametrize("kind", [tanh, sigmoid, relu, softplus, linear])
def test_every_kind_of_layer_is_made_with_its_gradient(kind):
    units = standard([kind((2, 3), name="first"), softmax(2)])
    first = units.forwards[0]
    assert first.name == "first"
    assert first.output_shape == (2, 3)
    assert type(first).__name__.lower() == f"all2all{kind.__name__}"
    assert type(units.gradients[0]).__name__.lower() == f"gd{kind.__name__}"


def test_rates_of_a_layer_go_before_those_of_all():
    layers = [
        tanh(3, learning_rate=0.5, weights_decay_bias=0.1, include_bias=False),
        softmax(2, bias_filling=Constant(1.0)),
    ]
    units = standard(layers, learning_rate=0.2, gradient_moment=0.9, weights_decay=0.0)
    first, second = units.gradients
    assert first.weights_numbers == Hyperparameters(0.5, 0.9)
    assert first.bias_numbers == Hyperparameters(0.5, 0.9, 0.1)
    assert second.weights_numbers == second.bias_numbers == Hyperparameters(0.2, 0.9)
    assert not units.forwards[0].include_bias
    assert units.forwards[1].bias_filling == Constant(1.0)


def test_autoencoder_has_its_input_as_target():
    def build(wf):
        x = np.random.default_rng(0).random((30, 5))
        loader = ArrayLoader(wf, x, minibatch_size=7)
        standard_workflow(
            wf,
            loader=loader,
            layers=[tanh(4), linear(5)],
            loss="mse",
            target="minibatch_data",
            learning_rate=0.1,
            max_epochs=30,
        )

    losses = [record["train"]["loss"] for record in trained(build)["DecisionMSE"].epochs]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([], {}, "the list of layers is empty"),
        ([tanh(3)], {}, r"last layer is tanh\(3\) and the loss 'softmax'; end with softmax"),
        ([softmax(3)], {"loss": "mse"}, r"last layer is softmax\(3\) and the loss 'mse'; end with"),
        ([softmax(3), softmax(3)], {}, r"layer 0 is softmax\(3\), and softmax\(3\) follows it"),
        (
            [tanh(3), dropout(0.5)],
            {},
            r"last layer is dropout\(0.5\) and the loss",
        ),
        ([dropout(0.5)], {"loss": "mse"}, r"dropout\(0.5\) has no neurons of its own"),
        ([tanh, softmax(3)], {}, "layer 0 is <function tanh .*a function; give what tanh"),
        ([100, softmax(3)], {}, "layer 0 is 100, a int"),
        (
            [softmax(3)],
            {"loss": "hinge"},
            "the loss is 'hinge'; give 'softmax', 'mse'",
        ),
        ([softmax(3)], {"learing_rate": 1.0}, r"no option 'learing_rate' \(did you mean 'learning"),
        ([softmax(3)], {"max_epoch": 1}, r"no option 'max_epoch' \(did you mean 'max_epochs'"),
        ([softmax(3)], {"bias_policy": Exp(0.5)}, "bias_policy needs a policy"),
    ],
)
def test_lists_that_make_no_network_are_refused(layers, options, message):
    with pytest.raises(GraphError, match=message):
        standard(layers, **options)


def test_layer_with_an_unknown_option_is_refused():
    with pytest.raises(GraphError, match=r"layer tanh\(3\) has no option 'bias' \(did you mean"):
        tanh(3, bias=False)

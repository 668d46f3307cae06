"""Graphs with branches: against torch, central differences, OpenCL; both forms are one."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, trained, workflow_on
from networks import Given, Reader, graph_of, network, numerical_gradient

from veloflow.core import Repeater
from veloflow.devices.parameters import Parameters
from veloflow.errors import GraphError, LinkError, ShapeError
from veloflow.units import (
    All2AllSoftmax,
    All2AllTanh,
    Concat,
    DecisionGD,
    ErrorSum,
    EvaluatorSoftmax,
    GDConcat,
    GDProduct,
    GDSoftmax,
    GDSplit,
    GDSum,
    GDTanh,
    Product,
    Split,
    Sum,
    WineLoader,
    channels,
    conv,
    dropout,
    linear,
    max_pool,
    parallel,
    residual,
    softmax,
    standard_workflow,
    tanh,
)


def random(*shape: int):
    """Return normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape)


def same(kernels, activation="tanh"):
    """Return a convolution that keeps the size of images."""
    return conv(kernels, 3, activation, padding=1)


IMAGES = (3, 4, 4, 2)
GRAPHS = {
    "residual": [same(4), residual(same(4), same(4, "linear")), same(2), softmax(3)],
    "shortcut": [same(3), residual(same(5), shortcut=[conv(5, 1, "linear")]), softmax(3)],
    "inception": [
        same(4),
        parallel([conv(2, 1, "tanh")], [conv(2, 1, "tanh"), same(3)], [], join="concat"),
        max_pool(2),
        softmax(3),
    ],
    "product": [same(3), parallel([same(2)], [conv(2, 1, "sigmoid")], [same(2)], join="product"),
                softmax(3)],
    "nested": [same(2), residual(same(2), residual(same(2))), residual(), softmax(3)],
    "slices": [same(5), parallel([channels(0, 2), same(2)], [channels(1), same(1)]), softmax(3)],
    "dense": [tanh(6), parallel([tanh(4)], [tanh(3), tanh(2)], []), softmax(3)],
    "same branch twice": [tanh(4), parallel([], [], join="sum"), softmax(3)],
    "from the data": [parallel([same(2)], []), softmax(3)],
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_are_those_of_central_differences(name):
    layers = GRAPHS[name]
    if name == "from the data":  # its err_input would be that of the join
        layers = [same(2), *layers]
    net = network(layers, random(*IMAGES), labels=[0, 2, 1])
    net.forward()
    net.backward()
    for parameter in net.parameters:
        found = np.array(parameter.gradient.read())
        expected = numerical_gradient(net, parameter.value)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=parameter.name)
    expected = numerical_gradient(net, net.given.minibatch_data)
    np.testing.assert_allclose(net.err_input, expected, rtol=1e-6, atol=1e-9)


def test_joins_are_what_numpy_says():
    wf = workflow_on(dtype="float64")
    x, y = random(3, 4, 2), random(3, 4, 2) + 1
    given = Given(wf, x=x, y=y)
    units = [kind(wf) for kind in (Sum, Product, Concat)]
    for unit in units:
        unit.link_data(given, branch0="x", branch1="y", branch2="x")
    with ready(given, *units):
        for unit in units:
            unit.run()
        total, product, joined = (np.array(unit.output.read()) for unit in units)
    np.testing.assert_array_equal(total, x + y + x)
    np.testing.assert_array_equal(product, x * y * x)
    np.testing.assert_array_equal(joined, np.concatenate([x, y, x], axis=-1))


def test_a_product_has_gradients_where_branches_are_zero():
    wf = workflow_on(dtype="float64")
    given = Given(wf, x=np.array([[0.0, 2.0]]), y=np.array([[3.0, 0.0]]), err=np.ones((1, 2)))
    product = Product(wf).link_data(given, branch0="x", branch1="y")
    back = GDProduct(wf, product).link_data(given, err_output="err")
    reader, other = Reader(wf, name="a"), Reader(wf, name="b")
    reader.link_data(back, value="err_input0")
    other.link_data(back, value="err_input1")
    with ready(given, product, back, reader, other):
        product.run()
        back.run()
        np.testing.assert_array_equal(back.err_input0.read(), [[3.0, 0.0]])
        np.testing.assert_array_equal(back.err_input1.read(), [[0.0, 2.0]])


def test_a_split_goes_back_to_one():
    wf = workflow_on(dtype="float64")
    x = random(2, 3, 6)
    given = Given(wf, x=x)
    split = Split(wf, [1, 3, 2]).link_data(given, input="x")
    back = GDSplit(wf, split)
    back.link_errors((split, "output0"), (split, "output1"), (split, "output2"))
    reader = Reader(wf).link_data(back, value="err_input")
    with ready(given, split, back, reader):
        split.run()
        back.run()
        np.testing.assert_array_equal(split.output1.read(), x[..., 1:4])
        np.testing.assert_array_equal(back.err_input.read(), x)


def test_a_residual_network_is_torch_s():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = random(*IMAGES)
    net = network(GRAPHS["residual"], x, labels=[0, 2, 1])
    loss = net.forward()
    net.backward()
    tensors = [torch.tensor(np.array(one.value.read()), requires_grad=True)
               for one in net.parameters]  # fmt: skip

    def convolve(images, weights, bias):
        kernel = weights.reshape(len(weights), 3, 3, -1).permute(0, 3, 1, 2)
        return functional.conv2d(images, kernel, bias, padding=1)

    def act(images):
        return 1.7159 * torch.tanh(0.6666 * images)

    first = act(convolve(torch.tensor(x).permute(0, 3, 1, 2), *tensors[0:2]))
    inner = convolve(act(convolve(first, *tensors[2:4])), *tensors[4:6])
    last = act(convolve(first + inner, *tensors[6:8])).permute(0, 2, 3, 1)
    logits = last.reshape(3, -1) @ tensors[8].T + tensors[9]
    expected = functional.cross_entropy(logits, torch.tensor([0, 2, 1]))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for one, tensor in zip(net.parameters, tensors, strict=True):
        np.testing.assert_allclose(one.gradient.read(), tensor.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.opencl
@pytest.mark.parametrize("name", ["inception", "product", "slices", "residual"])
def test_opencl_agrees(opencl_device, name):
    found = []
    for device in (opencl_device, None):
        net = network(GRAPHS[name], random(*IMAGES), labels=[0, 2, 1], device=device,
                      learning_rate=0.1)  # fmt: skip
        for _ in range(2):
            net.forward()
            net.backward()
        found.append([net.err_input, *(np.array(one.value.read()) for one in net.parameters)])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    assert not opencl_device.info().notes


def build_long(wf):
    """Wire a residual block and a concatenation by hand."""
    repeater = Repeater(wf)
    loader = WineLoader(wf, minibatch_size=20, normalization="pointwise", validation_ratio=0.3)
    fc1 = All2AllTanh(wf, 8)
    fc2 = All2AllTanh(wf, 8)
    total = Sum(wf)
    fc3 = All2AllTanh(wf, 5)
    joined = Concat(wf)
    fc4 = All2AllSoftmax(wf, 3)
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=3)
    rates = {"learning_rate": 0.2, "gradient_moment": 0.5}
    gd4 = GDSoftmax(wf, fc4, **rates)
    back_joined = GDConcat(wf, joined)
    gd3 = GDTanh(wf, fc3, **rates)
    errors2 = ErrorSum(wf)
    back_total = GDSum(wf, total)
    gd2 = GDTanh(wf, fc2, **rates)
    errors1 = ErrorSum(wf)
    gd1 = GDTanh(wf, fc1, **rates)

    wf.start >> repeater >> loader >> fc1 >> fc2 >> total >> fc3 >> joined >> fc4 >> evaluator
    evaluator >> decision >> gd4 >> back_joined >> gd3 >> errors2 >> back_total >> gd2 >> errors1
    errors1 >> gd1 >> repeater
    decision >> wf.end

    fc1.link_data(loader, input="minibatch_data")
    fc2.link_data(fc1, input="output")
    total.link_branches(fc2, fc1)
    fc3.link_data(total, input="output")
    joined.link_branches(fc3, total)
    fc4.link_data(joined, input="output")
    evaluator.link_data(fc4, "output").link_data(loader, labels="minibatch_labels")
    decision.link_data(evaluator, "n_err", "samples", "loss")
    decision.link_data(loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number")
    gd4.link_data(evaluator, "err_output")
    back_joined.link_data(gd4, err_output="err_input")
    gd3.link_data(back_joined, err_output="err_input0")
    errors2.link_errors((back_joined, "err_input1"), (gd3, "err_input"))
    back_total.link_data(errors2, err_output="total")
    gd2.link_data(back_total, err_output="err_input0")
    errors1.link_errors((back_total, "err_input1"), (gd2, "err_input"))
    gd1.link_data(errors1, err_output="total")

    wf.end.gate_block = ~decision.complete
    gd4.gate_block = decision.complete
    for unit in (gd4, back_joined, gd3, errors2, back_total, gd2, errors1, gd1):
        unit.gate_skip = decision.gd_skip


def build_short(wf):
    """Say the same in the short form."""
    standard_workflow(
        wf,
        loader=WineLoader(wf, minibatch_size=20, normalization="pointwise", validation_ratio=0.3),
        layers=[tanh(8), residual(tanh(8)), parallel([tanh(5)], []), softmax(3)],
        learning_rate=0.2,
        gradient_moment=0.5,
        max_epochs=3,
    )


def test_both_forms_are_one():
    long, short = (trained(build) for build in (build_long, build_short))
    assert graph_of(short) == graph_of(long)
    sums = [wf.find_service(Parameters).sha256() for wf in (long, short)]
    assert sums[0] == sums[1]


def test_nothing_runs_back_to_what_is_not_trained():
    layers = [dropout(0.1), parallel([], [dropout(0.2)]), tanh(3), residual(dropout(0.3)),
              softmax(2)]  # fmt: skip
    units = network(layers, random(4, 2), labels=[0, 1, 0, 1]).units
    assert [unit.name for unit in units.backward] == [
        "GDSoftmax", "GDSum", "GDDropout", "ErrorSum", "GDTanh"
    ]  # fmt: skip


def test_misuse_is_named():
    with pytest.raises(GraphError, match="parallel has no join 'add'"):
        parallel([], join="add")
    with pytest.raises(GraphError, match="no branches"):
        parallel()
    with pytest.raises(GraphError, match="softmax cannot be in a branch"):
        network([parallel([softmax(2)], [])], random(2, 2), labels=[0, 1])
    with pytest.raises(ShapeError, match="may differ in the last axis only"):
        network([parallel([max_pool(2)], []), softmax(2)], random(*IMAGES), labels=[0, 1, 0])
    with pytest.raises(ShapeError, match="no part from 1 to 9"):
        network([channels(1, 9), softmax(2)], random(2, 2), labels=[0, 1])
    with pytest.raises(ShapeError, match="'sample' is"):
        network([residual(linear(3)), softmax(2)], random(2, 2), labels=[0, 1])


def test_branches_are_numbered_from_0_on():
    wf = workflow_on()
    given = Given(wf, x=np.zeros((2, 2)))
    total = Sum(wf)
    with pytest.raises(LinkError, match="has no input 'branch'"):
        total.link_data(given, branch="x")
    with pytest.raises(LinkError, match="has no input 'input'"):
        total.link_data(given, input="x")
    wf.start >> given >> total >> wf.end
    with pytest.raises(LinkError, match=r"link the first with .link_data\(source, branch0="):
        wf.set_up()
    total.link_data(given, branch1="x")
    with pytest.raises(LinkError, match=r"'branch0' is not linked.*number them from 0 on"):
        wf.set_up()


def test_whoever_reads_the_error_of_a_join_says_of_which_branch():
    wf = workflow_on()
    given = Given(wf, x=np.zeros((2, 2)))
    total = Sum(wf).link_data(given, branch0="x", branch1="x")
    back = GDSum(wf, total).link_data(given, err_output="x")
    reader = Reader(wf).link_data(back, value="err_input")
    with (
        pytest.raises(GraphError, match="err_input0, err_input1"),
        ready(given, total, back, reader),
    ):
        pass

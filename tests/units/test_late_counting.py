"""Counting that waits until somebody asks: the same numbers as counting at once, everywhere."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from harness import ready, trained, workflow_on
from networks import Given

import veloflow
from veloflow.core import Input, Unit
from veloflow.errors import DataError, NumericsError
from veloflow.runtime.storage.checkpoint import read_checkpoint
from veloflow.units import ArrayLoader, EvaluatorSoftmax, softmax, standard_workflow, tanh
from veloflow.units.loader import TRAIN
from veloflow.units.metrics import AUC, TopKError

pytestmark = pytest.mark.opencl

SAMPLES, CLASSES = 50, 4


class Reader(Unit):
    """A user's own unit, which looks at each minibatch."""

    n_err = Input[int]()
    loss = Input[float]()

    def __init__(self, wf):
        super().__init__(wf)
        self.seen = []

    def run(self):
        self.seen.append((self.n_err, self.loss))


class Watch(Unit):
    """Notes how many minibatches the decision waits for."""

    def __init__(self, wf, awaited):
        super().__init__(wf)
        self.awaited = awaited

    def run(self):
        self.awaited.append(len(self.workflow["DecisionGD"]._awaited))


class Once(Unit):
    """Does something in its run of that number."""

    def __init__(self, wf, number, act):
        super().__init__(wf)
        self.number, self.act = number, act

    def run(self):
        self.number -= 1
        if self.number == 0:
            self.act()


def spoil(wf):
    """Make the weights of the first layer NaN."""
    weights = wf["All2AllTanh"].weights.value
    weights.write(np.full(weights.shape, np.nan))


def build(wf, *, validation=True, metrics=()):
    """Train on random numbers; minibatches of 8 leave a short one at the end of each class."""
    random = np.random.default_rng(3)
    x = random.normal(size=(SAMPLES, 6))
    labels = (x[:, 0] * 2 + x[:, 1] > 0) + 2 * (x[:, 2] > 0)
    held_out = (random.normal(size=(21, 6)), random.integers(0, CLASSES, 21))
    loader = ArrayLoader(
        wf, x, labels, minibatch_size=8, validation=held_out if validation else None,
        classes=range(CLASSES),
    )  # fmt: skip
    return standard_workflow(
        wf, loader=loader, layers=[tanh(7), softmax(CLASSES)], learning_rate=0.2,
        gradient_moment=0.9, max_epochs=3, metrics=metrics,
    )  # fmt: skip


@pytest.fixture
def at_once(opencl_device, monkeypatch):
    """Return what makes evaluators count at once from then on."""
    return lambda: monkeypatch.setattr(opencl_device, "reads_beside", False)


def found(wf):
    """Return all that a run says, as text: so numbers must be equal in every bit."""
    return json.dumps(dict(wf["DecisionGD"].results()))


@pytest.mark.parametrize(
    "options", [{}, {"validation": False}, {"metrics": (TopKError(2), AUC())}], ids=str
)
def test_records_are_those_of_counting_at_once(opencl_device, at_once, options):
    awaited = []

    def change(wf):
        Watch(wf, awaited).insert_after(wf["DecisionGD"])
        wf["DecisionGD"].link_data(wf["EvaluatorSoftmax"], "confusion_matrix")

    late = trained(build, device=opencl_device, change=change, **options)
    assert max(awaited) == 1  # one minibatch was ahead of the sums
    awaited.clear()
    at_once()
    wanted = trained(build, device=opencl_device, change=change, **options)
    assert max(awaited) == 0
    assert found(late) == found(wanted)
    assert late["DecisionGD"].confusion_matrices["train"].sum() == SAMPLES


def test_a_unit_of_the_user_s_own_sees_this_minibatch(opencl_device, at_once):
    def change(wf):
        Reader(wf).link_data(wf["EvaluatorSoftmax"], "n_err", "loss").insert_after(
            wf["EvaluatorSoftmax"]
        )

    late = trained(build, device=opencl_device, change=change)
    plain = trained(build, device=opencl_device)
    at_once()
    wanted = trained(build, device=opencl_device, change=change)
    assert late["Reader"].seen == wanted["Reader"].seen
    assert len(late["Reader"].seen) == 4 * 3 + 3 * 7  # 21 and 50 samples, 8 at a time
    assert found(late) == found(plain) == found(wanted)


@pytest.mark.parametrize("number", [3, 6, 7, 12, 13, 14])
@pytest.mark.parametrize("validation", [True, False])
def test_a_loss_that_is_no_number_is_of_its_own_epoch(opencl_device, at_once, number, validation):
    def change(wf):
        Once(wf, number, lambda: spoil(wf)).insert_after(wf["ArrayLoader"])

    said = []
    for is_late in (True, False):
        if not is_late:
            at_once()
        with pytest.raises(NumericsError) as caught:
            trained(build, device=opencl_device, change=change, validation=validation)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_class_beyond_the_output_is_named_when_it_is_counted(opencl_device):
    wf = workflow_on(opencl_device)
    given = Given(wf, p=np.full((4, 3), 1 / 3), labels=np.array([0, 1, 2, 3], np.int32))
    unit = EvaluatorSoftmax(wf).link_data(given, "labels", output="p")
    with ready(given, unit):
        unit.run()
        assert unit.samples == 4
        for _ in range(2):
            with pytest.raises(DataError, match="'EvaluatorSoftmax': there is a sample of class 3"):
                assert unit.n_err
        with pytest.raises(DataError, match="of class 3, and the output has 3 classes"):
            unit.run()


def test_what_was_found_is_kept_while_outputs_and_labels_change(opencl_device):
    wf = workflow_on(opencl_device)
    given = Given(wf, p=np.eye(4, 3) + 0.1, labels=np.array([0, 1, 1, -1], np.int32))
    unit = EvaluatorSoftmax(wf).link_data(given, "labels", output="p")
    with ready(given, unit):
        unit.run()
        first = unit.tally
        assert first.count is not None
        given.give(p=np.full((4, 3), 0.3), labels=np.array([2, 2, 2, 2], np.int32))
        assert (unit.n_err, first.n_err, first.samples) == (1, 1, 3)
        unit.run()
        assert first.count is None
        assert (unit.samples, unit.n_err) == (4, 4)
        np.testing.assert_array_equal(first.confusion_matrix, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])


def test_large_outputs_are_counted_at_once(opencl_device):
    wf = workflow_on(opencl_device)
    many = 1 << 18
    given = Given(wf, p=np.full((2, many), 1 / many), labels=np.array([0, 1], np.int32))
    unit = EvaluatorSoftmax(wf, compute_confusion_matrix=False)
    unit.link_data(given, "labels", output="p")
    with ready(given, unit):
        unit.run()
        assert unit.tally.count is None
        assert unit.loss == pytest.approx(2 * np.log(many))


@pytest.mark.slow
def test_a_run_is_the_same_to_the_last_bit(opencl_device, at_once):
    late = veloflow.run("digits_mlp", device=opencl_device, epochs=2)
    at_once()
    wanted = veloflow.run("digits_mlp", device=opencl_device, epochs=2)
    assert late.epochs == wanted.epochs
    assert late.parameters_sha256 == wanted.parameters_sha256


@pytest.mark.slow
@pytest.mark.parametrize("minibatch", [2, 5, 16, 30])
def test_a_checkpoint_in_mid_class_has_all_that_was_found(opencl_device, tmp_path, minibatch):
    """digits_mlp has 6 minibatches of validation and 24 of training."""
    whole = veloflow.run("digits_mlp", device=opencl_device, epochs=2)

    def stop(session):
        wf = session.workflow
        act = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731 - one line
        Once(wf, minibatch, act).insert_after(wf["All2AllTanh"])

    with pytest.raises(veloflow.VeloflowError, match="interrupted; checkpoint in"):
        veloflow.run("digits_mlp", device=opencl_device, epochs=2, checkpoint=tmp_path, watch=stop)
    sums = read_checkpoint(tmp_path / "last.safetensors").units["DecisionGD"]["sums"]
    in_class = minibatch if minibatch <= 6 else minibatch - 6
    assert [one["samples"] for one in sums if one] == ([] if minibatch == 30 else [60 * in_class])
    result = veloflow.run("digits_mlp", device=opencl_device, checkpoint=tmp_path, resume=True)
    assert result.epochs == whole.epochs
    assert result.parameters_sha256 == whole.parameters_sha256


@pytest.mark.slow
def test_nan_is_in_no_checkpoint(opencl_device, tmp_path):
    """An interruption just after a minibatch that is not counted yet."""
    seen = []

    def stop(session):
        wf = session.workflow

        def act():
            spoil(wf)
            os.kill(os.getpid(), signal.SIGINT)

        Once(wf, 9, act).insert_after(wf["DigitsLoader"])
        seen.append(wf["DigitsLoader"])

    with pytest.raises(NumericsError, match=r"the loss is nan in epoch 0 \(train minibatch\)"):
        veloflow.run("digits_mlp", device=opencl_device, epochs=2, checkpoint=tmp_path, watch=stop)
    assert seen[0].minibatch_class == TRAIN
    for file in tmp_path.glob("*.safetensors"):
        for name, values in read_checkpoint(file).parameters.items():
            assert np.isfinite(values).all(), name


@pytest.mark.cluster
@pytest.mark.slow
def test_three_slaves_of_which_one_is_lost_count_the_same():
    lone = veloflow.run("digits_mlp", device="opencl", epochs=2, sharing="sync")
    slaves = veloflow.run(
        "digits_mlp", device="opencl", epochs=2, slaves=3, faults="kill=slave2@job5"
    )
    assert slaves.epochs == lone.epochs
    assert slaves.parameters_sha256 == lone.parameters_sha256

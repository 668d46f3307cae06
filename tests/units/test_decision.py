"""Decisions: the accounting of epochs, and when a run is complete."""

from __future__ import annotations

import json

import numpy as np
import pytest
from harness import ready, trained, workflow_on
from networks import Given

from veloflow.core import EpochDone, Events
from veloflow.errors import InputError, NumericsError
from veloflow.units import (
    ArrayLoader,
    DecisionGD,
    DecisionMSE,
    EvaluatorSoftmax,
    linear,
    softmax,
    standard_workflow,
)
from veloflow.units.loader import TEST, TRAIN, VALIDATION

FLAGS = ("minibatch_class", "last_minibatch", "epoch_ended", "epoch_number", "samples", "loss")


class Story:
    """A decision that is told of minibatches by hand."""

    def __init__(self, kind=DecisionGD, *, testing=False, inputs=("n_err",), **options):
        self.wf = workflow_on(testing=testing)
        self.given = Given(
            self.wf, minibatch_class=TRAIN, last_minibatch=False, epoch_ended=False, epoch_number=0
        )
        self.given.give(samples=10, loss=0.0, n_err=0, metrics=(0.0, 0.0, 0.0))
        self.given.confusion_matrix = np.zeros((2, 2), np.int64)
        self.decision = kind(self.wf, **options).link_data(self.given, *FLAGS, *inputs)
        self.events = []
        self.wf.find_service(Events).subscribe(EpochDone, self.events.append)
        with ready(self.given, self.decision):
            pass

    def tell(self, kind, *, n_err=0, epoch=0, last=True, ends=False, **more):
        """Let the decision take in a minibatch; return what it decided: complete, improved."""
        self.given.give(minibatch_class=kind, last_minibatch=last, epoch_ended=ends)
        self.given.give(epoch_number=epoch, n_err=n_err, **more)
        self.decision.run()
        return bool(self.decision.complete), bool(self.decision.improved)

    def validate(self, *errors: int, start=0):
        """Play epochs with these validation errors, training between; return what was decided."""
        found = []
        for epoch, n_err in enumerate(errors, start):
            found.append(self.tell(VALIDATION, n_err=n_err, epoch=epoch, ends=True))
            self.tell(TRAIN, n_err=1, epoch=epoch)
        return found


# -- epochs ---------------------------------------------------------------------------------------


def test_epoch_pairs_validation_with_the_training_before_it():
    story = Story()
    story.tell(VALIDATION, n_err=4, loss=20.0, last=False)
    story.tell(VALIDATION, n_err=5, loss=10.0, ends=True)
    story.tell(TRAIN, n_err=3, loss=6.0, last=False)
    story.tell(TRAIN, n_err=1, loss=4.0, samples=5)
    story.tell(VALIDATION, n_err=2, loss=1.0, samples=10, epoch=1, ends=True)
    assert story.decision.epochs == [
        {
            "epoch": 0,
            "validation": {"samples": 20, "n_errors": 9, "error_percent": 45.0, "loss": 1.5},
        },
        {
            "epoch": 1,
            "train": {
                "samples": 15,
                "n_errors": 4,
                "error_percent": pytest.approx(400 / 15),
                "loss": pytest.approx(2 / 3),
            },
            "validation": {"samples": 10, "n_errors": 2, "error_percent": 20.0, "loss": 0.1},
        },
    ]
    assert [event.record for event in story.events] == story.decision.epochs
    assert story.decision.best["epoch"] == 1
    assert story.decision.best["validation_error_percent"] == 20.0


def test_test_samples_decide_nothing_beside_others():
    story = Story()
    story.tell(TEST, n_err=0)
    assert story.tell(VALIDATION, n_err=3, ends=True) == (False, True)
    assert list(story.decision.epochs[0]) == ["epoch", "validation", "test"]


def samples_of(wf):
    """Return the records of a run as (epoch, class: samples)."""
    return [
        (record["epoch"], {k: v["samples"] for k, v in record.items() if k != "epoch"})
        for record in wf["DecisionGD"].epochs
    ]


def build(wf, *, parts=(0, 4, 7), epochs=2, kind="softmax"):
    """Train on random numbers with test, validation and training samples."""
    x, labels = np.random.default_rng(0).random((sum(parts), 3)), np.arange(sum(parts)) % 2
    cuts = np.cumsum(parts)[:-1]
    test, validation, train = zip(np.split(x, cuts), np.split(labels, cuts), strict=True)
    held_out = {"test": test if parts[0] else None, "validation": validation if parts[1] else None}
    loader = ArrayLoader(wf, *train, minibatch_size=3, **held_out)
    standard_workflow(wf, loader=loader, layers=[softmax(2)], max_epochs=epochs)


def test_run_with_validation_begins_with_the_untrained_model():
    expected = {"train": 7, "validation": 4}
    assert samples_of(trained(build)) == [(0, {"validation": 4}), (1, expected), (2, expected)]


def test_run_without_validation_ends_its_epochs_with_training():
    wf = trained(build, parts=(0, 0, 7))
    assert samples_of(wf) == [(1, {"train": 7}), (2, {"train": 7})]


def test_run_with_test_samples_has_them_in_each_epoch():
    wf = trained(build, parts=(2, 4, 7), epochs=1)
    assert samples_of(wf) == [
        (0, {"validation": 4, "test": 2}),
        (1, {"train": 7, "validation": 4, "test": 2}),
    ]


def test_testing_evaluates_once_and_does_not_train():
    wf = trained(build, parts=(2, 4, 7), testing=True)
    assert samples_of(wf) == [(0, {"validation": 4, "test": 2})]
    assert wf.times()["GDSoftmax"].runs == 0


def test_no_epochs_of_training_evaluate_the_untrained_model():
    wf = trained(build, epochs=0)
    assert samples_of(wf) == [(0, {"validation": 4})]
    assert wf.times()["GDSoftmax"].runs == 0


def test_gradients_skip_all_but_training():
    story = Story()
    for kind, skip in ((TEST, True), (VALIDATION, True), (TRAIN, False)):
        story.tell(kind, n_err=1)
        assert bool(story.decision.gd_skip) is skip
    story = Story(testing=True)
    story.tell(TRAIN, n_err=1)
    assert story.decision.gd_skip


# -- completeness ---------------------------------------------------------------------------------


def test_improvement_is_strict_and_of_one_minibatch():
    story = Story()
    assert story.validate(5, 5, 4, 6, 4) == [
        (False, True), (False, False), (False, True), (False, False), (False, False)
    ]  # fmt: skip
    assert story.decision.best["epoch"] == 2
    assert not story.decision.improved


def test_run_ends_after_max_epochs():
    assert [done for done, _ in Story(max_epochs=2).validate(5, 4, 3)] == [False, False, True]


def test_run_ends_without_improvement():
    story = Story(fail_iterations=3)
    assert [done for done, _ in story.validate(5, 4, 4, 5, 6)] == [False] * 4 + [True]


def test_run_ends_when_nothing_is_wrong():
    assert Story().validate(5, 0) == [(False, True), (True, True)]
    assert Story().validate(0) == [(True, True)]


def test_training_decides_when_there_is_no_validation():
    story = Story()
    assert story.tell(TRAIN, n_err=2, epoch=1, ends=True) == (False, True)
    assert story.tell(TRAIN, n_err=0, epoch=2, ends=True) == (True, True)


def test_class_without_evaluated_samples_decides_nothing():
    story = Story(fail_iterations=2)
    assert story.tell(VALIDATION, samples=0, ends=True) == (False, True)
    assert story.tell(VALIDATION, samples=0, epoch=1, ends=True) == (False, False)
    assert story.tell(VALIDATION, samples=0, epoch=2, ends=True) == (True, False)


def test_testing_is_complete_after_one_evaluation():
    assert Story(testing=True).tell(TEST, n_err=5, ends=True)[0]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_the_run(loss):
    with pytest.raises(NumericsError, match=r"the loss is (nan|inf) in epoch 3 \(train minibatch"):
        Story().tell(TRAIN, loss=loss, epoch=3)


@pytest.mark.parametrize("options", [{"max_epochs": -1}, {"fail_iterations": 0}])
def test_limits_without_sense_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        DecisionGD(workflow_on(), **options)


# -- checkpoints ----------------------------------------------------------------------------------


def restored(story, **options):
    """Return another decision with the state of this one, by way of JSON."""
    other = Story(type(story.decision), **options)
    other.decision.restore(json.loads(json.dumps(dict(story.decision.state()))))
    return other


def test_restored_decision_goes_on_as_if_nothing_had_happened():
    story = Story()
    story.validate(5, 4)
    story.tell(VALIDATION, n_err=2, epoch=2, last=False)
    other = restored(story)
    for one in (story, other):
        one.tell(VALIDATION, n_err=1, epoch=2, ends=True)
    assert other.decision.epochs == story.decision.epochs
    assert other.decision.best == story.decision.best
    assert other.decision.state() == story.decision.state()


def test_restored_decision_keeps_its_gates():
    story = Story()
    story.tell(VALIDATION, n_err=5, ends=True)
    other = restored(story)
    assert other.decision.improved
    assert other.decision.gd_skip
    assert not other.decision.complete


def test_finished_run_goes_on_with_more_epochs():
    story = Story(max_epochs=2)
    story.validate(5, 4, 3)
    assert story.decision.complete
    assert restored(story, max_epochs=2).decision.complete
    other = restored(story, max_epochs=4)
    assert not other.decision.complete
    assert [done for done, _ in other.validate(2, 1, start=3)] == [False, True]


def test_unfinished_run_is_finished_by_a_lower_limit():
    story = Story(max_epochs=5)
    story.validate(5, 4, 3)
    assert not story.decision.complete
    assert restored(story, max_epochs=2).decision.complete


def test_patience_that_ran_out_may_be_given_anew():
    story = Story(fail_iterations=1)
    story.validate(5, 6)
    assert story.decision.complete
    assert not restored(story, fail_iterations=3).decision.complete


def test_run_without_errors_stays_finished():
    story = Story()
    story.validate(5, 0)
    assert restored(story, max_epochs=100).decision.complete


def test_test_of_a_finished_run_starts_afresh():
    story = Story()
    story.validate(5, 0)
    other = restored(story, testing=True)
    assert not other.decision.complete
    assert other.tell(VALIDATION, n_err=7, ends=True) == (True, True)
    assert len(other.decision.epochs) == 1


def test_new_decision_has_a_state():
    other = restored(Story())
    assert other.decision.state() == Story().decision.state()


# -- confusion and squares ------------------------------------------------------------------------


def test_confusion_is_added_up_by_class():
    story = Story(inputs=("n_err", "confusion_matrix"))
    for n in range(1, 5):
        story.given.confusion_matrix = np.full((2, 2), n)
        kind = VALIDATION if n < 3 else TRAIN
        story.tell(kind, n_err=1, last=n % 2 == 0, ends=n == 2)
    assert story.decision.results()["confusion_matrix"] == {
        "validation": [[3, 3], [3, 3]],
        "train": [[7, 7], [7, 7]],
    }


def test_confusion_survives_a_checkpoint():
    story = Story(inputs=("n_err", "confusion_matrix"))
    story.given.confusion_matrix = np.eye(2, dtype=np.int64)
    story.tell(TRAIN, n_err=1)
    story.tell(VALIDATION, n_err=1, last=False)
    other = Story(inputs=("n_err", "confusion_matrix"))
    other.decision.restore(story.decision.state())
    other.given.confusion_matrix = np.eye(2, dtype=np.int64)
    other.tell(VALIDATION, n_err=1, ends=True)
    found = other.decision.results()["confusion_matrix"]
    assert found == {"train": [[1, 0], [0, 1]], "validation": [[2, 0], [0, 2]]}


def test_confusion_of_a_run_counts_every_sample():
    def link(wf):
        evaluator = next(unit for unit in wf if isinstance(unit, EvaluatorSoftmax))
        wf["DecisionGD"].link_data(evaluator, "confusion_matrix")

    decision = trained(build, change=link)["DecisionGD"]
    last = decision.epochs[-1]
    for kind, matrix in decision.results()["confusion_matrix"].items():
        assert np.sum(matrix) == last[kind]["samples"]
        assert np.sum(matrix) - np.trace(matrix) == last[kind]["n_errors"]


def test_results_say_nothing_of_a_confusion_that_nobody_counts():
    assert set(Story().decision.results()) == {"epochs", "best"}


def test_squares_decide_by_their_mean():
    story = Story(DecisionMSE, inputs=("n_err", "metrics"))
    story.tell(VALIDATION, loss=3.0, n_err=2, metrics=(3.0, 0.9, 0.2), last=False)
    story.tell(VALIDATION, loss=1.0, n_err=1, metrics=(1.0, 0.4, 0.1), ends=True)
    assert story.decision.epochs == [
        {
            "epoch": 0,
            "validation": {
                "samples": 20,
                "loss": 0.2,
                "n_errors": 3,
                "error_percent": 15.0,
                "loss_max": 0.9,
                "loss_min": 0.1,
            },
        }
    ]
    assert story.decision.best == {
        "epoch": 0,
        "validation_loss": 0.2,
        "validation_error_percent": 15.0,
    }


def test_squares_forget_the_extremes_of_the_epoch_before():
    # Veles's minimum was 0 from the second epoch on
    story = Story(DecisionMSE, inputs=("metrics",))
    for epoch, low in enumerate((0.1, 0.3)):
        story.tell(VALIDATION, loss=5.0, metrics=(5.0, 0.9, low), epoch=epoch, ends=True)
    assert [r["validation"]["loss_min"] for r in story.decision.epochs] == [0.1, 0.3]
    assert "n_errors" not in story.decision.epochs[0]["validation"]


def test_squares_survive_a_checkpoint():
    story = Story(DecisionMSE, inputs=("metrics",))
    story.tell(VALIDATION, loss=5.0, metrics=(5.0, 0.9, 0.1), last=False)
    other = restored(story, inputs=("metrics",))
    other.tell(VALIDATION, loss=5.0, metrics=(5.0, 0.5, 0.2), ends=True)
    record = other.decision.epochs[0]["validation"]
    assert (record["loss_max"], record["loss_min"]) == (0.9, 0.1)


def test_run_with_squared_error():
    def build_mse(wf):
        x = np.random.default_rng(0).random((20, 3))
        loader = ArrayLoader(wf, x, targets=x @ [[1.0], [2.0], [3.0]], minibatch_size=6)
        layers = [linear(1)]
        standard_workflow(
            wf, loader=loader, layers=layers, loss="mse", learning_rate=0.3, max_epochs=20
        )

    decision = trained(build_mse)["DecisionMSE"]
    losses = [record["train"]["loss"] for record in decision.epochs]
    assert losses[-1] < 0.2 * losses[0]
    assert decision.best["train_loss"] == min(losses)

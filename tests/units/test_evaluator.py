"""Evaluators: losses, gradients, what is counted, and what counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ready, workflow_on
from networks import Given

from veloflow.errors import DataError, LinkError, ShapeError
from veloflow.units import EvaluatorMSE, EvaluatorSoftmax

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])


def softmax_of(labels, p=P, *, dtype="float64", batch_size=None, **options):
    """Return an evaluator that has run on probabilities and labels."""
    wf = workflow_on(dtype=dtype)
    given = Given(wf, p=np.array(p), labels=np.array(labels, np.int32), batch_size=batch_size)
    unit = EvaluatorSoftmax(wf, **options).link_data(given, "labels", output="p")
    if batch_size is not None:
        unit.link_data(given, "batch_size")
    with ready(given, unit):
        unit.run()
    return unit


def test_cross_entropy_and_its_gradient():
    unit = softmax_of([0, 1, 2, 1])
    assert unit.loss == pytest.approx(-np.log([0.7, 0.3, 0.6, 0.4]).sum())
    np.testing.assert_allclose(unit.err_output.read(), (P - np.eye(3)[[0, 1, 2, 1]]) / 4)
    assert (unit.samples, unit.n_err) == (4, 2)


def test_confusion_matrix_has_predictions_in_rows():
    unit = softmax_of([0, 1, 2, 1])
    np.testing.assert_array_equal(unit.confusion_matrix, [[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert softmax_of([0, 1, 2, 1], compute_confusion_matrix=False).confusion_matrix.size == 0


def test_unlabelled_samples_are_not_evaluated():
    # Veles counted them as errors
    unit = softmax_of([0, -1, 1, -1])
    assert (unit.samples, unit.n_err, unit.confusion_matrix.sum()) == (2, 1, 2)
    assert unit.loss == pytest.approx(-np.log([0.7, 0.2]).sum())
    expected = np.zeros((4, 3))
    expected[0] = (P[0] - [1, 0, 0]) / 2
    expected[2] = (P[2] - [0, 1, 0]) / 2
    np.testing.assert_allclose(unit.err_output.read(), expected)


def test_minibatch_without_labels_is_nothing():
    unit = softmax_of([-1, -1, -1, -1])
    assert (unit.samples, unit.n_err, unit.loss) == (0, 0, 0.0)
    assert not np.array(unit.err_output.read()).any()


def test_piece_of_a_batch_is_divided_by_the_size_of_the_batch():
    piece = softmax_of([0, 1, 2, 1], batch_size=10)
    np.testing.assert_allclose(piece.err_output.read(), (P - np.eye(3)[[0, 1, 2, 1]]) / 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probability_of_nothing_is_a_finite_loss(dtype):
    unit = softmax_of([0], [[0.0, 1.0]], dtype=dtype)
    assert unit.loss == pytest.approx(-np.log(float(np.finfo(dtype).tiny)))


def test_probability_that_is_no_number_shows_in_the_loss():
    assert np.isnan(softmax_of([0], [[np.nan, np.nan]]).loss)


def test_more_labels_than_classes_are_refused_before_any_sample_is_seen():
    wf = workflow_on()
    given = Given(wf, p=np.full((4, 3), 1 / 3), labels=np.array([0, 1, 2, 0], np.int32))
    given.labels_mapping = {-7: 0, 0: 1, 1: 2, 2: 3}
    unit = EvaluatorSoftmax(wf).link_data(given, "labels", output="p")
    said = "of class 3, .* labels are -7, 0, 1, 2: mend a wrong one"
    with pytest.raises(DataError, match=said), ready(given, unit):
        pass


def test_class_beyond_the_output_is_refused():
    with pytest.raises(DataError, match="of class 3, and the output has 3 classes"):
        softmax_of([0, 1, 2, 3])


def test_labels_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="'batch' is 3 here and 4 in"):
        softmax_of([0, 1, 2])


Y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [9.0, 9.0]])
T = np.array([[1.0, 0.0], [0.0, 4.0], [5.0, 7.0], [0.0, 0.0]])


def mse_of(y=Y, t=T, *, size=4, labels=None, class_targets=None, **options):
    """Return an evaluator that has run on outputs and targets."""
    wf = workflow_on(dtype="float64")
    given = Given(wf, y=y, t=t, minibatch_size=size)
    unit = EvaluatorMSE(wf, **options).link_data(given, "minibatch_size", output="y", target="t")
    if class_targets is not None:
        given.give(labels=np.array(labels, np.int32), class_targets=class_targets)
        unit.link_data(given, "labels", "class_targets")
    with ready(given, unit):
        unit.run()
    return unit


def test_squared_error_and_its_gradient():
    unit = mse_of(root=False)
    assert unit.loss == pytest.approx(2.0 + 4.5 + 0.5 + 81.0)
    assert unit.metrics == pytest.approx((88.0, 81.0, 0.5))
    np.testing.assert_allclose(unit.err_output.read(), (Y - T) / 4)


def test_root_changes_what_is_reported_and_not_the_gradient():
    unit = mse_of()
    roots = np.sqrt([2.0, 4.5, 0.5, 81.0])
    assert unit.metrics == pytest.approx((roots.sum(), 9.0, np.sqrt(0.5)))
    np.testing.assert_allclose(unit.err_output.read(), (Y - T) / 4)


def test_padding_is_not_evaluated():
    unit = mse_of(size=3, root=False)
    assert (unit.samples, unit.loss) == (3, pytest.approx(7.0))
    assert unit.metrics[1] == 4.5
    expected = np.vstack([(Y - T)[:3] / 3, np.zeros((1, 2))])
    np.testing.assert_allclose(unit.err_output.read(), expected)


def test_size_of_the_minibatch_must_be_linked():
    wf = workflow_on()
    given = Given(wf, y=Y, t=T)
    unit = EvaluatorMSE(wf).link_data(given, output="y", target="t")
    with pytest.raises(LinkError, match="minibatch_size"), ready(given, unit):
        pass


def test_samples_of_more_dimensions():
    y, t = Y.reshape(2, 2, 2), T.reshape(2, 2, 2)
    unit = mse_of(y, t, size=2, root=False)
    assert unit.loss == pytest.approx(np.square(Y - T).sum() / 4)
    assert unit.err_output.shape == (2, 2, 2)


def test_nearest_target_is_the_class():
    class_targets = np.array([[1.0, 1.0], [4.0, 4.0], [9.0, 9.0]])
    unit = mse_of(labels=[0, 1, 2, 2], class_targets=class_targets)
    assert unit.n_err == 1  # (5, 6) is nearer to (4, 4) than to (9, 9)
    assert mse_of(labels=[0, 1, -1, 2], class_targets=class_targets).n_err == 0
    assert mse_of(labels=[0, 1, 2, 0], class_targets=class_targets, size=3).n_err == 1


def test_target_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="sample"):
        mse_of(t=np.zeros((4, 3)))

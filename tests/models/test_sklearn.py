"""The estimators for scikit-learn: its own checks, and what its users do with estimators."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from veloflow.errors import InputError
from veloflow.sklearn import VeloflowClassifier, VeloflowRegressor


@pytest.mark.slow
@parametrize_with_checks(
    [
        kind(hidden_layer_sizes=(10,), max_epochs=30, learning_rate=0.01)
        for kind in (VeloflowClassifier, VeloflowRegressor)
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("given", "dtype", "expected"), [
    (np.float32, None, "float32"), (np.float64, None, "float64"), (np.int64, None, "float64"),
    (np.float64, "float32", "float32"),
])  # fmt: skip
def test_parameters_have_the_dtype_of_the_features(given, dtype, expected):
    x = np.arange(40).reshape(20, 2).astype(given)
    model = VeloflowClassifier((3,), max_epochs=2, dtype=dtype).fit(x, np.arange(20) % 2)
    assert model.dtype_ == expected
    assert {one.dtype.name for name, one in model.parameters_.items() if "weights" in name} == {
        expected
    }


def test_digits_in_a_pipeline_with_a_grid():
    x, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(),
        VeloflowClassifier(max_epochs=5, learning_rate=0.01, random_state=0, normalization="none"),
    )
    grid = {"veloflowclassifier__hidden_layer_sizes": [(3,), (40,)]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x[:600], y[:600])
    assert search.best_params_["veloflowclassifier__hidden_layer_sizes"] == (40,)
    assert search.score(x[600:], y[600:]) > 0.8


def test_labels_of_any_kind_come_back():
    x, y = load_wine(return_X_y=True)
    names = np.array(["red", "white", "rose"])[y]
    model = VeloflowClassifier((8,), max_epochs=20, learning_rate=0.01, random_state=1).fit(
        x, names
    )
    assert model.classes_.tolist() == ["red", "rose", "white"]
    assert model.score(x, names) > 0.95
    shares = model.predict_proba(x)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (model.classes_[shares.argmax(axis=1)] == model.predict(x)).all()


def test_the_seed_says_all_and_a_clone_learns_anew():
    x, y = load_wine(return_X_y=True)
    model = VeloflowClassifier((5,), max_epochs=3, random_state=7).fit(x, y)
    again = clone(model)
    assert not hasattr(again, "parameters_")
    assert (again.fit(x, y).predict_proba(x) == model.predict_proba(x)).all()
    other = clone(model).set_params(random_state=8).fit(x, y)
    assert (other.predict_proba(x) != model.predict_proba(x)).any()


def test_early_stopping_keeps_the_best_parameters():
    x, y = load_digits(return_X_y=True)
    model = VeloflowClassifier(
        (10,), max_epochs=30, early_stopping=True, n_iter_no_change=2, random_state=0,
        learning_rate=0.05,
    ).fit(x[:300], y[:300])  # fmt: skip
    assert model.n_iter_ < 30
    assert model.best_epoch_ <= model.n_iter_ - 1


def test_partial_fit_learns_bit_by_bit_though_a_part_lacks_classes():
    x, y = load_wine(return_X_y=True)
    model = VeloflowClassifier((8,), random_state=0, batch_size=20, learning_rate=0.01)
    model.partial_fit(x, y, classes=[0, 1, 2])
    for _ in range(15):
        for part in (y != 2, y == 2):
            model.partial_fit(x[part], y[part])
    assert model.n_iter_ == 31
    model.partial_fit(x, y)
    assert model.score(x, y) > 0.9
    with pytest.raises(ValueError, match="labels that are not among the classes"):
        model.partial_fit(x, y + 1)


def test_regression_on_real_data_beats_a_straight_line_by_nothing_less():
    x, y = load_diabetes(return_X_y=True)
    model = VeloflowRegressor((), max_epochs=50, learning_rate=0.01, random_state=0)
    assert cross_val_score(model, x, y, cv=3).mean() > 0.4
    two = VeloflowRegressor((10,), max_epochs=5, random_state=0).fit(x, np.stack([y, -y], axis=1))
    assert two.predict(x).shape == (len(x), 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_export_gives_the_same_probabilities(dtype, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    x, y = load_wine(return_X_y=True)
    x = x.astype(dtype)
    model = VeloflowClassifier((8,), dropout=0.2, max_epochs=5, random_state=0).fit(x, y)
    session = runtime.InferenceSession(model.export_onnx(tmp_path / "wine.onnx"))
    (found,) = session.run(None, {"input": x})
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("solver", ["momentum", "nesterov", "rmsprop", "rprop"])
def test_other_solvers(solver):
    x, y = load_wine(return_X_y=True)
    model = VeloflowClassifier((8,), solver=solver, max_epochs=40, random_state=0, batch_size=200)
    untrained = clone(model).set_params(max_epochs=1).fit(x, y)
    assert model.fit(x, y).score(x, y) > max(0.6, untrained.score(x, y))


def test_a_wrong_parameter_is_named():
    x, y = load_wine(return_X_y=True)
    with pytest.raises(InputError, match=r"activation is 'tahn' \(did you mean 'tanh'\?\)"):
        VeloflowClassifier(activation="tahn").fit(x, y)


@pytest.mark.parametrize("normalization", ["standard", "pointwise", "mean_disp", "none"])
@pytest.mark.parametrize("kind", [VeloflowClassifier, VeloflowRegressor])
def test_a_sample_of_weight_two_is_the_sample_twice_and_of_weight_zero_none(kind, normalization):
    x, y = load_wine(return_X_y=True)
    x = x[::2] / x.std(axis=0)
    labels = y[::2] if kind is VeloflowClassifier else x[:, 0] - x[:, 1]
    weights = np.arange(len(x)) % 3
    model = kind((5,), max_epochs=10, batch_size=200, random_state=0, dtype="float64",
                 normalization=normalization)  # fmt: skip
    weighted = clone(model).fit(x, labels, sample_weight=weights)
    repeated = clone(model).fit(x.repeat(weights, axis=0), labels.repeat(weights))
    tenfold = clone(model).fit(x, labels, sample_weight=10 * weights)
    plain = clone(model).fit(x, labels)
    first, *others = (one._outputs(x) for one in (weighted, repeated, tenfold, plain))
    np.testing.assert_allclose(first, others[0], atol=1e-9)
    np.testing.assert_allclose(first, others[1], atol=1e-9)
    assert np.abs(first - others[2]).max() > 1e-3
    assert weighted.loss_curve_[-1] == pytest.approx(repeated.loss_curve_[-1], rel=1e-6)
    going_on = [one.partial_fit(x, labels, sample_weight=weights) for one in (weighted, repeated)]
    np.testing.assert_allclose(*(one._outputs(x) for one in going_on), atol=1e-9)


def test_in_small_steps_weights_shift_what_is_learned():
    x, y = load_wine(return_X_y=True)
    model = VeloflowClassifier((), max_epochs=20, random_state=0, learning_rate=0.01)
    mixed = np.where(np.arange(len(y)) % 4 == 0, (y + 1) % 3, y)  # every fourth label is wrong
    weights = np.where(mixed == y, 1.0, 0.0)
    assert clone(model).fit(x, mixed, sample_weight=weights).score(x, y) > 0.95
    held = clone(model).set_params(early_stopping=True, batch_size=20)
    assert held.fit(x, mixed, sample_weight=weights).score(x, y) > 0.9


@pytest.mark.parametrize(
    ("weights", "told"),
    [([1.0, -1.0, 1.0], "below 0"), ([0.0, 0.0, 0.0], "zero"), ([1.0, 1.0], "3 samples"),
     ([1.0, np.nan, 1.0], "sample_weight contains NaN")],
)  # fmt: skip
def test_wrong_weights_are_refused(weights, told):
    with pytest.raises(ValueError, match=told):
        VeloflowClassifier().fit(np.eye(3), [0, 1, 0], sample_weight=weights)

"""Estimators for scikit-learn: networks that train as workflows, with fit, predict and score.

    from veloflow.sklearn import VeloflowClassifier

    model = VeloflowClassifier(hidden_layer_sizes=(100,), max_epochs=30, random_state=0)
    model.fit(X_train, y_train).score(X_test, y_test)

They pass scikit-learn's own ``check_estimator``. What ``fit`` learns is kept in plain attributes
(arrays, numbers, texts), so that whatever stores estimators can store these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from veloflow.core import EpochDone, Workflow
from veloflow.devices.selection import choose_device, open_device
from veloflow.errors import InputError, nearest
from veloflow.models.inference import InferenceGraph
from veloflow.models.onnx_export import export_onnx
from veloflow.runtime.api import prepare
from veloflow.runtime.definition import Definition
from veloflow.runtime.storage.checkpoint import Checkpoint
from veloflow.units.all2all import linear, relu, sigmoid, softmax, softplus, tanh
from veloflow.units.dropout import dropout
from veloflow.units.fullbatch import ArrayLoader
from veloflow.units.normalization import normalizer_of
from veloflow.units.solvers import solver_of
from veloflow.units.standard import standard_workflow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from veloflow.devices import Device
    from veloflow.runtime.session import Session
    from veloflow.units.layer import Layer

__all__ = ["VeloflowClassifier", "VeloflowRegressor"]

_ACTIVATIONS: dict[str, Callable[..., Layer]] = {
    "tanh": tanh, "relu": relu, "sigmoid": sigmoid, "softplus": softplus, "linear": linear,
}  # fmt: skip
#: rows that are computed together when predicting, always: so a row's outputs are the same bits
_ROWS = 256


class _Network(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """What both estimators share. An outline."""

    _loss: Literal["softmax", "mse"]
    parameters_: dict[str, NDArray[np.generic]]

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str = "relu",
        solver: str = "adam",
        learning_rate: float | None = None,
        momentum: float = 0.9,
        weights_decay: float = 0.0,
        dropout: float = 0.0,
        batch_size: int = 50,
        max_epochs: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        normalization: str = "standard",
        random_state: int | np.random.RandomState | None = None,
        device: str = "numpy",
        dtype: Literal["float32", "float64"] | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weights_decay = weights_decay
        self.dropout = dropout
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.normalization = normalization
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    # -- the network --------------------------------------------------------------------------

    def _layers(self, outputs: int) -> list[Layer]:
        if self.activation not in _ACTIVATIONS:
            raise InputError(
                f"activation is {self.activation!r}{nearest(self.activation, _ACTIVATIONS)}; "
                f"give one of {', '.join(_ACTIVATIONS)}"
            )
        layers: list[Layer] = []
        for size in self.hidden_layer_sizes:
            layers.append(_ACTIVATIONS[self.activation](int(size)))
            if self.dropout:
                layers.append(dropout(self.dropout))
        return [*layers, softmax(outputs) if self._loss == "softmax" else linear(outputs)]

    def _build(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        outputs: int,
        *,
        weights: NDArray[np.float64] | None = None,
        epochs: int = 1,
        holds_out: bool = False,
        normalization: str = "none",
    ) -> Callable[[Workflow], None]:
        """Return the definition of the network on these samples."""
        given: dict[str, Any] = {"targets": y}
        if self._loss == "softmax":
            given = {"labels": y, "classes": range(outputs)}
        given["weights"] = weights
        rates: dict[str, Any] = {"solver": self.solver}
        if solver_of(self.solver).uses_moment:
            rates["gradient_moment"] = self.momentum
        if self.learning_rate is not None:
            rates["learning_rate"] = self.learning_rate

        def build(wf: Workflow) -> None:
            loader = ArrayLoader(
                wf, x, **given,
                minibatch_size=min(self.batch_size, len(x)),
                validation_ratio=self.validation_fraction if holds_out else 0.0,
                normalization=normalization,
                name="samples",
            )  # fmt: skip
            standard_workflow(
                wf,
                loader=loader,
                layers=self._layers(outputs),
                loss=self._loss,
                max_epochs=epochs,
                fail_iterations=self.n_iter_no_change if holds_out else max(epochs, 1),
                weights_decay=self.weights_decay,
                **rates,
            )

        return build

    def _train(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        outputs: int,
        *,
        weights: NDArray[np.float64] | None,
        epochs: int,
        goes_on: bool,
    ) -> None:
        """Train on samples and class numbers or targets; with ``goes_on`` from what is known."""
        self._check_numbers()
        if weights is not None:
            kept = weights > 0  # the others shall not be counted as right or wrong either
            x, y, weights = x[kept], y[kept], weights[kept] / weights[kept].mean()
        if not goes_on:
            self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            normalizer = normalizer_of(self.normalization)
            normalizer.analyze(x, weights)
            self.normalizer_state_ = normalizer.state()
            self.n_iter_, self.loss_curve_ = 0, []
            self.dtype_ = self.dtype or ("float32" if x.dtype == np.float32 else "float64")
        normalizer = normalizer_of(self.normalization)
        normalizer.restore(self.normalizer_state_)
        holds_out = bool(self.early_stopping) and not goes_on and len(x) > 1
        build = self._build(
            normalizer.normalize(x), y, outputs, weights=weights, epochs=epochs, holds_out=holds_out
        )
        # another order of the samples, and other neurons dropped, in each call of partial_fit
        seed = self.seed_ + self.n_iter_
        with prepare(build, device=self.device, seed=seed, dtype=self.dtype_) as session:
            if goes_on:
                session.parameters.load(self.parameters_)
            best = _Best(session) if holds_out else None
            result = session.run()
            checkpoint = session.checkpoint("finished")
        self.parameters_ = checkpoint.parameters if best is None else best.parameters
        self.unit_states_ = {
            path: state for path, state in checkpoint.units.items() if not path.startswith("GD")
        }
        self.unit_states_["samples"]["normalizer"] = self.normalizer_state_
        self.unit_states_["samples"]["order"] = np.empty(0, np.int32)  # a model has no samples
        self.n_outputs_ = outputs
        self.n_iter_ += epochs if goes_on else int(result.epochs[-1]["epoch"])
        self.loss_curve_ += [one["train"]["loss"] for one in result.epochs if "train" in one]
        if holds_out:
            self.best_epoch_ = result.best["epoch"]

    def _check_numbers(self) -> None:
        if self.batch_size < 1 or self.max_epochs < 1 or self.n_iter_no_change < 1:
            raise InputError("batch_size, max_epochs and n_iter_no_change must be at least 1")
        if not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}; give one between 0 and 1"
            )

    # -- using it -----------------------------------------------------------------------------

    @contextmanager
    def inference_graph(self) -> Iterator[InferenceGraph]:
        """Give the fitted network as an inference graph, from raw features to outputs."""
        check_is_fitted(self)
        checkpoint = Checkpoint(
            workflow=type(self).__name__,
            options={},
            settings={"seed": self.seed_, "dtype": self.dtype_},
            flow={},
            units={path: dict(state) for path, state in self.unit_states_.items()},
            parameters=self.parameters_,
        )
        y = np.zeros(1, np.int64) if self._loss == "softmax" else np.zeros((1, self.n_outputs_))
        x = np.zeros((1, self.n_features_in_))
        build = self._build(x, y, self.n_outputs_, normalization=self.normalization)
        definition = Definition(type(self).__name__, build, None)
        with _opened(self.device) as device:
            graph = InferenceGraph(definition, checkpoint, device, minibatch_size=_ROWS)
            try:
                yield graph
            finally:
                graph.close()

    def _outputs(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype="numeric")
        with self.inference_graph() as graph:
            return graph.run(x).astype(np.float64)

    def export_onnx(self, path: str | Path) -> Path:
        """Write the fitted network as an ONNX file, from raw features of ``dtype_`` to outputs.

        A regressor's outputs are the standardized targets, (y - target_mean_) / target_scale_.

        Raises:
            InputError: the package ``onnx`` is missing.
        """
        with self.inference_graph() as graph:
            return export_onnx(graph, path)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "parameters_")


def _weights_of(given: ArrayLike | None, count: int) -> NDArray[np.float64] | None:
    """Return weights of samples, float64 (n,); None where none are given.

    Raises:
        ValueError: they are no numbers, one for each sample, none below 0 and some above.
    """
    if given is None:
        return None
    weights = check_array(given, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (count,):
        raise ValueError(f"sample_weight has shape {weights.shape}, and X {count} samples")
    if (weights < 0).any():
        raise ValueError("sample_weight has a number below 0")
    if not weights.any():
        raise ValueError("every sample_weight is zero: there is nothing to learn from")
    return np.asarray(weights)


class _Best:
    """Keeps the parameters of the best epoch so far."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.parameters = session.parameters.save()
        session.events.subscribe(EpochDone, self._look)

    def _look(self, event: EpochDone) -> None:
        if event.improved:
            self.parameters = self._session.parameters.save()


@contextmanager
def _opened(name: str) -> Iterator[Device]:
    device = choose_device()[0] if name == "auto" else open_device(name)
    try:
        yield device
    finally:
        device.close()


class VeloflowClassifier(ClassifierMixin, _Network):  # type: ignore[misc]
    """A network that classifies, trained by cross-entropy.

    Args:
        hidden_layer_sizes: neurons of each hidden layer; () for logistic regression.
        activation: of hidden layers: "tanh" (LeCun's), "relu", "sigmoid", "softplus", "linear".
        solver: "momentum", "nesterov", "adam", "adamw", "rmsprop" and the others of
            :mod:`veloflow.units.solvers`.
        learning_rate: None for the solver's own.
        momentum: of the solvers that have one.
        weights_decay: how strongly weights are pulled to zero.
        dropout: the share of hidden neurons that are silenced while training.
        batch_size: samples a minibatch.
        max_epochs: passes over the training samples, at most.
        early_stopping: hold ``validation_fraction`` of the samples out, stop when their error has
            not fallen for ``n_iter_no_change`` epochs, and keep the best parameters.
        normalization: of the features, by name: "standard", "pointwise", "none" and others of
            :mod:`veloflow.units.normalization`; learned from the first samples seen.
        random_state: seed of all random numbers.
        device: "numpy", "opencl" or "auto".
        dtype: of parameters and activations; None for that of the features, float32 or float64, as
            scikit-learn's own networks take it (integers become float64).

    Attributes:
        classes_: the labels, sorted.
        n_iter_: epochs trained.
        loss_curve_: mean loss of each epoch.
        dtype_: of parameters and activations.
        parameters_: parameters and solver state by name.
    """

    _loss = "softmax"

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on features (n, features) and labels (n,), each as often as its weight says.

        In steps of all samples at once (``batch_size`` of at least n) a sample of weight 2 is the
        same as that sample twice, and one of weight 0 the same as none. In smaller steps a
        sample's part of the gradient is multiplied by its weight over the mean of all weights.
        """
        x, labels = validate_data(self, X, y, dtype="numeric")
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        weights = _weights_of(sample_weight, len(x))
        self._train(
            x, numbers, len(self.classes_),
            weights=weights, epochs=self.max_epochs, goes_on=False,
        )  # fmt: skip
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train one more epoch on these samples; the first call names all ``classes``."""
        is_first = not self.__sklearn_is_fitted__()
        x, labels = validate_data(self, X, y, dtype="numeric", reset=is_first)
        check_classification_targets(labels)
        if is_first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on the first call: {self.classes_!r}"
            )
        numbers = np.searchsorted(self.classes_, labels)
        known = np.minimum(numbers, len(self.classes_) - 1)
        if (self.classes_[known] != labels).any():
            raise ValueError(f"y has labels that are not among the classes {self.classes_!r}")
        weights = _weights_of(sample_weight, len(x))
        self._train(x, numbers, len(self.classes_), weights=weights, epochs=1, goes_on=not is_first)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of the classes, (n, classes), in the order of ``classes_``."""
        found = self._outputs(X)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each sample, (n,)."""
        winners = self._outputs(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[winners]
        return found


class VeloflowRegressor(RegressorMixin, _Network):  # type: ignore[misc]
    """A network that approximates numbers, trained by the squared error.

    Targets are standardized inside. The parameters are those of :class:`VeloflowClassifier`.

    Attributes:
        target_mean_, target_scale_: mean and standard deviation of the targets.
        n_iter_, loss_curve_, parameters_: see :class:`VeloflowClassifier`.
    """

    _loss = "mse"

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on features (n, features) and targets (n,) or (n, targets).

        What weights do is told at :meth:`VeloflowClassifier.fit`.
        """
        return self._fit(X, y, sample_weight, epochs=self.max_epochs, is_first=True)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train one more epoch on these samples."""
        is_first = not self.__sklearn_is_fitted__()
        return self._fit(X, y, sample_weight, epochs=1, is_first=is_first)

    def _fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        epochs: int,
        is_first: bool,
    ) -> Self:
        x, targets = validate_data(
            self, X, y, dtype="numeric", multi_output=True, y_numeric=True, reset=is_first
        )
        rows = targets.reshape(len(targets), -1).astype(np.float64)
        weights = _weights_of(sample_weight, len(x))
        if is_first:
            self.target_mean_ = np.average(rows, axis=0, weights=weights)
            squares = np.square(rows - self.target_mean_)
            scale = np.sqrt(np.average(squares, axis=0, weights=weights))
            self.target_scale_ = np.where(scale > 0, scale, 1.0)
            self.is_flat_ = targets.ndim == 1
        standard = (rows - self.target_mean_) / self.target_scale_
        self._train(
            x, standard, rows.shape[1], weights=weights, epochs=epochs, goes_on=not is_first
        )
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the approximated targets, shaped as those of the training."""
        found = np.asarray(self._outputs(X) * self.target_scale_ + self.target_mean_)
        return found[:, 0] if self.is_flat_ else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

"""Loaders: where samples come from, cut into minibatches, class after class, epoch after epoch.

Within an epoch the classes are served in Veles's order TEST, VALIDATION, TRAIN, and no minibatch
spans two classes. So the validation of epoch n is measured after n passes of training. The last
minibatch of a class may be short: its rows beyond ``minibatch_size`` are zero, their labels -1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from veloflow.core import (
    Batch,
    BatchSource,
    Bool,
    DataFacts,
    Farm,
    Part,
    Payload,
    Progress,
    shard_size,
)
from veloflow.devices.random import generator
from veloflow.errors import CheckpointError, DataError, InputError
from veloflow.units.device_unit import DeviceUnit
from veloflow.units.download import download
from veloflow.units.given import given_in, put
from veloflow.units.normalization import NoNormalization, Normalizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array
    from veloflow.places import Place
    from veloflow.units.reading import RawData

__all__ = ["CLASS_NAMES", "TEST", "TRAIN", "VALIDATION", "Loader"]

TEST, VALIDATION, TRAIN = 0, 1, 2
CLASS_NAMES = ("test", "validation", "train")


class Loader(DeviceUnit, BatchSource):
    """Serves minibatches. An outline: subclasses load the data and fill a minibatch.

    Args:
        minibatch_size: how many samples a full minibatch holds.
        shuffle_limit: how many epochs get a new order of the training samples; None for all.

    Attributes:
        minibatch_data: (minibatch_size, *sample shape), of the run's dtype.
        minibatch_labels: int32 (minibatch_size,), -1 for padding and unlabelled samples.
        minibatch_indices: host int64 (minibatch_size,), the samples served, -1 for padding.
        minibatch_class: TEST (0), VALIDATION (1) or TRAIN (2).
        minibatch_size: how many samples of the present minibatch are real.
        minibatch_position: place of its first sample in the epoch's order, for random numbers
            that do not depend on who computes.
        epoch_number: how many passes of training the present evaluation has behind it.
        last_minibatch: whether the present minibatch ends its class.
        epoch_ended: whether it ends an evaluation: the validation class, or the training class
            when there is no validation.
        train_ended: whether it ends the training class.
        class_lengths: samples in TEST, VALIDATION and TRAIN.
        labels_mapping: raw label -> class number, in order of class number.
        normalizer: what raw samples go through on their way into ``minibatch_data``.
        sample_shape: of one sample.
    """

    group: ClassVar[str] = "loader"
    #: the dtype of ``minibatch_data``; None for the run's own
    sample_dtype: ClassVar[str | None] = None

    def __init__(
        self,
        workflow: Workflow,
        *,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(workflow, name=name)
        if minibatch_size < 1:
            raise InputError(
                f"unit {self.path!r}: minibatch_size is {minibatch_size}; give at least 1"
            )
        self.max_minibatch_size = minibatch_size
        self.shuffle_limit = shuffle_limit
        self.minibatch_data: Array
        self.minibatch_labels: Array
        self.minibatch_indices: NDArray[np.int64] = np.full(minibatch_size, -1, np.int64)
        self.minibatch_class = TRAIN
        self.minibatch_size = 0
        self.minibatch_position = 0
        self.epoch_number = 0
        self.last_minibatch = Bool()
        self.epoch_ended = Bool()
        self.train_ended = Bool()
        self.class_lengths: tuple[int, int, int] = (0, 0, 0)
        self.labels_mapping: dict[str | int, int] = {}
        self._ends_known: tuple[object, list[int]] = (None, [])  # for which class_lengths, and they
        self._offset = 0  # samples of the epoch served so far, of all classes
        self._pass = 0  # number of the pass over all classes
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._outstanding: dict[int, Batch] = {}  # issued and not served, by position
        self._again: list[Batch] = []  # to be issued first: they were outstanding at a checkpoint

        self.sample_shape: tuple[int, ...] = ()
        self.normalizer: Normalizer = NoNormalization()
        self._downloads: list[Callable[[], Path]] = []
        self._given: dict[str, NDArray[Any]] = {}  # what the master gave for the present job
        self.bytes_given = self.samples_given = 0

    def fetch_first(
        self, url: str, folder: str | Path, *, sha256: str, unpacks: bool = False
    ) -> Self:
        """Let a file be downloaded before the data is loaded, unless it is there already.

        Args:
            url, folder, sha256, unpacks: see :func:`~veloflow.units.download`.

        Returns:
            The loader itself, so that several files may follow one another.
        """
        self._downloads.append(partial(download, url, folder, sha256=sha256, unpacks=unpacks))
        return self

    # -- what subclasses fill in --------------------------------------------------------------

    @abstractmethod
    def load(self) -> None:
        """Load or open the data; set ``class_lengths``, ``sample_shape`` and ``labels_mapping``.

        Raises:
            DataError: the data is missing or damaged; the message says how to get it.
        """

    @abstractmethod
    def fill_minibatch(self) -> None:
        """Fill data and labels for ``minibatch_indices``; rows of index -1 are padding."""

    def shuffled(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Return the order of the training samples in pass ``number``, given that of the last.

        By default a permutation that depends on the seed, the unit's name and the number only.
        """
        random = generator(self.settings.seed, self.path, "order", number)
        return random.permutation(np.sort(order))

    # -- the work -----------------------------------------------------------------------------

    def initialize(self) -> None:
        """Download what is missing, load the data, and declare the minibatch."""
        if self.is_given:
            self.know_data(self.service(DataFacts).facts[self.path])
        else:
            for fetch in self._downloads:
                fetch()
            self.load()
        if sum(self.class_lengths) == 0:
            raise DataError(f"unit {self.path!r}: the data set is empty")
        if self.settings.role == "slave":
            self.max_minibatch_size = shard_size(self.max_minibatch_size, self.settings.shards)
            self.minibatch_indices = np.full(self.max_minibatch_size, -1, np.int64)
        self.minibatch_data = self.declare(
            self.max_minibatch_size, *self.sample_shape, dtype=self.sample_dtype
        )
        self.minibatch_labels = self.declare(self.max_minibatch_size, dtype="int32")
        self._start_pass(0)

    def run(self) -> None:
        """Serve the next minibatch."""
        self.serve(self.issue())
        self.fill_minibatch()

    def issue(self) -> Batch:
        """Return the next minibatch of the pass, or one that is to be issued again."""
        if self._again:
            batch = self._again.pop(0)
        else:
            if self._offset >= self._ends[-1]:
                self._start_pass(self._pass + 1)
            end = self._ends[self._class_at(self._offset)]
            size = min(self.max_minibatch_size, end - self._offset)
            batch = self._batch_at(self._offset, size)
            self._offset += size
        self._outstanding[batch.position] = batch
        return batch

    def _batch_at(self, position: int, size: int) -> Batch:
        samples = self._order[position : position + size].copy()
        kind, weight = self._class_at(position), self.count_labelled(samples)
        return Batch(kind, self._pass, position, size, weight, cast("Sequence[int]", samples))

    def count_labelled(self, indices: NDArray[np.int64]) -> int:
        """Return how many of these samples are evaluated; by default all."""
        return len(indices)

    @property
    def has_more_of_kind(self) -> bool:
        """Whether the next minibatch to issue is of the kind of those outstanding."""
        if self._again or not self._outstanding:
            return True
        kind = next(iter(self._outstanding.values())).kind
        return self._offset < self._ends[kind]

    def serve(self, batch: Batch) -> None:
        """Let ``batch`` be the present minibatch; the last one outstanding ends its class."""
        del self._outstanding[batch.position]
        self._show(batch.kind, batch.position, np.asarray(batch.samples))
        is_open = bool(self._outstanding or self._again)
        is_last = not is_open and self._offset == self._ends[batch.kind]
        self._raise_flags(batch.kind, is_last=is_last)

    def _show(self, kind: int, position: int, samples: NDArray[np.int64]) -> None:
        size = len(samples)
        self.minibatch_indices[:size] = samples
        self.minibatch_indices[size:] = -1
        self.minibatch_class, self.minibatch_size = kind, size
        self.minibatch_position = position

    # -- with slaves --------------------------------------------------------------------------

    def run_as_master(self) -> None:
        """Serve a minibatch whose samples slaves have."""
        self.service(Farm).take_turn(self)

    @property
    def is_steady(self) -> bool:
        """Whether it only says which samples come next."""
        return type(self).run_as_master is Loader.run_as_master

    def make_job(self, part: Part) -> Payload:
        """Return which samples a slave is to load, and where they stand in the epoch."""
        batch = part.batch
        samples = np.asarray(batch.samples)[part.first : part.first + part.count]
        given = self._give(samples, batch.epoch) if self.settings.gives_data else {}
        return {
            **given,
            "kind": batch.kind,
            "pass": batch.epoch,
            "epoch": self._epoch_shown(batch),
            "position": batch.position + part.first,
            "samples": samples,
        }

    def _epoch_shown(self, batch: Batch) -> int:
        """Return the epoch number that a lone run shows with this minibatch: dropout goes by it."""
        ends_training = batch.kind == TRAIN and batch.position + batch.size == self._ends[TRAIN]
        is_counted = not self.settings.testing and not self.class_lengths[VALIDATION]
        return batch.epoch + (ends_training and is_counted)

    def take_job(self, payload: Payload) -> None:
        """Let the samples of the job be the present minibatch.

        Raises:
            DataError: the job is about samples that this data set does not have.
        """
        job = cast("Mapping[str, Any]", payload)
        samples = np.asarray(job["samples"], np.int64)
        if (
            not 1 <= samples.size <= self.max_minibatch_size
            or samples.min() < 0
            or samples.max() >= sum(self.class_lengths)
        ):
            raise DataError(
                f"unit {self.path!r}: a job is about samples that are not here: the master has "
                "another data set"
            )
        self.epoch_number, self._pass = job["epoch"], job["pass"]
        self._show(job["kind"], job["position"], samples)
        self._given = given_in(job)

    def run_as_slave(self) -> None:
        """Load the samples of the job, or take those that came with it."""
        if not self.is_given:
            self.fill_minibatch()
            return
        for name, rows in self._given.items():
            put(name, rows, getattr(self, name), self.path)

    # -- samples from the master --------------------------------------------------------------

    @property
    def is_given(self) -> bool:
        """Whether this is a slave's loader, which gets its samples from the master."""
        return self.settings.gives_data and self.settings.role == "slave"

    def data_facts(self) -> Mapping[str, object]:
        """Return what a slave must know of data that it does not read, as JSON values."""
        return {
            "class_lengths": list(self.class_lengths),
            "sample_shape": list(self.sample_shape),
            "labels": [[raw, number] for raw, number in self.labels_mapping.items()],
        }

    def know_data(self, facts: Mapping[str, Any]) -> None:
        """Take what :meth:`data_facts` says, instead of loading."""
        test, validation, train = facts["class_lengths"]
        self.class_lengths = (test, validation, train)
        self.sample_shape = tuple(facts["sample_shape"])
        self.labels_mapping = dict(facts["labels"])

    def samples_of(self, indices: NDArray[np.int64], number: int) -> dict[str, NDArray[np.generic]]:
        """Return the rows (n, …) of these samples in pass ``number``, by the minibatch's names.

        Raises:
            InputError: this loader cannot.
        """
        raise InputError(
            f"unit {self.path!r}: its samples cannot be sent to slaves: {type(self).__name__} has "
            "no samples_of(); let slaves read the data, without --data-from master"
        )

    def _give(self, indices: NDArray[np.int64], number: int) -> dict[str, NDArray[np.generic]]:
        """Return samples for a job, as the device will have them, and count them."""
        found = {}
        for name, rows in self.samples_of(indices, number).items():
            dtype = getattr(self, name).dtype
            found[name] = np.ascontiguousarray(rows, dtype)
            self.bytes_given += found[name].nbytes
        self.samples_given += len(indices)
        return found

    def results(self) -> Mapping[str, object]:
        """Return how much was given to slaves, if anything was."""
        if not self.settings.gives_data:
            return {}
        return {"data_given": {"samples": self.samples_given, "bytes": self.bytes_given}}

    def next_indices(self) -> NDArray[np.int64]:
        """Return the samples of the minibatch after the present one; none at the end of a pass."""
        if self._offset >= self._ends[-1] or self.settings.role == "slave":
            return np.empty(0, np.int64)
        end = self._ends[self._class_at(self._offset)]
        return self._order[self._offset : min(self._offset + self.max_minibatch_size, end)].copy()

    @property
    def _ends(self) -> list[int]:
        """Where each class ends in the order of a pass; testing leaves the training class out."""
        if self._ends_known[0] is not self.class_lengths:  # asked for several times a minibatch
            lengths = list(self.class_lengths)
            if self.settings.testing and any(lengths[:TRAIN]):
                lengths[TRAIN] = 0
            ends = [sum(lengths[: kind + 1]) for kind in (TEST, VALIDATION, TRAIN)]
            self._ends_known = self.class_lengths, ends
        return self._ends_known[1]

    def _class_at(self, offset: int) -> int:
        for kind, end in enumerate(self._ends):
            if offset < end:
                return kind
        raise IndexError(f"a pass has {self._ends[-1]} samples, and {offset} is beyond them")

    def _start_pass(self, number: int) -> None:
        held_out = sum(self.class_lengths[:TRAIN])
        if number == 0:
            self._order = np.arange(sum(self.class_lengths), dtype=np.int64)
        if self.shuffle_limit is None or number < self.shuffle_limit:
            self._order[held_out:] = self.shuffled(self._order[held_out:], number)
        self._pass = self.epoch_number = number
        self._offset = 0

    def _raise_flags(self, kind: int, *, is_last: bool) -> None:
        ends_training = is_last and kind == TRAIN
        if self.settings.testing:
            ends_epoch = is_last and self._offset == self._ends[-1]
        elif self.class_lengths[VALIDATION]:
            ends_epoch = is_last and kind == VALIDATION
        else:
            ends_epoch = ends_training or (is_last and not self.class_lengths[TRAIN])
            if ends_training:
                self.epoch_number = self._pass + 1
        self.last_minibatch.set(is_last)
        self.train_ended.set(ends_training)
        self.epoch_ended.set(ends_epoch)

    def progress(self) -> Progress | None:
        """Tell the epoch, the class, and how many samples of the pass are served."""
        text = f"epoch {self.epoch_number} {CLASS_NAMES[self.minibatch_class]}"
        return Progress(text, self._offset, self._ends[-1])

    # -- the model without its data -----------------------------------------------------------

    def normalized(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return raw samples, (n, *sample shape), as the first layer takes them."""
        if isinstance(self.normalizer, NoNormalization):
            return raw
        return self.normalizer.normalize(raw)

    def lengths_of(self, samples: NDArray[Any]) -> NDArray[np.int32]:
        """Return how much of each sample is no padding: int32 (n,), by default all."""
        whole = self.sample_shape[0] if self.sample_shape else 1
        return np.full(len(samples), whole, np.int32)

    def restore_model(self, state: Mapping[str, Any]) -> None:
        """Take what belongs to the model from a saved state: how raw samples are to be treated.

        Raises:
            CheckpointError: the state is that of another loader.
        """
        if "sample_shape" not in state:
            raise CheckpointError(
                f"unit {self.path!r}: the checkpoint does not say what samples look like; "
                "it was written by an older version of veloflow; train anew"
            )
        self.sample_shape = tuple(state["sample_shape"])
        self.labels_mapping = dict(state["labels"])
        self.normalizer.restore(state["normalizer"])

    def read_raw(
        self, source: Place, *, key: str | None = None
    ) -> tuple[list[str] | None, RawData]:
        """Read samples from a file, for a trained model: their names, if they have any, and data.

        Args:
            source: a file or folder.
            key: the name of the data set in a file that holds several.

        Returns:
            Names, or None; and what has a length, and gives raw samples when cut by a slice.

        Raises:
            DataError: it cannot be read, or holds something else.
        """
        from veloflow.units.reading import open_samples

        return None, open_samples(source, self.sample_shape, key=key)

    def state(self) -> Mapping[str, object]:
        """Return the place in the epoch, its order, the labels, and what the model must know."""
        return {
            "pass": self._pass,
            "offset": self._offset,
            "epoch_number": self.epoch_number,
            "class_lengths": list(self.class_lengths),
            "labels": [[raw, number] for raw, number in self.labels_mapping.items()],
            "sample_shape": list(self.sample_shape),
            "normalizer": self.normalizer.state(),
            "order": self._order.astype(np.int32),
            "outstanding": [
                [one.position, one.size] for one in (*self._outstanding.values(), *self._again)
            ],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to the saved place.

        Raises:
            CheckpointError: the data set has another size than the saved one.
        """
        saved = cast("dict[str, Any]", state)
        if "normalizer" not in saved:
            raise CheckpointError(
                f"unit {self.path!r}: the checkpoint was written by an older version of veloflow, "
                "which kept less of the loader; begin anew, without --resume"
            )
        if list(self.class_lengths) != saved["class_lengths"]:
            raise CheckpointError(
                f"unit {self.path!r}: the checkpoint was made with {saved['class_lengths']} test, "
                f"validation and training samples, and here are {list(self.class_lengths)}"
            )
        self.normalizer.restore(saved["normalizer"])
        if self.settings.testing:
            return
        self._pass, self._offset = saved["pass"], saved["offset"]
        self.epoch_number = saved["epoch_number"]
        self._order = np.asarray(saved["order"]).astype(np.int64)
        self._outstanding = {}
        self._again = [self._batch_at(*place) for place in saved.get("outstanding", ())]

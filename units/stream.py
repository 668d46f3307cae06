"""Loaders that read samples as they are needed, the next minibatch while this one is used."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from veloflow.units.loader import Loader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow

__all__ = ["StreamLoader"]

Batch = tuple["NDArray[np.generic]", "NDArray[np.int32]"]


class StreamLoader(Loader):
    """A loader of data that is read piece by piece. An outline: subclasses read samples.

    One thread reads the minibatch that comes next in the pass while the present one is used.
    What is served does not depend on it.
    """

    def __init__(
        self,
        workflow: Workflow,
        *,
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow, minibatch_size=minibatch_size, shuffle_limit=shuffle_limit, name=name
        )
        self._reader: ThreadPoolExecutor | None = None
        self._coming: tuple[bytes, Future[Batch]] | None = None

    @abstractmethod
    def read_samples(self, indices: NDArray[np.int64]) -> Batch:
        """Return data (n, *sample shape) and class numbers (n,) of these samples.

        It runs in another thread: read files, change nothing.

        Raises:
            DataError: a sample cannot be read; the message names its file.
        """

    def fill_minibatch(self) -> None:
        """Take what was read ahead if it is this minibatch, and begin with the next."""
        indices = self.minibatch_indices[: self.minibatch_size].copy()
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == indices.tobytes():
            data, labels = coming[1].result()
        else:
            data, labels = self.read_samples(indices)
        self._begin_next()
        self._put(data, labels)

    def _put(self, data: NDArray[np.generic], labels: NDArray[np.int32]) -> None:
        rows = np.zeros((self.max_minibatch_size, *self.sample_shape), self.settings.dtype)
        rows[: len(data)] = data
        numbers = np.full(self.max_minibatch_size, -1, np.int32)
        numbers[: len(labels)] = labels
        self.minibatch_data.write(rows)
        self.minibatch_labels.write(numbers)

    def _begin_next(self) -> None:
        following = self.next_indices()
        if not len(following):
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"reader of {self.path}")
        future = self._reader.submit(self.read_samples, following)
        self._coming = (following.tobytes(), future)

    def close(self) -> None:
        """End the thread."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None
        self._coming = None

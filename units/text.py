"""Texts: a loader that cuts them into tokens, numbers the tokens, and pads to one length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np

from veloflow.errors import DataError, InputError, nearest
from veloflow.places import Place, place_of
from veloflow.units.drift import checked_drift
from veloflow.units.files import files_below, folder_parts
from veloflow.units.fullbatch import FullBatchLoader, Samples
from veloflow.units.loader import TRAIN
from veloflow.units.reading import TABLES, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices import Array
    from veloflow.units.labels import Label
    from veloflow.units.reading import RawData

__all__ = ["PADDING", "UNKNOWN", "TextLoader", "Vocabulary", "tokens_of"]

#: the numbers of what is no token of the vocabulary
PADDING, UNKNOWN = 0, 1

Level = Literal["words", "characters"]
_SUFFIXES = frozenset({".txt"})
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def tokens_of(text: str, level: Level = "words") -> list[str]:
    """Return the tokens of a text: words and signs in lower case, or characters as they are."""
    return list(text) if level == "characters" else _WORD.findall(text.lower())


class Vocabulary:
    """The tokens that have a number of their own, the most frequent first, from 2 on.

    0 is padding and 1 any other token.

    Args:
        tokens: in order of number.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens, start=2)}

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], size: int) -> Vocabulary:
        """Return the most frequent tokens, so that ``len`` is at most ``size``."""
        counts = Counter(token for text in texts for token in text)
        ordered = sorted(counts, key=lambda token: (-counts[token], token))
        return cls(ordered[: max(0, size - 2)])

    def __len__(self) -> int:
        return len(self.tokens) + 2

    def encode(self, tokens: Sequence[str], length: int) -> NDArray[np.int32]:
        """Return numbers of the first ``length`` tokens, padded with 0: int32 (length,)."""
        row = np.full(length, PADDING, np.int32)
        numbers = [self._numbers.get(token, UNKNOWN) for token in tokens[:length]]
        row[: len(numbers)] = numbers
        return row

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the tokens, without padding; unknown ones as "?"."""
        return ["?" if n == UNKNOWN else self.tokens[n - 2] for n in numbers if n != PADDING]


@final
class TextLoader(FullBatchLoader):
    """A loader of texts with labels. Samples are numbers of tokens, padded at the end.

    Args:
        source: a folder ``root/CLASS/text.txt`` (or with train, validation and test above), a
            table with columns of texts and labels, or a sequence of (text, label).
        length: tokens a sample; what is longer is cut.
        vocabulary_size: how many numbers there are at most, with padding and unknown.
        level: "words" or "characters".
        text, label: the names of the columns of a table.
        drift: "labels" or "none"; the numbers of tokens are no quantities to compare.
        **options: see :class:`FullBatchLoader`.

    Attributes:
        minibatch_data: int32 (minibatch_size, length).
        minibatch_lengths: int32 (minibatch_size,), how many tokens are no padding, at least 1.
        vocabulary: made of the training texts.
    """

    sample_dtype: ClassVar[str | None] = "int32"

    def __init__(
        self,
        workflow: Workflow,
        source: str | Place | Sequence[tuple[str, Label | None]],
        *,
        length: int,
        vocabulary_size: int = 20_000,
        level: Level = "words",
        text: str = "text",
        label: str = "label",
        minibatch_size: int = 100,
        shuffle_limit: int | None = None,
        validation_ratio: float = 0.0,
        balanced: bool = False,
        drift: Literal["none", "labels"] = "labels",
        name: str | None = None,
    ) -> None:
        super().__init__(
            workflow,
            minibatch_size=minibatch_size,
            shuffle_limit=shuffle_limit,
            validation_ratio=validation_ratio,
            balanced=balanced,
            drift=checked_drift(drift, "TextLoader" if name is None else name, ("none", "labels")),
            name=name,
        )
        if length < 1 or vocabulary_size < 3:
            raise InputError(
                f"unit {self.path!r}: length is {length} and vocabulary_size {vocabulary_size}; "
                "give a length from 1 on and a size from 3 on"
            )
        if level not in ("words", "characters"):
            raise InputError(
                f"unit {self.path!r}: level is {level!r}; give 'words' or 'characters'"
            )
        self.source = place_of(source) if isinstance(source, str) else source
        self.length = length
        self.vocabulary_size = vocabulary_size
        self.level: Level = level
        self.text = text
        self.label = label
        self.vocabulary = Vocabulary(())
        self.minibatch_lengths: Array

    def load_samples(self) -> Samples:
        """Read the texts; tokens are numbered once it is known which are for training."""
        texts, labels, lengths = self._read()
        if not texts:
            raise DataError(f"unit {self.path!r}: there are no texts")
        self._tokens = [tokens_of(text, self.level) for text in texts]
        places = np.arange(len(texts), dtype=np.int32)
        raw = np.array(labels, dtype=object)
        return Samples(places, raw, lengths)

    def load(self) -> None:
        """Read the texts, hold some out, and number the tokens of those for training."""
        super().load()
        places = self._raw  # the order that the split has made
        held_out = sum(self.class_lengths[:TRAIN])
        train = places[held_out:] if self.class_lengths[TRAIN] else places
        self.vocabulary = Vocabulary.of(
            (self._tokens[place] for place in train.tolist()), self.vocabulary_size
        )
        self._raw = np.stack(
            [self.vocabulary.encode(self._tokens[n], self.length) for n in places.tolist()]
        )
        self.sample_shape = (self.length,)

    def _read(self) -> tuple[list[str], list[Label | None], tuple[int, int, int]]:
        if not isinstance(self.source, Place):
            pairs = list(self.source)
            return [one for one, _ in pairs], [raw for _, raw in pairs], (0, 0, len(pairs))
        if self.source.is_dir():
            parts = folder_parts(self.source, _SUFFIXES, "text")
            files = [one for part in parts for one in part]
            texts = [_read_text(one.path) for one in files]
            lengths = len(parts[0]), len(parts[1]), len(parts[2])
            return texts, [one.label for one in files], lengths
        frame = read_table(self.source)
        for column in (self.text, self.label):
            if column not in frame.columns:
                raise DataError(
                    f"{self.source} has no column {column!r}{nearest(column, frame.columns)}; "
                    f"it has {', '.join(frame.columns)}"
                )
        texts = frame[self.text].to_list()
        for row, one in enumerate(texts, start=1):
            if not isinstance(one, str):
                raise DataError(f"{self.source}: column {self.text!r} has no text in row {row}")
        return texts, frame[self.label].to_list(), (0, 0, len(texts))

    def initialize(self) -> None:
        """Load, and declare minibatch and lengths."""
        super().initialize()
        self.minibatch_lengths = self.declare(self.max_minibatch_size, dtype="int32")

    def prepare(self) -> None:
        """Put tokens and lengths onto the device and bind the gathering."""
        super().prepare()
        if self.settings.role != "master" and not self.is_given:
            lengths = self.device.asarray(self.lengths_of(self._raw), "int32")
            self._bind(lengths, self.minibatch_lengths)

    def samples_of(self, indices: NDArray[np.int64], number: int) -> dict[str, NDArray[np.generic]]:
        """Return tokens, labels and lengths of these samples."""
        lengths = self.lengths_of(self._raw[indices])
        return {**super().samples_of(indices, number), "minibatch_lengths": lengths}

    def lengths_of(self, samples: NDArray[Any]) -> NDArray[np.int32]:
        """Return how many tokens of each sample are no padding, at least 1: int32 (n,)."""
        return np.asarray(np.maximum(1, (samples != PADDING).sum(axis=1)), np.int32)

    def read_raw(
        self, source: Place, *, key: str | None = None
    ) -> tuple[list[str] | None, RawData]:
        """Read texts: a .txt file with one a line, a table, or the files in a folder and below."""
        names = None
        if source.suffix.lower() in TABLES:
            frame = read_table(source)
            if self.text not in frame.columns:
                raise DataError(
                    f"{source} has no column {self.text!r}; it has {', '.join(frame.columns)}"
                )
            texts = [one or "" for one in frame[self.text].to_list()]
        elif source.suffix.lower() == ".txt":
            texts = _read_text(source).splitlines()
        elif source.is_dir():
            names, files = files_below(source, _SUFFIXES)
            texts = [_read_text(one) for one in files]
        else:
            return super().read_raw(source, key=key)
        rows = [self.vocabulary.encode(tokens_of(one, self.level), self.length) for one in texts]
        return names, np.stack(rows) if rows else np.empty((0, self.length), np.int32)

    def restore_model(self, state: Mapping[str, Any]) -> None:
        """Take the vocabulary, too."""
        super().restore_model(state)
        self.vocabulary = Vocabulary(state["vocabulary"])

    def state(self) -> Mapping[str, object]:
        """Return the place in the epoch, and the vocabulary."""
        return {**super().state(), "vocabulary": self.vocabulary.tokens}


def _read_text(path: Place) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"the text {path} cannot be read: {error}; it must be UTF-8") from error

"""Sound in files: a loader of folders with a class each, read through libsndfile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, final

import numpy as np

from veloflow.errors import DataError, InputError
from veloflow.places import Place, place_of, whole
from veloflow.units.extras import needs
from veloflow.units.files import FileLoader, FileOptions, Files, Listed, folder_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.units.reading import RawData

__all__ = ["SoundLoader"]

_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3"})


@final
class SoundLoader(FileLoader):
    """A loader of ``root/CLASS/sound.wav``, or ``root/train/CLASS/sound.wav`` and its like.

    A sample is ``frames`` numbers in [-1, 1] at one rate: (frames,), or (frames, channels). What is
    shorter is padded with silence. Of what is longer a part is taken: in training from a random
    place, another one in each pass, otherwise from the middle. It needs the extra ``sound``.

    Args:
        root: the folder.
        frames: of a sample.
        rate: that all files must have, in Hz; None for that of the first.
        mono: whether channels are averaged; otherwise all files must have as many as the first.
        **options: see :class:`~veloflow.units.FileLoader`.
    """

    def __init__(
        self,
        workflow: Workflow,
        root: str | Place,
        *,
        frames: int,
        rate: int | None = None,
        mono: bool = True,
        **options: Unpack[FileOptions],
    ) -> None:
        super().__init__(workflow, **options)
        if frames < 1:
            raise InputError(f"unit {self.path!r}: frames is {frames}; give at least 1")
        self.root = place_of(root)
        self.frames = frames
        self.rate = rate
        self.mono = mono
        self.channels = 0

    def list_files(self) -> list[list[Listed]]:
        """List the sounds in the folders."""
        return folder_parts(self.root, _SUFFIXES, "sound")

    def load(self) -> None:
        """List the sounds, and look at the first."""
        super().load()
        self.read_file(self._files[0], None)
        self.sample_shape = (self.frames,) if self.mono else (self.frames, self.channels)

    def read_file(self, path: Place, random: np.random.Generator | None) -> NDArray[Any]:
        """Read a sound as float32, of the right length."""
        soundfile = needs("soundfile", "sound", f"to read {path}")
        try:
            values, rate = soundfile.read(whole(path), dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:  # soundfile's own error is a RuntimeError
            raise DataError(
                f"the sound {path} is damaged ({error}); take it away, or give skip_bad=True"
            ) from error
        self._check(path, rate, values.shape[1])
        more = len(values) - self.frames
        if more > 0:
            first = more // 2 if random is None else int(random.integers(more + 1))
            values = values[first : first + self.frames]
        row = np.zeros((self.frames, values.shape[1]), np.float32)
        row[: len(values)] = values
        return row.mean(axis=1) if self.mono else row

    def _check(self, path: Place, rate: int, channels: int) -> None:
        self.rate = self.rate or rate
        self.channels = self.channels or channels
        if rate != self.rate:
            raise DataError(
                f"the sound {path} has {rate} Hz, and {self.rate} Hz are wanted; resample it"
            )
        if not self.mono and channels != self.channels:
            raise DataError(f"the sound {path} has {channels} channels, and not {self.channels}")

    def read_raw(
        self, source: Place, *, key: str | None = None
    ) -> tuple[list[str] | None, RawData]:
        """Read a sound, or all sounds in a folder and below; or arrays from another file."""
        if not source.is_dir() and source.suffix.lower() not in _SUFFIXES:
            return super().read_raw(source, key=key)
        return Files.below(source, _SUFFIXES, self)

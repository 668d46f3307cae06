"""The folder of compiled kernels: one file each, written at once or not at all.

An entry is a line of JSON (what it is, the digest of the rest) and the binary. Whatever does not
fit its own digest is as good as absent, so a damaged entry is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

import veloflow

if TYPE_CHECKING:
    from veloflow.devices.opencl.recipes import Recipe

__all__ = ["KernelCache", "default_folder", "key_of", "write_entry"]

_log = logging.getLogger(__name__)

#: seconds for which a kernel that could not be compiled is not tried again: a day
_REFUSAL_LASTS = 86400.0


def default_folder() -> Path:
    """Return $VELOFLOW_CACHE/kernels, or the like in the user's cache folder."""
    base = os.environ.get("VELOFLOW_CACHE") or platformdirs.user_cache_dir("veloflow")
    return Path(base) / "kernels"


def key_of(recipe: Recipe, identity: str) -> str:
    """Return the name of the entry of a recipe on a device with that identity."""
    parts = (veloflow.__version__, identity, *recipe.options, recipe.source)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def write_entry(path: Path, binary: bytes, **facts: str) -> None:
    """Write an entry under its final name in one step.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    facts["sha256"] = hashlib.sha256(binary).hexdigest()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(facts).encode() + b"\n" + binary)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class KernelCache:
    """Compiled kernels of this user, or of this process alone where no folder can be written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._private: tempfile.TemporaryDirectory[str] | None = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            _log.warning("kernels are compiled anew in every process: %s", error)
            self._private = tempfile.TemporaryDirectory(prefix="veloflow-kernels-")
            self.folder = Path(self._private.name)

    def path(self, key: str) -> Path:
        """Return where the binary with that key is or will be."""
        return self.folder / f"{key}.kernel"

    def load(self, key: str) -> bytes | None:
        """Return the binary, None when there is none that is whole."""
        try:
            head, _, binary = self.path(key).read_bytes().partition(b"\n")
        except OSError:  # not there, or not readable: compiled again
            return None
        try:
            facts = json.loads(head)
        except ValueError:
            facts = None
        if isinstance(facts, dict) and facts.get("sha256") == hashlib.sha256(binary).hexdigest():
            return binary
        _log.warning("the compiled kernel %s is damaged and is compiled again", self.path(key))
        return None

    def refuse(self, key: str, reason: str) -> None:
        """Remember that this kernel cannot be compiled, so that nobody waits for it again soon."""
        path = self.folder / f"{key}.refused"
        try:
            write_entry(path, reason.encode())
        except OSError as error:
            _log.warning("could not keep the note %s: %s", path, error)

    def refusal(self, key: str) -> str | None:
        """Return why this kernel could not be compiled within the last day."""
        path = self.folder / f"{key}.refused"
        try:
            if time.time() - path.stat().st_mtime > _REFUSAL_LASTS:
                return None
            return path.read_bytes().partition(b"\n")[2].decode(errors="replace")
        except OSError:  # no note
            return None

    def close(self) -> None:
        """Remove the folder if it was this process's own."""
        if self._private is not None:
            self._private.cleanup()

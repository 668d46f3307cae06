"""The folder where tuned kernels and measurements of devices are kept between runs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from veloflow.errors import StorageError

__all__ = ["cache_folder", "read_json", "write_bytes", "write_json"]


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache, which is made if need be: $VELOFLOW_CACHE or the user's own.

    Raises:
        StorageError: it cannot be made.
    """
    chosen = os.environ.get("VELOFLOW_CACHE")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_cache_dir("veloflow")
    folder = Path(chosen).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot make the cache folder {folder}: {error.strerror}; "
            "set VELOFLOW_CACHE to a folder that can be written"
        ) from error
    return folder


def read_json(path: Path) -> dict[str, object] | None:
    """Return what :func:`write_json` wrote, or None if it is not there or is damaged.

    What is cached can always be made again, so a damaged file counts as none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (
        FileNotFoundError,
        ValueError,
    ):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write a file whole or not at all, whoever else writes it at the same moment.

    Raises:
        StorageError: it cannot be written.
    """
    write_bytes(path, json.dumps(content, indent=1, sort_keys=True).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whoever else writes it at the same moment.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
            new = Path(folder) / path.name
            new.write_bytes(content)
            new.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error

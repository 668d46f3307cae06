"""Data files from the network: checked, gone on with after a break, and unpacked with care.

What arrives is written beside its place and moved there when it is whole and its checksum is right;
so a file that is there is a good one, and is not asked for again.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

from veloflow.errors import DataError, StorageError

__all__ = ["download", "unpack"]

_CHUNK = 1 << 20
#: attempts in a row that bring nothing, before it is given up
_ATTEMPTS = 3
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

Progress = Callable[[int, int], None]


def download(
    url: str,
    folder: str | Path,
    *,
    sha256: str,
    unpacks: bool = False,
    name: str | None = None,
    progress: Progress = lambda done, total: None,
    timeout: float = 30.0,
    limit: int = 64 << 30,
) -> Path:
    """Fetch a file into ``folder`` unless it is there, and return its path.

    A broken connection is gone on with from where it broke, if the server can, also in a later
    call. The checksum is compared before anything is put into its place.

    Args:
        url: http:// or https://.
        folder: where to put it; made if it is not there.
        sha256: the checksum that the file must have, as 64 hexadecimal digits.
        unpacks: unpack the archive into ``folder``, and return the folder of its content, which is
            named as the archive without its suffix.
        name: of the file; by default the last part of the address.
        progress: is told the bytes that are here, and their final number (0 if it is unknown).
        timeout: seconds without a byte before a connection counts as broken.
        limit: bytes at most, of the file and of what is unpacked.

    Raises:
        DataError: the address is none, the file cannot be had, or has another checksum.
        StorageError: it cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise DataError(f"{url}: only http:// and https:// addresses are fetched")
    sha256 = sha256.lower()
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise DataError(f"{url}: sha256 is {sha256!r}; give 64 hexadecimal digits")
    name = name or PurePosixPath(unquote(parts.path)).name
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{url} has no name for a file; give name=…")
    folder = Path(folder).expanduser()
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (target.is_file() and _digest(target) == sha256):
            _fetch(url, target, sha256, progress, timeout, limit)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return unpack(target, limit=limit) if unpacks else target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(
    url: str, target: Path, sha256: str, progress: Progress, timeout: float, limit: int
) -> None:
    # the checksum is a part of the name, so that nothing else is gone on with
    part = target.with_name(f".{target.name}.{sha256[:16]}.part")
    failures, total = 0, 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _receive(url, part, progress, timeout, limit)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429, 503):
                error.close()
                raise DataError(f"{url} cannot be fetched: {error.code} {error.reason}") from error
            grew = part.exists() and part.stat().st_size > before
            failures = 0 if grew else failures + 1
            if failures >= _ATTEMPTS:
                raise DataError(
                    f"{url} cannot be fetched: {error}; what has come is kept, try again"
                ) from error
    found = _digest(part)
    if found != sha256:
        part.unlink()
        raise DataError(
            f"{url} has the checksum {found}, and {sha256} is wanted; "
            f"the {total} bytes that came are thrown away"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _receive(url: str, part: Path, progress: Progress, timeout: float, limit: int) -> int:
    """Add to ``part`` what is missing; return its size."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "veloflow"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = cast("Any", urllib.request.urlopen(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing; or another file: the checksum tells
            error.close()
            return have
        raise
    with response:
        start = _start_of(response, have)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        if total > limit:
            raise DataError(f"{url} has {total} bytes, and at most {limit} are taken")
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            done = start
            while chunk := response.read(min(_CHUNK, limit + 1 - done)):
                file.write(chunk)
                done += len(chunk)
                if done > limit:
                    file.truncate(0)
                    raise DataError(f"{url} has more than the {limit} bytes that are taken")
                progress(done, total)
        if total and done < total:
            raise http.client.IncompleteRead(b"", total - done)
    return done


def _start_of(response: Any, have: int) -> int:
    """Return from where on the server sends: 0 if it knows no ranges."""
    given = str(response.headers.get("Content-Range", ""))
    is_rest = response.status == 206 and given.startswith(f"bytes {have}-")
    return have if is_rest else 0


# -- archives --------------------------------------------------------------------------------------


def unpack(archive: str | Path, *, limit: int = 64 << 30) -> Path:
    """Unpack a .zip or .tar (.gz, .bz2, .xz) beside itself, and return the folder of its content.

    Nothing is unpacked that would lie outside of the folder, no links, no devices; and at most
    ``limit`` bytes. The folder appears whole or not at all; one that is there is taken as it is.

    Raises:
        DataError: the archive is damaged, or holds what is not unpacked; the message names it.
        StorageError: the folder cannot be written.
    """
    archive = Path(archive)
    suffix = next((one for one in _ARCHIVES if archive.name.lower().endswith(one)), None)
    if suffix is None:
        raise DataError(f"{archive} is no archive that is known: {', '.join(_ARCHIVES)}")
    target = archive.with_name(archive.name[: -len(suffix)])
    if target.is_dir():
        return target
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        members = _zip_members if suffix == ".zip" else _tar_members
        left = limit
        for name, source in members(archive):
            left -= _write(temporary / _safe(archive, name), source, archive, left)
        temporary.replace(target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"the archive {archive} is damaged: {error}; get it again") from error
    except OSError as error:
        # a damaged stream is an OSError too: what cannot be read comes without a number
        if error.errno is None:
            raise DataError(f"the archive {archive} is damaged: {error}; get it again") from error
        raise StorageError(f"cannot unpack {archive}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise DataError(f"the archive {archive} holds a link, {info.filename!r}")
            if info.is_dir():
                _safe(archive, info.filename)
                continue
            if info.flag_bits & 1:
                raise DataError(f"the archive {archive} needs a password for {info.filename!r}")
            with file.open(info) as source:
                yield info.filename, source


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        for info in file:
            _safe(archive, info.name)
            if info.isdir():
                continue
            source = file.extractfile(info) if info.isreg() else None
            if source is None:
                what = "a link" if info.islnk() or info.issym() else "no plain file"
                raise DataError(f"the archive {archive} holds {what}, {info.name!r}")
            with source:
                yield info.name, source


def _safe(archive: Path, name: str) -> Path:
    """Return a member's path below the folder.

    Raises:
        DataError: it would lie elsewhere.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise DataError(
            f"the archive {archive} holds {name!r}, which would lie outside of its folder; "
            "nothing was unpacked"
        )
    return Path(*path.parts)


def _write(path: Path, source: IO[bytes], archive: Path, limit: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while chunk := source.read(min(_CHUNK, limit + 1 - written)):
            file.write(chunk)
            written += len(chunk)
            if written > limit:
                raise DataError(f"the archive {archive} unpacks to more bytes than are allowed")
    return written

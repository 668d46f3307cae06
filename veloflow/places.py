"""Places of data and checkpoints: paths of this machine, and URLs that fsspec reads and writes.

A URL is a :class:`RemotePath`, which has those methods of :class:`pathlib.Path` that are used here;
``file://`` URLs are paths. What goes wrong below, in a library of one store or another, is
translated here: ``FileNotFoundError`` stays, all else is a :class:`~veloflow.errors.DataError` in
reading and a :class:`~veloflow.errors.StorageError` in writing, with the URL and without what
stands behind its question mark, which may be a secret.
"""

from __future__ import annotations

import io
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, total_ordering
from pathlib import Path
from posixpath import basename, dirname
from typing import Any, BinaryIO, NamedTuple, TypeGuard, cast, final
from urllib.parse import quote, unquote

from veloflow.errors import DataError, InputError, StorageError, VeloflowError, nearest

__all__ = ["Place", "RemotePath", "is_url", "local_copy", "open_seekable", "place_of", "whole"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
#: protocol -> what is installed with ``pip install 'veloflow[EXTRA]'``
_EXTRAS = {
    **dict.fromkeys(("http", "https", "memory"), "urls"),
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    "hdfs": "hdfs",
}
_READ_ONLY = ("http", "https")
#: where a file grows while it is written, and takes its name by renaming; elsewhere an object is
#: there when all of it is, and not before
_GROWING = ("hdfs", "webhdfs", "sftp", "ssh", "smb", "ftp")
#: where there are no folders to be made, only buckets, which are the user's to make
_FLAT = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl")
_CHUNK = 1 << 20


def is_url(text: object) -> TypeGuard[str]:
    """Return whether this is the text of a URL, such as "s3://bucket/folder"."""
    return isinstance(text, str) and _URL.match(text) is not None


def place_of(place: str | Path | RemotePath) -> Path | RemotePath:
    """Return the place that a path or URL names; ``~`` is the home folder.

    Raises:
        InputError: there is no such protocol, or the package for it is missing.
    """
    if isinstance(place, RemotePath):
        return place
    if not is_url(place):
        return Path(place).expanduser()
    if place.startswith(("file://", "local://")):
        return Path(unquote(place.partition("://")[2]))
    return RemotePath(place)


class Status(NamedTuple):
    """What is known of a file: its size in bytes."""

    st_size: int


@final
@total_ordering
class RemotePath:
    """A place that fsspec knows by URL, with the manners of a ``pathlib.Path``.

    Args:
        url: such as ``s3://bucket/folder/file.npy``. What follows a question mark in an http URL
            goes along to all places below and beside it.

    Raises:
        InputError: there is no such protocol, or the package for it is missing.
    """

    def __init__(self, url: str) -> None:
        match = _URL.match(url)
        if match is None:
            raise InputError(f"{url!r} is no URL; write it like s3://bucket/folder")
        self.protocol = match[1].lower()
        rest = url[match.end() :]
        self._is_web = self.protocol in _READ_ONLY
        rest, mark, query = rest.partition("?") if self._is_web else (rest, "", "")
        self._query = mark + query
        self._path = rest.rstrip("/")
        self._slash = "/" if rest.endswith("/") else ""
        self._known: str | None = None  # "file" or "directory", from a listing
        _check_protocol(self.protocol)

    # -- names --------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.protocol}://{self._path}{self._slash}{self._query}"

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.shown!r})"

    @property
    def shown(self) -> str:
        """The URL without what stands behind its question mark, for messages."""
        return f"{self.protocol}://{self._path}"

    def as_posix(self) -> str:
        """Return the URL without its question mark and what follows."""
        return self.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._key == other._key

    def __lt__(self, other: RemotePath) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.protocol, self._path, self._query

    def _at(self, path: str) -> RemotePath:
        return RemotePath(f"{self.protocol}://{path}{self._query}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        last = basename(self._path)
        return unquote(last) if self._is_web else last

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on, or ""."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """The folder that this is in."""
        return self._at(dirname(self._path) or self._path)

    def __truediv__(self, more: object) -> RemotePath:
        text = str(more)
        if is_url(text):
            return RemotePath(text)
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if not parts:
            return self
        text = "/".join(quote(part) if self._is_web else part for part in parts)
        return self._at(f"{self._path}/{text}")

    def with_name(self, name: str) -> RemotePath:
        """Return what is beside this, with another name."""
        return self.parent / name

    def relative_to(self, folder: RemotePath) -> str:
        """Return the path from ``folder`` to here."""
        rest = self._path.removeprefix(folder._path + "/")
        return unquote(rest) if self._is_web else rest

    def expanduser(self) -> RemotePath:
        """Return itself: a URL has no home folder."""
        return self

    # -- looking ------------------------------------------------------------------------------

    @property
    def _filesystem(self) -> Any:
        """What fsspec reads and writes it with; fsspec keeps one for each host."""
        from fsspec.core import url_to_fs

        return url_to_fs(self.url, use_listings_cache=False)[0]

    @property
    def _address(self) -> str:
        """What fsspec calls this place."""
        return str(self._filesystem._strip_protocol(self.url))

    def _info(self) -> Mapping[str, Any] | None:
        with self.border("read"):
            try:
                return cast("Mapping[str, Any]", self._filesystem.info(self._address))
            except FileNotFoundError as error:  # which a web server that is not there is, too
                cause = error.__cause__
                if cause is not None and getattr(cause, "status", 0) not in (0, 404, 410):
                    raise cause from None
                if isinstance(cause, OSError):
                    raise cause from None
        return None

    @cached_property
    def _kind(self) -> str:
        """Which it is: "file", "directory", or "" for neither; asked once."""
        if self._known is not None:
            return self._known
        info = self._info()
        if info is None:
            return ""
        if self._is_web:  # a web server calls a listing a file, too
            is_page = str(info.get("mimetype", "")).startswith("text/html")
            return "directory" if is_page and self.suffix not in (".html", ".htm") else "file"
        return str(info["type"])

    def exists(self) -> bool:
        """Return whether there is something, now."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Return whether it is a file, as it was when that was first asked."""
        return self._kind == "file"

    def is_dir(self) -> bool:
        """Return whether it is a folder, as it was when that was first asked."""
        return self._kind == "directory"

    def stat(self) -> Status:
        """Return the size.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the store does not say.
        """
        info = self._info()
        if info is None:
            raise FileNotFoundError(self.shown)
        if info.get("size") is None:
            raise DataError(f"{self.shown}: the server does not say how large it is")
        return Status(int(info["size"]))

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what is in this folder."""
        with self.border("read"):
            base = self._address.partition("?")[0].rstrip("/") + "/"
            listed = base + self._query if self._is_web else base.rstrip("/")
            entries = self._filesystem.ls(listed, detail=True)
        for entry in entries:
            name, kind = str(entry["name"]).partition("?")[0], str(entry["type"])
            if not name.startswith(base) or name == base:
                continue  # a link on a page that leads elsewhere
            if self._is_web:
                kind = "directory" if name.endswith("/") else "file"
            place = self._at(f"{self._path}/{name.removeprefix(base).rstrip('/')}")
            place._known = kind
            yield place

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield what is in this folder with a name of this pattern."""
        from fnmatch import fnmatchcase

        return (one for one in self.iterdir() if fnmatchcase(one.name, pattern))

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield what is in this folder and below with a name of this pattern."""
        from fnmatch import fnmatchcase

        for one in self.iterdir():
            if fnmatchcase(one.name, pattern):
                yield one
            if one.is_dir():
                yield from one.rglob(pattern)

    # -- reading ------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        with self.border("read"):
            return cast("bytes", self._filesystem.cat_file(self._address))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the whole content as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb", buffering: int = -1) -> io.RawIOBase:
        """Open the file for reading bytes; where the store cannot seek, all of it is fetched."""
        if mode != "rb":
            raise ValueError(f"a URL is opened with 'rb', not with {mode!r}")
        with self.border("read"):
            return _Opened(self, self._filesystem.open(self._address, "rb"))

    def stream(self) -> BinaryIO:
        """Open the file for reading from its beginning to its end."""
        more = {"block_size": 0} if self._is_web else {}
        with self.border("read"):
            return cast("BinaryIO", self._filesystem.open(self._address, "rb", **more))

    # -- writing ------------------------------------------------------------------------------

    def write(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file; until all of it is written, an older one stays.

        Raises:
            StorageError: it cannot be written.
        """
        content = b"".join(chunks)
        is_growing = self.protocol in _GROWING
        target = self.with_name(f".{self.name}.{secrets.token_hex(4)}.tmp") if is_growing else self
        with self.border("write"):
            try:
                target._put(content)
                if is_growing:
                    self._filesystem.mv(target._address, self._address)
            except BaseException:
                if is_growing:
                    with suppress(Exception):  # what counts is the first error
                        self._filesystem.rm_file(target._address)
                raise

    def _put(self, content: bytes) -> None:
        if self.protocol not in _FLAT:
            self._filesystem.makedirs(self.parent._address, exist_ok=True)
        self._filesystem.pipe_file(self._address, content)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be removed.
        """
        with self.border("remove"):
            try:
                self._filesystem.rm_file(self._address)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def check_writable(self) -> None:
        """Write a file beside this one, and remove it, before long work is done.

        Raises:
            StorageError: it cannot be written.
        """
        if self._is_web:
            raise StorageError(
                f"{self.shown}: over http files are only read; write to s3://, gs://, hdfs:// or a "
                "path"
            )
        probe = self.with_name(f".{self.name}.{secrets.token_hex(4)}.probe")
        with self.border("write"):
            probe._put(b"")
        with suppress(StorageError, FileNotFoundError):  # a store may forbid to remove
            probe.unlink()

    @contextmanager
    def border(self, verb: str) -> Iterator[None]:
        """Translate errors of a store in what is done inside: "read", "write" or "remove"."""
        kind = DataError if verb == "read" else StorageError
        try:
            yield
        except VeloflowError:
            raise
        except FileNotFoundError as error:
            if verb != "write":
                raise
            raise kind(f"cannot write {self.shown}: there is no {self.parent.shown}") from error
        except ImportError as error:  # some stores import theirs when they are used
            raise InputError(
                f"{self.protocol}:// needs a package: {_cure(self.protocol)}"
            ) from error
        except PermissionError as error:
            raise kind(
                f"cannot {verb} {self.shown}: {_first_line(error)}; log in as tools of "
                f"{self.protocol}:// do"
            ) from error
        except Exception as error:  # each store has errors of its own
            raise kind(f"cannot {verb} {self.shown}: {_first_line(error)}") from error


#: a path of this machine, or a URL
Place = Path | RemotePath


@final
class _Opened(io.RawIOBase):
    """A file of fsspec, whose errors are translated, and which can always seek."""

    def __init__(self, place: RemotePath, file: Any) -> None:
        super().__init__()
        self._place = place
        self._file = file

    def _whole(self) -> Any:
        """Fetch all of it into a file of this machine, for a server that gives no parts."""
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this one
        with self._place.stream() as source:
            shutil.copyfileobj(source, copy, _CHUNK)
        self._file.close()
        return copy

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        if not self._file.seekable() or getattr(self._file, "size", 0) is None:
            self._file = self._whole()
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place in the file."""
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return how many bytes."""
        view = memoryview(buffer).cast("B")
        with self._place.border("read"):
            try:
                content = self._file.read(len(view))
            except ValueError:  # fsspec: the server gives no parts, which is known only now
                at = self._file.tell()
                self._file = self._whole()
                self._file.seek(at)
                content = self._file.read(len(view))
        view[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0].partition("?")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check_protocol(protocol: str) -> None:
    """Check that fsspec knows a protocol.

    Raises:
        InputError: it does not, or the package for it is missing.
    """
    cure = _cure(protocol)
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{protocol}:// needs a package: {cure}") from error
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(
            f"there is no protocol {protocol}://{nearest(protocol, fsspec.available_protocols())}; "
            "use s3://, gs://, hdfs://, http://, https:// or a path"
        ) from error
    except ImportError as error:
        known = cure if protocol in _EXTRAS else _first_line(error)
        raise InputError(f"{protocol}:// needs a package: {known}") from error


def _cure(protocol: str) -> str:
    return f"pip install 'veloflow[{_EXTRAS.get(protocol, 'urls')}]'"


def whole(place: Place) -> Path | io.BytesIO:
    """Return what libraries read a whole file from: its path, or the content of a URL.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be fetched.
    """
    return place if isinstance(place, Path) else io.BytesIO(place.read_bytes())


def open_seekable(place: Place) -> io.RawIOBase:
    """Open a file of which parts are read, without a buffer of its own.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the URL cannot be read.
    """
    return place.open("rb", buffering=0)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Give a path of this machine with the content of ``place``: itself, or a copy for a while.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be fetched.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="veloflow-") as folder:
        copy = Path(folder) / (place.name or "file")
        with place.border("read"), place.stream() as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        yield copy

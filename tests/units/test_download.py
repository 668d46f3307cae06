"""Downloads from a server of our own that breaks off, knows no ranges, or sends something else."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from harness import ready, workflow_on

from veloflow.errors import DataError
from veloflow.units import ArrayFileLoader
from veloflow.units.download import download, unpack

CONTENT = os.urandom(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Sends CONTENT, in the manner that the path asks for."""

    asked: list = []  # noqa: RUF012 - the server's one list
    breaks: list = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        way = self.path.split("/")[1]
        if way == "missing":
            self.send_error(404)
            return
        start = 0
        given = self.headers.get("Range")
        if given and way != "simple":
            start = int(given.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT)
        if way in ("broken", "simple") and self.breaks:
            end = min(end, start + self.breaks.pop())
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server():
    """Return the address of a server on this machine."""
    Handler.asked.clear()
    Handler.breaks.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    told = []
    for _ in range(2):
        path = download(
            f"{server}/whole/data.bin", tmp_path / "new", sha256=SHA,
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert path == tmp_path / "new" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert len(Handler.asked) == 1
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [one.name for one in path.parent.iterdir()] == ["data.bin"]


def test_a_file_that_was_changed_is_fetched_again(server, tmp_path):
    path = download(f"{server}/whole/data.bin", tmp_path, sha256=SHA)
    path.write_bytes(b"else")
    assert download(f"{server}/whole/data.bin", tmp_path, sha256=SHA).read_bytes() == CONTENT


def test_a_broken_connection_is_gone_on_with(server, tmp_path):
    Handler.breaks += [1_000_000, 1_200_000]
    path = download(f"{server}/broken/data.bin", tmp_path, sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert Handler.asked == [None, "bytes=1200000-", "bytes=2200000-"]


def test_a_server_without_ranges_begins_again(server, tmp_path):
    Handler.breaks += [1_000_000]
    path = download(f"{server}/simple/data.bin", tmp_path, sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert Handler.asked == [None, "bytes=1000000-"]


def test_what_never_comes_is_given_up_and_what_came_serves_later(server, tmp_path):
    Handler.breaks += [0, 0, 0, 500_000]
    with pytest.raises(DataError, match=r"cannot be fetched: .* what has come is kept, try again"):
        download(f"{server}/broken/data.bin", tmp_path, sha256=SHA)
    assert not (tmp_path / "data.bin").exists()
    download(f"{server}/broken/data.bin", tmp_path, sha256=SHA)
    assert Handler.asked[-1] == "bytes=500000-"


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=f"has the checksum {SHA}, and 0000"):
        download(f"{server}/whole/data.bin", tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://x/y", {}, "only http:// and https://"),
        ("http://127.0.0.1:1/", {}, "no name for a file"),
        ("http://127.0.0.1:1/a%2F..%2F..", {"name": "../x"}, "no name for a file"),
        ("http://127.0.0.1:1/x", {"sha256": "abc"}, "give 64 hexadecimal digits"),
        ("http://127.0.0.1:1/x", {}, "cannot be fetched"),
        ("SERVER/missing/x", {}, "cannot be fetched: 404"),
        ("SERVER/whole/x", {"limit": 1000}, "has 3000000 bytes, and at most 1000 are taken"),
    ],
)
def test_what_cannot_be_fetched_is_named(server, tmp_path, url, options, message):
    with pytest.raises(DataError, match=message):
        download(url.replace("SERVER", server), tmp_path, **{"sha256": SHA, **options})
    assert [one.name for one in tmp_path.iterdir() if not one.name.endswith(".part")] == []


# -- archives -------------------------------------------------------------------------------------


def _archive(path, members):
    """Write (name, content) pairs; a content of None makes a link to /etc/passwd."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members:
                info = zipfile.ZipInfo(name)
                if content is None:
                    info.external_attr = (stat.S_IFLNK | 0o777) << 16
                file.writestr(info, b"/etc/passwd" if content is None else content)
        return path
    with tarfile.open(path, "w:gz") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            file.addfile(info, io.BytesIO(content or b""))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_archives_are_unpacked(tmp_path, suffix):
    path = _archive(tmp_path / f"set{suffix}", [("a/x.txt", b"one"), ("y.txt", b"two")])
    folder = unpack(path)
    assert folder == tmp_path / "set"
    assert (folder / "a" / "x.txt").read_bytes() == b"one"
    assert (folder / "y.txt").read_bytes() == b"two"
    path.unlink()
    path.touch()
    assert unpack(path) == folder  # it is there


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("good", b"x"), ("../evil", b"x")], r"holds '\.\./evil', which would lie outside"),
        ([("good", b"x"), ("/tmp/evil", b"x")], "holds '/tmp/evil', which would lie outside"),
        ([("good", b"x"), ("a/../../evil", b"x")], "would lie outside"),
        ([("good", b"x"), ("link", None)], "holds a link, 'link'"),
        ([("zeros", bytes(100_000))], "unpacks to more bytes than are allowed"),
    ],
)
def test_what_is_not_unpacked_is_named_and_nothing_is_left(tmp_path, suffix, members, message):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = _archive(inside / f"set{suffix}", members)
    with pytest.raises(DataError, match=message):
        unpack(path, limit=50_000)
    assert [one.name for one in tmp_path.rglob("*")] == ["inside", path.name]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_damaged_archive_is_named(tmp_path, suffix):
    path = _archive(tmp_path / f"set{suffix}", [("x", os.urandom(5000))])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"is damaged: .* get it again"):
        unpack(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_download_is_unpacked(tmp_path):
    path = _archive(tmp_path / "set.zip", [("x", b"inside")])
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    folder = download("http://127.0.0.1:1/set.zip", tmp_path, sha256=sha, unpacks=True)
    assert (folder / "x").read_bytes() == b"inside"


def test_a_loader_fetches_first_what_it_loads(server, tmp_path, monkeypatch):
    array = io.BytesIO()
    np.savez(array, data=np.arange(6.0).reshape(3, 2), labels=[0, 1, 0])
    content = array.getvalue()
    monkeypatch.setitem(globals(), "CONTENT", content)
    loader = ArrayFileLoader(workflow_on(), tmp_path / "set.npz", minibatch_size=3)
    loader.fetch_first(
        f"{server}/whole/set.npz", tmp_path, sha256=hashlib.sha256(content).hexdigest()
    )
    with ready(loader):
        loader.run()
        assert sorted(loader.minibatch_data.read()[:, 0].tolist()) == [0, 2, 4]


def test_no_archive_is_named(tmp_path):
    with pytest.raises(DataError, match="is no archive that is known"):
        unpack(tmp_path / "x.rar")

"""Paths and URLs: the names, what is there, and what is said when something is not."""

from __future__ import annotations

import sys

import pytest
from web_folder import served

from veloflow.errors import DataError, InputError, StorageError
from veloflow.places import RemotePath, is_url, local_copy, place_of, whole

pytest.importorskip("fsspec")


@pytest.fixture
def web(tmp_path):
    """Give the place of a served folder, with a file two folders below."""
    (tmp_path / "web" / "a b" / "c").mkdir(parents=True)
    (tmp_path / "web" / "a b" / "c" / "x.txt").write_text("hello, world")
    with served(tmp_path / "web") as (address, _):
        yield place_of(address)


def test_paths_stay_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_of("~/x.csv") == tmp_path / "x.csv"
    assert place_of(tmp_path) == tmp_path
    assert place_of(f"file://{tmp_path}/a%20b.csv") == tmp_path / "a b.csv"
    assert [one for one in ("c:/x", "a/b://c", "s3://b") if is_url(one)] == ["s3://b"]


def test_names_are_those_of_paths():
    place = place_of("memory://bucket/folder/x.tar.gz")
    assert (place.name, place.suffix, place.stem) == ("x.tar.gz", ".gz", "x.tar")
    assert str(place.parent) == "memory://bucket/folder"
    assert place.with_name("y.csv") == place_of("memory://bucket/folder/y.csv")
    assert place.parent / "." == place.parent
    assert place.relative_to(place_of("memory://bucket")) == "folder/x.tar.gz"
    assert len({place, place_of(str(place)), place.parent}) == 2
    assert sorted([place, place.parent]) == [place.parent, place]


def test_a_question_mark_goes_along_and_is_never_shown():
    place = place_of("https://host/a%20b/x.csv?token=secret")
    assert place.name == "x.csv"
    assert str(place.with_name("y z.csv")) == "https://host/a%20b/y%20z.csv?token=secret"
    assert "secret" not in repr(place) + place.as_posix()
    with served(".") as (address, _), pytest.raises(FileNotFoundError) as caught:
        place_of(f"{address}/nothing.csv?token=secret").stat()
    assert "secret" not in str(caught.value)


def test_a_folder_of_the_web_is_listed(web):
    assert (web.is_dir(), web.is_file()) == (True, False)
    assert [one.name for one in web.iterdir()] == ["a b"]
    assert [one.relative_to(web) for one in web.rglob("*.txt")] == ["a b/c/x.txt"]
    file = web / "a b" / "c" / "x.txt"
    assert (file.is_dir(), file.is_file(), file.stat().st_size) == (False, True, 12)
    assert file.read_text() == "hello, world"
    assert not (web / "nothing").exists()


@pytest.mark.parametrize("gives_ranges", [True, False])
def test_a_file_is_read_from_where_one_likes(tmp_path, gives_ranges):
    content = bytes(range(256)) * 400
    (tmp_path / "x.bin").write_bytes(content)
    with served(tmp_path, gives_ranges=gives_ranges) as (address, _):
        with place_of(f"{address}/x.bin").open() as file:
            for at in (70_000, 5, 0, len(content) - 3):
                assert file.seek(at) == at
                assert file.read(10) == content[at : at + 10]
        with local_copy(place_of(f"{address}/x.bin")) as copy:
            assert copy.read_bytes() == content
        assert not copy.exists()


def test_what_is_written_is_there_as_a_whole():
    place = place_of("memory://places/deep/x.bin")
    place.write([b"ab", memoryview(b"cd")])
    assert place.read_bytes() == b"abcd" == whole(place).read()
    assert [one.name for one in place.parent.iterdir()] == ["x.bin"]
    place.unlink()
    assert not place.exists()
    place.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        place.unlink()


def test_nothing_is_written_to_the_web(web):
    with pytest.raises(StorageError, match="over http files are only read"):
        (web / "y.csv").check_writable()


def test_a_server_that_is_not_there_is_no_missing_file():
    with pytest.raises(DataError, match=r"cannot read http://127\.0\.0\.1:1/x\.csv: .*[Cc]onnect"):
        place_of("http://127.0.0.1:1/x.csv").is_file()


def test_an_unknown_protocol_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"no protocol s4://.*did you mean 's3'"):
        place_of("s4://bucket")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gs"), ("http://h/x", "aiohttp", "urls"),
     ("hdfs://h/x", "pyarrow", "hdfs")],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(monkeypatch, url, module, extra):
    known, empty = sys.modules["fsspec.registry"], {}
    monkeypatch.setattr(known, "_registry", empty)
    monkeypatch.setattr(known, "registry", empty)
    for name in [one for one in sys.modules if one.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fsspec.implementations.http", "fsspec.implementations.arrow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'veloflow\[{extra}\]'"):
        RemotePath(url).is_file()

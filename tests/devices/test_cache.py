"""The cache folder: where it is, and files that are whole or not there."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from veloflow.devices.cache import cache_folder, read_json, write_json
from veloflow.errors import StorageError


def test_folder_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("VELOFLOW_CACHE", str(tmp_path / "a" / "b"))
    folder = cache_folder("devices", "more")
    assert folder == tmp_path / "a" / "b" / "devices" / "more"
    assert folder.is_dir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder("devices", "more") == folder


def test_folder_is_the_users_own_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("VELOFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "veloflow"


def test_folder_that_cannot_be_made_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VELOFLOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set VELOFLOW_CACHE"):
        cache_folder("devices")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "speed.json"
    write_json(path, {"seconds": 0.5})
    write_json(path, {"seconds": 1.5, "name": "é"})
    assert read_json(path) == {"seconds": 1.5, "name": "é"}
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe", b'{"seconds": '])
def test_damaged_files_count_as_none(tmp_path, damage):
    path = tmp_path / "speed.json"
    assert read_json(path) is None
    path.write_bytes(damage)
    assert read_json(path) is None


def test_failed_writing_says_which_file(tmp_path):
    with pytest.raises(StorageError, match=r"missing/speed\.json"):
        write_json(tmp_path / "missing" / "speed.json", {})


def test_many_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "speed.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_json(path, {"n": n, "text": "x" * 10_000}), range(40)))
    assert len(read_json(path)["text"]) == 10_000
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]

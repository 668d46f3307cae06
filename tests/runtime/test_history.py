"""Older checkpoints: which are kept, and which one is before a piece."""

from __future__ import annotations

import pytest

from veloflow.runtime.storage.history import History


@pytest.fixture
def last(tmp_path):
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"now")
    return path


def test_what_was_there_at_the_start(tmp_path, last):
    assert History(tmp_path / "history", None).before(0) is None
    source = History(tmp_path / "history", last).before(0)
    last.write_bytes(b"later")
    assert source.read_bytes() == b"now"


def test_the_source_may_be_one_of_the_history_itself(tmp_path, last):
    first = History(tmp_path / "history", None)
    first.add(10, last)
    source = first.before(11)
    assert History(tmp_path / "history", source).before(5).read_bytes() == b"now"


def test_the_last_one_before_a_piece(tmp_path, last):
    history = History(tmp_path / "history", None)
    for number in (10, 20, 30):
        history.add(number, last)
    names = [history.before(number) for number in (9, 10, 19, 20, 31)]
    assert [one and one.stem for one in names] == [None, "10", "10", "20", "30"]


def test_few_are_kept_and_the_older_the_sparser(tmp_path, last):
    history = History(tmp_path / "history", None)
    for number in range(10, 5000, 10):
        history.add(number, last)
    kept = sorted(int(one.stem) for one in (tmp_path / "history").iterdir())
    assert len(kept) == 11
    assert kept[-1] == 4990
    assert kept[0] < 3000
    recent, early = kept[-1] - kept[-2], kept[1] - kept[0]
    assert recent < early
    assert all(history.before(number).exists() for number in range(kept[0], 5000, 50))


def test_nothing_is_left_of_it(tmp_path, last):
    history = History(tmp_path / "history", last)
    history.clear()
    assert not (tmp_path / "history").exists()

"""Vectors in shared memory: whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from veloflow.errors import StorageError
from veloflow.runtime.transport.shared_memory import Board, Outbox, make_folder, remove_folder


@pytest.fixture
def folder():
    one = make_folder()
    yield one
    remove_folder(one)


def test_the_folder_is_private_and_goes(folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)


def test_a_board_shows_the_last_two_versions(folder):
    board = Board(folder / "b", 1000, np.float32, create=True)
    reader = Board(folder / "b", 1000, np.float32)
    assert reader.latest == 0
    assert reader.look(1) is None
    for version in (1, 2, 3):
        board.write(version, np.full(1000, version, np.float32))
    assert reader.latest == 3
    assert reader.look(1) is None
    assert (reader.look(2) == 2).all()
    assert (reader.look(3) == 3).all()
    assert not reader.look(3).flags.writeable


def test_a_reader_that_is_overtaken_notices(folder):
    board = Board(folder / "b", 10, np.float64, create=True)
    reader = Board(folder / "b", 10, np.float64)
    board.write(1, np.zeros(10))
    view = reader.look(1)
    assert reader.holds(1)
    board.write(3, np.ones(10))
    assert not reader.holds(1)
    assert (view == 1).all()  # and so must not be used


def test_an_outbox_carries_vectors(folder):
    mine = Outbox(folder / "o", 5, np.float32, 3, create=True)
    theirs = Outbox(folder / "o", 5, np.float32, 3)
    mine[1][:] = range(5)
    assert theirs[1].tolist() == [0, 1, 2, 3, 4]
    assert len(theirs) == 3
    with pytest.raises(ValueError, match="read-only"):
        theirs[1][0] = 1


def test_sizes_must_agree(folder):
    Board(folder / "b", 1000, np.float32, create=True)
    with pytest.raises(StorageError, match="another size"):
        Board(folder / "b", 5000, np.float32)
    Outbox(folder / "o", 1000, np.float32, 2, create=True)
    with pytest.raises(StorageError, match="another size"):
        Outbox(folder / "o", 1000, np.float32, 4)


def test_a_link_is_not_followed(folder, tmp_path):
    Outbox(tmp_path / "real", 10, np.float32, 1, create=True)
    (folder / "o").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="symbolic"):
        Outbox(folder / "o", 10, np.float32, 1)


def test_too_little_room_is_an_error_and_not_a_crash(folder):
    with pytest.raises(StorageError, match="no room"):
        Board(folder / "b", 1 << 44, np.float64, create=True)
    assert not (folder / "b").exists()

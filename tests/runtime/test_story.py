"""The story of a run, in a file: whole, of one slave, of one piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from veloflow.errors import InputError, NotFoundError, StorageError
from veloflow.protocol.messages import LeaseId
from veloflow.runtime.master.story import StoryFile, read_story

TOLD = [
    (1.0, "s1", "joined", None),
    (2.0, "s1", "got", LeaseId(1, 0)),
    (2.5, "s2", "got", LeaseId(11, 0)),
    (3.0, "s1", "lost: killed by SIGKILL;", None),
    (3.1, "s2", "got", LeaseId(1, 1)),
]


@pytest.fixture
def path(tmp_path):
    one = StoryFile(tmp_path / "story.txt")
    one.open(print)
    one.write(TOLD)
    one.close()
    return tmp_path / "story.txt"


def endings(lines):
    return [line.split(" ", 1)[1] for line in lines]


def test_all_of_it(path):
    assert len(read_story(path)) == 5


def test_of_a_slave(path):
    found = endings(read_story(path, "s1"))
    assert found == ["s1: joined", "s1: got 1.0", "s1: lost: killed by SIGKILL;"]


def test_of_a_piece(path):
    assert endings(read_story(path, "1")) == ["s1: got 1.0", "s2: got 1.1"]


def test_who_is_not_in_it_is_told_who_is(path):
    with pytest.raises(NotFoundError, match="one of s1, s2"):
        read_story(path, "s3")


def test_what_is_no_story_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="--story"):
        read_story(tmp_path / "none")
    (tmp_path / "other").write_text("something else entirely\n")
    with pytest.raises(InputError, match="no story"):
        read_story(tmp_path / "other")


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(StorageError, match="no story can be written"):
        StoryFile(tmp_path / "no" / "folder").open(print)


def test_what_is_opened_again_goes_on_and_what_is_made_anew_begins_anew(path):
    for _ in "ab":
        again = StoryFile(path)
        for _ in "ab":
            again.open(print)
            again.write(TOLD)
            again.close()
            again.write(TOLD)
        assert len(read_story(path)) == 10


def test_a_full_disk_ends_the_story_and_not_the_run():
    said = []
    story = StoryFile(Path("/dev/full"))
    story.open(said.append)
    story.write(TOLD)
    story.write(TOLD)
    story.close()
    assert len(said) == 1 or all("story" in one for one in said)
    assert "No space left" in said[0]

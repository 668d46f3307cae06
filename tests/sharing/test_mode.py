"""What is written after --sharing, and what is said about mistakes in it."""

from __future__ import annotations

import pytest

from veloflow.errors import OptionError
from veloflow.sharing import Sharing, parse_sharing


@pytest.mark.parametrize(
    ("text", "sharing"),
    [
        ("sync", Sharing("sync", 0)),
        ("sync:shards=1", Sharing("sync", 1)),
        ("sync:shards=1024", Sharing("sync", 1024)),
        ("async", Sharing("async", 0)),
    ],
)
def test_texts_are_read_and_written_back(text, sharing):
    assert parse_sharing(text) == sharing
    assert str(sharing) == text


def test_the_default_is_sync():
    assert str(Sharing()) == "sync"


@pytest.mark.parametrize("text", ["sync:", "sync:,"])
def test_nothing_after_the_colon_is_nothing(text):
    assert parse_sharing(text) == Sharing("sync", 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no mode ''.*there are: sync, async"),
        ("snyc", "no mode 'snyc'.*sync"),
        ("Sync", "no mode 'Sync'"),
        ("sync=3", "no mode 'sync=3'"),
        ("sync:parts=3", "sync has no option 'parts'; it has: shards"),
        ("sync:3", "sync has no option '3'; it has: shards"),
        ("async:shards=2", "async has no option 'shards'; it has: none"),
        ("sync:shards", "shards is ''; give a number from 1 to 1024"),
        ("sync:shards=0", "shards is '0'; give a number from 1 to 1024"),
        ("sync:shards=1025", "shards is '1025'"),
        ("sync:shards=-1", "shards is '-1'"),
        ("sync:shards=1.5", "shards is '1.5'"),
        ("sync:shards=²", "shards is '²'"),
        ("sync:shards=2,shards=3", "shards is given twice"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(OptionError, match=said):
        parse_sharing(text)

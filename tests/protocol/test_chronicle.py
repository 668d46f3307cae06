"""What was told about slaves and pieces: each thing is news once, and the oldest are forgotten."""

from __future__ import annotations

from veloflow.protocol.chronicle import Chronicle
from veloflow.protocol.messages import LeaseId


def test_news_is_what_was_told_since_somebody_asked():
    chronicle = Chronicle()
    assert chronicle.news() == []
    chronicle.tell(1.0, "joined", "s1")
    chronicle.tell(2.0, "got", "s1", LeaseId(7, 0))
    assert chronicle.news() == [
        (1.0, "s1", "joined", None),
        (2.0, "s1", "got", LeaseId(7, 0)),
    ]
    assert chronicle.news() == []
    chronicle.tell(3.0, "lost", "s1")
    assert chronicle.news() == [(3.0, "s1", "lost", None)]


def test_what_is_forgotten_is_no_news():
    chronicle = Chronicle()
    for number in range(5000):
        chronicle.tell(float(number), "beat", "s1")
    news = chronicle.news()
    assert len(news) == 4096
    assert [news[0][0], news[-1][0]] == [904.0, 4999.0]
    assert chronicle.news() == []


def test_the_story_of_a_slave_and_of_a_piece():
    chronicle = Chronicle()
    chronicle.tell(1.0, "joined", "s1")
    chronicle.tell(2.0, "got", "s1", LeaseId(7, 0))
    chronicle.tell(3.5, "got", "s2", LeaseId(7, 1))
    assert chronicle.about("s1") == ["1.000 s1: joined", "2.000 s1: got 7.0"]
    assert chronicle.about(7) == ["2.000 s1: got 7.0", "3.500 s2: got 7.1"]
    assert chronicle.about(8) == []

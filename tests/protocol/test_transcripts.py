"""Whole conversations, word for word: what a user reads, when, and what is counted.

The transcripts lie beside this file. When one differs because it should, set
VELOFLOW_WRITE_TRANSCRIPTS=1, run these tests once and read the difference.
"""

from __future__ import annotations

from tests.protocol.test_master import hello, pieces, update
from tests.protocol.transcript import MasterLog, SlaveLog, compare
from veloflow.protocol.events import (
    STAND_IN,
    Away,
    Computed,
    Failed,
    Garbage,
    Grant,
    Heard,
    Lost,
    PauseAsked,
    Rejected,
    ResumeAsked,
    Said,
    Skipped,
    StopAsked,
    TermAsked,
    Tick,
    WorkAdded,
)
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import (
    PROTOCOL,
    Beat,
    Bye,
    Cancel,
    Failure,
    GiveBack,
    Hello,
    Introduce,
    Job,
    LeaseId,
    Piece,
    Refusal,
    Stop,
    Update,
    Welcome,
)
from veloflow.protocol.slave import Slave


class Play(MasterLog):
    """A master with its slaves, and the leases that each holds."""

    def __init__(self, **settings) -> None:
        super().__init__(Master(MasterSettings("run", "same", **settings)))

    def join(self, *names: bytes, is_local=True, at=None):
        for name in names:
            self(Heard(name, hello(name.decode()), is_local=is_local), at)

    def says(self, client: bytes, message, at=None, **more):
        return self(Heard(client, message, is_local=True, **more), at)

    def answers(self, client: bytes, number: int, attempt=0, at=None, digest=b""):
        return self.says(client, update(LeaseId(number, attempt)), at, digest=digest)

    def beat(self, client: bytes, progress: int, at=None):
        slave = self.master.crowd.by_client[client]
        return self.says(b"beat of " + client, Beat(slave.id, progress), at)


def test_joining_and_leaving():
    play = Play()
    play.says(b"x", hello("wrong", checksum="other"))
    play.says(b"y", hello("old", protocol=PROTOCOL + 1))
    play.says(b"a", Beat("s1", 1), at=0.5)
    play.says(b"a", Bye(""), at=0.6)
    play.says(b"a", Bye(""), at=3.0)
    play.join(b"a", at=3.0)
    play.join(b"b", is_local=False)
    play(pieces(5), at=3.1)
    play.answers(b"a", 0, at=3.2)
    play.answers(b"a", 2, at=3.4)
    play.answers(b"b", 1, at=3.4)
    play.join(b"a", at=3.5)
    play.says(b"b", GiveBack(LeaseId(3, 0)), at=3.6)
    play.says(b"b", Bye("it leaves in good order"), at=3.7)
    play.answers(b"a", 4, 1, at=3.8)
    play.answers(b"a", 3, 1, at=3.8)
    play(WorkAdded(()), at=3.9)
    play(StopAsked(""), at=4.0)
    play.join(b"c", at=4.1)
    play.end("joining_and_leaving", "s1", "s2", 3)


def test_losing_slaves():
    play = Play()
    play.join(b"a", b"b")
    play(pieces(4))
    play(Lost(b"a", "killed by signal 9"), at=0.1)
    play(Lost(b"a", "killed by signal 9"), at=0.1)
    play(Lost(b"b", "it ended with exit code 1"), at=0.2)
    play(Tick(), at=3.0)
    play.join(b"c", is_local=False, at=3.0)
    play(Garbage(b"c", "not MessagePack"), at=3.1)
    play(Garbage(b"c", "not MessagePack"), at=3.2)
    play.join(b"d", at=3.3)
    play(PauseAsked(), at=3.4)
    play.join(b"e", at=3.5)
    play(ResumeAsked(), at=3.6)
    play(StopAsked("all is done"), at=3.7)
    play.join(b"f", at=3.8)
    play.end("losing_slaves", "s1", "s2", "s3", 0)


def test_a_name_that_flaps():
    play = Play()
    for n in range(8):
        client = b"flap%d" % n
        play.says(client, hello("flapping"), at=2.0 * n)
        play(Lost(client, "killed"), at=2.0 * n + 1)
    play.says(b"later", hello("flapping"), at=400.0)
    play.end("a_name_that_flaps")


def test_silence():
    play = Play()
    play.join(b"a", b"b")
    play(pieces(6))
    for n in range(1, 7):
        play.beat(b"b", n, at=0.25 * n)
    play(Tick(), at=1.49)
    play(Tick(), at=1.5)
    play.beat(b"a", 0, at=1.6)
    play.answers(b"a", 0, at=1.7)
    play.beat(b"b", 7, at=1.7)
    play(Tick(), at=3.19)
    play(Tick(), at=3.2)
    play(Away(), at=10.0)
    play(Tick(), at=10.1)
    play(Tick(), at=11.4)
    play(Tick(), at=11.6)
    play(Tick(), at=21.4)
    play(Tick(), at=21.6)
    play(Tick(), at=31.5)
    play.end("silence", "s1", "s2", 0)


def test_a_slave_that_is_stuck():
    play = Play(patience=2.0)
    play.join(b"a", b"b")
    play(pieces(2))
    for second in range(1, 125):
        play.is_noted = second < 6 or second > 122
        play.beat(b"a", min(second, 4), at=float(second))
        if second == 3:
            play.answers(b"b", 1)
        elif b"b" in play.master.crowd.by_client:
            play.beat(b"b", second)
        play(Tick(), at=second + 0.5)
    play.end("a_slave_that_is_stuck", "s1")


def test_failures():
    play = Play()
    play.join(b"a", b"b")
    play(pieces(2))
    lease = LeaseId(0, 0)
    play.says(b"a", Failure(lease, "unit All2All", "ValueError: shapes"), at=0.1)
    play.says(b"a", Failure(lease, "unit All2All", "ValueError: shapes"), at=0.1)
    play.says(b"b", Failure(LeaseId(1, 0), "unit All2All", "ValueError: shapes"), at=0.2)
    held = {one.lease.number: one for one in _grants(play)}
    assert held.keys() == {0, 1}
    play(Rejected(held[0].client, held[0].lease, "NaN in the update", is_lie=False), at=0.3)
    play.end("failures", 0, "s1")


def test_what_was_never_asked_for():
    play = Play()
    play.join(b"a", b"b", b"c", b"d")
    play(pieces(6))
    play.answers(b"a", 0, at=0.1)
    play.answers(b"a", 0, at=0.1)
    play.answers(b"a", 0, at=0.1)
    play.answers(b"b", 77, at=0.2)
    play.answers(b"c", 3, at=0.2)
    play(Rejected(b"d", LeaseId(3, 0), "its update has the wrong shape", is_lie=True), at=0.3)
    play(Rejected(b"d", LeaseId(3, 0), "its update has the wrong shape", is_lie=True), at=0.3)
    play.answers(b"a", 6, at=0.4)
    play.end("what_was_never_asked_for", "s1", "s2", 0)


def test_what_is_late_goes_to_a_second_slave():
    play = Play(prefetch=1)
    play.join(b"a", b"b", b"c")
    play(pieces(12))
    now = 0.0
    while play.master.ledger.accepted < 11:
        now += 0.1
        for slave in list(play.master.crowd):
            if slave.client != b"c" and slave.owed:
                lease = next(iter(slave.owed))
                play.says(slave.client, update(lease), at=now)
    play.beat(b"c", 1, at=now)
    play(Tick(), at=now + 0.5)
    play(Tick(), at=now + 1.2)
    play.answers(b"c", 2, 0, at=now + 1.3)
    play.answers(b"a", 2, 1, at=now + 1.4)
    play.end("what_is_late", 2)


def _grants(play) -> list[Grant]:
    """Return what the slaves hold, as it was granted."""
    return [
        Grant(slave.client, lease, play.master.ledger[lease.number].piece)
        for slave in play.master.crowd
        for lease in slave.owed
    ]


def _hold(play) -> list[tuple[bytes, LeaseId]]:
    return [(one.client, one.lease) for one in _grants(play)]


def test_an_audit_finds_who_spoils():
    play = Play(audit=1.0, prefetch=1)
    play.join(b"a", b"b", b"c")
    play(pieces(3))
    for _ in range(40):
        held = _hold(play)
        if not held:
            break
        for client, lease in held:
            digest = b"spoilt" if client == b"b" else b"right"
            play.says(client, update(lease), at=play.now + 0.1, digest=digest)
    play.join(b"d")
    play.end("an_audit_finds_who_spoils", "s1", "s2", 0, 1, 2)


def test_an_audit_without_a_judge():
    play = Play(audit=1.0, prefetch=1)
    play.join(b"a", b"b")
    play(pieces(2))
    for _ in range(2):
        for client, lease in _hold(play):
            play.says(client, update(lease), at=play.now + 0.1, digest=client)
    play.says(b"b", Bye("enough"), at=1.0)
    play(Tick(), at=1.1)
    play.join(b"c", at=1.2)
    for client, lease in _hold(play):
        play.says(client, update(lease), at=1.3, digest=b"a")
    play.join(b"d", at=1.4)
    for client, lease in _hold(play):
        play.says(client, update(lease), at=1.5, digest=b"z")
    play.end("an_audit_without_a_judge", 0, 1)


def test_an_audit_alone():
    play = Play(audit=1.0)
    play.join(b"a")
    play(pieces(2))
    play.answers(b"a", 0, at=0.1, digest=b"x")
    play.answers(b"a", 1, at=0.2, digest=b"x")
    play.end("an_audit_alone", 0)


def test_a_master_that_works():
    play = Play(works=True, patience=2.0)
    play(pieces(3))
    play(Tick(), at=3.9)
    play(Tick(), at=4.0)
    play.says(STAND_IN, hello("the master"), at=4.0)
    play.answers(STAND_IN, 0, at=4.1)
    play.join(b"a", at=4.2)
    play.says(STAND_IN, Bye("a slave is here"), at=4.3)
    play(Lost(b"a", "killed"), at=5.0)
    play(StopAsked("enough"), at=6.0)
    play(Tick(), at=20.0)
    play.end("a_master_that_works")


def job(number: int, attempt=0) -> Job:
    return Job(LeaseId(number, attempt), Piece(number, 0, 2, 0, 10), {}, ())


def _slave(**settings) -> SlaveLog:
    return SlaveLog(Slave(Hello(PROTOCOL, "same", "n", "null", "cpu", "host", 1), **settings))


def test_a_slave_at_work():
    log = _slave()
    log.begin()
    log(Said(job(9)))
    log.begin()
    log(Said(Welcome("s1", "run", 0.25)), at=0.5)
    log(Said(Welcome("s2", "run", 0.25)))
    log(Said(job(0)))
    log(Said(job(0)))
    log(Said(job(1)))
    log(Said(job(2)))
    log.begin()
    log.begin()
    log(Said(Cancel(LeaseId(2, 0))), at=0.6)
    log(Said(Cancel(LeaseId(0, 0))), at=0.6)
    log(Computed(Update(LeaseId(0, 0), {}, (), 0.01)), at=0.7)
    log.begin()
    log(Failed(Failure(LeaseId(1, 0), "a unit", "why")), at=0.8)
    log(Said(job(3)))
    log.begin()
    log(Skipped(LeaseId(3, 0)), at=0.9)
    log(Said(job(4)))
    log(Said(job(5)))
    log.begin()
    log(TermAsked("SIGTERM"), at=1.0)
    log(Said(job(6)))
    log(Computed(Update(LeaseId(4, 0), {}, (), 0.01)), at=1.1)
    log(Said(job(7)))
    log.lines.append("")
    from_ = log.lines
    for other in (_term_while_greeting(), _term_while_idle()):
        from_ += [*other.lines, ""]
    compare("a_slave_at_work", from_)


def _term_while_greeting() -> SlaveLog:
    log = _slave()
    log(TermAsked("SIGTERM"), at=0.1)
    return log


def _term_while_idle() -> SlaveLog:
    log = _slave()
    log(Said(Welcome("s1", "run", 0.25)), at=0.1)
    log(Said(Cancel(LeaseId(0, 0))))
    log(TermAsked(), at=0.2)
    return log


def test_a_slave_without_a_master():
    log = _slave(patience=2.0, give_up=100.0)
    for second in range(1, 31):
        log(Tick(), at=float(second))
    log(Said(Welcome("s1", "run", 0.25)), at=31.0)
    log(Said(job(0)))
    log.begin()
    log(Said(job(1)))
    log(Tick(), at=100.0)
    log(Said(Introduce()), at=101.0)
    log(Said(Introduce()), at=101.5)
    log(Computed(Update(LeaseId(0, 0), {}, (), 0.01)), at=102.0)
    log.begin()
    log(Said(Welcome("s7", "another run", 0.5)), at=102.5)
    log.begin()
    log(Tick(), at=302.4)
    log(Tick(), at=302.5)
    log(Said(Welcome("s8", "another run", 0.5)), at=303.0)
    compare("a_slave_without_a_master", log.lines)


def test_a_slave_greets_ever_more_seldom():
    log = _slave()
    while log.now < 599:
        log(Tick(), at=log.slave.deadline)
    log(Tick(), at=600.0)
    compare("a_slave_greets_ever_more_seldom", log.lines)


def test_how_a_slave_is_dismissed():
    lines: list[str] = []
    for message in (Refusal("it is too old"), Stop("all is done"), Introduce()):
        for does_drain in (False, True):
            log = _slave()
            log(Said(Welcome("s1", "run", 0.25)), at=0.1)
            if does_drain:
                log(Said(job(0)))
                log.begin()
                log(TermAsked(), at=0.2)
            log(Said(message), at=0.7)
            lines += [*log.lines, ""]
    log = _slave()
    log(Said(Refusal("it is too old")), at=0.1)
    log(Tick(), at=900.0)
    compare("how_a_slave_is_dismissed", lines + log.lines)

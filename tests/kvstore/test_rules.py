"""Rules of the pure store and of its workers: this is said, exactly these actions follow."""

from __future__ import annotations

from collections import deque

import pytest

from veloflow.protocol.codec import encode
from veloflow.protocol.kvstore.client import Client, State
from veloflow.protocol.kvstore.messages import (
    PROTOCOL,
    Denied,
    Fault,
    Join,
    Joined,
    Leave,
    Pull,
    Pulse,
    Push,
    Start,
    Stranger,
    Taken,
    Value,
    store_decoder,
    worker_decoder,
)
from veloflow.protocol.kvstore.server import Apply, Create, Keep, Say, Send, Show, Store
from veloflow.protocol.messages import FrameHeader

FRAMES = (FrameHeader("w", "<f4", (2,)),)
NO_KEY = "there is no key 'w': give its first value with init"


class Stage:
    """A store that is checked after each event; worker ``a`` speaks as client ``A``."""

    def __init__(self, *workers: str, size=None, mode="sync", patience=1.0, key=True):
        self.store = Store("here", size or len(workers), mode, patience)
        self.now = 0.0
        for name in workers:
            self.joins(name)
        if key:
            self(Start(workers[0], 1, "w", ()))

    def __call__(self, message, at=None, client=None, fault=""):
        self.now = self.now if at is None else at
        client = client or message.worker.upper().encode()
        actions = self.store.handle(client, message, self.now, fault)
        self.store.validate()
        return actions

    def joins(self, name, *, observes=False):
        return self(Join(PROTOCOL, name, "plain", f"{name}-name", observes))

    def passes(self, now):
        self.now = now
        actions = self.store.pass_time(now)
        self.store.validate()
        return actions


def taken(client, number):
    return Send(client, Taken(number))


# -- the store: who is here -----------------------------------------------------------------------


def test_who_joins_is_told_its_rank_and_is_taken_in_once():
    stage = Stage(size=2, patience=2.0, key=False)
    first = Send(b"A", Joined("here", 0, 2, "sync", 1.0, 0))
    assert stage.joins("a") == [Say("worker 0 (a-name) is here"), first]
    assert stage.joins("a") == [first]
    assert stage.store.has_begun is False
    second = Send(b"B", Joined("here", 1, 2, "sync", 1.0, 0))
    assert stage.joins("b") == [Say("worker 1 (b-name) is here"), second]
    assert stage.store.has_begun is True
    assert stage.store.here == 2
    stage(Start("a", 1, "w", ()))
    assert stage.joins("a") == [Send(b"A", Joined("here", 0, 2, "sync", 1.0, 1))]


def test_a_store_is_in_step_unless_it_is_told_otherwise():
    store = Store("here", 2)
    assert store.handle(b"A", Join(PROTOCOL, "a"), 0.0)[-1] == Send(
        b"A", Joined("here", 0, 2, "sync", 0.5, 0)
    )


def test_who_speaks_another_protocol_is_not_taken():
    stage = Stage(size=1, key=False)
    reason = f"it speaks protocol {PROTOCOL + 1} of key-value stores, not {PROTOCOL}"
    assert stage(Join(PROTOCOL + 1, "a")) == [Send(b"A", Denied(reason))]
    assert stage(Pulse("a")) == [Send(b"A", Stranger())]
    assert stage.store.here == 0
    assert stage.store.deadline is None


def test_who_only_observes_begins_nothing():
    stage = Stage(size=1, key=False)
    stage.joins("o", observes=True)
    assert stage.store.has_begun is False
    stage.joins("a")
    assert stage.store.has_begun is True


def test_pulses_come_over_a_connection_of_their_own():
    stage = Stage("a")
    assert stage(Pulse("a"), client=b"pulse") == []
    assert stage(Push("a", 1, "w", ())) == [taken(b"A", 1)]
    assert stage(Push("a", 1, "w", ()), client=b"new") == [taken(b"new", 1)]
    stage.store.handle(b"newer", Join(PROTOCOL, "a", "plain", "a-name"), 0.0)
    assert stage.store._workers["a"].client == b"newer"


@pytest.mark.parametrize("patience", [1.0, 2.0])
def test_nobody_waits_for_who_is_silent_for_six_pulses(patience):
    stage = Stage("a", "b", "c", patience=patience)
    limit = 3.0 * patience
    stage(Push("c", 1, "w", ()), at=1.0)
    assert stage.store.deadline == limit
    assert stage.passes(limit - 0.25) == []
    silent = f"is silent for {limit:g} s; nobody waits for it any more"
    assert stage.passes(limit) == [
        Say(f"worker 0 (a-name) {silent}"),
        Say(f"worker 1 (b-name) {silent}"),
        Apply("w", (("c", 1),)),
    ]
    assert (stage.store.lost, stage.store.here) == (2, 1)
    assert stage.store.deadline == limit + 1.0
    assert stage.passes(limit + 1.0) == [Say(f"worker 2 (c-name) {silent}")]
    assert stage.store.lost == 3
    assert stage.store.deadline is None


def test_who_comes_back_has_its_rank_if_nobody_else_has_it():
    stage = Stage("a", "b", "c")
    stage.passes(3.0)
    assert stage(Pulse("b")) == [Say("worker 1 (b-name) is here")]
    stage.joins("d")  # has the lowest rank that is free: 0
    assert stage(Pulse("a")) == [Say("worker 2 (a-name) is here")]
    assert stage(Pulse("c")) == [Say("worker 3 (c-name) is here")]
    assert stage.store.here == 4


def test_it_is_over_when_all_have_come_and_gone():
    stage = Stage("a", size=2)
    assert stage(Leave("a")) == [Say("worker 0 (a-name) has left")]
    assert not stage.store.is_over, "the other may still come"
    stage.joins("b")
    assert not stage.store.is_over
    stage(Pulse("a"))
    stage(Leave("a"))
    assert stage(Leave("a")) == [], "it left before"
    stage(Leave("b"))
    assert stage.store.is_over
    assert not Store("here", 1, "async").is_over, "nobody has come yet"


# -- the store: commands --------------------------------------------------------------------------


def test_the_first_value_of_a_key_is_the_one_that_counts():
    stage = Stage("a", "b", key=False)
    assert not stage.store.knows("w")
    assert stage(Start("a", 1, "w", ())) == [Create("w"), taken(b"A", 1)]
    assert stage.store.knows("w")
    assert stage(Start("b", 1, "w", ())) == [taken(b"B", 1)]


def test_a_step_is_made_when_all_have_pushed_in_the_order_of_ranks():
    stage = Stage("z", "a")
    assert stage(Push("a", 1, "w", ())) == [Keep(("a", 1)), taken(b"A", 1)]
    assert stage(Push("z", 2, "w", ())) == [
        Keep(("z", 2)),
        taken(b"Z", 2),
        Apply("w", (("z", 2), ("a", 1))),
    ]
    stage(Push("z", 3, "w", ()))
    assert stage(Push("a", 2, "w", ()))[-1] == Apply("w", (("z", 3), ("a", 2)))
    assert stage.store.applied == 4
    assert stage(Pull("z", 1, "w", 3)) == [Show(b"Z", 1, "w", 2)]


def test_no_step_is_made_before_as_many_have_come_as_are_awaited():
    stage = Stage("a", size=2)
    assert stage(Push("a", 2, "w", ())) == [Keep(("a", 2)), taken(b"A", 2)]
    stage.joins("b")
    assert stage(Push("b", 1, "w", ()))[-1] == Apply("w", (("a", 2), ("b", 1)))


def test_a_step_waits_neither_for_observers_nor_for_who_has_left():
    stage = Stage("a", "b")
    stage.joins("o", observes=True)
    stage(Push("a", 2, "w", ()))
    said = Say("worker 1 (b-name) has left")
    assert stage(Leave("b")) == [said, Apply("w", (("a", 2),))]
    stage = Stage("a", "b")
    stage(Push("b", 1, "w", ()))
    stage(Leave("b"))
    assert stage(Push("a", 2, "w", ()))[-1] == Apply("w", (("a", 2), ("b", 1))), "what it had said"


def test_what_waited_is_applied_when_the_last_one_comes():
    stage = Stage("a", size=2)
    stage(Push("a", 2, "w", ()))
    stage(Leave("a"))
    stage.joins("b")  # and has rank 0 now
    stage(Push("b", 1, "w", ()))
    step = Apply("w", (("b", 1), ("a", 2)))
    assert stage(Pulse("a")) == [Say("worker 1 (a-name) is here"), step]


def test_in_async_each_push_is_a_step():
    stage = Stage("a", size=2, mode="async")
    assert stage.store.has_begun is True
    push = Push("a", 2, "w", ())
    assert stage(push) == [Keep(("a", 2)), taken(b"A", 2), Apply("w", (("a", 2),))]
    stage.joins("b")
    assert stage(Push("b", 1, "w", ()))[-1] == Apply("w", (("b", 1),))


def test_commands_are_taken_once_and_in_order():
    stage = Stage("a")
    assert stage(Push("a", 3, "w", ())) == [taken(b"A", 1)], "the second was lost"
    assert stage.store.repeated == 0
    for count in (1, 2):
        assert stage(Start("a", 1, "w", ())) == [taken(b"A", 1)]
        assert stage.store.repeated == count


def test_a_wrong_command_is_answered_alike_each_time():
    stage = Stage("a", "b", key=False)
    told = [Send(b"A", Fault(NO_KEY, number=1)), taken(b"A", 1)]
    assert stage(Push("a", 1, "w", ())) == told
    stage(Start("b", 1, "w", ()))
    assert stage(Push("a", 1, "w", ())) == told, "though the key is there by now"
    assert stage(Push("a", 2, "w", ()), fault="no array")[0] == Send(b"A", Fault("no array", 2))
    assert stage(Start("a", 3, "v", ()), fault="no array")[0] == Send(b"A", Fault("no array", 3))
    assert not stage.store.knows("v")


def test_an_observer_may_not_push():
    stage = Stage("a")
    stage.joins("o", observes=True)
    reason = "this worker only observes: let it join without observe"
    fault = Send(b"O", Fault(reason, number=1))
    assert stage(Push("o", 1, "w", ())) == [fault, taken(b"O", 1)]


def test_nobody_is_more_than_sixteen_pushes_ahead():
    stage = Stage("a", "b")
    for number in range(2, 18):
        assert stage(Push("a", number, "w", ())) == [Keep(("a", number)), taken(b"A", number)]
    reason = "16 pushes of 'w' wait for those of other workers; pull it before it is pushed again"
    told = [Send(b"A", Fault(reason, number=18)), taken(b"A", 18)]
    assert stage(Push("a", 18, "w", ())) == told


# -- the store: questions -------------------------------------------------------------------------


def test_a_question_for_a_key_that_is_not_there_is_answered_so():
    stage = Stage("a", key=False)
    assert stage(Pull("a", 5, "w", 0)) == [Send(b"A", Fault(NO_KEY, request=5))]


def test_a_question_waits_for_the_commands_before_it():
    stage = Stage("a", key=False)
    assert stage(Pull("a", 1, "w", 1)) == []
    assert stage(Pull("a", 1, "w", 1)) == [taken(b"A", 0)], "it is heard"
    told = [Create("w"), taken(b"A", 1), Show(b"A", 1, "w", 0)]
    assert stage(Start("a", 1, "w", ())) == told
    stage = Stage("a", key=False)
    stage(Pull("a", 1, "w", 1))
    fault = Send(b"A", Fault("no array", number=1))
    answer = Send(b"A", Fault(NO_KEY, request=1))
    assert stage(Start("a", 1, "w", ()), fault="no array") == [fault, taken(b"A", 1), answer]


def test_a_question_waits_for_the_pushes_of_who_asks_and_for_no_others():
    stage = Stage("a", "b")
    stage(Start("a", 2, "v", ()))
    stage(Push("a", 3, "w", ()))
    assert stage(Pull("a", 1, "w", 3)) == []
    assert stage(Pull("a", 2, "v", 2)) == [Show(b"A", 2, "v", 0)]
    assert stage(Pull("b", 1, "w", 0)) == [Show(b"B", 1, "w", 0)]
    assert stage(Push("b", 1, "w", ()))[-2:] == [
        Apply("w", (("a", 3), ("b", 1))),
        Show(b"A", 1, "w", 1),
    ]


def test_who_is_gone_asks_no_more():
    for go in (lambda stage: stage(Leave("a")), lambda stage: stage.passes(3.0)):
        stage = Stage("a", "b")
        stage(Push("a", 2, "w", ()))
        stage(Pull("a", 1, "w", 2))
        stage(Pulse("b"), at=2.0)
        go(stage)
        assert stage(Push("b", 1, "w", ()))[-1] == Apply("w", (("a", 2), ("b", 1)))


# -- the store: invariants ------------------------------------------------------------------------


def _one_rank(store):
    store._workers["b"].rank = 0


def _forget_a_step(store):
    store._keys["w"].pending = {"a": deque([2]), "b": deque([1])}
    store._workers["a"].taken, store._workers["b"].taken = 2, 1


def _disorder(store):
    store._workers["a"].taken = 9
    store._keys["w"].pending = {"a": deque([3, 2])}


def _not_taken(store):
    store._keys["w"].pending = {"a": deque([1, 7])}


def _wait_for_nobody(store):
    store._workers["a"].is_here = False
    store._workers["a"].waiting[1] = Pull("a", 1, "w", 9)


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (_one_rank, r"^two workers have one rank: \[0, 0\]"),
        (_forget_a_step, r"^a step of 'w' could be made and was not"),
        (_disorder, r"^pushes of 'w' out of order"),
        (_not_taken, r"^a push waits that was not taken"),
        (_wait_for_nobody, r"^a-name is gone and waits"),
    ],
)
def test_a_broken_store_is_seen(breaking, words):
    store = Stage("a", "b").store
    breaking(store)
    with pytest.raises(AssertionError, match=words):
        store.validate()


# -- the worker -----------------------------------------------------------------------------------

JOINED = Joined("here", 0, 1, "sync", 0.5)
GREETING = Join(PROTOCOL, "w", "plain", "name", True)


def worker(patience=1.0, *, joined=True):
    client = Client(Client.greeting("w", "plain", "name", observes=True), patience)
    assert client.start(0.0) == [GREETING]
    if joined:
        assert client.hear(JOINED, 0.0) == []
    return client


def push(client, now=0.0, key="k"):
    return client.command(Push, key, FRAMES, now)


def test_a_worker_is_here_when_the_store_says_so():
    client = worker(2.0, joined=False)
    assert (client.state, client.failure, client.faults) == (State.JOINING, "", [])
    assert client.deadline == 2.0
    assert client.hear(JOINED, 1.0) == []
    assert (client.state, client.joined) == (State.HERE, JOINED)
    assert client.deadline is None, "there is nothing to say again"


def test_what_is_said_before_it_is_here_is_said_then():
    client = worker(joined=False)
    assert client.command(Start, "k", FRAMES, 0.0) == []
    assert client.ask("k", 0.0) == (1, [])
    said = [Start("w", 1, "k", FRAMES), Pull("w", 1, "k", 1)]
    assert client.hear(JOINED, 0.5) == said
    assert client.deadline == 1.5
    assert client.hear(JOINED, 0.75) == [], "an answer to a greeting that was said twice"


def test_commands_are_numbered_and_kept_until_they_are_taken():
    client = worker()
    assert push(client) == [Push("w", 1, "k", FRAMES)]
    assert push(client) == [Push("w", 2, "k", FRAMES)]
    assert client.deadline == 1.0
    client.hear(Taken(1), 0.5)
    assert (client.untaken, client.is_untaken(1), client.is_untaken(2)) == (1, False, True)
    assert client.deadline == 1.5
    client.hear(Taken(2), 0.75)
    assert client.untaken == 0
    assert client.deadline is None


def test_a_question_names_the_last_command_about_its_key():
    client = worker()
    assert client.ask("k", 0.0) == (1, [Pull("w", 1, "k", 0)])
    push(client)
    push(client, key="other")
    assert client.ask("k", 0.0) == (2, [Pull("w", 2, "k", 1)])
    value = Value(2, "k", 3, FRAMES)
    for _ in range(2):
        client.hear(value, 0.0)
        assert client.answers == {2: value}
    client.hear(Fault("no key", request=1), 0.0)
    assert client.answers == {2: value, 1: "no key"}
    client.answers.clear()
    client.hear(value, 0.0)
    client.hear(Fault("no key", request=1), 0.0)
    assert client.answers == {}, "each question is answered once"


def test_a_question_alone_is_asked_again():
    client = worker()
    client.ask("k", 0.0)
    client.hear(Taken(0), 0.5)
    assert client.deadline == 1.5
    assert client.pass_time(1.5) == [Pull("w", 1, "k", 0)]


def test_what_was_wrong_with_a_command_is_told_once():
    client = worker()
    push(client)
    for _ in range(2):
        client.hear(Fault("too large", number=1), 0.0)
        assert client.faults == ["too large"]
        assert client.untaken == 0
    assert client.deadline is None


@pytest.mark.parametrize("patience", [1.0, 2.0])
def test_all_is_said_again_and_more_slowly_until_it_gives_up(patience):
    client = worker(patience)
    push(client)
    client.ask("k", 0.0)
    said, times = [Push("w", 1, "k", FRAMES), Pull("w", 1, "k", 1)], []
    while client.state is not State.FAILED:
        now = client.deadline
        assert client.pass_time(now - 0.5) == []
        if client.pass_time(now) == said:
            times.append(now / patience)
    assert times == [1, 3, 7, 15, 23, 31, 39, 47, 55]
    assert client.failure == f"no word from the store for {60 * patience:g} s"
    assert client.pass_time(1e6) == []
    assert push(client, 1e6) == []


@pytest.mark.parametrize("patience", [1.0, 2.0])
def test_a_minute_of_silence_is_enough(patience):
    client = worker(patience, joined=False)
    assert client.pass_time(59.0 * patience) == [GREETING]
    client = worker(patience, joined=False)
    assert client.pass_time(60.0 * patience) == []
    assert client.state is State.FAILED


def test_silence_counts_from_when_there_was_something_to_hear():
    client = worker()
    push(client, 100.0)
    push(client, 150.0)
    assert client.deadline == 101.0
    assert len(client.pass_time(159.0)) == 2
    client = worker()
    push(client, 100.0)
    push(client, 150.0)
    client.pass_time(160.0)
    assert client.state is State.FAILED


@pytest.mark.parametrize("patience", [1.0, 2.0])
def test_a_word_from_the_store_makes_it_quick_again(patience):
    client = worker(patience)
    push(client)
    for _ in range(3):
        client.pass_time(client.deadline)
    client.hear(Taken(0), 20.0)
    assert client.deadline == 20.0 + patience
    assert client.pass_time(65.0 * patience), "it was heard since"


def test_a_store_that_does_not_know_it_is_greeted_again_and_told_what_it_missed():
    client = worker()
    push(client)
    push(client)
    assert client.hear(Stranger(), 0.25) == [GREETING]
    assert client.state is State.JOINING
    assert client.hear(Stranger(), 0.5) == [], "it is greeting already"
    assert client.deadline == 1.5
    assert client.pass_time(1.5) == [GREETING]
    again = Joined("here", 0, 1, "sync", 0.5, 1)
    assert client.hear(again, 2.0) == [Push("w", 2, "k", FRAMES)]


def test_another_store_has_other_values():
    client = worker()
    push(client)
    assert client.hear(Joined("another", 0, 1, "sync", 0.5), 0.0) == []
    assert client.state is State.FAILED
    assert client.failure == ("the store has been started anew, and its values with it; start over")
    client.hear(Taken(0), 1.0)
    assert client.deadline is None, "it has ended"


def test_a_worker_that_is_not_taken_says_why():
    client = worker(joined=False)
    client.hear(Denied("it is too old"), 0.0)
    assert client.state is State.FAILED
    assert client.failure == "the store does not take this worker: it is too old"
    assert client.deadline is None


def test_messages_of_both_sides_are_read():
    assert worker_decoder().decode(encode(GREETING)) == GREETING
    assert store_decoder().decode(encode(JOINED)) == JOINED

"""What users of other engines complain of, thread by thread, and what happens here instead."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import veloflow
from tests.protocol.test_master import Stage, granted, hello, pieces, update
from veloflow.protocol.events import (
    Apply,
    Away,
    GiveUp,
    Grant,
    Heard,
    Lost,
    PauseAsked,
    PutOut,
    ResumeAsked,
    Say,
    Send,
    Tick,
    WorkAdded,
)
from veloflow.protocol.master import Master, MasterSettings
from veloflow.protocol.messages import Beat, Failure, Introduce, LeaseId, Piece
from veloflow.runtime.transport.unix import UnixConnection, UnixListener
from veloflow.testing import FaultPlan, Simulation

RUNTIME = Path(veloflow.__file__).parent / "runtime"


def of(actions, sort):
    return [one for one in actions if isinstance(one, sort)]


def leases(actions):
    return [(one.client, one.lease) for one in of(actions, Grant)]


@pytest.mark.slow
def test_ten_thousand_kills_and_no_hang():
    """dask/distributed#3196: deadlock after some hundred kills. ray#47606, #1270: hang after."""
    kills = seed = 0
    while kills < 10_000:
        plan = FaultPlan(kill=0.5)
        outcome = Simulation(seed, plan=plan, samples=5000, slaves=5, limit=36_000).run()
        kills, seed = kills + outcome.events["kill"], seed + 1


def test_a_piece_that_somebody_holds_always_has_a_deadline():
    """dask/distributed#6263, #6244, #6228, #5879, #5635: "processing" on a worker that is gone."""
    stage = Stage(b"a", b"b")
    stage(pieces(4))
    assert stage.master.deadline is not None
    stage(Lost(b"a", "disconnected"))
    assert {one.slave for entry in stage.master.ledger.open for one in entry.leases} <= {"s2"}
    stage.says(b"a", update(LeaseId(0, 0)))  # it comes back and answers
    assert stage.master.deadline is not None


def test_a_stolen_piece_that_fails_after_it_was_done_elsewhere():
    """dask/distributed#6689: a stolen task completes on B, then errors on A."""
    stage = Stage(b"a", b"b", prefetch=1)
    ((first, lease),) = leases(stage(pieces(1)))
    second = b"b" if first == b"a" else b"a"
    stolen = []
    for tick in range(1, 200):  # both beat, but the piece is late
        stage.now = 0.25 * tick
        for one in (first, second):
            stolen += leases(stage.beat(one, progress=tick))
        stolen += leases(stage(Tick(), at=stage.now))
    ((_, other),) = stolen
    assert of(stage.says(second, update(other)), Apply)
    actions = stage.says(first, Failure(lease, "unit", "broken"))
    assert not of(actions, GiveUp)
    assert not of(actions, Apply)
    assert stage.master.counters["failed"] == 0
    assert granted(stage(pieces(1, first=1)))


def test_the_piece_that_kills_is_told_from_those_that_were_near():
    """dask/distributed#6110: tasks that only waited on a worker that died are blamed for it."""
    stage = Stage(b"a", prefetch=2)
    computing, waiting = [lease for _, lease in leases(stage(pieces(2)))]
    stage(Lost(b"a", "killed"))
    assert stage.master._deaths._at == {computing.number: 1}
    assert waiting.number in stage.master.ledger


def test_after_an_error_other_work_goes_on():
    """dask/distributed#5497: after one error all later work deadlocks."""
    stage = Stage(b"a", b"b", prefetch=1)
    jobs = leases(stage(pieces(3)))
    for client, lease in jobs:
        stage.says(client, Failure(lease, "unit", "broken"))
    done = 0
    for _ in range(10):
        for client, lease in [
            (one.client, lease)
            for one in stage.master.crowd
            for lease in list(one.owed)
        ]:  # fmt: skip
            done += len(of(stage.says(client, update(lease)), Apply))
    assert done == 3


def test_a_piece_is_all_that_is_needed_to_compute_it_again():
    """ray-project/ray#22349, #22511: training hangs on any node's end; no collective here."""
    stage = Stage(b"a", b"b", prefetch=1)
    (((_, lease)), _) = leases(stage(pieces(2)))
    (again,) = of(stage(Lost(b"a", "node shut down")), Grant) or of(
        stage.says(b"b", update(LeaseId(1, 0))), Grant
    )
    assert (again.client, again.piece.number) == (b"b", lease.number)


def test_fewer_slaves_still_use_all_data():
    """ray-project/ray#20647: go on with fewer workers, and use all data."""
    outcome = Simulation(3, plan=FaultPlan(leave=0.15), slaves=3, audit=0.0).run()
    assert outcome.events["leave"] > 0
    assert len(outcome.applied) == 20  # and the simulation has looked at each sample


def test_a_silent_slave_loses_its_work_though_its_process_lives():
    """pytorch/pytorch#111646: a missing heartbeat does not restart anything."""
    stage = Stage(b"a", b"b")
    stage(pieces(2))
    stage.beat(b"b")
    held = list(stage.master.crowd.by_client[b"a"].owed)
    moved = set()
    for tick in range(1, 12):
        stage.beat(b"b", progress=tick)
        moved |= {lease.number for client, lease in leases(stage(Tick(), at=0.25 * tick))}
    assert {lease.number for lease in held} <= moved


def test_to_join_is_one_hello_and_concerns_nobody_else():
    """pytorch/pytorch#147064, #123678, #67742; kubeflow/trainer#1638; horovod#3264, #4021."""
    stage = Stage(b"a", b"b")
    stage(pieces(20))
    actions = stage(Heard(b"c", hello("c")))
    assert {one.client for one in of(actions, Send) + of(actions, Grant)} == {b"c"}
    assert of(actions, Grant)


def test_every_wait_of_the_runtime_has_a_deadline():
    """pytorch/gloo#520: a connect ignores its timeout. An empty wait() or poll() waits for ever."""
    endless = []
    for path in sorted(RUNTIME.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name = node.func.attr
            has_none = not node.args and not node.keywords
            if name in {"poll", "wait", "communicate", "get"} and has_none:
                endless.append(f"{path.name}:{node.lineno}")
            # those of unix_transport never block, as the next test says
            waits = path.name != "unix_transport.py"
            words = [ast.unparse(one) for one in node.args]
            if name.startswith("recv") and waits and not any("DONT_WAIT" in one for one in words):
                endless.append(f"{path.name}:{node.lineno}")
    assert endless == []


def test_a_socket_of_a_local_slave_never_blocks(tmp_path):
    """pytorch/gloo#520 again: recv and send of the Unix sockets come back at once."""
    listener = UnixListener(tmp_path / "s")
    client = UnixConnection(listener.addresses[0], b"client", patience=0.01)
    listener.wait(1.0)
    assert not client._stream.socket.getblocking()
    assert client.receive() is None
    assert listener.receive() is None
    assert not listener._clients[b"client"].socket.getblocking()
    client.close()
    listener.close()


@pytest.mark.parametrize("patience", [0.5, 2.0])
def test_one_knob_scales_every_deadline(patience):
    """pytorch/torchtitan#2899: days to find four timeouts in the right order."""

    def deadlines(settings):
        master = Master(settings)
        master.handle(Heard(b"a", hello()), 0.0)
        master.handle(WorkAdded((Piece(0, 0, 2, 0, 1),)), 0.0)
        found, now = [], 0.0
        while (due := master.deadline) is not None and len(found) < 4:
            now = max(due, now) + 1e-9
            found.append(now)
            master.handle(Tick(), now)
        return found

    plain = deadlines(MasterSettings("run", "same"))
    scaled = deadlines(MasterSettings("run", "same", patience=patience))
    assert scaled == pytest.approx([patience * one for one in plain])


def test_a_loss_moves_the_work_in_the_same_event():
    """meta-pytorch/torchft#329, #196: survivors wait out a timeout though the failure is known."""
    stage = Stage(b"a", prefetch=1)
    stage(pieces(1))
    stage(Heard(b"b", hello("b")))
    assert granted(stage(Lost(b"a", "killed by SIGKILL"))) == [(b"b", 0)]


def test_deadlines_follow_observed_times():
    """learning-at-home/hivemind#676: one fixed number is wrong both ways."""

    def due_after(seconds):
        stage = Stage(b"a", b"b", prefetch=1)
        now = 0.0
        ((client, lease),) = leases(stage(pieces(1), at=now))
        for number in range(1, 40):
            now += seconds
            stage.says(client, update(lease), at=now)
            ((client, lease),) = leases(stage(pieces(1, first=number), at=now))
        return stage.master._dealer.deadline - now

    assert due_after(0.01) < 0.2
    assert due_after(2.0) >= 2.0


def test_a_loss_is_told_in_plain_words():
    """learning-at-home/hivemind#624, #519, #351, #653: peers are lost, and nobody knows why."""
    stage = Stage(b"a")
    said = of(stage.master.handle(Lost(b"a", "killed by SIGKILL"), 0.0), Say)
    assert any("killed by SIGKILL" in one.text for one in said)


def test_paused_with_nobody_left_then_resumed():
    """horovod/horovod#3494: deadlock if survivors are too few after a graceful exit."""
    stage = Stage(b"a")
    stage(pieces(1))
    stage(PauseAsked())
    stage(Lost(b"a", "left"))
    assert not granted(stage(Heard(b"b", hello("b"))))
    assert granted(stage(ResumeAsked())) == [(b"b", 0)]


def test_what_a_lost_slave_says_does_not_count():
    """tensorflow/tensorflow#7767, #15660: a lost worker makes the loss "suddenly zero"."""
    stage = Stage(b"a")
    ((client, lease),) = leases(stage(pieces(1)))
    stage(Lost(client, "killed"))
    assert not of(stage.says(client, update(lease)), Apply)


def test_a_heartbeat_after_the_end_is_answered():
    """Parsl/parsl#3632, #3262, #1128: such a heartbeat is a KeyError that ends the interchange."""
    stage = Stage(b"a")
    stage.beat(b"a")
    stage(Lost(b"a", "killed"))
    (asked,) = of(stage.says(b"beat of a", Beat("s1", 7)), Send)
    assert isinstance(asked.message, Introduce)


def test_a_slave_that_beats_without_progress_is_put_out():
    """Parsl/parsl#1245, #2040, #3464: a manager beats for a worker that is dead or frozen."""
    stage = Stage(b"a")
    stage(pieces(1))
    out = []
    for tick in range(1, 4000):
        stage.now = 0.25 * tick
        if b"a" not in stage.master.crowd.by_client:
            break
        out += of(stage.beat(b"a"), PutOut) + of(stage(Tick(), at=stage.now), PutOut)
    assert [one.slave for one in out] == ["s1"]
    assert "does not advance" in out[0].reason


def test_a_master_that_was_busy_judges_nobody():
    """mars-project/mars#470: a busy scheduler judges its workers dead."""
    stage = Stage(b"a")
    stage(pieces(1))
    stage(Away(), at=100.0)
    assert stage.master.crowd.by_client[b"a"].state.value == "well"
    stage.beat(b"a")
    stage(Tick(), at=100.2)
    assert stage.master.crowd.by_client[b"a"].state.value == "well"

"""A run as the terminal shows it: live, plain, as JSON, and quiet; also when it fails."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import dataclass, field

import pytest
from pictures import Part, training
from rich.console import Console

from veloflow.core import EpochDone, Events, Message, Settings, SharingStatus, Workflow
from veloflow.views.report import summary_tables
from veloflow.views.sharing import amount, sharing_rows, sharing_words
from veloflow.views.terminal import ProgressBars, TerminalView, epoch_line


@dataclass
class Name:
    name: str


@dataclass
class Session:
    """What a view sees of a run."""

    workflow: Workflow = field(default_factory=lambda: training(1))
    events: Events = field(default_factory=Events)
    definition: Name = field(default_factory=lambda: Name("digits"))
    device: Name = field(default_factory=lambda: Name("numpy"))
    settings: Settings = field(default_factory=lambda: Settings(seed=7))


class Result:
    """What a view sees of a result."""

    def as_json(self):
        return {
            "workflow": "digits",
            "best": {"epoch": 3, "validation_error_percent": 2.5, "train_loss": 0.125},
            "seconds": 12.5,
            "parameters_sha256": "0123456789abcdef" * 4,
            "unit_seconds": {f"unit {n}": float(n) for n in range(7)},
        }


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


def entry(percent, loss=0.5):
    return {"samples": 100, "n_errors": percent, "error_percent": float(percent), "loss": loss}


def console(*, terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, legacy_windows=False)


def shown(view_console):
    return view_console.file.getvalue()


def a_run(view, session, clock=None):
    """Let the view see two epochs, a message and the result."""
    view.watch(session)
    for number, percent in enumerate((90, 12)):
        if clock is not None:
            clock.now += 2.0
        record = {"epoch": number, "validation": entry(percent)}
        if number:
            record["train"] = entry(20, 1.25)
        session.events.publish(EpochDone(record, improved=number == 1))
    session.events.publish(Message("chosen because it is [quicker]"))
    view.finish(Result())


def test_plain_lines_where_there_is_no_terminal():
    out, clock = console(), Clock()
    with TerminalView(console=out, clock=clock) as view:
        a_run(view, Session(), clock)
    lines = shown(out).splitlines()
    assert lines[0] == "digits on numpy, seed 7"
    assert lines[1] == "epoch    0  validation  90.00 % loss 0.5         2 s"
    assert lines[2].startswith("epoch    1  train  20.00 % loss 1.25    validation  12.00 %")
    assert lines[2].endswith("4 s  best")
    assert lines[3] == "chosen because it is [quicker]"
    assert "\x1b" not in shown(out)


def test_summary_names_the_best_the_time_and_the_five_slowest():
    out = console()
    with TerminalView(console=out) as view:
        view.finish(Result())
    text = shown(out)
    assert "epoch 3: validation error 2.50 %, train loss 0.125" in text
    assert "12.5 s" in text
    assert "0123456789ab" in text
    assert "0123456789abc" not in text
    order = [line.split("  ")[0] for line in text.splitlines() if line.startswith("unit ")]
    assert order == ["unit 6", "unit 5", "unit 4", "unit 3", "unit 2"]
    assert "28.6 %" in text


def test_summary_of_a_run_without_epochs_or_units():
    class Bare(Result):
        def as_json(self):
            return {**super().as_json(), "best": {}, "unit_seconds": {}}

    out = console()
    with TerminalView(console=out) as view:
        view.finish(Bare())
    assert "best" not in shown(out)
    assert "slowest" not in shown(out)


def test_json_is_one_object_a_line():
    out, clock = console(), Clock()
    with TerminalView(as_json=True, console=out, clock=clock) as view:
        a_run(view, Session(), clock)
    events = [json.loads(line) for line in shown(out).splitlines()]
    assert [one["event"] for one in events] == ["start", "epoch", "epoch", "message", "result"]
    assert events[0] == {"event": "start", "workflow": "digits", "device": "numpy", "seed": 7}
    assert events[2]["record"]["train"] == entry(20, 1.25)
    assert (events[2]["improved"], events[2]["seconds"]) == (True, 4.0)
    assert events[4]["parameters_sha256"] == "0123456789abcdef" * 4


def test_json_has_null_for_what_is_not_finite_and_never_wraps():
    out = Console(file=io.StringIO(), width=20)
    session = Session()
    with TerminalView(as_json=True, console=out) as view:
        view.watch(session)
        record = {"epoch": 0, "train": entry(1, float("nan")), "more": [float("inf"), 1]}
        session.events.publish(EpochDone(record, improved=False))
    found = json.loads(shown(out).splitlines()[1], parse_constant=pytest.fail)["record"]
    assert found["train"]["loss"] is None
    assert found["more"] == [None, 1]


def test_json_tells_of_failure():
    out = console()
    with pytest.raises(RuntimeError), TerminalView(as_json=True, console=out):
        raise RuntimeError("no more")
    assert json.loads(shown(out)) == {"event": "failed", "error": "RuntimeError", "text": "no more"}


@pytest.mark.parametrize("as_json", [False, True])
def test_quiet_shows_nothing(as_json):
    out = console(terminal=True)
    with TerminalView(quiet=True, as_json=as_json, console=out) as view:
        a_run(view, Session())
    with pytest.raises(RuntimeError), TerminalView(quiet=True, as_json=as_json, console=out):
        raise RuntimeError
    assert shown(out) == ""


def test_mean_squared_errors_have_no_percent():
    record = {"epoch": 2, "train": {"samples": 10, "loss": 0.25}}
    text = epoch_line(record, improved=False, seconds=1.0).plain
    assert text.split() == ["epoch", "2", "train", "loss", "0.25", "1", "s"]


def test_only_the_deciding_class_is_marked_as_best():
    record = {"epoch": 2, "train": entry(1), "validation": entry(2), "test": entry(3)}
    line = epoch_line(record, improved=True, seconds=1.0)
    bold = [line.plain[span.start : span.end] for span in line.spans if "bold" in str(span.style)]
    assert bold == ["  2.00 %"]
    assert line.plain.index("train") < line.plain.index("validation") < line.plain.index("test")


# -- bars -----------------------------------------------------------------------------------------


def threads():
    return {thread for thread in threading.enumerate() if thread is not threading.current_thread()}


def wait_for(condition):
    """Wait until rich's thread has drawn what is waited for."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bars_are_drawn_from_progress_and_taken_away():
    out, session, before = console(terminal=True), Session(), threads()
    unit = session.workflow["loader"]
    with TerminalView(console=out) as view:
        view.watch(session)
        wait_for(lambda: "preparing" in shown(out))
        unit.shown = ("epoch 3 train", 1200, 1797)
        wait_for(lambda: "epoch 3 train" in shown(out))
        assert "1,200/1,797" in shown(out)
        session.events.publish(EpochDone({"epoch": 3, "train": entry(5)}, improved=True))
        view.finish(Result())
    wait_for(lambda: threads() == before)
    assert shown(out).count("\x1b[?25l") == shown(out).count("\x1b[?25h") == 1  # the cursor is back


def test_bars_go_away_when_the_run_fails():
    out, before = console(terminal=True), threads()
    view = TerminalView(console=out)
    view.watch(Session())
    with pytest.raises(KeyboardInterrupt), view:
        raise KeyboardInterrupt
    wait_for(lambda: threads() == before)
    assert shown(out).count("\x1b[?25h") == 1


def test_progress_that_fails_is_shown_and_stops_nobody():
    wf = training(1)
    broken, well = wf["loader"], wf["decision"]
    broken.shown, well.shown = ValueError("no idea"), ("epoch 1", 1, 2)
    out = console(terminal=True)
    bars = ProgressBars(wf, out)
    bars.start()
    wait_for(lambda: "no idea" in shown(out))
    well.shown = ("epoch 2", 5, 2)  # more than there is
    wait_for(lambda: "epoch 2" in shown(out))
    bars.stop()
    assert "the progress of unit 'loader' cannot be shown: ValueError: no idea" in shown(out)


def test_units_may_come_while_bars_are_drawn():
    wf = training(1)
    bars = ProgressBars(wf, console(terminal=True))
    bars.start()
    for number in range(200):
        Part(wf, name=f"late {number}").shown = ("late", number, 200)
    bars.stop()
    assert len(bars._ask()) == 200


# -- the sharing of parameters --------------------------------------------------------------------

STATUS = {
    "sharing": "ssp:s=3",
    "slaves": 4,
    "staleness": {"mean": 2.54, "max": 7},
    "effective_batch": 60.0,
    "waiting": {"seconds": 3.0, "share": 0.251},
    "bytes": {"parameters": 1.5e9, "updates": 3_200_000, "control": 812, "uncoded": 9e9},
}
WORDS = (
    "ssp:s=3, 4 slaves, waiting 25 %, staleness 2.5 (at most 7), effective batch 60, "
    "parameters 1.5 GB, updates 3.2 MB, control 812 B"
)


def test_a_status_in_words():
    assert sharing_words(STATUS) == WORDS
    assert sharing_words({"sharing": "sync", "slaves": 1}) == "sync, 1 slave"
    assert amount(2e15) == "2e+03 TB"


def test_the_live_view_has_a_line_that_follows_the_run():
    out, session = console(terminal=True), Session()
    out.width = 160
    session.workflow["loader"].shown = ("epoch 3 train", 5, 10)
    with TerminalView(console=out) as view:
        view.watch(session)
        session.events.publish(SharingStatus(STATUS))
        wait_for(lambda: WORDS in shown(out))
        session.events.publish(SharingStatus({**STATUS, "slaves": 3}))
        wait_for(lambda: "ssp:s=3, 3 slaves" in shown(out))


def test_json_has_it_after_each_epoch():
    out, session = console(), Session()
    with TerminalView(as_json=True, console=out) as view:
        view.watch(session)
        session.events.publish(EpochDone({"epoch": 0, "train": entry(5)}, improved=True))
        session.events.publish(SharingStatus(STATUS))
        session.events.publish(EpochDone({"epoch": 1, "train": entry(5)}, improved=True))
    events = [json.loads(line) for line in shown(out).splitlines()]
    assert [one["event"] for one in events] == ["start", "epoch", "epoch", "sharing"]
    assert events[-1] == {"event": "sharing", **STATUS}


def test_the_summary_has_it_and_what_auto_took():
    record = {**Result().as_json(), **STATUS, "codec": "onebit"}
    text = io.StringIO()
    Console(file=text, width=120).print(*summary_tables(record))
    for part in ("ssp:s=3 with onebit", "25 %", "2.5 (at most 7)", "1.5 GB", "3.2 MB", "812 B"):
        assert part in text.getvalue()
    auto = {"sharing": "average:every=20", "codec": "plain", "choices": [{"reason": "for it is"}]}
    rows = dict(sharing_rows({**record, "sharing": "auto", "auto": auto}))
    assert rows["sharing"] == "auto, at last average:every=20"
    assert rows["why"] == "for it is"
    assert sharing_rows({"best": {}}) == []

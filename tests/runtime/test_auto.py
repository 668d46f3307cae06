"""--sharing auto: it measures, says what it takes, changes in mid-run, and never loses a sample."""

from __future__ import annotations

import pytest

import veloflow
from tests.runtime import slaves
from veloflow.core import EpochDone, Message, SharingStatus
from veloflow.runtime.farms import auto as auto_farm
from veloflow.runtime.farms.handover import Handover
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.sharing.auto_model import Choice, Prediction
from veloflow.sharing.policies import Auto

OPTIONS = {"epochs": 4, "hidden": 20}
#: where each message takes longer than a minibatch
SLOW_WIRE = VirtualCluster(4, latency=2e-3, bandwidth=1e7)


def run(said=None, **options):
    def watch(session):
        if said is not None:
            session.events.subscribe(Message, lambda event: said.append(event.text))

    given = {**OPTIONS, "sharing": "auto", **options}
    return veloflow.run("digits_mlp", device="numpy", watch=watch, **given)


def learned(result, epochs=4):
    """Whether each sample counted once in each epoch, and the network has learned."""
    assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * epochs
    assert [one["validation"]["samples"] for one in result.epochs] == [360] * (epochs + 1)
    return result.epochs[-1]["validation"]["error_percent"] < 40


def taking(monkeypatch, text):
    """Let the model choose these modes, one after another, with spaces between.

    A codec stands after a plus: "sync+onebit".
    """
    modes = text.split()
    taken = []

    def choose(measured, **more):
        left = modes[min(len(taken), len(modes) - 1) :]
        allowed = [one for one in left if one.partition(":")[0] not in more["barred"]]
        mode, _, codec = allowed[0].partition("+")
        one = Prediction(mode, codec or "plain", 1.0, 1.0, 0.0)
        return Choice(one, f"auto takes {one.sharing}", (one,))

    def take(self, choice, left=None):
        taken.append(choice)
        return inner(self, choice, left)

    inner = auto_farm.AutoFarm._take
    monkeypatch.setattr(auto_farm, "choose", choose)
    monkeypatch.setattr(auto_farm.AutoFarm, "_take", take)


def test_it_says_what_it_takes_and_why():
    said = []
    result = run(said, cluster=SLOW_WIRE)
    assert learned(result)
    lines = [one for one in said if one.startswith("auto takes")]
    assert "4 slaves" in lines[0]
    assert "Gbit/s" in lines[0]
    found = result.more["auto"]
    assert found["sharing"] != "sync"
    assert [one["reason"] for one in found["choices"]] == lines
    assert result.more["sharing"] == "auto"


def test_on_a_slow_wire_it_is_quicker_than_sync():
    seconds = {
        mode: run(sharing=mode, cluster=SLOW_WIRE).more["virtual_seconds"]
        for mode in ("auto", "sync")
    }
    assert seconds["auto"] < 0.6 * seconds["sync"]


def test_where_nothing_is_much_quicker_it_has_the_bits_of_sync():
    quick = VirtualCluster(2, sample=1e-3, latency=1e-6, bandwidth=1e12)
    result = run(sharing="auto:margin=200", cluster=quick)
    assert result.more["auto"]["sharing"] == "sync"
    assert result.parameters_sha256 == run(sharing="sync").parameters_sha256


def test_alone_it_works_too():
    assert learned(run())


@pytest.mark.parametrize("first", ["async", "average:3", "elastic:0.9,2", "sync:shards=4"])
def test_modes_follow_each_other(monkeypatch, first):
    taking(monkeypatch, f"{first} groups:2 ssp:0 average:every=2,parts=3")
    assert learned(run(cluster=VirtualCluster(3, transient=0.1)))


def test_a_trial_in_which_the_loss_rises_is_undone(monkeypatch):
    said = []
    taking(monkeypatch, "async sync")
    cluster = VirtualCluster(8, latency=1e-3)
    result = run(said, cluster=cluster, rate=0.5, epochs=3)
    assert any("gives async up" in one for one in said)
    assert result.more["auto"]["sharing"] == "sync"
    assert learned(result, 3)
    lost = run(sharing="async", cluster=cluster, rate=0.5, epochs=3)
    errors = [one.epochs[-1]["validation"]["error_percent"] for one in (result, lost)]
    assert errors[0] < 0.7 * errors[1]


#: from the third epoch on the rate is far too large
LATE_EDGE = """
from veloflow.units import ArbitraryStep, DigitsLoader, softmax, standard_workflow, tanh


def build(wf):
    layers = [tanh(20), softmax(10)]
    standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=60), layers=layers,
        max_epochs=4, learning_rate=0.05, policy=ArbitraryStep((1, 48), (100, 8), (1, 1)))
"""


def test_a_mode_in_which_the_loss_rises_in_a_later_epoch_goes_back_to_the_best(
    tmp_path, monkeypatch
):
    """Networks come nearer to the edge while they learn, so the first epoch proves little."""
    (tmp_path / "edge.py").write_text(LATE_EDGE)
    taking(monkeypatch, "async async sync")
    ends, after = [], []

    def watch(session):
        def values():
            return session.farm._parameters.values.read().copy()

        def told(event):
            if "gives async up" in event.text:
                assert "those from before it rose" in event.text
                after.append(values())

        session.events.subscribe(EpochDone, lambda event: ends.append(values()))
        session.events.subscribe(Message, told)

    result = veloflow.run(
        tmp_path / "edge.py", device="numpy", sharing="auto", watch=watch,
        cluster=VirtualCluster(4, latency=1e-3),
    )  # fmt: skip
    assert result.more["auto"]["sharing"] == "sync"
    assert len(after) == 1
    assert (after[0] == ends[2]).all()  # those of the end of the second epoch
    assert result.epochs[-1]["validation"]["error_percent"] < 40


def test_a_resumed_run_goes_on_with_what_was_taken(tmp_path, monkeypatch):
    mode = "average:every=3,parts=2"
    taking(monkeypatch, mode)
    run(epochs=2, checkpoint=tmp_path)
    result = run(epochs=4, checkpoint=tmp_path, resume=True)
    assert learned(result)
    assert result.more["auto"]["sharing"] == mode


def test_where_sync_is_far_too_slow_not_even_a_step_of_it_is_taken():
    cluster = VirtualCluster(4, latency=2e-2, bandwidth=1e6)
    result = run(cluster=cluster)
    assert learned(result)
    first = result.more["auto"]["choices"][0]
    assert first["minibatch"] == 0
    assert first["sharing"].startswith(("average", "elastic"))


@pytest.mark.parametrize(("rate", "is_stale"), [(0.003, True), (0.4, False)])
def test_stale_gradients_are_tried_where_two_steps_say_that_they_are_stable(rate, is_stale):
    """The rate alone makes the difference; the digits' perceptron diverges at the larger one."""
    cluster = VirtualCluster(4, sample=2e-4, latency=2e-3)
    found = run(cluster=cluster, rate=rate).more["auto"]["choices"][0]
    assert found["minibatch"] >= 1
    assert found["sharing"].startswith(("async", "ssp", "groups")) == is_stale
    if is_stale:
        assert "of the way to where one stale step diverges" in found["reason"]


@pytest.mark.parametrize(
    "modes",
    [
        "sync+onebit groups:1+int8",  # from residual to residual
        "sync+onebit groups:1",  # the master adds it to the next gradient
        "average:4,parts=1+int8 average:3,parts=1+topk:0.1",
        "average:4,parts=1+topk:0.02 sync",  # the master adds it to the parameters
    ],
)
def test_what_codecs_have_left_out_is_handed_over_at_a_change(monkeypatch, modes):
    taking(monkeypatch, modes)
    result = run()
    assert learned(result)
    monkeypatch.setattr(Handover, "pass_on", lambda *args, **more: None)  # the control
    assert run().parameters_sha256 != result.parameters_sha256


def in_threads(count, **options):
    """Run with slaves that are threads of this process."""
    return slaves.in_threads(count, lambda address: run(listen=[address], **options))


@pytest.mark.cluster
@pytest.mark.slow
class TestSlaves:
    def test_slaves_change_their_mode(self, monkeypatch):
        taking(monkeypatch, "average:3 async sync elastic:0.9,2")
        assert learned(in_threads(2))

    def test_real_slaves_are_measured(self):
        said = []
        result = in_threads(2, said=said)
        assert learned(result)
        assert any("2 slaves" in one for one in said if one.startswith("auto takes"))

    def test_each_sample_counts_once_when_slaves_are_killed_between_modes(self, monkeypatch):
        taking(monkeypatch, "ssp:1 average:3 groups:2 sync")
        result = run(
            slaves=2,
            epochs=6,
            patience=0.5,
            faults="kill=slave1@job5,kill=slave2@job5,kill=0.01",  # whoever comes first, too
        )
        assert learned(result, 6)
        assert result.more["jobs"]["lost"] >= 1


def test_a_codec_that_the_user_names_is_kept():
    result = run(codec="int8", cluster=SLOW_WIRE)
    assert result.more["auto"]["codec"] == "int8"
    assert result.more["bytes"]["uncoded"] > 3 * result.more["bytes"]["updates"]
    with pytest.raises(veloflow.errors.OptionError, match="needs gradients"):
        run(codec="factors")


def test_wishes_are_read():
    assert Auto().margin == 5
    with pytest.raises(veloflow.errors.OptionError, match="margin is 2000"):
        run(sharing="auto:margin=2000")


def test_a_run_tells_how_its_sharing_goes():
    for mode in ("sync:shards=2", "async", "average:3", "elastic:0.9,2", "auto"):
        told = []
        result = veloflow.run(
            "digits_mlp", device="numpy", sharing=mode, epochs=1, hidden=10,
            cluster=VirtualCluster(3),
            watch=lambda session, told=told: session.events.subscribe(SharingStatus, told.append),
        )  # fmt: skip
        assert told
        assert told[0].values["slaves"] == 3
        for values in (told[-1].values, result.more):
            assert {"mean", "max"} <= values["staleness"].keys()
            assert values["effective_batch"] >= 0
            assert 0 <= values["waiting"]["share"] <= 1
        assert result.more["effective_batch"] > 10
        assert result.more["bytes"]["updates"] > 0

"""Every mode of sharing, alone and with slaves that are killed: each sample once, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from tests.runtime import slaves
from veloflow.core import Message
from veloflow.errors import CheckpointError, OptionError
from veloflow.runtime.master.simulated_crew import VirtualCluster

OPTIONS = {"epochs": 3, "hidden": 20}
MODES = ["async:damping=0.5", "ssp:1", "groups:2", "average:3", "elastic:0.9,2"]


def run(**options):
    return veloflow.run("digits_mlp", device="numpy", **{**OPTIONS, **options})


def learned(result, epochs=3):
    """Whether each sample counted once in each epoch, and the network has learned."""
    assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * epochs
    assert [one["validation"]["samples"] for one in result.epochs] == [360] * (epochs + 1)
    return result.epochs[-1]["validation"]["error_percent"] < 40


@pytest.mark.parametrize("mode", [*MODES, "average:every=0.01s", "elastic:mode=sync,every=1"])
def test_a_mode_runs_alone(mode):
    assert learned(run(sharing=mode))


@pytest.mark.parametrize("codec", ["float16", "bfloat16", "int8", "onebit", "topk:0.05", "factors"])
def test_a_codec_works_alone(codec):
    assert learned(run(sharing="sync:shards=2", codec=codec))


def test_one_replica_that_is_averaged_alone_trains_as_a_lone_run_does():
    """A stretch is plain training: the same bits as no sharing at all."""
    alone = run(sharing="sync:shards=1", epochs=1)
    for every in (1, 7, 1000):
        averaged = run(sharing=f"average:every={every},parts=1", epochs=1)
        for one, other in zip(alone.epochs, averaged.epochs, strict=True):
            assert one["validation"]["n_errors"] == other["validation"]["n_errors"]
            assert one["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=1e-5)


def test_lossless_codecs_change_no_bit():
    plain = run(sharing="sync:shards=2").parameters_sha256
    assert run(sharing="sync:shards=2", codec="zlib").parameters_sha256 == plain
    assert run(sharing="sync:shards=2", codec="float16").parameters_sha256 != plain


def test_rates_go_on_by_minibatches_where_slaves_take_the_steps(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from veloflow.units import *\n"
        "def build(wf, *, epochs: int = 1) -> None:\n"
        "    standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=60),\n"
        "        layers=[tanh(20), softmax(10)], learning_rate=0.2, max_epochs=epochs)\n"
        "    units = {type(one).__name__: one for one in wf.all_units()}\n"
        "    adjust = LearningRateAdjust(wf, Exp(0.5))\n"
        "    first = units['GDTanh']\n"
        "    adjust.add(first, units['GDSoftmax'])\n"
        "    adjust.insert_after(first)\n"
        "    adjust.link_data(units['DigitsLoader'], 'minibatch_class')\n"
    )
    results = [
        veloflow.run(own, device="numpy", sharing=mode)
        for mode in ("sync:shards=1", "average:every=5,parts=1")
    ]
    losses = [one.epochs[-1]["validation"]["loss"] for one in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    adjusts = [
        next(unit for unit in one.graph.all_units() if type(unit).__name__ == "LearningRateAdjust")
        for one in results
    ]
    assert {one.minibatches for one in adjusts} == {24}


def in_threads(count, **options):
    """Run with slaves that are threads of this process."""
    return slaves.in_threads(count, lambda address: run(listen=[address], **options))


@pytest.mark.cluster
@pytest.mark.slow
class TestSlaves:
    def test_a_mean_of_so_many_parts_has_the_same_bits_with_any_slaves(self):
        alone = run(sharing="average:every=4,parts=3").parameters_sha256
        with_slaves = in_threads(2, sharing="average:every=4,parts=3")
        assert with_slaves.parameters_sha256 == alone

    def test_sync_replicas_have_the_same_bits_with_any_slaves(self):
        mode = "elastic:every=2,parts=3,mode=sync"
        assert in_threads(2, sharing=mode).parameters_sha256 == run(sharing=mode).parameters_sha256

    def test_one_group_takes_the_steps_of_sync(self):
        result = in_threads(2, sharing="groups:1,shards=4")
        assert result.parameters_sha256 == run(sharing="sync:shards=4").parameters_sha256

    def test_nothing_is_staler_than_the_bound(self):
        result = in_threads(3, sharing="ssp:1")
        assert learned(result)
        assert result.more["staleness"]["max"] <= 3 * (2 * 1 + 1) - 1

    @pytest.mark.parametrize("codec", ["onebit", "topk:0.01", "factors", "zlib"])
    def test_coded_updates_arrive_and_are_counted(self, codec):
        result = in_threads(2, sharing="sync:shards=2", codec=codec)
        assert learned(result)
        counted = result.more["bytes"]
        assert counted["updates"] < counted["uncoded"]
        assert result.more["codec"] == ("topk" if codec == "topk:0.01" else codec)

    def test_stretches_may_be_coded_too(self):
        result = in_threads(2, sharing="average:3", codec="int8")
        assert learned(result)
        assert result.more["bytes"]["uncoded"] > 3.5 * result.more["bytes"]["updates"]

    @pytest.mark.parametrize("mode", MODES)
    def test_each_sample_counts_once_when_slaves_are_killed(self, mode):
        said = []
        # in modes that wait both get jobs; in others whoever comes first may do them all
        other = "hang=slave2@job5" if mode in ("ssp:1", "average:3") else "kill=slave2@job2"
        result = run(
            sharing=mode,
            codec="onebit" if mode.startswith("async") else "plain",
            slaves=2,
            epochs=6,
            patience=0.5,
            faults=f"kill=slave1@job2,{other}",
            watch=lambda session: session.events.subscribe(Message, said.append),
        )
        assert learned(result, 6)
        assert any("is lost" in one.text for one in said)


@pytest.mark.parametrize("mode", ["elastic:every=3,parts=2", "average:every=3,parts=2"])
def test_a_resumed_run_goes_on_with_its_replicas(tmp_path, mode):
    whole = run(sharing=mode, epochs=4)
    run(sharing=mode, epochs=2, checkpoint=tmp_path)
    more = run(epochs=4, checkpoint=tmp_path, resume=True)
    assert more.more["sharing"] == whole.more["sharing"]
    assert learned(more, 4)
    assert more.parameters_sha256 == whole.parameters_sha256


def test_a_checkpoint_keeps_its_mode_and_codec(tmp_path):
    run(sharing="sync:shards=2", codec="int8", epochs=1, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="made with codec int8, not plain"):
        run(codec="plain", epochs=2, checkpoint=tmp_path, resume=True)
    assert run(epochs=2, checkpoint=tmp_path, resume=True).more["codec"] == "int8"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "int8"}, "--codec is for updates of slaves"),
        ({"sharing": "sync", "codec": "bits"}, "no codec 'bits'"),
        ({"sharing": "average", "codec": "factors"}, "needs gradients"),
        ({"sharing": "ssp:1", "slaves": 1, "audit": 0.5}, "ssp:s=1 has none"),
        ({"sharing": "sync", "slaves": 1, "audit": 0.5, "codec": "int8"}, "--codec int8 has none"),
    ],
)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(OptionError, match=said):
        run(**options)


def test_nan_is_found_whatever_the_codec():
    with pytest.raises(veloflow.errors.RunError), np.errstate(all="ignore"):
        run(sharing="sync:shards=2", codec="topk", rate=1e30)


def test_factors_give_what_the_gradients_give():
    """Their arrays must still hold what they held when the gradient was computed."""
    results = [
        run(sharing="sync:shards=8", codec=codec, epochs=2, cluster=VirtualCluster(2))
        for codec in ("plain", "factors")
    ]
    plain, thin = [[one["validation"]["loss"] for one in result.epochs] for result in results]
    assert thin == pytest.approx(plain, rel=1e-4)
    assert results[1].more["bytes"]["updates"] < 0.8 * results[1].more["bytes"]["uncoded"]


def test_simulated_slaves_repeat_themselves():
    hashes = {
        run(sharing="ssp:1", epochs=1, cluster=VirtualCluster(3, transient=0.1)).parameters_sha256
        for _ in range(2)
    }
    assert len(hashes) == 1


def test_simulated_slaves_take_virtual_time():
    whole = VirtualCluster(4, sample=0.01, latency=0.0, bandwidth=1e12)
    sync = run(sharing="sync:shards=4", epochs=1, cluster=whole)
    # 24 minibatches of 60 in four parts, and twice 6 for validation
    assert sync.more["virtual_seconds"] == pytest.approx((1437 + 2 * 360) / 4 * 0.01, rel=0.05)
    slow = VirtualCluster(4, sample=0.01, latency=0.0, bandwidth=1e12, slow=1, factor=4.0)
    slower = run(sharing="sync:shards=4", epochs=1, cluster=slow)
    assert slower.more["virtual_seconds"] > 3 * sync.more["virtual_seconds"]
    free = run(sharing="async", epochs=1, cluster=slow)
    assert free.more["virtual_seconds"] < 0.5 * slower.more["virtual_seconds"]


def test_minibatches_of_a_stretch_are_late_one_by_one():
    cluster = VirtualCluster(1, sample=0.01, latency=0.0, bandwidth=1e12, transient=0.5, factor=3.0)
    result = run(sharing="average:24", epochs=1, cluster=cluster)
    assert result.more["virtual_seconds"] == pytest.approx((1437 + 720) * 0.01 * 2, rel=0.2)


def test_simulated_slaves_stay_below_the_bound():
    for bound in (0, 1, 4):
        result = run(sharing=f"ssp:{bound}", epochs=1, cluster=VirtualCluster(5, transient=0.2))
        assert result.more["staleness"]["max"] <= 4 * (2 * bound + 1)

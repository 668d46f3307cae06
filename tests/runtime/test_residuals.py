"""What codecs leave out outlives checkpoints, slaves that leave and slaves that are killed."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from tests.runtime.test_auto import taking
from tests.runtime.test_cluster import until_here
from veloflow.core import Message
from veloflow.errors import CheckpointError
from veloflow.runtime.master.crew import OwnCrew
from veloflow.runtime.master.simulated_crew import VirtualCluster
from veloflow.runtime.storage.checkpoint import read_checkpoint, write_checkpoint
from veloflow.sharing.residuals import Orphans

OPTIONS = {"epochs": 3, "hidden": 20}
CODECS = ["onebit", "topk:0.02", "int8"]


def run(**options):
    given = {"sharing": "sync:shards=2", "codec": "onebit", **OPTIONS, **options}
    return veloflow.run("digits_mlp", device="numpy", **given)


def saved(folder):
    """The residuals in the last checkpoint."""
    return read_checkpoint(folder / "last.safetensors").units["|sharing"]["left_out"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sharing", ["sync:shards=2", "async", "average:4,parts=1"])
def test_a_resumed_run_has_the_bits_of_one_that_went_on(tmp_path, sharing, codec):
    whole = run(sharing=sharing, codec=codec)
    run(sharing=sharing, codec=codec, epochs=1, checkpoint=tmp_path)
    assert len(saved(tmp_path)) == 1
    more = run(sharing=sharing, codec=codec, checkpoint=tmp_path, resume=True)
    assert more.parameters_sha256 == whole.parameters_sha256


def test_without_what_was_left_out_the_bits_are_others(tmp_path, monkeypatch):
    """The control: it is the residual that makes the bits the same."""
    whole = run()
    run(epochs=1, checkpoint=tmp_path)
    monkeypatch.setattr(OwnCrew, "inherit", lambda self, residuals: None)
    more = run(checkpoint=tmp_path, resume=True)
    assert more.parameters_sha256 != whole.parameters_sha256


def test_each_simulated_slave_has_a_residual_in_the_checkpoint(tmp_path):
    cluster = VirtualCluster(3)
    run(epochs=1, checkpoint=tmp_path, cluster=cluster)
    before = saved(tmp_path)
    assert len(before) == 3
    assert sum(one.any() for one in before) >= 2
    run(epochs=1, checkpoint=tmp_path, resume=True, cluster=cluster)  # complete: nothing is done
    for one, other in zip(before, saved(tmp_path), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_residual_of_another_size_is_refused(tmp_path):
    run(epochs=1, checkpoint=tmp_path)
    path = tmp_path / "last.safetensors"
    checkpoint = read_checkpoint(path)
    checkpoint.units["|sharing"]["left_out"] = [np.zeros(3, np.float32)]
    write_checkpoint(checkpoint, path)
    with pytest.raises(CheckpointError, match="left out in the checkpoint is of another size"):
        run(checkpoint=tmp_path, resume=True)


@pytest.fixture(scope="module")
def undisturbed():
    """The bits of two epochs."""
    return run(epochs=2).parameters_sha256


@pytest.fixture
def hidden(monkeypatch):
    """Let slaves not reach the run's folder, as those on other machines."""
    monkeypatch.setenv("VELOFLOW_NO_SHARED_MEMORY", "1")


@pytest.mark.cluster
@pytest.mark.slow
class TestSlaves:
    def test_one_slave_resumes_with_the_same_bits(self, tmp_path, undisturbed, monkeypatch):
        run(slaves=1, epochs=1, checkpoint=tmp_path)
        assert len(saved(tmp_path)) == 1
        monkeypatch.setenv("VELOFLOW_NO_SHARED_MEMORY", "1")
        more = run(slaves=1, epochs=2, checkpoint=tmp_path, resume=True)
        assert more.parameters_sha256 == undisturbed

    def test_who_leaves_hands_it_over(self, hidden, undisturbed):
        said = []
        result = run(
            slaves=1,
            epochs=2,
            faults="leave=slave1@job31",
            watch=lambda session: session.events.subscribe(Message, said.append),
        )
        assert any("is left" in one.text for one in said)
        assert result.parameters_sha256 == undisturbed

    def test_who_is_killed_leaves_it_in_shared_memory(self, undisturbed):
        result = run(slaves=1, epochs=2, faults="kill=slave1@job31", patience=0.5)
        assert result.more["jobs"]["lost"] == 1
        assert result.parameters_sha256 == undisturbed

    def test_who_is_killed_elsewhere_takes_it_along(self, hidden, undisturbed):
        result = run(slaves=1, epochs=2, faults="kill=slave1@job31", patience=0.5)
        assert result.more["jobs"]["lost"] == 1
        assert result.parameters_sha256 != undisturbed
        assert result.epochs[-1]["validation"]["error_percent"] < 60

    def test_each_of_two_slaves_tells_its_own(self, tmp_path, hidden):
        options = {"slaves": 2, "codec": "topk:0.02", "checkpoint": tmp_path}
        run(epochs=20, watch=until_here(2), **options)
        assert len(saved(tmp_path)) == 2
        run(epochs=40, resume=True, watch=until_here(2), **options)
        assert len(saved(tmp_path)) == 2


@pytest.mark.cluster
@pytest.mark.slow
class TestModesThatChange:
    """As --sharing auto does it: residuals of the present form are in checkpoints."""

    #: what auto takes; with one slave each of these has bits of its own
    MODES = ("sync:shards=1+topk:0.02", "average:4,parts=1+topk:0.02", "groups:1,shards=2+onebit")

    @pytest.fixture(params=MODES)
    def taken(self, request, monkeypatch):
        """Let auto take one of these after the first steps."""
        taking(monkeypatch, request.param)
        return request.param

    @pytest.mark.parametrize("memory", ["shared", "hidden"])
    def test_a_resumed_run_has_the_bits_of_one_that_went_on(
        self, tmp_path, monkeypatch, taken, memory
    ):
        if memory == "hidden":
            monkeypatch.setenv("VELOFLOW_NO_SHARED_MEMORY", "1")
        options = {"sharing": "auto", "codec": None, "slaves": 1}
        whole = run(epochs=2, **options)
        run(epochs=1, checkpoint=tmp_path, **options)
        assert len(saved(tmp_path)) == 1
        assert saved(tmp_path)[0].any()
        more = run(epochs=2, checkpoint=tmp_path, resume=True, **options)
        assert more.parameters_sha256 == whole.parameters_sha256

    def test_who_is_killed_leaves_it_in_shared_memory(self, taken):
        options = {"sharing": "auto", "codec": None, "slaves": 1, "epochs": 2}
        whole = run(**options)
        result = run(faults="kill=slave1@job31", patience=0.5, **options)
        assert result.more["jobs"]["lost"] == 1
        assert result.parameters_sha256 == whole.parameters_sha256

    def test_a_codec_that_the_user_names_goes_on_in_another_form(self, tmp_path, monkeypatch):
        """The residual of gradients is of another size than that of stretches with momentum."""
        taking(monkeypatch, "average:4+onebit")
        options = {"sharing": "auto", "slaves": 2}
        run(epochs=1, checkpoint=tmp_path, **options)
        result = run(epochs=2, checkpoint=tmp_path, resume=True, **options)
        assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * 2


class TestOrphans:
    def test_each_sender_gets_one_and_then_another_only_when_all_have_one(self):
        orphans = Orphans()
        orphans.add([np.full(2, float(number)) for number in range(1, 4)])
        assert orphans.take("a", 2)[0] == 1
        assert orphans.take("a", 2) is None
        assert orphans.take("b", 2)[0] == 2
        assert orphans.take("a", 2)[0] == 3
        assert orphans.take("a", 2) is None

    def test_nobody_waits_for_a_sender_that_is_gone(self):
        orphans = Orphans()
        orphans.add([np.ones(2), np.ones(2), np.ones(2)])
        assert orphans.take("a", 2) is not None
        orphans.gone("a")
        assert orphans.take("b", 2) is not None
        assert orphans.take("b", 2) is None  # somebody is still to come
        assert orphans.take("b", 1) is not None

    def test_what_is_nothing_or_no_number_is_not_kept(self):
        orphans = Orphans()
        orphans.add([np.zeros(2), np.array([1.0, np.nan]), np.array([np.inf, 0])])
        assert len(orphans) == 0
        orphans.add([np.ones(2)])
        assert len(orphans.all()) == 1

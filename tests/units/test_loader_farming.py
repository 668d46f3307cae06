"""Loaders of masters and slaves: minibatches issued, served in any order, and issued again."""

from __future__ import annotations

import json
import random

import harness
import numpy as np
import pytest

from veloflow.core import Part, Settings
from veloflow.errors import DataError
from veloflow.units import ArrayLoader
from veloflow.units.loader import TEST, TRAIN, VALIDATION


def loader_of(test=0, validation=0, train=0, *, testing=False, role="alone", shards=1, **options):
    """Return a loader of samples that are their own numbers."""
    wf = harness.workflow_on(seed=3, testing=testing)
    if role != "alone":
        wf.provide(Settings, Settings(3, "float32", testing, role, shards))
    ends = np.cumsum([test, validation, train])
    parts = np.split(np.arange(ends[-1], dtype=float).reshape(-1, 1), ends[:-1])
    pairs = [(part, np.arange(len(part)) % 3) if len(part) else None for part in parts]
    data, labels = pairs[TRAIN] or (parts[TRAIN], np.zeros(0, np.int64))
    return ArrayLoader(
        wf, data, labels, test=pairs[TEST], validation=pairs[VALIDATION],
        minibatch_size=2, **options,
    )  # fmt: skip


def flags_of(loader):
    """Return which flags are up, by their first letters."""
    flags = (loader.last_minibatch, loader.epoch_ended, loader.train_ended)
    return "".join(letter for letter, flag in zip("let", flags, strict=True) if flag)


def issue_class(loader):
    """Issue all that is left of a class; return it."""
    batches = []
    while loader.has_more_of_kind:
        batches.append(loader.issue())
    return batches


def served(loader, batches, rng):
    """Serve these in random order; return (class, epoch, flags) of each."""
    found = []
    for batch in rng.sample(batches, len(batches)):
        loader.serve(batch)
        found.append((loader.minibatch_class, loader.epoch_number, flags_of(loader)))
    return found


def samples_of(batches):
    """Return all samples of these minibatches, sorted."""
    return sorted(int(sample) for batch in batches for sample in batch.samples)


def saved(loader):
    """Return the loader's state as a file would give it back."""
    state = dict(loader.state())
    state["order"] = state["order"].copy()
    rest = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
    rest.pop("normalizer")
    return {**state, **json.loads(json.dumps(rest))}


# -- issuing and serving --------------------------------------------------------------------------


def test_issued_minibatches_are_those_of_a_lone_run():
    alone, master = loader_of(1, 3, 5), loader_of(1, 3, 5, role="master")
    with harness.ready(alone), harness.ready(master):
        for _ in range(14):
            alone.run()
            batch = master.issue()
            master.serve(batch)
            assert batch.position == alone.minibatch_position == master.minibatch_position
            np.testing.assert_array_equal(master.minibatch_indices, alone.minibatch_indices)
            assert (batch.kind, batch.size) == (alone.minibatch_class, alone.minibatch_size)
            assert master.epoch_number == alone.epoch_number
            assert flags_of(master) == flags_of(alone)


def test_a_class_is_begun_when_the_one_before_is_served():
    loader = loader_of(0, 3, 5)
    with harness.ready(loader):
        batches = issue_class(loader)
        assert [batch.kind for batch in batches] == [VALIDATION] * 2
        loader.serve(batches[1])
        assert not loader.has_more_of_kind
        loader.serve(batches[0])
        assert loader.has_more_of_kind
        assert loader.issue().kind == TRAIN


@pytest.mark.parametrize("seed", range(5))
def test_the_last_one_served_ends_its_class_whichever_it_is(seed):
    rng = random.Random(seed)
    loader = loader_of(3, 3, 5)
    with harness.ready(loader):
        for epoch in range(3):
            assert served(loader, issue_class(loader), rng) == [(0, epoch, ""), (0, epoch, "l")]
            assert served(loader, issue_class(loader), rng) == [(1, epoch, ""), (1, epoch, "le")]
            train = issue_class(loader)
            assert samples_of(train) == [6, 7, 8, 9, 10]
            assert served(loader, train, rng) == [(2, epoch, ""), (2, epoch, ""), (2, epoch, "lt")]


@pytest.mark.parametrize("seed", range(5))
def test_without_validation_the_last_one_served_ends_the_epoch(seed):
    rng = random.Random(seed)
    loader = loader_of(train=5)
    with harness.ready(loader):
        for epoch in range(3):
            assert served(loader, issue_class(loader), rng) == [
                (2, epoch, ""), (2, epoch, ""), (2, epoch + 1, "let")
            ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_testing_ends_with_the_last_one_served(seed):
    rng = random.Random(seed)
    loader = loader_of(3, 5, 4, testing=True)
    with harness.ready(loader):
        assert [flags for *_, flags in served(loader, issue_class(loader), rng)] == ["", "l"]
        assert [flags for *_, flags in served(loader, issue_class(loader), rng)] == ["", "", "le"]


def test_what_is_not_outstanding_cannot_be_served():
    loader = loader_of(train=4)
    with harness.ready(loader):
        batch = loader.issue()
        loader.serve(batch)
        with pytest.raises(KeyError):
            loader.serve(batch)


def test_an_issued_minibatch_keeps_its_samples_when_the_order_changes():
    loader = loader_of(train=4)
    with harness.ready(loader):
        batches = issue_class(loader)
        before = samples_of(batches)
        for batch in batches:
            loader.serve(batch)
        loader.issue()
        assert samples_of(batches) == before


# -- checkpoints with minibatches outstanding -----------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_is_served_once_whenever_it_was_saved_and_resumed(seed, ahead):
    # a run that is cut before every turn, and goes on in another process each time
    rng = random.Random(seed)
    parts = rng.choice([(3, 5, 9), (0, 4, 7), (0, 0, 9)])
    loader = loader_of(*parts)
    turns: list[tuple[int, tuple[int, ...], str]] = []
    with harness.ready(loader):
        state = saved(loader)
    while sum(flags.count("t") for *_, flags in turns) < 3:
        loader = loader_of(*parts)
        with harness.ready(loader):
            loader.restore(state)
            flying = []
            while len(flying) < ahead and loader.has_more_of_kind:
                flying.append(loader.issue())
            batch = rng.choice(flying)
            loader.serve(batch)
            turns.append((batch.epoch, tuple(map(int, batch.samples)), flags_of(loader)))
            state = saved(loader)
    for epoch in range(3):
        seen = sorted(one for number, samples, _ in turns if number == epoch for one in samples)
        assert seen == list(range(sum(parts)))
        story = [flags for number, _, flags in turns if number == epoch]
        assert sum("l" in flags for flags in story) == sum(length > 0 for length in parts)
        assert "l" in story[-1]


def test_outstanding_minibatches_are_issued_again_first_and_once():
    loader = loader_of(train=9)
    with harness.ready(loader):
        batches = [loader.issue() for _ in range(4)]
        loader.serve(batches[2])
        state = saved(loader)
    other = loader_of(train=9)
    with harness.ready(other):
        other.restore(state)
        again = issue_class(other)
        assert [batch.position for batch in again] == [0, 2, 6, 8]
        assert [batch.epoch for batch in again] == [0] * 4
        for mine, theirs in zip(again, (batches[0], batches[1], batches[3]), strict=False):
            np.testing.assert_array_equal(mine.samples, theirs.samples)
            assert mine.weight == theirs.weight


def test_a_class_does_not_end_while_something_is_to_be_issued_again():
    # one slave after a run of three: what was outstanding comes one at a time
    loader = loader_of(train=6)
    with harness.ready(loader):
        issue_class(loader)
        state = saved(loader)
    other = loader_of(train=6)
    with harness.ready(other):
        other.restore(state)
        assert [served(other, [other.issue()], random.Random(0))[0][2] for _ in range(3)] == [
            "", "", "let"
        ]  # fmt: skip


def test_what_is_yet_to_be_issued_again_is_saved_too():
    loader = loader_of(train=6)
    with harness.ready(loader):
        issue_class(loader)
        state = saved(loader)
    other = loader_of(train=6)
    with harness.ready(other):
        other.restore(state)
        other.serve(other.issue())
        assert other.state()["outstanding"] == [[2, 2], [4, 2]]


def test_restoring_forgets_what_was_outstanding_here():
    loader = loader_of(train=6)
    with harness.ready(loader):
        state = saved(loader)
        loader.issue()
        loader.restore(state)
        assert [batch.position for batch in issue_class(loader)] == [0, 2, 4]


# -- jobs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(1, 3, 5), (0, 0, 5), (0, 4, 4)])
def test_jobs_cut_into_shards_are_what_a_lone_run_serves(parts):
    # dropout goes by the epoch and the position that a slave is shown
    alone, master = loader_of(*parts), loader_of(*parts, role="master")
    slave = loader_of(*parts, role="slave", shards=2)
    with harness.ready(alone), harness.ready(master), harness.ready(slave):
        assert slave.max_minibatch_size == 1
        for _ in range(20):
            alone.run()
            batch = master.issue()
            for first in range(batch.size):
                slave.take_job(master.make_job(Part(batch, first, 1)))
                slave.run_as_slave()
                assert slave.minibatch_position == alone.minibatch_position + first
                assert slave.epoch_number == alone.epoch_number
                assert slave.minibatch_class == alone.minibatch_class
                for name in ("minibatch_data", "minibatch_labels"):
                    mine, theirs = (getattr(one, name).read() for one in (slave, alone))
                    np.testing.assert_array_equal(mine[0], theirs[first])
            master.serve(batch)


def test_a_short_job_is_padded():
    slave = loader_of(train=5, role="slave")
    with harness.ready(slave):
        for samples in ([4, 3], [1]):
            slave.take_job(
                {"kind": TRAIN, "pass": 0, "epoch": 0, "position": 0, "samples": samples}
            )
            slave.run_as_slave()
        assert slave.minibatch_data.read().tolist() == [[1], [0]]
        assert slave.minibatch_labels.read().tolist() == [1, -1]
        assert slave.minibatch_size == 1


@pytest.mark.parametrize("samples", [[5], [-1], [0, 5], [-1, 0], [0, 1, 2], []])
def test_jobs_about_samples_that_are_not_here_are_refused(samples):
    slave = loader_of(train=5, role="slave")
    with harness.ready(slave), pytest.raises(DataError, match="another data set"):
        slave.take_job({"kind": TRAIN, "epoch": 0, "position": 0, "samples": np.array(samples)})


def test_unlabelled_samples_have_no_weight():
    wf = harness.workflow_on()
    loader = ArrayLoader(wf, np.zeros((4, 1)), [0, None, 1, None], minibatch_size=4)
    with harness.ready(loader):
        assert loader.issue().weight == 2

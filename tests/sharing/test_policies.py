"""Policies: what is written after --sharing, what they decide, and their arithmetic by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest

from veloflow.errors import OptionError
from veloflow.sharing import parse_sharing, sharing_text
from veloflow.sharing.policies import (
    Async,
    Average,
    Bounded,
    Elastic,
    Groups,
    Period,
    Sync,
    known_policies,
)
from veloflow.testing import check_policy

#: how many runs with losses the stress environment makes of each mode
MANY = max(20, int(os.environ.get("VELOFLOW_SIMULATIONS", "2000")) // 100)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("sync", Sync()),
        ("sync:shards=1024", Sync(1024)),
        ("async", Async()),
        ("async:damping=0.5", Async(0.5)),
        ("ssp:s=3", Bounded(3)),
        ("average", Average()),
        ("average:every=5s,parts=4,momentum=reset", Average("5s", 4, "reset")),
        ("elastic:rho=0.5,every=4,parts=8,mode=sync", Elastic(0.5, "4", 8, "sync")),
        ("groups:g=2,shards=3", Groups(2, 3)),
    ],
)
def test_texts_are_read_and_written_back(text, policy):
    assert parse_sharing(text) == policy
    assert sharing_text(policy) == text


def test_values_without_a_name_fill_the_options_in_order():
    assert parse_sharing("ssp:3") == Bounded(3)
    assert parse_sharing("average:20") == Average("20")
    assert parse_sharing("elastic:0.9,10") == Elastic(0.9, "10")
    assert parse_sharing("sync:") == parse_sharing("sync:,") == Sync()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no mode ''; there are: async, auto, average, elastic, groups, ssp, sync"),
        ("snyc", "no mode 'snyc' .did you mean 'sync'"),
        ("Sync", "no mode 'Sync'"),
        ("sync=3", "no mode 'sync=3'"),
        ("sync:parts=3", "sync has no option 'parts'.*; it has: shards"),
        ("async:shards=2", "async has no option 'shards'; it has: damping"),
        ("sync:shards=1025", "shards is 1025; give a number from 1 to 1024"),
        ("sync:shards=-1", "shards is '-1'; give a whole number"),
        ("sync:shards=1.5", "shards is '1.5'"),
        ("sync:shards=²", "shards is '²'"),
        ("sync:shards=2,shards=3", "shards is given twice"),
        ("ssp", "ssp: give s, as in ssp:s="),
        ("ssp:-1", "s is '-1'"),
        ("async:damping=-1", "damping is -1; give a number from 0 to 10"),
        ("async:nan", "damping is nan"),
        ("average:0", "every is '0'; give 1 to 1000 minibatches, or seconds as in 2s"),
        ("average:every=xs", "every is 'xs'"),
        ("average:every=1001", "every is '1001'"),
        ("average:momentum=keep", "momentum is 'keep'; give average or reset"),
        ("elastic:rho=0", "rho is 0; give one above 0"),
        ("elastic:mode=both", "mode is 'both'; give async or sync"),
        ("groups:0", "g is 0; give a number from 1"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(OptionError, match=said):
        parse_sharing(text)


@pytest.mark.parametrize(
    "text",
    [
        "sync", "async", "async:1", "ssp:0", "ssp:3", "groups:2", "average:3", "average:3,2",
        "average:2s", "elastic:0.9,2", "elastic:mode=sync,every=2", "elastic:parts=3,every=1",
        "auto",
    ],
)  # fmt: skip
def test_policy_conforms(text):
    check_policy(parse_sharing(text), seeds=3)


@pytest.mark.stress
@pytest.mark.parametrize(
    "text",
    [
        *("sync", "async", "async:1", "ssp:0", "ssp:3", "groups:2", "average:3", "average:3,2"),
        *("elastic:0.9,2", "elastic:mode=sync,every=2", "auto"),
    ],
)
def test_policy_conforms_in_many_runs(text):
    check_policy(parse_sharing(text), seeds=MANY)


def test_all_modes_are_known():
    assert set(known_policies()) >= {"sync", "async", "ssp", "average", "elastic", "groups"}


def test_damping_divides_by_the_staleness():
    assert [Async(1.0).weight(one) for one in (0, 1, 3)] == [1, 1 / 2, 1 / 4]
    assert Async(0.5).weight(3) == 0.5
    assert Async().weight(100) == Groups(3).weight(7) == 1


def test_the_mean_is_weighted_by_minibatches():
    centre = np.array([7.0, 7.0], np.float32)
    found = [np.array([1.0, 0.0], np.float32), np.array([4.0, 3.0], np.float32)]
    Average().exchange(centre, found, [], [2, 1], 2)
    np.testing.assert_allclose(centre, [2, 1], rtol=1e-6)


def test_replica_and_centre_pull_at_each_other():
    centre = np.array([1.0], np.float32)
    found = [np.array([3.0], np.float32), np.array([-1.0], np.float32)]
    Elastic(rho=0.5).exchange(centre, [found[0]], [], [1], 4)  # alpha = 1/8, e = 2/8
    assert (found[0][0], centre[0]) == (2.75, 1.25)
    Elastic(rho=0.5).exchange(centre, found, [], [1, 1], 2)  # both from where the centre was
    assert (found[0][0], found[1][0]) == (2.75 - 1.5 / 4, -1 + 2.25 / 4)
    assert centre[0] == 1.25 + 1.5 / 4 - 2.25 / 4


def test_seconds_become_minibatches_by_what_one_takes():
    assert Period("20").steps(None) == 20
    assert Period("2s").steps(None) == 1
    assert Period("2s").steps(0.1) == 20
    assert Period("2s").steps(1e-9) == 1000
    assert Period("0.5s").steps(3.0) == 1

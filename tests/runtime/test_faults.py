"""Faults on purpose in real slaves: the bits stay the same, and an audit names the spoiler."""

from __future__ import annotations

import pytest

import veloflow
from tests.runtime.test_cluster import alone, leaves_nothing, run, until_here  # noqa: F401
from veloflow.errors import OptionError
from veloflow.runtime.master.story import read_story

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.parametrize(
    "fault", ["kill", "hang", "slow", "leave", "fail", "lie", "spoil", "damage", "double", "late"]
)
def test_the_same_bits_whatever_the_fault(alone, fault):  # noqa: F811
    # what fails on both ends the run, and what slave2 leaves may be the ninth job of slave1
    second = "slave2@job9" if fault == "fail" else "slave1@job9"
    result = run(slaves=2, faults=f"{fault}=slave2@job3,{fault}={second}", patience=0.3)
    assert result.parameters_sha256 == alone


def test_an_audit_names_a_slave_that_flips_one_mantissa_bit():
    said = []
    result = run(
        slaves=2,
        audit=1.0,
        epochs=20,
        faults=",".join(f"flip=slave2@job{n}" for n in range(8, 300)),
        watch=until_here(2, said),
    )
    assert [one for one in said if "(slave2) is put out: it spoils updates" in one]
    assert not [one for one in said if "(slave1) is put out" in one]
    assert result.more["jobs"]["spoiled"] == 1
    assert result.parameters_sha256 == run(epochs=20).parameters_sha256


def test_what_a_slave_spoiled_before_it_was_found_is_undone_if_asked(tmp_path):
    """One part of its updates is audited; the others were in the parameters."""
    said = []
    result = run(
        slaves=2,
        audit=0.15,
        epochs=12,
        undo_spoiled=True,
        checkpoint=tmp_path,
        story=tmp_path / "story.txt",
        faults=",".join(f"flip=slave2@job{n}" for n in range(30, 600)),
        watch=until_here(2, said),
    )
    assert [one for one in said if "(slave2) spoils updates; the run goes back to" in one]
    assert result.parameters_sha256 == run(epochs=12).parameters_sha256
    assert not (tmp_path / "history").exists()
    lines = read_story(tmp_path / "story.txt")
    (back,) = [place for place, line in enumerate(lines) if " run: goes back to before " in line]
    for half in lines[:back], lines[back:]:  # of the spoiled part, and of what came after
        assert any(line.endswith(" s1: joined") for line in half)
        assert any(" s2: did " in line for line in half)
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)


def test_without_an_audit_the_same_bit_would_have_counted(alone):  # noqa: F811
    # both of them: one that joins late may come to nothing
    faults = ",".join(f"flip=slave{which}@job{n}" for which in (1, 2) for n in range(2, 300))
    assert run(slaves=2, faults=faults).parameters_sha256 != alone


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"audit": 0.1}, "--slaves"),
        ({"audit": 0.1, "slaves": 2, "sharing": "async"}, "equal bits"),
        ({"audit": 2.0, "slaves": 2}, "from 0 to 1"),
        ({"undo_spoiled": True, "slaves": 2}, "--audit"),
        ({"story": "story.txt"}, "--slaves"),
        ({"faults": "kill=0.1"}, "--slaves"),
        ({"faults": "kil=0.1", "slaves": 1}, "did you mean"),
        ({"faults": "kill=slave1@work", "slaves": 1}, "slave2@job5"),
        ({"faults": "restart=0.1", "slaves": 1}, "simulations"),
    ],
)
def test_what_cannot_be_had_is_said_at_once(options, words):
    with pytest.raises(OptionError, match=words):
        veloflow.run("digits_mlp", device="numpy", **options)


def test_a_master_that_works_ends_the_run_alone_with_the_same_bits(alone):  # noqa: F811
    result = run(listen=["tcp://127.0.0.1:*"], master_works=True, patience=0.1)
    assert result.parameters_sha256 == alone
    assert [one["name"] for one in result.more["slaves"]] == ["master"]


def test_a_master_that_works_goes_on_when_its_slaves_have_died(alone):  # noqa: F811
    faults = "kill=1"
    result = run(slaves=1, faults=faults, master_works=True, patience=0.02)
    assert result.parameters_sha256 == alone
    assert "master" in [one["name"] for one in result.more["slaves"]]

"""Servers, ring and tree with real processes: the bits of a star, whoever is killed or stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest

import veloflow
from tests.runtime.slaves import VELOFLOW, Trouble, children, resumed_after_a_kill
from veloflow.core import EpochDone, Message
from veloflow.errors import OptionError
from veloflow.runtime.keys import add_slave, make_keys

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OPTIONS = {"epochs": 4, "hidden": 20}


def run(**options):
    given = {"device": "numpy", "sharing": "sync:shards=5", **OPTIONS, **options}
    return veloflow.run("digits_mlp", **given)


@pytest.fixture(scope="module")
def alone():
    """The parameters of a run alone with the same shards."""
    return run().parameters_sha256


@pytest.fixture(scope="module")
def alone_for_long():
    """The same for a run that is long enough for trouble."""
    return run(epochs=25).parameters_sha256


@pytest.mark.parametrize("topology", ["servers:2", "ring", "tree"])
def test_the_same_bits_as_a_star(alone, topology):
    result = run(slaves=3, topology=topology)
    assert result.parameters_sha256 == alone
    assert result.more["ahead"]["blocks"] >= 3
    assert result.more["ahead"]["abandoned"] == 0
    assert result.more["topology"].partition(":")[0] == topology.partition(":")[0]
    assert result.more["bytes"]["states"] > 0
    moved = [(one["sent"], one["received"]) for one in result.more["slaves"]]
    # one slave may be through with all before another is there: then nobody exchanges gradients
    is_any = topology.startswith("servers") or result.more["ahead"]["exchanged"] > 0
    assert (max(sent for sent, _ in moved) > 0) == is_any
    assert children("veloflow.runtime.slaves.range_server") == []


@pytest.mark.parametrize(
    ("topology", "word", "number"),
    [
        ("ring", "slave", signal.SIGKILL),
        ("servers:2", "veloflow.runtime.slaves.range_server", signal.SIGKILL),
        pytest.param("ring", "slave", signal.SIGSTOP, marks=pytest.mark.stress),
        pytest.param("tree", "slave", signal.SIGKILL, marks=pytest.mark.stress),
        pytest.param("servers:2", "slave", signal.SIGKILL, marks=pytest.mark.stress),
    ],
)
def test_the_same_bits_when_processes_are_killed_or_stopped(alone_for_long, topology, word, number):
    """dmlc/ps-lite#68, #148; bytedance/byteps#437: where a server is killed, all hang."""
    trouble = Trouble(word, number, 0.3, 2)
    trouble.start()
    result = run(epochs=25, slaves=3, patience=0.5, topology=topology, watch=trouble.watch)
    trouble.over.set()
    trouble.join()
    assert trouble.done >= 1
    assert result.more["ahead"]["broken"] >= 1
    assert result.more["ahead"]["exchanged"] >= 1
    assert result.parameters_sha256 == alone_for_long
    assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * 25


@pytest.mark.parametrize(
    "topology",
    [
        "ring",
        pytest.param("tree", marks=pytest.mark.stress),
        pytest.param("servers:2", marks=pytest.mark.stress),
    ],
)
def test_a_killed_master_is_resumed_with_the_same_bits(topology, tmp_path):
    """The next master takes the slaves back, with its own servers and secrets of its own."""
    expected = run(epochs=100).parameters_sha256
    words = ["epochs=100", "hidden=20", "--sharing", "sync:shards=5", "--topology", topology]
    result = resumed_after_a_kill(tmp_path, 3, words, timeout=120)
    assert result["parameters_sha256"] == expected
    assert len(result["slaves"]) == 3
    assert result["ahead"]["blocks"] >= 3
    moved = [one["sent"] for one in result["slaves"]]
    assert sum(one > 0 for one in moved) >= 2  # those who were taken back exchange with each other


@pytest.mark.parametrize(
    "topology",
    [
        "ring",
        "servers:2",
        pytest.param("tree", marks=pytest.mark.stress),
    ],
)
def test_a_slave_that_joins_in_mid_run_takes_part(alone_for_long, topology):
    """It has the state of the next block sent; the group is another one from then on."""
    late = []

    def watch(session):
        def bring(event):
            if not late:
                late.append(subprocess.Popen([*VELOFLOW, "slave", address, "-d", "numpy", "-q"]))
            if late and len(joined) < 3:
                time.sleep(0.5)  # it takes a while to start

        joined = []
        session.events.subscribe(
            Message, lambda one: " joined: " in one.text and joined.append(one.text)
        )
        session.events.subscribe(EpochDone, bring)

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
    result = run(epochs=25, slaves=2, topology=topology, listen=[address], watch=watch)
    assert late[0].wait(20) == 0
    assert result.parameters_sha256 == alone_for_long
    moved = [one["sent"] for one in result.more["slaves"]]
    assert len(moved) == 3
    assert min(moved) > 0
    assert [one["train"]["samples"] for one in result.epochs[1:]] == [1437] * 25


def test_slaves_with_keys_exchange_over_encrypted_connections(alone, tmp_path):
    """Slaves over TCP, without shared memory, with keys: their own connections have keys too."""
    make_keys(tmp_path / "keys")
    secrets = [add_slave(tmp_path / "keys", name) for name in ("one", "two")]
    master = subprocess.Popen(
        [*VELOFLOW, "run", "digits_mlp", "--device", "numpy", "--sharing", "sync:shards=5",
         "--listen", "tcp://127.0.0.1:0", "--keys", str(tmp_path / "keys"), "--json",
         "--topology", "ring", *(f"{k}={v}" for k, v in OPTIONS.items())],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = iter(master.stdout)
    address = next(line for line in lines if "slaves join with" in line).split()[-1].strip('"}')
    hidden = {**os.environ, "VELOFLOW_NO_SHARED_MEMORY": "1"}
    key = ["--master-key", str(tmp_path / "keys" / "master.key")]
    joined = [
        subprocess.Popen(
            [*VELOFLOW, "slave", address, "--device", "numpy", "-q", "--key", str(one), *key],
            env=hidden,
        )
        for one in secrets
    ]
    ends = [json.loads(line) for line in lines]
    assert master.wait(60) == 0
    assert [one.wait(10) for one in joined] == [0, 0]
    master.stdout.close()
    result = next(one for one in ends if "parameters_sha256" in str(one))
    assert alone in json.dumps(result)
    assert '"states"' in json.dumps(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topology": "ring"}, "is for slaves"),
        ({"topology": "rign", "slaves": 1}, "did you mean 'ring'"),
        ({"topology": "ring", "slaves": 1, "sharing": "async"}, "not with --sharing async"),
        ({"topology": "tree", "slaves": 1, "codec": "onebit"}, "leave --codec onebit"),
        ({"topology": "servers:2", "slaves": 1, "audit": 0.5}, "does not go with --audit"),
    ],
)
def test_what_does_not_go_together_is_told(options, said):
    began = time.monotonic()
    with pytest.raises(OptionError, match=said):
        run(**options)
    assert time.monotonic() - began < 20

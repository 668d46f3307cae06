"""Key-value stores for real: threads and processes, codecs, solvers, keys, wrong commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import veloflow
from checkout import ROOT
from veloflow.errors import InputError, OptionError
from veloflow.kvstore import StoreServer, parse_updater
from veloflow.runtime.keys import ServerKeys, add_slave, make_keys


@pytest.fixture
def served():
    """Give a function that starts a store in a thread; all are closed at the end."""
    servers = []

    def serve(address="memory://test", **settings):
        server = StoreServer(address, patience=0.2, **settings).start()
        servers.append(server)
        return server

    yield serve
    for one in servers:
        one.close()


def test_a_store_of_this_process_has_an_updater_of_ones_own():
    def halve(key, pushed, value):
        value += pushed / 2

    with veloflow.KeyValueStore(updater=halve) as store:
        store.init("w", np.ones(3))
        store.init("w", np.zeros(3))  # the first counts
        store.push("w", np.array([2.0, 4.0, 6.0]))
        assert store.pull("w").tolist() == [2.0, 3.0, 4.0]
        store.set_updater("add")
        store.init("counts", np.array([1, 2]))
        store.push("counts", np.array([10, 20]))
        out = np.zeros(2, np.int64)
        assert store.pull("counts", out=out) is out
        assert out.tolist() == [11, 22]


@pytest.mark.parametrize(
    "word",
    [
        *("momentum:0.1,moment=0.9", "nesterov:0.1,moment=0.5", "momentum:0.1,clip_value=0.5"),
        *("adam:0.01", "adagrad", "rprop"),
    ],
)
def test_an_updater_is_the_solver_of_units(word):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(3)
    value = random.normal(size=(4, 5)).astype(np.float32)
    ours = value.copy()
    update = parse_updater(word)("w", ours)
    theirs = torch.tensor(value, requires_grad=True)
    name = word.partition(":")[0]
    make = {
        "momentum": lambda w: torch.optim.SGD(w, 0.1, 0.9 if "moment=" in word else 0.0),
        "nesterov": lambda w: torch.optim.SGD(w, 0.1, 0.5, nesterov=True),
        "adam": lambda w: torch.optim.Adam(w, 0.01),
        "adagrad": lambda w: torch.optim.Adagrad(w, 0.01),
        "rprop": lambda w: torch.optim.Rprop(w, 0.01),
    }
    solver = make[name]([theirs])
    for _ in range(5):
        gradient = random.normal(size=(4, 5)).astype(np.float32)
        update(gradient)
        limit = 0.5 if "clip" in word else np.inf
        theirs.grad = torch.tensor(gradient.clip(-limit, limit))
        solver.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("word", "said"), [
    ("momentun", "did you mean"), ("adam:rat=1", "no option 'rat'"), ("add:1", "no options"),
    ("adam:beta1=x", "give a number"),
])  # fmt: skip
def test_a_wrong_updater_is_told_with_what_there_is(word, said):
    with pytest.raises(OptionError, match=re.escape(said)):
        parse_updater(word)


def _train(address, steps, seed, found, **settings):
    with veloflow.KeyValueStore(address, patience=0.2, **settings) as store:
        store.init("w", np.zeros((8, 8), np.float32))
        random = np.random.default_rng(seed)
        for _ in range(steps):
            store.pull("w")
            store.push("w", random.normal(size=(8, 8)).astype(np.float32))
        found[store.rank] = store.pull("w")


def _in_threads(server, seeds, steps=5, **settings):
    found = {}
    threads = [
        threading.Thread(target=_train, args=(server.address, steps, seed, found), kwargs=settings)
        for seed in seeds
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    return found


def test_all_workers_of_a_sync_store_see_the_same_steps(served):
    server = served(workers=3, updater="momentum:0.1")
    found = _in_threads(server, (1, 2, 3))
    assert sorted(found) == [0, 1, 2]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    total = sum(
        np.random.default_rng(seed).normal(size=(5, 8, 8)).astype(np.float32).sum(0)
        for seed in (1, 2, 3)
    )
    np.testing.assert_allclose(found[0], -0.1 * total, atol=1e-5)
    assert server.counts()["applied"] == 15


@pytest.mark.parametrize("codec", ["float16", "int8", "onebit", "topk:0.1"])
def test_pushes_travel_by_codec(served, codec):
    server = served(workers=2, updater="add", mean=True)
    found = _in_threads(server, (1, 2), codec=codec)
    assert np.isfinite(found[0]).all()
    assert np.abs(found[0]).max() > 0
    assert server.received < 2 * 256 + 10 * 256 / 1.5 + 200


def test_an_async_store_waits_for_nobody(served):
    server = served("tcp://127.0.0.1:0", workers=2, mode="async", updater="add")
    found = {}
    _train(server.address, 4, 1, found)
    assert server.counts()["applied"] == 4
    assert set(found) == {0}


def test_wrong_commands_are_told_and_change_nothing(served):
    server = served(updater="add")
    with veloflow.KeyValueStore(server.address, patience=0.2) as store:
        with pytest.raises(InputError, match="no key 'w'"):
            store.pull("w")
        store.init("w", np.zeros(3, np.float32))
        for wrong, said in (
            (np.zeros(4, np.float32), "4 numbers of float32 for a key of"),
            (np.zeros(3), "3 numbers of float64"),
            (np.array([1, np.nan, 1], np.float32), "NaN"),
        ):
            store.push("w", wrong)
            with pytest.raises(InputError, match=said):
                store.flush()
        with pytest.raises(InputError, match="out is float64"):
            store.pull("w", out=np.zeros(3))
        with pytest.raises(InputError, match="veloflow store ADDRESS"):
            store.set_updater("add")
        assert store.pull("w").tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="needs keys"):
        veloflow.KeyValueStore("tcp://example.org:5600")
    with pytest.raises(InputError, match="needs keys"):
        StoreServer("tcp://0.0.0.0:0")


def test_workers_with_keys_come_in_and_others_do_not(served, tmp_path):
    make_keys(tmp_path / "keys")
    secret = add_slave(tmp_path / "keys", "one")
    make_keys(tmp_path / "other")
    stranger = add_slave(tmp_path / "other", "one")
    server = served("tcp://127.0.0.1:0", keys=ServerKeys.load(tmp_path / "keys"), updater="add")
    public = tmp_path / "keys" / "master.key"
    settings = {"master_key": public, "patience": 0.02}
    with veloflow.KeyValueStore(server.address, key=secret, **settings) as store:
        store.init("w", np.zeros(2))
        store.push("w", np.ones(2))
        assert store.pull("w").tolist() == [1, 1]
    with pytest.raises(veloflow.VeloflowError, match=r"does not accept its keys|no word"):
        veloflow.KeyValueStore(server.address, key=stranger, **settings)


@pytest.mark.slow
@pytest.mark.cluster
def test_the_example_trains_though_a_worker_is_killed(tmp_path):
    script = ROOT / "docs" / "examples" / "digits_with_store.py"
    command = [sys.executable, str(script), "--epochs", "4", "--kill", "1", "--patience", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "nobody waits for it any more" in done.stdout
    errors = [float(one) for one in re.findall(r"validation error ([\d.]+) %", done.stdout)]
    assert len(errors) == 2
    assert errors[0] == errors[1]  # both have pulled the same last step
    assert max(errors) < 15.0  # it learns: chance is 90, and a third of the samples is missing
    assert "'repeated': 0, 'lost': 1" in done.stdout


@pytest.mark.slow
@pytest.mark.cluster
def test_the_command_saves_what_workers_have_pushed(tmp_path):
    from safetensors.numpy import load_file

    saved = tmp_path / "values.safetensors"
    command = [sys.executable, "-P", "-m", "veloflow", "store", "tcp://127.0.0.1:0", "--once"]
    command += ["--updater", "add", "--save", str(saved)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"tcp://[\d.:]+", line)
        assert address, line
        with veloflow.KeyValueStore(address[0]) as store:
            store.init("w", np.zeros(3))
            store.push("w", np.arange(3.0))
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert "1 pushes applied" in said
    assert load_file(saved)["w"].tolist() == [0, 1, 2]


def test_a_unit_of_a_definition_holds_a_store_of_its_own():
    script = ROOT / "docs" / "examples" / "digits_in_store.py"
    result = veloflow.run(script, device="numpy", epochs=2, hidden=10)
    alone = veloflow.run("digits_mlp", device="numpy", epochs=2, hidden=10, rate=0.2)
    assert result.parameters_sha256 == alone.parameters_sha256  # what it pushes is what it pulls


@pytest.mark.slow
@pytest.mark.cluster
def test_runs_of_a_definition_meet_in_a_store(served):
    """Two processes that train in orders of their own; their last step is a meeting."""
    server = served("tcp://127.0.0.1:0", workers=2, mean=True)
    script = ROOT / "docs" / "examples" / "digits_in_store.py"
    command = [sys.executable, "-P", "-m", "veloflow", "run", str(script), "--device", "numpy"]
    command += ["--json", f"store={server.address}", "every=8"]  # 5 epochs: 120 = 8 * 15 steps
    runs = [
        subprocess.Popen([*command, "--seed", seed], stdout=subprocess.PIPE, text=True)
        for seed in "12"
    ]
    ends = [json.loads(one.communicate(timeout=120)[0].splitlines()[-1]) for one in runs]
    assert [one.returncode for one in runs] == [0, 0]
    assert len({one["parameters_sha256"] for one in ends}) == 1
    for one in ends:
        assert one["epochs"][-1]["validation"]["error_percent"] < 20
    assert server.counts()["applied"] == 2 * 15


PUSHING = """
import numpy as np
import veloflow
from veloflow import Workflow
from veloflow.core import Input, Unit
from veloflow.units import DigitsLoader, softmax, standard_workflow


class Counter(Unit):
    minibatch_size = Input[int]()

    def __init__(self, wf, store):
        super().__init__(wf)
        self._address, self._store = store, None

    def run(self):
        if self._store is None:
            self._store = veloflow.KeyValueStore(self._address)
            self._store.init("seen", np.zeros(1))
        self._store.push("seen", np.ones(1))

    def run_as_master(self):
        pass  # slaves count

    def run_as_slave(self):
        self.run()

    def close(self):
        if self._store is not None:
            self._store.close()


def build(wf: Workflow, *, store: str = "") -> None:
    units = standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=60),
                              layers=[softmax(10)], learning_rate=0.1, max_epochs=1)
    Counter(wf, store).insert_after(units.forwards[-1]).link_data(units.loader, "minibatch_size")
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_units_on_slaves_push_from_where_they_compute(served, tmp_path):
    server = served("tcp://127.0.0.1:0", workers=2, mode="async", updater="add")
    (tmp_path / "pushing.py").write_text(PUSHING)
    result = veloflow.run(
        tmp_path / "pushing.py", device="numpy", slaves=2, store=server.address,
        sharing="sync:shards=2",
    )  # fmt: skip
    with veloflow.KeyValueStore(server.address, observe=True) as store:
        seen = store.pull("seen")[0]
    assert seen >= result.more["jobs"]["accepted"] == 2 * (6 + 24 + 6)  # a late job is done twice

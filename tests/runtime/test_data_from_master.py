"""Slaves that cannot reach the data get their samples from the master, and give the same bits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import veloflow
from veloflow.core import Message
from veloflow.errors import InputError, OptionError

pytestmark = pytest.mark.cluster

_DEFINITION = """
from pathlib import Path

from veloflow import Workflow
from veloflow.units import (
    ArrayFileLoader, TableLoader, TextLoader, embedding, mean_over_time, softmax,
    standard_workflow, tanh,
)

def build(wf: Workflow, *, data: Path, kind: str = "table") -> None:
    layers = [tanh(6), softmax(3)]
    if kind == "table":
        loader = TableLoader(wf, data / "x.csv", label="kind", validation_ratio=0.2,
                             minibatch_size=20, normalization="standard")
    elif kind == "array":
        loader = ArrayFileLoader(wf, data / "x.npz", validation_ratio=0.2, minibatch_size=20,
                                 shuffle_window=16)
    else:
        loader = TextLoader(wf, data / "t.csv", length=6, minibatch_size=20)
        layers = [embedding(loader.vocabulary_size, 4), mean_over_time(), softmax(3)]
    standard_workflow(wf, loader=loader, layers=layers, learning_rate=0.1, max_epochs=4)
"""


@pytest.fixture
def files(tmp_path):
    """Return a definition file, and a folder with data."""
    random = np.random.default_rng(2)
    labels = np.arange(90) % 3
    data = random.normal(size=(90, 4)) + labels[:, None]
    folder = tmp_path / "data"
    folder.mkdir()
    columns = {f"c{n}": data[:, n] for n in range(4)}
    pl.DataFrame(columns | {"kind": labels}).write_csv(folder / "x.csv")
    np.savez(folder / "x.npz", data=data, labels=labels)
    texts = [f"one {'abc'[n]} two {'abc'[n]}" for n in labels]
    pl.DataFrame({"text": texts, "label": labels}).write_csv(folder / "t.csv")
    path = tmp_path / "mine.py"
    path.write_text(_DEFINITION)
    return path, folder


@pytest.mark.parametrize("kind", ["table", "array", "text"])
def test_the_bits_are_those_of_slaves_that_read(files, kind):
    path, folder = files
    more = {"device": "numpy", "data": folder, "kind": kind}
    alone = veloflow.run(path, sharing="sync", **more)
    given = veloflow.run(path, slaves=2, data_from="master", **more)
    assert given.parameters_sha256 == alone.parameters_sha256
    assert given.epochs == alone.epochs
    counted = given.more["data_given"]
    assert counted["samples"] >= 4 * 90
    width = {"table": 4, "array": 4, "text": 6}[kind]
    assert counted["bytes"] == counted["samples"] * 4 * (width + (2 if kind == "text" else 1))


@pytest.fixture
def elsewhere(files, tmp_path, monkeypatch):
    """Return what starts a slave in a folder from which the data is not found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    started = []

    def start(words):
        line = [sys.executable, "-m", "veloflow", "slave", words.split()[-1], "-d", "numpy"]
        started.append(
            subprocess.Popen(
                line, cwd=tmp_path / "elsewhere", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_slave_that_cannot_see_the_file(files, elsewhere):
    path, _ = files

    def watch(session):
        def hear(message):
            if "slaves join with" in message.text:
                elsewhere(message.text)

        session.events.subscribe(Message, hear)

    alone = veloflow.run(path, sharing="sync", device="numpy", data="data")
    given = veloflow.run(
        path, device="numpy", listen=["tcp://127.0.0.1:0"], watch=watch, data="data",
        data_from="master",
    )  # fmt: skip
    assert given.parameters_sha256 == alone.parameters_sha256


def test_without_it_the_slave_names_the_option(files, elsewhere):
    line = [sys.executable, "-m", "veloflow", "run", str(files[0]), "data=data", "-d", "numpy",
            "--listen", "tcp://127.0.0.1:0"]  # fmt: skip
    master = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        slave = elsewhere(next(text for text in master.stdout if "slaves join with" in text))
        said = slave.communicate(timeout=60)[1].strip().splitlines()[-1]
    finally:
        master.kill()
        master.communicate()
    assert slave.returncode == 2
    assert "x.csv" in said
    assert "--data-from master" in said


def test_a_loader_that_cannot_give_says_so(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("""
from veloflow import Workflow
from veloflow.units import DigitsLoader, softmax, standard_workflow
from veloflow.units.loader import Loader

class Own(DigitsLoader.__mro__[1]):
    def load_samples(self):
        return DigitsLoader.load_samples(self)

    def samples_of(self, indices, number):
        return Loader.samples_of(self, indices, number)

def build(wf: Workflow) -> None:
    standard_workflow(wf, loader=Own(wf), layers=[softmax(10)], learning_rate=0.1, max_epochs=1)
""")
    with pytest.raises(InputError, match=r"Own has no samples_of\(\)"):
        veloflow.run(path, device="numpy", slaves=1, data_from="master")


def test_it_is_for_slaves():
    with pytest.raises(OptionError, match="for runs with slaves"):
        veloflow.run("digits_mlp", data_from="master")

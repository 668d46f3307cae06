"""A network of every family on three slaves, one of them killed: the same bits as alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import veloflow

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

#: name -> what the definition imports from veloflow.units, the layers
FAMILIES = {
    "rnn": ("rnn, softmax", '[rnn(9, "relu"), softmax(10)]'),
    "lstm": ("lstm, softmax", "[lstm(8, return_sequences=True), lstm(5), softmax(10)]"),
    "gru": ("gru, softmax", "[gru(7), softmax(10)]"),
}

DEFINITION = """
import numpy as np

from veloflow import Workflow
from veloflow.units import ArrayLoader, standard_workflow, {names}


def build(wf: Workflow) -> None:
    random = np.random.default_rng(0)
    images, labels = random.random((120, 4, 4)), np.arange(120) % 10
    standard_workflow(
        wf,
        loader=ArrayLoader(wf, images, labels, validation=(images[:30], labels[:30]),
                           minibatch_size=40),
        layers={layers},
        learning_rate=0.1,
        gradient_moment=0.9,
        max_epochs=2,
    )
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_slaves_give_the_same_bits(family: str, tmp_path: Path) -> None:
    names, layers = FAMILIES[family]
    definition = tmp_path / f"{family}.py"
    definition.write_text(DEFINITION.format(names=names, layers=layers))
    options = {"device": "numpy", "sharing": "sync:shards=4"}
    alone = veloflow.run(definition, **options)
    shared = veloflow.run(definition, slaves=3, faults="kill=slave2@job3", **options)
    assert shared.parameters_sha256 == alone.parameters_sha256
    assert shared.more["jobs"]["lost"] >= 1

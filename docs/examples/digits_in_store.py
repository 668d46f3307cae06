"""A definition whose unit shares the parameters with other runs through a key-value store.

    veloflow store tcp://127.0.0.1:5600 --workers 2 --mean
    veloflow run digits_in_store.py store=tcp://127.0.0.1:5600 --seed 1      in two other terminals,
    veloflow run digits_in_store.py store=tcp://127.0.0.1:5600 --seed 2      each with a seed

Each run is a worker of the store and trains on minibatches in an order of its own; every few of
them all go on from the mean. Without ``store`` the run is alone with a store of its own.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

import veloflow
from veloflow import Workflow
from veloflow.core import Unit
from veloflow.devices.parameters import Parameters
from veloflow.units import DigitsLoader, softmax, standard_workflow, tanh


@final
class MeetInStore(Unit):
    """Pushes the parameters every so many runs, and goes on with what all have pushed.

    Args:
        store: the address of the store; '' for one of this process alone.
        every: minibatches between.
    """

    group: ClassVar[str] = "trainer"

    def __init__(self, workflow: Workflow, store: str = "", *, every: int = 5) -> None:
        super().__init__(workflow)
        self._address, self._every = store, every
        self._store: veloflow.KeyValueStore | None = None
        self._runs = 0

    def initialize(self) -> None:
        """Find the parameters."""
        self._parameters = self.workflow.find_service(Parameters)

    def run(self) -> None:
        """Push and pull, if it is time to."""
        values = self._parameters.values
        if self._store is None:
            self._store = veloflow.KeyValueStore(self._address or None)
            self._store.init("parameters", np.array(values.read()))
            values.write(
                self._store.pull("parameters")
            )  # the first worker's, for all to begin with
        self._runs += 1
        if self._runs % self._every == 0:
            self._store.push("parameters", np.array(values.read()))
            values.write(self._store.pull("parameters"))

    def close(self) -> None:
        """Let the others go on without this run."""
        if self._store is not None:
            self._store.close()
            self._store = None


def build(
    wf: Workflow, *, store: str = "", every: int = 5, hidden: int = 30, epochs: int = 5
) -> None:
    """Fill the workflow."""
    units = standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(hidden), softmax(10)],
        learning_rate=0.2,
        max_epochs=epochs,
    )
    meet = MeetInStore(wf, store, every=every).insert_after(units.backward[-1])
    meet.gate_skip = units.decision.gd_skip  # parameters move in training only

"""Digits for so many epochs: it is not over earlier where nothing is learnt any more."""

from veloflow import Workflow
from veloflow.units import DigitsLoader, softmax, standard_workflow, tanh


def build(wf: Workflow, *, epochs: int = 5) -> None:
    """Fill in a 64-100-10 network.

    Args:
        epochs: passes over the training samples.
    """
    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(100), softmax(10)],
        learning_rate=0.001,
        max_epochs=epochs,
        fail_iterations=10**9,
    )

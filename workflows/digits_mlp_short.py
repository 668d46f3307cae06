"""Handwritten digits with a small perceptron, as a list of layers: the short form."""

from veloflow import Workflow
from veloflow.units import DigitsLoader, softmax, standard_workflow, tanh


def build(wf: Workflow, *, hidden: int = 100, rate: float = 0.1, epochs: int = 5) -> None:
    """Fill in a 64-hidden-10 network, the same as ``digits_mlp`` to the last bit.

    Args:
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        epochs: passes over the training samples.
    """
    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=60),
        layers=[tanh(hidden), softmax(10)],
        learning_rate=rate,
        max_epochs=epochs,
    )

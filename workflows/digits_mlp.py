"""Handwritten digits with a small perceptron, every link spelled out: the long form."""

from veloflow import Repeater, Workflow
from veloflow.units import (
    All2AllSoftmax,
    All2AllTanh,
    DecisionGD,
    DigitsLoader,
    EvaluatorSoftmax,
    GDSoftmax,
    GDTanh,
)


def build(wf: Workflow, *, hidden: int = 100, rate: float = 0.1, epochs: int = 5) -> None:
    """Wire a 64-hidden-10 network.

    Args:
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        epochs: passes over the training samples.
    """
    repeater = Repeater(wf)
    loader = DigitsLoader(wf, minibatch_size=60)
    fc1 = All2AllTanh(wf, hidden)
    fc2 = All2AllSoftmax(wf, 10)
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=epochs)
    gd2 = GDSoftmax(wf, fc2, learning_rate=rate)
    gd1 = GDTanh(wf, fc1, learning_rate=rate)

    wf.start >> repeater >> loader >> fc1 >> fc2 >> evaluator >> decision >> gd2 >> gd1 >> repeater
    decision >> wf.end

    fc1.link_data(loader, input="minibatch_data")  # mine="theirs"
    fc2.link_data(fc1, input="output")
    evaluator.link_data(fc2, "output").link_data(loader, labels="minibatch_labels")
    decision.link_data(evaluator, "n_err", "samples", "loss")
    decision.link_data(loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number")
    gd2.link_data(evaluator, "err_output")
    gd1.link_data(gd2, err_output="err_input")

    wf.end.gate_block = ~decision.complete
    gd2.gate_block = decision.complete
    gd1.gate_skip = gd2.gate_skip = decision.gd_skip

"""Three kinds of wine with softplus neurons, which Veles called ReLU."""

from veloflow import Repeater, Workflow
from veloflow.units import (
    All2AllSoftmax,
    All2AllSoftplus,
    DecisionGD,
    EvaluatorSoftmax,
    GDSoftmax,
    GDSoftplus,
    WineLoader,
)


def build(wf: Workflow, *, rate: float = 0.03, epochs: int = 500, minibatch: int = 10) -> None:
    """Wire a 13-10-3 network; it stops when no wine is classified wrongly.

    Args:
        rate: the learning rate.
        epochs: passes over the wines at most.
        minibatch: wines in a minibatch.
    """
    repeater = Repeater(wf)
    loader = WineLoader(wf, minibatch_size=minibatch, normalization="pointwise")
    fc1 = All2AllSoftplus(wf, 10)
    fc2 = All2AllSoftmax(wf, 3)
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=epochs, fail_iterations=250)
    gd2 = GDSoftmax(wf, fc2, learning_rate=rate, weights_decay=0.0)
    gd1 = GDSoftplus(wf, fc1, learning_rate=rate, weights_decay=0.0)

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

"""MNIST, or any IDX images, with a perceptron of one hidden layer: the long form."""

from pathlib import Path

from veloflow import Repeater, Workflow
from veloflow.units import (
    All2AllSoftmax,
    All2AllTanh,
    DecisionGD,
    EvaluatorSoftmax,
    FanIn,
    GDSoftmax,
    GDTanh,
    IDXLoader,
)


def build(
    wf: Workflow,
    *,
    data: Path = Path("data/mnist"),
    hidden: int = 100,
    rate: float = 0.03,
    moment: float = 0.9,
    decay: float = 5e-4,
    epochs: int = 30,
    minibatch: int = 60,
) -> None:
    """Wire a 784-hidden-10 network.

    Args:
        data: the folder with the IDX files, plain or gzipped.
        hidden: neurons in the hidden layer.
        rate: the learning rate.
        moment: the momentum.
        decay: the weight decay.
        epochs: passes over the training images.
        minibatch: images in a minibatch.
    """
    repeater = Repeater(wf)
    loader = IDXLoader(wf, data, minibatch_size=minibatch)
    fc1 = All2AllTanh(wf, hidden, weights_filling=FanIn())
    fc2 = All2AllSoftmax(wf, 10, weights_filling=FanIn())
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=epochs)
    gd2 = GDSoftmax(wf, fc2, learning_rate=rate, gradient_moment=moment, weights_decay=decay)
    gd1 = GDTanh(wf, fc1, learning_rate=rate, gradient_moment=moment, weights_decay=decay)

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

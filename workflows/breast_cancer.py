"""A real table: 569 breast tumours, 30 measurements each, benign or malignant (Wolberg, 1995)."""

from veloflow import Workflow
from veloflow.units import (
    AUC,
    F1,
    AdamW,
    BreastCancerLoader,
    FanIn,
    He,
    OnPlateau,
    relu,
    softmax,
    standard_workflow,
)


def build(
    wf: Workflow,
    *,
    hidden: int = 16,
    rate: float = 0.003,
    decay: float = 0.01,
    epochs: int = 40,
) -> None:
    """Make a 30-hidden-2 network with AdamW.

    Args:
        hidden: neurons in the hidden layer.
        rate: the learning rate; a tenth of it when five epochs were no better.
        decay: the weight decay.
        epochs: passes over the table.
    """
    standard_workflow(
        wf,
        loader=BreastCancerLoader(
            wf, minibatch_size=32, normalization="pointwise", validation_ratio=0.2
        ),
        layers=[relu(hidden, weights_filling=He()), softmax(2, weights_filling=FanIn())],
        solver=AdamW(),
        learning_rate=rate,
        weights_decay=decay,
        metrics=[AUC(), F1()],
        watchers=[OnPlateau(wf, patience=5)],
        monitor="loss",
        fail_iterations=15,
        max_epochs=epochs,
    )

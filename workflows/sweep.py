"""A search over hyperparameters: kernel ridge regression for each pair, farmed out one by one."""

from collections.abc import Mapping

import numpy as np

from veloflow import Unit, Workflow
from veloflow.core import Input, Payload
from veloflow.units import FarmMap, digits


def judge(penalty: float, width: float, folds: int) -> Payload:
    """Return how well kernel ridge regression tells digits apart, by cross-validation.

    With the kernel k(x, z) = e^(-width |x - z|^2), a = (K + penalty I)^-1 Y on the digits that are
    not held out; the answer is the largest element of k(x) a.
    """
    data, labels = digits()
    squares = np.square(data).sum(axis=1)
    kernel = np.exp(-width * (squares[:, None] + squares - 2 * data @ data.T))
    wanted = np.eye(10)[labels]
    scores = []
    for fold in range(folds):
        held = np.arange(len(data)) % folds == fold
        inside = kernel[np.ix_(~held, ~held)] + penalty * np.eye(int((~held).sum()))
        weights = np.linalg.solve(inside, wanted[~held])
        answers = (kernel[np.ix_(held, ~held)] @ weights).argmax(axis=1)
        scores.append(float((answers == labels[held]).mean()))
    return {"mean": float(np.mean(scores)), "deviation": float(np.std(scores))}


class Best(Unit):
    """Looks for the best of what was judged; of equals the first."""

    group = "decision"

    found = Input[list[Mapping[str, float]]]()

    def __init__(self, wf: Workflow, items: list[Payload]) -> None:
        super().__init__(wf)
        self.items = items
        self.table: list[dict[str, object]] = []

    def run(self) -> None:
        """Put what was tried and what came of it side by side, the best first."""
        pairs = zip(self.items, self.found, strict=True)
        rows = [{**item, **found} for item, found in pairs]
        self.table = sorted(rows, key=lambda row: -float(str(row["mean"])))

    def results(self) -> Mapping[str, object]:
        """Return the table."""
        return {"sweep": self.table}


def build(
    wf: Workflow,
    *,
    penalties: list[float] = [0.001, 0.1, 10.0],  # noqa: B006 - it is read, and shown as a default
    widths: list[float] = [0.003, 0.01, 0.03],  # noqa: B006
    folds: int = 3,
) -> None:
    """Try all pairs.

    Args:
        penalties: of large weights.
        widths: of the kernel.
        folds: of the cross-validation.
    """
    items: list[Payload] = [
        {"penalty": penalty, "width": width, "folds": folds}
        for penalty in penalties
        for width in widths
    ]
    sweep = FarmMap(wf, judge, items=items)
    best = Best(wf, items).link_data(sweep, found="outputs")
    wf.start >> sweep >> best >> wf.end

"""A search over hyperparameters: a support vector machine for each pair, farmed out one by one."""

from collections.abc import Mapping

from veloflow import Unit, Workflow
from veloflow.core import Input, Payload
from veloflow.units import FarmMap, digits


def judge(penalty: float, width: float, folds: int) -> Payload:
    """Return how well a machine with these numbers recognizes digits, by cross-validation."""
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    scores = cross_val_score(SVC(C=penalty, gamma=width), *digits(), cv=folds)
    return {"mean": float(scores.mean()), "deviation": float(scores.std())}


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
    penalties: list[float] = [0.1, 1.0, 10.0],  # noqa: B006 - it is read, and shown as a default
    widths: list[float] = [0.003, 0.01, 0.03],  # noqa: B006
    folds: int = 3,
) -> None:
    """Try all pairs.

    Args:
        penalties: what errors cost (C).
        widths: of the kernel (gamma).
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

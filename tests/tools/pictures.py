"""Small workflows to draw and to watch: for tests of the views."""

from __future__ import annotations

from veloflow.core import Bool, Input, Progress, Repeater, Unit, Workflow


class Part(Unit):
    """Has a few inputs and truth values; tells the progress that a test has put there."""

    x = Input[object](optional=True)
    y = Input[object](optional=True)
    z = Input[object](optional=True)

    def __init__(self, wf, group="service", *, name=None, forward=None):
        super().__init__(wf, name=name)
        self.group = group
        self.ready = Bool()
        self.busy = Bool()
        self.shown = None
        if forward is not None:
            self.forward = forward

    def run(self):
        """Do nothing."""

    def progress(self):
        """Tell or raise what was put there."""
        if isinstance(self.shown, Exception):
            raise self.shown
        return Progress(*self.shown) if self.shown else None


def training(layers):
    """Return a network of so many layers: a loop with a forward and a backward pass."""
    wf = Workflow(name=f"net {layers}")
    repeater, loader = Repeater(wf), Part(wf, "loader", name="loader")
    last = wf.start >> repeater >> loader
    forwards = []
    for number in range(layers):
        unit = Part(wf, "forward", name=f"layer {number}").link_data(last, x="output")
        last = last >> unit
        forwards.append(unit)
    evaluator = Part(wf, "evaluator", name="evaluator").link_data(last, x="output")
    decision = Part(wf, "decision", name="decision")
    decision.link_data(evaluator, x="error", y="loss").link_data(loader, z="labels")
    last, error = last >> evaluator >> decision, evaluator
    for unit in reversed(forwards):
        trainer = Part(wf, "trainer", name=f"gd {unit.name}", forward=unit)
        error = trainer.link_data(error, x="error").link_data(unit, y="output")
        trainer.gate_skip = decision.busy
        last = last >> trainer
    last >> repeater
    decision >> wf.end
    wf.end.gate_block = ~decision.ready
    return wf


def nested():
    """Return a workflow with another one inside, and data links across its border."""
    wf = Workflow(name="outer")
    reader = Part(wf, "loader", name="reader")
    inner = Workflow(wf, name="clean")
    scale, clip = Part(inner, name="scale"), Part(inner, name="clip")
    judge = Part(wf, "evaluator", name="judge")
    wf.start >> reader >> inner >> judge >> wf.end
    inner.start >> scale >> clip >> inner.end
    scale.link_data(reader, x="rows")
    clip.link_data(scale, x="rows")
    judge.link_data(clip, x="rows").link_data(inner, y="count")
    inner.gate_skip = ~reader.ready
    return wf

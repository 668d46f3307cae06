"""Inference graphs: the forward part of a workflow, from raw samples to outputs, on a device.

What the evaluator judges is the output; the units that it comes from, as far back as the loader,
are the graph. A feed stands in for the loader, so no data set is loaded. Dropout passes, and batch
normalisation uses its running statistics, for the feed says that nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from veloflow.core import DataLink, Settings, Unit, Workflow
from veloflow.core.inputs import check_inputs
from veloflow.devices import Array, Device
from veloflow.devices.memory import Memory
from veloflow.devices.parameters import Parameters
from veloflow.devices.selection import choose_device, open_device
from veloflow.errors import CheckpointError, DataError, GraphError, NotFoundError
from veloflow.places import Place, place_of
from veloflow.runtime.definition import Definition, find_definition
from veloflow.runtime.session import build_workflow
from veloflow.runtime.storage.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from veloflow.units.forward import Forward
from veloflow.units.loader import TEST, Loader

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Feed", "InferenceGraph", "open_model"]


class Feed(Unit):
    """Stands in for a loader: it has a loader's attributes, and holds what it is given.

    Attributes:
        minibatch_data: (minibatch size, *sample shape), of the loader's dtype for it.
        minibatch_labels: int32 (minibatch size,), all -1.
        minibatch_lengths: int32 (minibatch size,), how much of each sample is no padding.
    """

    group = "loader"

    def __init__(self, workflow: Workflow, loader: Loader, size: int) -> None:
        super().__init__(workflow, name=f"feed for {loader.name}")
        memory, settings = workflow.find_service(Memory), workflow.find_service(Settings)
        self._loader = loader
        self.max_minibatch_size = size
        dtype = loader.sample_dtype or settings.dtype
        self.minibatch_data = memory.declare(self.path, (size, *loader.sample_shape), dtype)
        self.minibatch_labels = memory.declare(self.path, (size,), "int32")
        self.minibatch_lengths = memory.declare(self.path, (size,), "int32")
        self.minibatch_size = size
        self.minibatch_class = TEST
        self.minibatch_position = self.epoch_number = 0

    def __getattr__(self, name: str) -> object:
        """Give what else the loader has, such as its ``class_lengths``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def put(self, samples: NDArray[Any]) -> None:
        """Hold these samples, at most a minibatch of them; the rest is zero."""
        self.minibatch_size = len(samples)
        rows = np.zeros(self.minibatch_data.shape, self.minibatch_data.dtype)
        rows[: len(samples)] = samples
        self.minibatch_data.write(rows)
        lengths = np.zeros(self.max_minibatch_size, np.int32)
        lengths[: len(samples)] = self._loader.lengths_of(samples)
        self.minibatch_lengths.write(lengths)

    def run(self) -> None:
        """Do nothing: the samples are put by hand."""


class InferenceGraph:
    """The forward part of a trained workflow. Make it with :func:`open_model`.

    Args:
        definition: the workflow's definition.
        checkpoint: the options, parameters and states of its units.
        device: where to compute.
        minibatch_size: how many samples are computed together.

    Attributes:
        loader: the definition's loader, with the normalization of the training, without data.
        units: the units of the graph, each after those that it reads.
        output: of the last unit: (minibatch_size, ...); of an RBM the probabilities of the hidden
            units, (minibatch_size, hidden).
        sample_shape: of one raw sample.
        labels: the raw label of each class number; empty unless samples are classified.

    Raises:
        GraphError: there is no loader, or no output.
        CheckpointError: the checkpoint does not fit to the definition.
    """

    def __init__(
        self,
        definition: Definition,
        checkpoint: Checkpoint,
        device: Device,
        *,
        minibatch_size: int = 100,
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.minibatch_size = minibatch_size
        workflow, _ = build_workflow(definition, checkpoint.options)
        self.workflow = workflow
        saved = checkpoint.settings
        settings = Settings(seed=saved["seed"], dtype=saved["dtype"], testing=True)
        memory, parameters = Memory(device), Parameters(device, settings.dtype)
        workflow.provide(Device, device).provide(Settings, settings)
        workflow.provide(Memory, memory).provide(Parameters, parameters)
        last, self._judge = _find_output(workflow)
        last = _used_output(*last)
        self.units, self.loader = _needed(last)
        state = checkpoint.units.get(self.loader.path)
        if state is None:
            raise CheckpointError(f"the checkpoint knows no loader {self.loader.path!r}")
        self.loader.restore_model(state)
        self.sample_shape = self.loader.sample_shape
        self.labels = self._labels(state)
        self.feed = Feed(workflow, self.loader, minibatch_size)
        self._set_up(memory, parameters)
        self.output = cast("Array", getattr(*last))
        self.output_name = last

    def _labels(self, state: Mapping[str, Any]) -> list[str | int]:
        judges_labels = self._judge is not None and "labels" in self._judge.data_links
        known: Sequence[Sequence[Any]] = state["labels"] if judges_labels else ()
        return [raw for raw, _ in sorted(known, key=lambda pair: int(pair[1]))]

    def _set_up(self, memory: Memory, parameters: Parameters) -> None:
        for unit in self.units:
            for name, link in unit.data_links.items():
                if link.source is self.loader:
                    unit.data_links[name] = DataLink(self.feed, link.attribute)
        for unit in self.units:
            check_inputs(unit)
            unit.initialize()
        memory.allocate()
        parameters.allocate()
        for unit in self.units:
            unit.prepare()
        known = self.checkpoint.parameters
        missing = [one.name for one in parameters if one.name not in known]
        if missing:
            raise CheckpointError(f"the checkpoint has no parameter {missing[0]!r}")
        parameters.load({one.name: known[one.name] for one in parameters})
        for unit in self.units:
            state = self.checkpoint.units.get(unit.path)
            if state:
                unit.restore(state)

    @property
    def classifies(self) -> bool:
        """Whether the outputs are scores of classes, one column each."""
        return bool(self.labels) and self.output.shape[1:] == (len(self.labels),)

    def run(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs of raw samples: (n, *output shape), for (n, *sample shape).

        Raises:
            DataError: the samples have another shape than those that the model was trained on.
        """
        samples = self.prepared(raw)
        size = self.minibatch_size
        parts = [self._run(samples[at : at + size]) for at in range(0, len(samples), size)]
        empty = np.empty((0, *self.output.shape[1:]), self.output.dtype)
        return np.concatenate(parts) if parts else empty

    def prepared(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return raw samples as the first layer takes them: shaped, checked and normalized."""
        if raw.dtype.kind not in "biuf":
            raise DataError(f"the samples are {raw.dtype}, and no numbers")
        if raw.shape[1:] != self.sample_shape:
            if not raw.ndim or int(np.prod(raw.shape[1:])) != int(np.prod(self.sample_shape)):
                raise DataError(
                    f"the samples have shape {raw.shape[1:]}, and the model was trained on samples "
                    f"of shape {self.sample_shape}"
                )
            raw = raw.reshape(len(raw), *self.sample_shape)
        bad = np.flatnonzero(~np.isfinite(raw.reshape(len(raw), -1)).all(axis=1))
        if raw.dtype.kind == "f" and len(bad):
            raise DataError(f"sample {bad[0]} holds NaN or infinity ({len(bad)} samples in all)")
        return self.loader.normalized(raw)

    def _run(self, samples: NDArray[Any]) -> NDArray[Any]:
        self.feed.put(samples)
        for unit in self.units:
            unit.run()
        return np.array(self.output.read())[: len(samples)]

    def close(self) -> None:
        """Close the units, the last first."""
        for unit in reversed(self.units):
            unit.close()


def _find_output(workflow: Workflow) -> tuple[tuple[Unit, str], Unit | None]:
    """Return whose attribute is the output, and the evaluator that judges it."""
    judges = [unit for unit in workflow.all_units() if unit.group == "evaluator"]
    found = [(one, one.data_links["output"]) for one in judges if "output" in one.data_links]
    if found:
        judge, link = found[-1]
        return (link.source, link.attribute), judge
    forwards = [unit for unit in workflow.all_units() if isinstance(unit, Forward)]
    read = {link.source for unit in forwards for link in unit.data_links.values()}
    ends = [unit for unit in forwards if unit not in read]
    if len(ends) != 1:
        names = ", ".join(unit.path for unit in ends) or "none"
        raise GraphError(f"the workflow has no evaluator, and the last layers are {names}, not one")
    return (ends[0], "output"), None


def _used_output(unit: Unit, attribute: str) -> tuple[Unit, str]:
    """Return what is used of a trained unit: its output, unless it is trained by another one."""
    if isinstance(unit, Forward) and attribute == "output":
        return unit, unit.output_in_use
    return unit, attribute


def _needed(last: tuple[Unit, str]) -> tuple[list[Unit], Loader]:
    """Return the units that the output needs, sources first, and the loader behind them."""
    ordered: dict[Unit, None] = {}
    loaders: dict[Loader, None] = {}

    def visit(unit: Unit, path: tuple[Unit, ...]) -> None:
        if isinstance(unit, Loader):
            loaders[unit] = None
            return
        if unit in path:
            raise GraphError(f"unit {unit.path!r} needs its own output: no inference graph")
        if unit not in ordered:
            for source in _sources(unit):
                visit(source, (*path, unit))
            ordered[unit] = None

    visit(last[0], ())
    if len(loaders) != 1:
        names = ", ".join(one.path for one in loaders) or "none"
        raise GraphError(
            f"the output of {last[0].path!r} comes from {names}: an inference graph has one loader"
        )
    return list(ordered), next(iter(loaders))


def _sources(unit: Unit) -> Iterator[Unit]:
    """Yield what a unit reads: by links, or because it was made with it, as with shared weights."""
    yield from (link.source for link in unit.data_links.values())
    yield from (one for one in vars(unit).values() if isinstance(one, Forward) and one is not unit)


@contextmanager
def open_model(
    checkpoint: str | Place,
    *,
    workflow: str | Path | None = None,
    device: str | Device = "auto",
    minibatch_size: int = 100,
) -> Iterator[InferenceGraph]:
    """Give the inference graph of a checkpoint: a file, or the best one in a folder.

    Args:
        checkpoint: the file or folder, or its URL.
        workflow: its definition, by name or by the path of its file; by default the name that is
            in the checkpoint.
        device: "numpy", "opencl", "auto", or an open device.
        minibatch_size: how many samples are computed together.

    Raises:
        CheckpointError: it is damaged, or of another workflow.
        NotFoundError: there is no such file, or no such definition.
    """
    saved = read_checkpoint(find_checkpoint(place_of(checkpoint), best=True))
    definition = _definition(saved, workflow)
    if isinstance(device, Device):
        place, own = device, False
    else:
        place, own = (choose_device()[0] if device == "auto" else open_device(device)), True
    try:
        graph = InferenceGraph(definition, saved, place, minibatch_size=minibatch_size)
        try:
            yield graph
        finally:
            graph.close()
    finally:
        if own:
            place.close()


def _definition(saved: Checkpoint, workflow: str | Path | None) -> Definition:
    if workflow is None:
        try:
            return find_definition(saved.workflow)
        except NotFoundError:
            raise NotFoundError(
                f"the checkpoint is of workflow {saved.workflow!r}, which does not come along; "
                "give the path of its file with --workflow"
            ) from None
    found = find_definition(str(workflow))
    if found.name != saved.workflow:
        raise CheckpointError(
            f"the checkpoint is of workflow {saved.workflow!r}, not of {found.name!r}"
        )
    return found

"""A standalone run: one workflow on one device, from its definition to its result."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec

from veloflow.core import (
    CheckpointWanted,
    EpochDone,
    Events,
    Farm,
    Journal,
    Message,
    Outcome,
    Settings,
    Unit,
    Workflow,
)
from veloflow.core.checks import control_order, round_of
from veloflow.devices import Array, Device
from veloflow.devices.memory import Memory
from veloflow.devices.parameters import Parameters
from veloflow.errors import CheckpointError, Interrupted, NumericsError
from veloflow.runtime.interruption import Interruption
from veloflow.runtime.liveness import spans_in
from veloflow.runtime.options import convert_options, options_of
from veloflow.runtime.result import Result
from veloflow.runtime.storage.checkpoint import Checkpoint
from veloflow.sharing.codecs import parse_codec
from veloflow.sharing.policies import sharing_text

if TYPE_CHECKING:
    from types import TracebackType

    from veloflow.runtime.definition import Definition
    from veloflow.runtime.farms.farm import PieceFarm
    from veloflow.runtime.master.crew import Crew
    from veloflow.runtime.storage.store import CheckpointStore
    from veloflow.sharing.policies import Policy

__all__ = ["Session", "build_workflow"]

#: where a checkpoint keeps the state of the sharing, among those of units; no unit has this name
_SHARING = "|sharing"


def build_workflow(
    definition: Definition, given: Mapping[str, object]
) -> tuple[Workflow, dict[str, object]]:
    """Build a definition's workflow; return it and all its options with their values.

    Raises:
        OptionError: an option is unknown, badly typed or missing.
        DefinitionError: the definition itself fails.
        GraphError: it links what cannot be linked.
    """
    options = convert_options(options_of(definition), given)
    workflow = Workflow(name=definition.name)
    workflow.provide(Events, Events())
    definition.build_into(workflow, options)
    return workflow, options


class Session:
    """A workflow, the device and the services that it runs with. Use it as a context manager.

    Args:
        definition: what to run.
        given: values of its options, as texts or Python values.
        device: where to run; it stays open when the session closes.
        settings: seed, dtype, testing.
        reuse_memory: whether arrays that are never alive together share memory.
    """

    def __init__(
        self,
        definition: Definition,
        given: Mapping[str, object],
        device: Device,
        settings: Settings,
        *,
        reuse_memory: bool = True,
    ) -> None:
        self.definition = definition
        self.device = device
        self.settings = settings
        self.workflow, self.options = build_workflow(definition, given)
        self.workflow.clock = time.perf_counter_ns
        self.workflow.role = settings.role
        self.events = self.workflow.find_service(Events)
        device.precision_level = settings.precision_level
        device.has_one_thread = settings.role == "slave"  # or of the kind that stands in for one
        self.memory = Memory(device)
        # factors are read after the backward pass, when other arrays might have their memory
        if reuse_memory and not parse_codec(settings.codec).needs_factors:
            self.memory.find_spans = spans_in(self.workflow)
        self.parameters = Parameters(device, settings.dtype)
        for kind, service in ((Device, device), (Settings, settings)):
            self.workflow.provide(kind, service)
        self.workflow.provide(Memory, self.memory).provide(Parameters, self.parameters)
        self.workflow.add_allocator(self.memory.allocate).add_allocator(self.parameters.allocate)
        self.workflow.provide(Journal, Journal())
        self.store: CheckpointStore | None = None
        self.sharing: Policy | None = None
        self.farm: PieceFarm | None = None
        self._interruption: Interruption | None = None
        self._is_finished = False
        self._is_restored = False
        self._is_improved = False
        self._reason = ""
        self._seconds_before = 0.0
        self._unit_seconds_before: Mapping[str, float] = {}
        self._started: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.workflow.close()

    # -- the run ------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Check the graph, initialize all units, give them memory.

        Raises:
            GraphError: the graph is wrong.
            InputError: a unit was given something wrong, such as a missing data file.
        """
        self.workflow.set_up()

    @property
    def is_stopping(self) -> bool:
        """Whether the user has asked for the end."""
        return self._interruption is not None and self._interruption.is_stopping

    def employ(self, crew: Crew, sharing: Policy, codec: str | None = None) -> None:
        """Have ``crew`` compute what is a slave's part; the session is a master's, set up.

        Args:
            crew: who computes.
            sharing: the mode.
            codec: the one that the user has asked for; None where the mode may pick one.
        """
        from veloflow.runtime.farms.choice import make_farm  # slaves have none, nor lone runs

        self.sharing = sharing
        self.farm = make_farm(sharing, self.workflow, self.parameters, crew, codec)
        self.farm.label = sharing_text(sharing)
        self.workflow.provide(Farm, self.farm)

    def run(self, *, checkpoint_every: float = 60.0) -> Result:
        """Run to the end.

        Args:
            checkpoint_every: seconds between checkpoints, when there is a store.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint has been written if there is a store.
            UnitError: a unit raised.
            NumericsError: NaN or infinity; names the first unit that had it.
            StorageError: a checkpoint could not be written.
        """
        if not self._is_finished:
            self._started = time.perf_counter()
            with Interruption(self._wish, checkpoint_every if self.store else None) as interruption:
                self._follow(interruption)
        return self._result()

    def _follow(self, interruption: Interruption) -> None:
        flow = self.workflow.flow
        self._interruption = interruption
        if not self._is_restored:
            flow.start()
        if self.store is not None:
            if not self.store.has_any:  # so that a run that is killed early can be resumed too
                self._save("started")
            self.events.subscribe(EpochDone, self._on_epoch)
            self.events.subscribe(CheckpointWanted, lambda event: self._wish(event.reason))
        while self._step() is Outcome.PAUSED:
            if self.farm is not None and not self.farm.is_whole:
                continue
            reason, self._reason = self._reason, ""
            self._save(reason or "interval", is_best=self._is_improved)
            self._is_improved = False
            if interruption.is_stopping:
                raise Interrupted(self._farewell())
        self._is_finished = True
        # the last epoch may have been the best, and the end was reached before the next boundary
        self._save("finished", is_best=self._is_improved)
        if self.store is not None and self.store.history is not None:
            self.store.history.clear()

    def _step(self) -> Outcome:
        try:
            if self.farm is not None and not self.farm.is_whole:
                return self.workflow.flow.run_round()  # it can only be cut when that is over
            return self.workflow.flow.run()
        except NumericsError as error:
            raise NumericsError(f"{error}; {self._first_not_finite()}") from error

    def _on_epoch(self, event: EpochDone) -> None:
        if event.improved:
            self._is_improved = True
            self._wish("improved")

    def _wish(self, reason: str) -> None:
        """Ask for a checkpoint, or for the end, as soon as the run can be cut."""
        if reason == "interrupted" or not self._reason:
            self._reason = reason
        self.workflow.flow.request_pause()

    def _save(self, reason: str, *, is_best: bool = False) -> None:
        if self.store is not None:
            issued = 0 if self.farm is None else self.farm.issued
            self.store.save(self.checkpoint(reason), is_best=is_best, issued=issued)

    def _farewell(self) -> str:
        if self.store is None:
            return "interrupted; nothing was saved, for no --checkpoint folder was given"
        return f"interrupted; checkpoint in {self.store.folder.as_posix()}, go on with --resume"

    def _first_not_finite(self) -> str:
        for unit in control_order(self.workflow):
            check = getattr(unit, "check_finite", None)
            found = check() if callable(check) else None
            if found:
                return f"the first unit with NaN or infinity is {unit.path!r}: {found}"
        return "no unit's parameters or output hold NaN or infinity now"

    # -- result and state ---------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        now = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds_before + now

    def _unit_seconds(self) -> dict[str, float]:
        before = self._unit_seconds_before
        return {
            path: spent.seconds + before.get(path, 0.0)
            for path, spent in self.workflow.times().items()
        }

    def _sharing_text(self) -> str | None:
        return None if self.sharing is None else sharing_text(self.sharing)

    def json_options(self) -> dict[str, Any]:
        """Return the options with their values, as JSON values."""
        options: dict[str, Any] = msgspec.to_builtins(self.options, enc_hook=str)
        return options

    def _result(self) -> Result:
        found: dict[str, Any] = dict(self.workflow.results())
        if self.farm is not None:
            found.update(
                {
                    "sharing": self._sharing_text(),
                    "codec": self.settings.codec,
                    **self.farm.results(),
                    **self.farm.crew.results(),
                }
            )
        return Result(
            workflow=self.definition.name,
            options=self.json_options(),
            seed=self.settings.seed,
            device=self.device.name if self.farm is None else self.farm.crew.device,
            epochs=found.pop("epochs", []),
            best=found.pop("best", {}),
            unit_seconds=self._unit_seconds(),
            seconds=self.seconds,
            parameters_sha256=self.parameters.sha256(),
            more={**found, "memory": self.memory_used()},
            graph=self.workflow,
        )

    def checkpoint(self, reason: str) -> Checkpoint:
        """Return the state of the run; meaningful when it is paused or finished."""
        states = {unit.path: dict(unit.state()) for unit in self.workflow.all_units()}
        if self.farm is not None:
            states[_SHARING] = dict(self.farm.state())
        return Checkpoint(
            workflow=self.definition.name,
            options=self.json_options(),
            settings={
                "seed": self.settings.seed,
                "dtype": self.settings.dtype,
                "sharing": self._sharing_text(),
                "codec": self.settings.codec,
            },
            flow=self.workflow.flow.state(),
            units={path: state for path, state in states.items() if state},
            parameters=self.parameters.save(),
            seconds=self.seconds,
            unit_seconds=self._unit_seconds(),
            reason=reason,
        )

    def memory_used(self) -> dict[str, int]:
        """Return bytes: of declared arrays, of parameters with all beside them, of the process."""
        parameters = self.parameters
        flat = 2 + len({name for one in parameters for name in one.slots})
        # kibibytes, but on macOS, which counts bytes
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "arrays": self.memory.nbytes,
            "saved_by_sharing": self.memory.saved,
            "parameters": flat * parameters.values.nbytes,
            "peak_of_process": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }

    def describe_memory(self) -> list[dict[str, Any]]:
        """Return the declared arrays in the order of control, and which share memory."""
        units = {unit.path: unit for unit in control_order(self.workflow)}
        places = {unit.path: place for place, unit in enumerate(round_of(self.workflow))}
        shared = {
            one: (number, span)
            for number, slot in enumerate(self.memory.slots, 1)
            for one, span in slot.members
        }
        order = {path: number for number, path in enumerate(units)}
        declared = sorted(self.memory.declared, key=lambda one: order.get(one.owner, len(order)))
        by_place = {place: path for path, place in places.items()}
        return [
            {
                "unit": one.owner,
                "array": _name_in(units.get(one.owner), one.array),
                "shape": list(one.array.shape),
                "dtype": str(one.array.dtype),
                "bytes": one.array.nbytes,
                "shares": shared[one][0] if one in shared else None,
                "until": by_place[shared[one][1][1]] if one in shared else None,
            }
            for one in declared
        ]

    def describe_units(self) -> list[dict[str, Any]]:
        """Return what each unit has, in the order of control: shapes, parameters, memory."""
        memory = self.memory.bytes_by_owner()
        described = []
        for unit in control_order(self.workflow):
            output = getattr(unit, "output", None)
            own = [one for one in self.parameters if one.name.startswith(f"{unit.path}/")]
            described.append(
                {
                    "unit": unit.path,
                    "class": type(unit).__name__,
                    "group": unit.group,
                    "output": list(output.shape) if isinstance(output, Array) else None,
                    "parameters": sum(one.value.size for one in own),
                    "bytes": memory.get(unit.path, 0),
                }
            )
        return described

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go to the state of ``checkpoint``; call it after :meth:`set_up`.

        Raises:
            CheckpointError: it is of another workflow, or of other sizes.
        """
        if checkpoint.workflow != self.definition.name:
            raise CheckpointError(
                f"the checkpoint is of workflow {checkpoint.workflow!r}, "
                f"not of {self.definition.name!r}"
            )
        self.parameters.load(checkpoint.parameters, partial=self.settings.testing)
        here = {unit.path: unit for unit in self.workflow.all_units()}
        for path, state in checkpoint.units.items():
            if path == _SHARING:
                if self.farm is not None and not self.settings.testing:
                    self.farm.restore(state)
                continue
            if path not in here:
                raise CheckpointError(f"the checkpoint names a unit {path!r} that is not here")
            here[path].restore(state)
        if self.settings.testing:
            return
        self._seconds_before = checkpoint.seconds
        self._unit_seconds_before = checkpoint.unit_seconds
        if checkpoint.reason == "finished" and not self.workflow.end.gate_block:
            self._is_finished = True
            self.events.publish(Message("the run of this checkpoint is complete already"))
        elif checkpoint.flow["queue"]:
            self.workflow.flow.restore(checkpoint.flow)
            self._is_restored = True


def _name_in(unit: Unit | None, array: Array) -> str:
    """Return the attribute under which a unit keeps an array, without the mark of private ones."""
    names = [name for name, value in vars(unit).items() if value is array] if unit else []
    return names[0].lstrip("_") if names else ""

"""The farm of ``--sharing auto``: it measures, lets the model choose, and changes farms.

A thin shell: what to take is decided in :mod:`veloflow.sharing.auto_model`, when to give it up in
:mod:`veloflow.sharing.auto_guard`. The run begins as sync. A change is made when nothing is under
way: after the untrained network was evaluated, if that tells enough; after the first steps; and
between epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from veloflow.core import Batch, BatchSource, EpochDone, Message, Payload, Settings, Unit
from veloflow.errors import CheckpointError
from veloflow.runtime.farms.farm import PieceFarm, SyncFarm
from veloflow.runtime.farms.handover import Handover, Leftover
from veloflow.runtime.farms.local import LocalFarm
from veloflow.runtime.jobs.inspection import TRAIN, VALIDATION
from veloflow.runtime.slaves.job_form import JobForm
from veloflow.runtime.transport.found_vector import found_vector_of
from veloflow.sharing.auto_edge import Edge
from veloflow.sharing.auto_guard import Guard
from veloflow.sharing.auto_measure import Measured
from veloflow.sharing.auto_model import CODECS, Choice, choose
from veloflow.sharing.policies import (
    Auto,
    LocalPolicy,
    Policy,
    Sync,
    parse_sharing,
    sharing_text,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew

__all__ = ["AutoFarm"]

#: another mode must be predicted to be so much cheaper than the present one to be taken instead
_CHANGE = 0.85
#: so many minibatches after the start training has only just begun
_EARLY = 20
#: a sample of training takes so many times as long as one of validation: at least, at most, and
#: what is reckoned with, for the way back is about twice as long as the way there
_WAY_BACK = (1.0, 4.0, 2.0)
#: so many steps of sync tell how near a run is to the edge, or nothing does; they are worth it
#: where a mode with stale gradients would be taken if κ were this
_TELLING, _HOPED = 4, 0.04


class AutoFarm(PieceFarm):
    """A farm that is another farm, and which one may change.

    Args:
        workflow, parameters, crew: see :class:`PieceFarm`.
        policy: the user's wishes.
        codec: the codec that the user wants; None lets the model pick.
        make: makes the farm of a mode.
    """

    def __init__(
        self,
        workflow: Workflow,
        parameters: Parameters,
        crew: Crew,
        policy: Auto,
        codec: str | None,
        make: Callable[[Policy], PieceFarm],
    ) -> None:
        super().__init__(workflow, parameters, crew)
        self._policy, self._codec, self._make = policy, codec, make
        self._settings = workflow.find_service(Settings)
        self._events.subscribe(EpochDone, self._on_epoch)
        self._reporting = [
            unit
            for unit in workflow.all_units()
            if type(unit).make_update is not Unit.make_update
            and {"loss", "samples"} <= unit.make_update().keys()
        ]
        self._guard = Guard()
        self._edge = Edge()
        self._step: tuple[NDArray[Any], NDArray[Any], float] | None = None  # that is to be taken
        self._mode: Policy = Sync()
        self._code = codec or "plain"
        crew.adopt(self._mode, self._code)  # slaves of an earlier master may have another form
        self._inner: PieceFarm = SyncFarm(workflow, parameters, crew, 0, ahead=False)
        self._inner.label = "auto: measuring"
        self._is_measuring, self._is_epoch_over = True, False
        self._source = _Counted()
        #: the best parameters, to go back to where the loss rises
        self._before: tuple[NDArray[np.floating], Leftover] | None = None
        self._handover = Handover(parameters, crew)
        self._choices: list[dict[str, Any]] = []

    # -- what a farm does ---------------------------------------------------------------------

    @property
    def has_moved(self) -> bool:  # type: ignore[override]
        """Whether slaves have moved the parameters by the present minibatch already."""
        return self._inner.has_moved

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        """Whether slaves take steps of their own."""
        return self._inner.is_local

    @property
    def issued(self) -> int:
        """How many pieces there were so far."""
        return self._inner.issued

    @property
    def is_whole(self) -> bool:
        """Whether the parameters are those after the minibatches served."""
        return self._inner.is_whole

    def take_turn(self, source: BatchSource) -> None:
        """Change the farm if it is time to; let it take the turn."""
        if self._step is not None:
            before, gradient, loss = self._step
            self._edge.step(gradient, self._parameters.values.read() - before, loss)
            self._step = None
        if self._inner.is_idle:
            self._look(source)
        self._source.begin(source)
        self._inner.take_turn(self._source)

    def collect(self) -> None:
        """Let the farm collect; see what became of the loss."""
        self._inner.collect()
        takes_step = self._source.kind == TRAIN and not (self.has_moved or self.is_local)
        if takes_step:
            self._handover.settle()
        if self._source.kind == TRAIN and self._reporting:
            samples = sum(getattr(unit, "samples", 0) for unit in self._reporting)
            loss = sum(float(getattr(unit, "loss", 0.0)) for unit in self._reporting)
            loss /= max(samples, 1)
            if takes_step and self._mode.name == "sync" and self._source.trained <= _TELLING:
                vectors = self._parameters.values, self._parameters.gradients
                before, gradient = (np.array(one.read()) for one in vectors)
                self._step = before, gradient, loss
            self._guard.trained(loss)
            if self._guard.has_tripped:
                self._inner.is_draining = True

    def map(self, unit: Unit, payloads: Sequence[Payload]) -> Iterator[tuple[int, Payload]]:
        """Have payloads worked on."""
        return self._inner.map(unit, payloads)

    # -- measuring ----------------------------------------------------------------------------

    def _on_epoch(self, event: EpochDone) -> None:
        entry: Any = event.record.get("validation") or event.record.get("train") or {}
        self._is_epoch_over = True
        if entry.get("samples"):
            self._guard.evaluated(float(entry["loss"]))

    def _measured(self, source: BatchSource, sample: float = 0.0) -> Measured:
        """Return what is known of the run; a sample of training may take what is guessed."""
        slaves = self.crew.slaves
        latency, bandwidth = self._inner.gauge.wire()
        late, factor = self._inner.gauge.lateness()
        ratios, packing = self._codecs()
        lengths: Sequence[int] = getattr(source, "class_lengths", ())
        size = source.max_minibatch_size
        return Measured(
            sample=sample or self._inner.gauge.sample(),
            speeds=self._inner.gauge.speeds(slaves),
            latency=latency,
            bandwidth=bandwidth,
            size=self._parameters.values.nbytes,
            state=self._parameters.read_all().nbytes,
            minibatch=size,
            late=late,
            factor=factor,
            minibatches=-(-lengths[TRAIN] // size) if len(lengths) > TRAIN else 0,
            ratios=ratios,
            packing=packing,
            edge=self._guard.edge(self._edge.kappa),
        )

    def _codecs(self) -> tuple[dict[str, float], dict[str, float]]:
        """Try the codecs on the last gradient: bytes, and seconds to pack and unpack."""
        is_there = self._source.trained > 0
        one_vector = self._parameters.gradients if is_there else self._parameters.values
        gradient = np.array(one_vector.read())
        ratios: dict[str, float] = {}
        packing: dict[str, float] = {}
        for name in [self._codec] if self._codec else CODECS:
            settings = JobForm(codec=name).into(self._settings)
            way = found_vector_of(self._parameters, settings)
            if way.is_plain or way.needs_factors:
                continue
            began = time.perf_counter()
            headers, arrays = way.write(gradient)
            way.read(None, headers, [one.data for one in arrays])
            packing[name] = 0.0 if self.crew.is_simulated else time.perf_counter() - began
            ratios[name] = sum(one.nbytes for one in arrays) / max(gradient.nbytes, 1)
        return ratios, packing

    # -- choosing -----------------------------------------------------------------------------

    def _look(self, source: BatchSource) -> None:
        """See whether it is time to choose; nothing is under way."""
        if self._guard.has_tripped:
            self._choose(source, self._undo())
        elif self._is_measuring and not self._source.trained:
            if self._is_epoch_over:
                self._choose_early(source)
        elif self._is_measuring and self._inner.gauge.is_enough(self.crew.slaves):
            self._choose(source)
        elif self._is_epoch_over and not self._is_measuring:
            if isinstance(self._mode, LocalPolicy | Sync):
                self._before = None  # it has lasted for an epoch
            elif self._guard.is_best:
                self._before = self._parameters.read_all(), self._left_out()
            self._choose(source)
        self._is_epoch_over = False

    def _choice(self, measured: Measured) -> Choice:
        is_known = self._edge.kappa is not None or measured.edge is not None
        return choose(
            measured,
            margin=self._policy.margin,
            codecs=self._policy.lossy,
            codec=self._codec,
            stale=self._policy.stale and is_known,
            barred=self._guard.barred,
        )

    @property
    def _may_tell(self) -> bool:
        """Whether more steps of sync would tell how near the edge is."""
        is_early = self._is_measuring and self._source.trained < _TELLING
        return is_early and self._edge.kappa is None

    def _choose_early(self, source: BatchSource) -> None:
        """Begin with stretches where steps of sync would cost too much even to measure them.

        The untrained network was evaluated, so the wire is known, and what the way there takes.
        """
        gauge = self._inner.gauge
        pace = gauge.sample(VALIDATION)
        if not pace or not gauge.knows(self.crew.slaves):
            return
        measured = [self._measured(source, times * pace) for times in _WAY_BACK]
        hoped = [self._choice(replace(one, edge=_HOPED)).taken.sharing for one in measured]
        if all(isinstance(parse_sharing(one), LocalPolicy) for one in hoped):
            self._take(self._choice(measured[-1]))

    def _choose(self, source: BatchSource, left: Leftover | None = None) -> None:
        """Take what the model says.

        Args:
            source: of minibatches.
            left: what was left out before a trial that is undone.
        """
        measured = self._measured(source)
        choice = self._choice(measured)
        taken = choice.taken
        if self._may_tell:
            hoped = replace(measured, edge=_HOPED)
            if self._choice(hoped).taken.is_stale:
                return  # another step of sync tells whether it is to be hoped for
        present = next(
            (
                one
                for one in choice.others
                if one.codec == self._code and parse_sharing(one.sharing) == self._mode
            ),
            None,
        )
        is_settled = not self._is_measuring and not self._inner.is_draining
        if is_settled and present is not None and taken.cost > _CHANGE * present.cost:
            return
        self._take(choice, left)

    def _take(self, choice: Choice, left: Leftover | None = None) -> None:
        """Take what was chosen, and say so."""
        taken = choice.taken
        self._is_measuring = False
        self._tell(choice)
        self._change(parse_sharing(taken.sharing), taken.codec, left, is_trial=taken.is_stale)

    def _tell(self, choice: Choice) -> None:
        taken = choice.taken
        self._events.publish(Message(choice.reason))
        self._choices.append(
            {
                "minibatch": self._source.trained,
                "sharing": taken.sharing,
                "codec": taken.codec,
                "seconds_a_minibatch": taken.seconds,
                "worth": taken.worth,
                "reason": choice.reason,
            }
        )

    def _change(
        self, mode: Policy, codec: str, left: Leftover | None = None, *, is_trial: bool
    ) -> None:
        """Let another farm go on."""
        old = self._inner
        steps = old.steps if isinstance(old, LocalFarm) else self._source.trained
        left = left or self._left_out()
        self._before = (self._parameters.read_all(), left) if is_trial else None
        is_first = self._source.trained <= _EARLY
        self._guard.begin(mode.name, is_trial=is_trial, is_first=is_first)
        if (mode, codec) != (self._mode, self._code):
            self.crew.adopt(mode, codec)
            to_local = isinstance(mode, LocalPolicy)
            self._handover.pass_on(left, to_local=to_local, codec=codec)
        self._mode, self._code = mode, codec
        self._inner = self._make(mode)
        self._inner.follow(old, steps, self._source.trained)
        self._inner.label = f"auto: {sharing_text(mode)}" + (f", {codec}" * (codec != "plain"))

    def _left_out(self) -> Leftover:
        return Leftover(self._inner.is_local, self.crew.left_out())

    def _undo(self) -> Leftover | None:
        """Go back to the parameters from before a trial; return what was left out by then."""
        name = self._guard.bar()
        text, left = f"auto gives {name} up: the loss rose", None
        if self._before is not None:
            values, left = self._before
            self._parameters.write_all(values)
            text += "; the parameters are those from before it rose"
        self._events.publish(Message(text))
        return left

    # -- results and checkpoints --------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Return what was chosen and why, and what the present farm says."""
        chosen = {"sharing": sharing_text(self._mode), "codec": self._code}
        return {**self._inner.results(), "auto": {**chosen, "choices": list(self._choices)}}

    def state(self) -> Mapping[str, object]:
        """Return the mode, and what the farm of it keeps."""
        return {
            **self._inner.state(),
            **self._handover.state(),
            "auto": [sharing_text(self._mode), self._code, self._is_measuring],
            "auto_trained": self._source.trained,
            "auto_barred": sorted(self._guard.barred),
            "auto_edge": self._edge.kappa,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on with the mode of a checkpoint.

        Raises:
            CheckpointError: the checkpoint does not say which.
        """
        saved: dict[str, Any] = dict(state)
        try:
            mode, codec, is_measuring = saved.pop("auto")
            self._source.trained = int(saved.pop("auto_trained"))
            barred = saved.pop("auto_barred")
            self._edge = Edge(saved.pop("auto_edge", None))
        except (KeyError, ValueError, TypeError):
            raise CheckpointError("the checkpoint does not say what auto had chosen") from None
        self._guard.barred = frozenset(barred)
        self._is_measuring = bool(is_measuring)
        if not self._is_measuring:
            self._change(parse_sharing(mode), codec, is_trial=False)
        self._handover.restore(saved)
        self._inner.restore(saved)


class _Counted(BatchSource):
    """A source that notes what it serves, and counts minibatches of training."""

    def __init__(self) -> None:
        self.trained = 0
        self.kind = -1
        self._source: BatchSource

    def begin(self, source: BatchSource) -> None:
        """Be this source."""
        self._source = source
        self.max_minibatch_size = source.max_minibatch_size

    def issue(self) -> Batch:
        """Return the next minibatch."""
        return self._source.issue()

    def serve(self, batch: Batch) -> None:
        """Let this minibatch be the present one."""
        self.kind = batch.kind
        self.trained += batch.kind == TRAIN
        self._source.serve(batch)

    @property
    def has_more_of_kind(self) -> bool:
        """Whether there is another one of the kind of those outstanding."""
        return self._source.has_more_of_kind

"""A unit: one step of a workflow, with control links, gates and declared data inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from veloflow.core.bools import Bool
from veloflow.core.inputs import DataLink, Dims, Input
from veloflow.errors import ControlError, LinkError, nearest

if TYPE_CHECKING:
    from veloflow.core.farming import Part, Payload
    from veloflow.core.workflow import Workflow

__all__ = ["Progress", "Unit"]

S = TypeVar("S")
U = TypeVar("U", bound="Unit")


@dataclass(frozen=True)
class Progress:
    """How far a unit is with its long work, for whoever watches."""

    text: str
    done: int
    total: int


class Unit(ABC):
    """A step of a workflow. An outline: subclasses fill in :meth:`run` and what they need.

    The life of a unit: it is made and linked in a definition; :meth:`initialize` is called once,
    after the units that its data comes from, and declares arrays and parameters; memory is
    allocated; :meth:`prepare` binds the device operations; :meth:`run` is called for every signal
    that passes its gates; :meth:`close` is called once at the end, whatever happened.

    Args:
        workflow: the workflow that the unit becomes part of.
        name: unique in the workflow; by default the class's name, numbered from the second on.
            Names are identities: checkpoints and random numbers go by them.
    """

    #: the kind of unit, which gives its colour in the drawn graph
    group: ClassVar[str] = "service"
    #: run on any incoming signal instead of waiting for all of them
    ignores_gate: bool = False
    #: whether a run may be paused, and a checkpoint taken, just before this unit
    is_boundary: ClassVar[bool] = False

    def __init__(self, workflow: Workflow, *, name: str | None = None) -> None:
        self.data_links: dict[str, DataLink] = {}
        self.dims: Dims = {}
        self._gate_block = self._open_block = Bool()
        self._gate_skip = self._open_skip = Bool()
        self._workflow: Workflow | None = None
        self.name = name or type(self).__name__
        workflow.add(self, exact=name is not None)

    @property
    def is_steady(self) -> bool:
        """Whether running it on a master changes no rates, parameters or gates within a class.

        Only where all units are steady may slaves compute minibatches ahead of the master. A
        :class:`~veloflow.core.Mover` is steady if moving parameters is all that it does.
        """
        return False

    # -- what subclasses fill in --------------------------------------------------------------

    def initialize(self) -> None:  # noqa: B027 - most units need not
        """Check inputs, declare outputs and parameters. The data sources are initialized."""

    def prepare(self) -> None:  # noqa: B027
        """Bind device operations; all declared arrays have their memory now."""

    @abstractmethod
    def run(self) -> None:
        """Do the unit's work once."""

    def run_as_master(self) -> None:
        """Do the master's part of the work. By default that is all of it: slaves only compute."""
        self.run()

    def run_as_slave(self) -> None:  # noqa: B027
        """Do a slave's part of the work; by default nothing."""

    def go_to(self, steps: int, minibatches: int) -> None:  # noqa: B027
        """Be where training is, if slaves take steps of their own and this unit counts them.

        A slave calls it before each minibatch, the master after each exchange.

        Args:
            steps: how many steps led to the parameters that are moved next.
            minibatches: how many TRAIN minibatches of the run come before the next one.
        """

    def make_job(self, part: Part) -> Payload:
        """On the master: return what the twin on a slave must know to work on ``part``."""
        return {}

    def take_job(self, payload: Payload) -> None:  # noqa: B027
        """On a slave: take what :meth:`make_job` gave; :meth:`run_as_slave` comes next."""

    def make_update(self) -> Payload:
        """On a slave: return what the master must know of the work just done."""
        return {}

    def apply_update(self, updates: Sequence[Payload]) -> None:  # noqa: B027
        """On the master: take what the twins said of all parts of a minibatch, in order."""

    def close(self) -> None:  # noqa: B027
        """Release threads, files and the like."""

    def state(self) -> Mapping[str, object]:
        """Return what a checkpoint must keep besides parameters: JSON values and NumPy arrays."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take back what :meth:`state` gave; called after :meth:`prepare`."""
        if state:
            raise TypeError(f"{type(self).__name__} keeps no state")

    def results(self) -> Mapping[str, object]:
        """Return what the unit adds to the run's result, as JSON values."""
        return {}

    def progress(self) -> Progress | None:
        """Tell how far the unit is; called from another thread, so only read."""
        return None

    # -- identity -----------------------------------------------------------------------------

    @property
    def workflow(self) -> Workflow:
        """The workflow that the unit is part of."""
        if self._workflow is None:
            raise ControlError(f"unit {self.name!r} is not part of a workflow any more")
        return self._workflow

    @property
    def path(self) -> str:
        """The unit's name with those of the nested workflows around it: ``inner/unit``."""
        workflow = self._workflow
        if workflow is None or workflow.is_root:
            return self.name
        return f"{workflow.path}/{self.name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}>"

    def service(self, kind: type[S]) -> S:
        """Return the workflow's service of this type, such as the device or the settings."""
        return self.workflow.find_service(kind)

    # -- control links ------------------------------------------------------------------------

    def __rshift__(self, other: U) -> U:
        """Link ``self`` to ``other`` by control, and return ``other`` so that links chain."""
        other.link_from(self)
        return other

    def link_from(self, *units: Unit) -> Self:
        """Let this unit run after ``units`` (after all of them, unless it ignores its gate)."""
        for unit in units:
            self.workflow.link(unit, self)
        return self

    def unlink_from(self, *units: Unit) -> Self:
        """Remove the control links from ``units`` to this one."""
        for unit in units:
            self.workflow.unlink(unit, self)
        return self

    def unlink_before(self) -> Self:
        """Remove all incoming control links."""
        return self.unlink_from(*self.workflow.predecessors(self))

    def unlink_after(self) -> Self:
        """Remove all outgoing control links."""
        for unit in self.workflow.successors(self):
            unit.unlink_from(self)
        return self

    def unlink_all(self) -> Self:
        """Remove all control links of this unit."""
        return self.unlink_before().unlink_after()

    def insert_after(self, unit: Unit) -> Self:
        """Put this unit between ``unit`` and everything that runs after it."""
        self.workflow.insert(self, after=unit)
        return self

    # -- gates --------------------------------------------------------------------------------

    @property
    def gate_block(self) -> Bool:
        """While true, an incoming signal stops here: the unit neither runs nor passes it on."""
        return self._gate_block

    @gate_block.setter
    def gate_block(self, gate: Bool | bool) -> None:
        self._gate_block = gate if isinstance(gate, Bool) else Bool(gate)
        self.workflow.changed()

    @property
    def gate_skip(self) -> Bool:
        """While true, an incoming signal is passed on without running the unit."""
        return self._gate_skip

    @gate_skip.setter
    def gate_skip(self, gate: Bool | bool) -> None:
        self._gate_skip = gate if isinstance(gate, Bool) else Bool(gate)
        self.workflow.changed()

    def runs_after(self, other: Unit) -> bool:
        """Whether this unit runs, by its gates, on every signal on which ``other`` has run.

        That is so where a gate of it is the same as the other's, or was never set.
        """
        is_open = self._gate_block is self._open_block or self._gate_block is other._gate_block
        return is_open and self.is_skipped_with(other)

    def is_skipped_with(self, other: Unit) -> bool:
        """Whether ``other`` is skipped, by its gate, on every signal on which this unit is."""
        return self._gate_skip is self._open_skip or self._gate_skip is other._gate_skip

    # -- data links ---------------------------------------------------------------------------

    @classmethod
    def inputs(cls) -> Mapping[str, Input[object]]:
        """Return the declared inputs by name."""
        return _inputs_of(cls)

    @classmethod
    def accepts_input(cls, name: str) -> bool:
        """Return whether :meth:`link_data` may link ``name``."""
        return any(declared.accepts(name) for declared in cls.inputs().values())

    def has_input(self, name: str) -> bool:
        """Return whether the input is linked."""
        return name in self.data_links

    def link_data(self, source: Unit, *same: str, **renamed: str) -> Self:
        """Link inputs of this unit to attributes of ``source``; ``mine="theirs"`` renames.

        Raises:
            LinkError: the unit declares no such input.
        """
        for mine, theirs in [*((name, name) for name in same), *renamed.items()]:
            if not self.accepts_input(mine):
                known = ", ".join(self.inputs()) or "none"
                raise LinkError(
                    f"unit {self.path!r} ({type(self).__name__}) has no input {mine!r}"
                    f"{nearest(mine, self.inputs())}; its inputs: {known}"
                )
            self.data_links[mine] = DataLink(source, theirs)
        self.workflow.changed()
        return self


@cache
def _inputs_of(kind: type[Unit]) -> Mapping[str, Input[object]]:
    found: dict[str, Input[object]] = {}
    for base in reversed(kind.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Input):
                found[name] = value
            else:
                found.pop(name, None)
    return found

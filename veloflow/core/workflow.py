"""A workflow: a container of units and their links, itself a unit, so that workflows nest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias, TypeVar, cast

import networkx as nx

from veloflow.core.checks import check_control, initialization_order, listed
from veloflow.core.flow import Flow, Outcome, UnitTime
from veloflow.core.inputs import DataLink, check_inputs
from veloflow.core.plumbing import EndPoint, StartPoint
from veloflow.core.unit import Unit
from veloflow.errors import ControlError, GraphError, LinkError, UnitError, VeloflowError, nearest

if TYPE_CHECKING:
    from veloflow.core.settings import Role

__all__ = ["Tracer", "Workflow"]

S = TypeVar("S")

#: given a unit and what a signal makes it do, returns what does that and keeps a record of it
Tracer: TypeAlias = Callable[[Unit, Callable[[], None]], Callable[[], None]]


def _no_clock() -> int:
    return 0


class Workflow(Unit):
    """Units wired by control and data links.

    A root workflow is made with ``Workflow()``; a nested one with ``Workflow(outer)``. Index it by
    name (``wf["Decision"]``), iterate over its units.

    Args:
        workflow: the workflow around this one; None makes a root.
        name: the name; a root is called by its definition.
    """

    group: ClassVar[str] = "workflow"
    #: returns a workflow as SVG; core does not know how, so whoever does sets it
    _drawer: ClassVar[Callable[[Workflow], str] | None] = None

    def __init__(self, workflow: Workflow | None = None, *, name: str | None = None) -> None:
        self.graph: nx.DiGraph[Unit] = nx.DiGraph()  # type: ignore[explicit-any]  # its stubs
        self._units: dict[str, Unit] = {}
        self._numbers: dict[str, int] = {}
        self._services: dict[type[object], object] = {}
        self._flow: Flow | None = None
        self.clock: Callable[[], int] = _no_clock
        self.role: Role = "alone"  # of a root
        self.tracer: Tracer | None = None  # of a root; set it before the flow is made
        self._allocators: list[Callable[[], None]] = []
        self._is_prepared = False
        self._came: list[Unit] = []  # since then, and not initialized yet
        self._left: list[Unit] = []  # since then, and not closed yet
        if workflow is None:
            self.data_links: dict[str, DataLink] = {}
            self.dims = {}
            self._workflow = None
            self.name = name or "workflow"
        else:
            super().__init__(workflow, name=name)
        self.start = StartPoint(self, name="start")
        self.end = EndPoint(self, name="end")

    def _repr_svg_(self) -> str | None:
        """Return the drawing that notebooks show, if anybody here can draw."""
        drawer = Workflow._drawer
        return None if drawer is None else drawer(self)

    # -- units --------------------------------------------------------------------------------

    @property
    def is_root(self) -> bool:
        """Whether no workflow is around this one."""
        return self._workflow is None

    @property
    def root(self) -> Workflow:
        """The outermost of the workflows around this one, or this one itself."""
        return cast("Workflow", _outermost(self))

    def add(self, unit: Unit, *, exact: bool) -> None:
        """Take ``unit`` in under its name, numbered when taken unless the name is ``exact``."""
        name = unit.name
        if "/" in name:
            raise GraphError(f"a unit cannot be named {name!r}: '/' stands between nested names")
        while unit.name in self._units:
            if exact:
                raise GraphError(
                    f"workflow {self.path!r} has a unit named {name!r} already; give another name"
                )
            self._numbers[name] = number = self._numbers.get(name, 1) + 1
            unit.name = f"{name}_{number}"
        unit._workflow = self
        self._units[unit.name] = unit
        self.graph.add_node(unit)
        if self._is_prepared:
            self._came.append(unit)
        self.changed()

    def remove(self, unit: Unit) -> None:
        """Take ``unit`` out, with its control links.

        Raises:
            LinkError: another unit is linked to its data.
            ControlError: it is the start, the end, or no unit of this workflow.
        """
        self._require_leaving(unit)
        readers = [reader.path for reader, _, _ in self._readers(unit)]
        if readers:
            raise LinkError(f"unit {unit.path!r} still gives data to {listed(readers)}")
        self.graph.remove_node(unit)
        del self._units[unit.name]
        unit._workflow = None
        if self._is_prepared and unit not in self._came:
            self._left.append(unit)
        self.changed()

    def _require(self, *units: Unit) -> None:
        for unit in units:
            if unit not in self.graph:
                raise ControlError(f"{unit.path!r} is not a unit of workflow {self.path!r}")

    def _require_leaving(self, unit: Unit) -> None:
        self._require(unit)
        if unit in (self.start, self.end):
            raise ControlError(f"unit {unit.path!r} cannot leave: a workflow keeps start and end")

    def _readers(self, unit: Unit) -> list[tuple[Unit, str, DataLink]]:
        """Return who reads data of ``unit``, or of a unit nested in it: reader, input, link."""
        inside = {unit, *(unit.all_units() if isinstance(unit, Workflow) else ())}
        return [
            (reader, name, link)
            for reader in self.root.all_units()
            if reader not in inside
            for name, link in reader.data_links.items()
            if link.source in inside
        ]

    def __getitem__(self, name: str) -> Unit:
        if name not in self._units:
            raise GraphError(
                f"workflow {self.path!r} has no unit {name!r}{nearest(name, self._units)}"
            )
        return self._units[name]

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units.values())

    def __len__(self) -> int:
        return len(self._units)

    def __bool__(self) -> bool:
        return True

    def all_units(self) -> Iterator[Unit]:
        """Yield the units of this workflow and of those nested in it, outer ones first."""
        for unit in self:
            yield unit
            if isinstance(unit, Workflow):
                yield from unit.all_units()

    def change_unit(self, old: Unit, new: Unit) -> None:
        """Put ``new`` in the place of ``old``: control links, gates and data links.

        What read an attribute of ``old`` reads that of ``new``; the inputs of ``new`` that are
        not linked yet get the links of ``old``. ``old`` leaves the workflow. A running workflow
        goes on with ``new``, also when ``old`` is the unit that runs; but a reader that has bound
        its device operations keeps what it has bound.

        Raises:
            ControlError: ``old`` is the start or the end, or one of them is of another workflow.
            LinkError: a unit reads from inside of ``old``, a nested workflow.
        """
        self._require(new)
        self._require_leaving(old)
        readers = self._readers(old)
        inner = [reader.path for reader, _, link in readers if link.source is not old]
        if inner:
            raise LinkError(f"units inside {old.path!r} still give data to {listed(inner)}")
        if self._flow is not None:
            self._flow.replace(old, new)
        self._replace_links(old, new)
        new.gate_block, new.gate_skip = old.gate_block, old.gate_skip
        for name, link in old.data_links.items():
            if new.accepts_input(name):
                new.data_links.setdefault(name, link)
        old.data_links.clear()
        for reader, name, link in self._readers(old):  # with new, if old read its own data
            reader.data_links[name] = DataLink(new, link.attribute)
        self.remove(old)

    def _replace_links(self, old: Unit, new: Unit) -> None:
        """Give ``new`` the control links of ``old``, each in its place among those beside it."""
        following = [unit for unit in self.successors(old) if unit not in (old, new)]
        for before in self.predecessors(old):
            if before in (old, new):
                continue
            others = self.successors(before)
            self.graph.remove_edges_from([(before, unit) for unit in others])
            self.graph.add_edges_from((before, new if unit is old else unit) for unit in others)
        self.graph.add_edges_from((new, unit) for unit in following)

    # -- control links ------------------------------------------------------------------------

    def link(self, before: Unit, after: Unit) -> None:
        """Let control flow from ``before`` to ``after``.

        Raises:
            ControlError: one of them is not a unit of this workflow.
        """
        for unit in (before, after):
            if unit not in self.graph:
                raise ControlError(
                    f"cannot link {before.path!r} to {after.path!r}: "
                    f"{unit.path!r} is not a unit of workflow {self.path!r}"
                )
        if before is self.end:
            raise ControlError(
                f"cannot link {before.path!r} to {after.path!r}: nothing runs after the end; "
                "link it after a unit that runs before the end"
            )
        self.graph.add_edge(before, after)
        self.changed()

    def insert(self, unit: Unit, *, after: Unit) -> None:
        """Put ``unit`` between ``after`` and all that runs after it."""
        following = [one for one in self.successors(after) if one is not unit]
        self.link(after, unit)
        for one in following:
            self.unlink(after, one)
            self.link(unit, one)
        if self._flow is not None:
            self._flow.reroute(after, unit, following)

    def unlink(self, before: Unit, after: Unit) -> None:
        """Remove a control link.

        Raises:
            ControlError: there is none.
        """
        if not self.graph.has_edge(before, after):
            raise ControlError(f"there is no control link from {before.path!r} to {after.path!r}")
        self.graph.remove_edge(before, after)
        self.changed()

    def predecessors(self, unit: Unit) -> list[Unit]:
        """Return the units linked to ``unit`` by control, in order of linking."""
        self._require(unit)
        return list(self.graph.predecessors(unit))

    def successors(self, unit: Unit) -> list[Unit]:
        """Return the units that run after ``unit``, in order of linking."""
        self._require(unit)
        return list(self.graph.successors(unit))

    def changed(self) -> None:
        """Take note that links or gates changed."""
        if self._flow is not None:
            self._flow.invalidate()

    # -- services -----------------------------------------------------------------------------

    def provide(self, kind: type[S], service: S) -> Self:
        """Give all units (also nested ones) a service under its type."""
        self._services[kind] = service
        return self

    def find_service(self, kind: type[S]) -> S:
        """Return the service of this type of this workflow or the nearest one around it.

        Raises:
            GraphError: nobody has provided it.
        """
        workflow: Workflow | None = self
        while workflow is not None:
            if kind in workflow._services:
                return cast("S", workflow._services[kind])
            workflow = workflow._workflow
        raise GraphError(
            f"workflow {self.path!r} has no {kind.__name__}; provide one before initialize()"
        )

    # -- life ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Check control links and data links, of nested workflows too, before anything runs.

        Raises:
            GraphError: something is wrong; the message names the unit and the cure.
        """
        check_control(self)
        for unit in self:
            self._check_links(unit)
            if isinstance(unit, Workflow):
                unit.check()

    def _check_links(self, unit: Unit) -> None:
        for declared in unit.inputs().values():
            links = declared.links(unit)
            if not links and not declared.optional:
                declared.__get__(unit, type(unit))  # raises the LinkError with the cure
            for name, link in links.items():
                if _outermost(link.source) is not self.root:
                    raise LinkError(
                        f"unit {unit.path!r}: input {name!r} is linked to {link.source.path!r}, "
                        "which is not part of this workflow; link it to a unit that is"
                    )

    def set_up(self) -> None:
        """Check, initialize and prepare a root workflow: after it :meth:`run` may be called."""
        self.check()
        self.initialize()
        self._allocate()
        self.prepare()

    def add_allocator(self, allocate: Callable[[], None]) -> Self:
        """Call ``allocate`` between the initialization and the preparation of units."""
        self._allocators.append(allocate)
        return self

    def _allocate(self) -> None:
        for allocate in self.root._allocators:
            allocate()

    def initialize(self) -> None:
        """Initialize all units, each after those that its data comes from."""
        self._initialize_units(initialization_order(self))

    def _initialize_units(self, units: list[Unit]) -> None:
        for unit in units:
            with _naming(unit):
                check_inputs(unit)
                unit.initialize()

    def prepare(self) -> None:
        """Let all units bind their device operations."""
        self._prepare_units(initialization_order(self))
        self._is_prepared = True

    def _prepare_units(self, units: list[Unit]) -> None:
        for unit in units:
            with _naming(unit):
                unit.prepare()

    def settle(self) -> None:
        """Initialize and prepare the units that came while running; close those that left.

        The flow calls it before the next unit runs.
        """
        came, self._came = set(self._came), []
        if came:
            units = [unit for unit in initialization_order(self) if unit in came]
            self._initialize_units(units)
            self._allocate()
            self._prepare_units(units)
        while self._left:
            unit = self._left.pop(0)
            with _naming(unit):
                unit.close()

    @property
    def flow(self) -> Flow:
        """The compiled run loop of this workflow."""
        if self._flow is None:
            self._flow = Flow(self, self.root.clock)
        return self._flow

    def run(self) -> None:
        """Run once from start to end, without pausing."""
        self.flow.start()
        while self.flow.run() is Outcome.PAUSED:
            pass

    def run_as_slave(self) -> None:
        """Run; each unit inside does what is a slave's part."""
        self.run()

    def close(self) -> None:
        """Close all units, the last first; the first error is raised when all are closed."""
        errors: list[Exception] = []
        for unit in [*reversed(list(self)), *self._left]:
            try:
                with _naming(unit):
                    unit.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def results(self) -> Mapping[str, object]:
        """Return the results of all units merged, the later unit winning."""
        merged: dict[str, object] = {}
        for unit in self:
            merged.update(unit.results())
        return merged

    def times(self) -> dict[str, UnitTime]:
        """Return runs and seconds by unit path; a nested workflow and its units both appear."""
        times = dict(self.flow.times())
        for unit in self:
            if isinstance(unit, Workflow):
                times.update(unit.times())
        return times


def _outermost(unit: Unit) -> Unit:
    while unit._workflow is not None:
        unit = unit._workflow
    return unit


class _naming:  # noqa: N801 - used as a statement
    """Give exceptions from inside a block the name of the unit."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, VeloflowError):
            text = f"{type(error).__name__}: {error}"
            raise UnitError(self._unit.path, text) from error

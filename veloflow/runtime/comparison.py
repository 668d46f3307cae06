"""``veloflow compare``: modes of sharing and codecs side by side, on one workflow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veloflow.core import EpochDone
from veloflow.errors import OptionError, RunError
from veloflow.runtime.api import run
from veloflow.runtime.master.simulated_crew import SimulatedCrew, VirtualCluster
from veloflow.sharing.codecs import parse_codec, text_of
from veloflow.sharing.policies import Auto, LocalPolicy, Sync, parse_sharing, sharing_text
from veloflow.sharing.topologies import Star, parse_topology, topology_text

if TYPE_CHECKING:
    from veloflow.runtime.result import Result
    from veloflow.runtime.session import Session

__all__ = ["ALL_MODES", "Row", "compare"]

#: what ``--sharing all`` stands for
ALL_MODES = ("sync", "async", "ssp:3", "average:20", "elastic:0.9,10", "groups:2", "auto")

#: seconds since the untrained network was evaluated, and the error then
Point = tuple[float, float]


@dataclass
class Row:
    """What came of one mode with one codec.

    Attributes:
        sharing, codec, topology: which.
        errors: the last error of each seed: of validation, or of training if there is none.
        seconds: of training, the mean; virtual ones where slaves are simulated.
        updates, parameters: bytes that travelled to the master and from it, the mean; states that
            a topology brings it are with the updates.
        less: how many times fewer bytes the codec has made of updates.
        waiting: the share of their time in which slaves did not compute.
        staleness: the mean, in steps or exchanges.
        curve: the error by seconds, of the first seed.
        failure: why a run failed, if one did.
        picked: what auto went on with at last, of the first seed.
    """

    sharing: str
    codec: str
    errors: list[float] = field(default_factory=list)
    seconds: float = 0.0
    updates: float = 0.0
    parameters: float = 0.0
    less: float = 1.0
    waiting: float = 0.0
    staleness: float = 0.0
    curve: list[Point] = field(default_factory=list)
    failure: str = ""
    picked: str = ""
    topology: str = "star"

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return statistics.mean(self.errors) if self.errors else float("nan")

    @property
    def spread(self) -> float:
        """Their standard deviation; 0 for one seed."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**vars(self), "error": self.error, "spread": self.spread}


def compare(
    workflow: str | Path,
    *,
    sharing: Sequence[str] = ALL_MODES,
    codecs: Sequence[str] = ("plain",),
    topologies: Sequence[str] = ("star",),
    slaves: int = 2,
    cluster: VirtualCluster | None = None,
    seeds: int = 1,
    device: str = "auto",
    options: Mapping[str, object] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Run a workflow with each mode, codec and seed; return what came of them.

    Args:
        workflow: the name of a definition, or the path of its file.
        sharing: the modes.
        codecs: the codecs; "factors" is left out for modes in which no gradients travel, and auto
            is run once, for it picks its own.
        topologies: by which ways gradients come together, for sync with the plain codec; other
            modes and codecs are run as a star.
        slaves: how many local slave processes compute.
        cluster: simulated slaves in their place, with virtual time.
        seeds: how many runs of each, with seeds 0, 1, 2 …
        device: to compute on.
        options: the definition's own options.
        say: takes a line for the user before each run.

    Raises:
        OptionError: there is no such mode or codec, or a number is too small.
    """
    if seeds < 1 or slaves < 1:
        raise OptionError("compare needs at least one seed and one slave")
    ways = [parse_topology(text) for text in topologies]
    if cluster is not None and not all(one.is_star for one in ways):
        raise OptionError("simulated slaves are a star: leave --topology, or --simulate")
    rows: list[Row] = []
    for mode in [parse_sharing(text) for text in sharing]:
        for codec in [parse_codec(text) for text in codecs]:
            if isinstance(mode, LocalPolicy) and codec.needs_factors:
                continue
            picks = isinstance(mode, Auto)
            has_ways = isinstance(mode, Sync) and text_of(codec) == "plain"
            for way in ways if has_ways else [Star()]:
                row = Row(sharing_text(mode), "its own" if picks else text_of(codec))
                if row.sharing in [one.sharing for one in rows if one.codec == "its own"]:
                    continue
                row.topology = topology_text(way)
                rows.append(row)
    for row in rows:
        for seed in range(seeds):
            way_text = "" if row.topology == "star" else f"{row.topology}, "
            say(f"{row.sharing}, {row.codec}, {way_text}seed {seed}")
            run_one = _Run(row, seed)
            try:
                result = run(
                    workflow,
                    device=device,
                    seed=seed,
                    sharing=row.sharing,
                    codec=None if row.codec == "its own" else row.codec,
                    topology=row.topology,
                    slaves=0 if cluster else slaves,
                    cluster=cluster,
                    watch=run_one.watch,
                    options=options,
                )
            except RunError as error:
                row.failure = str(error)
                break
            run_one.end(result, seeds)
    return rows


class _Run:
    """Follows one run, and adds it to its row."""

    def __init__(self, row: Row, seed: int) -> None:
        self._row = row
        self._seed = seed
        self._curve: list[Point] = []
        self._session: Session

    def watch(self, session: Session) -> None:
        """Note the error and the time of each epoch."""
        self._session = session
        session.events.subscribe(EpochDone, self._on_epoch)

    def _on_epoch(self, event: EpochDone) -> None:
        farm = self._session.farm
        crew = None if farm is None else farm.crew
        now = crew.now if isinstance(crew, SimulatedCrew) else time.perf_counter()
        self._curve.append((now, _error_of(event.record)))

    def end(self, result: Result, seeds: int) -> None:
        """Add what came of it to the means."""
        row, first = self._row, self._curve[0][0]
        curve = [(when - first, error) for when, error in self._curve]
        row.errors.append(curve[-1][1])
        row.seconds += curve[-1][0] / seeds
        counted = result.more.get("bytes", {})
        row.updates += (counted.get("updates", 0) + counted.get("states", 0)) / seeds
        row.parameters += counted.get("parameters", 0) / seeds
        if counted.get("updates"):
            row.less = counted["uncoded"] / counted["updates"]
        row.waiting += result.more.get("waiting", {}).get("share", 0.0) / seeds
        row.staleness += result.more.get("staleness", {}).get("mean", 0.0) / seeds
        if self._seed == 0:
            row.curve = curve
            auto = result.more.get("auto")
            if auto:
                codec = auto["codec"].removesuffix("plain")
                row.picked = f"{auto['sharing']} {codec}".strip()


def _error_of(record: Mapping[str, Any]) -> float:
    """Return the error of an epoch: per cent where classes are told apart, else the loss."""
    for kind in ("validation", "train", "test"):
        entry = record.get(kind)
        if entry is not None and entry["samples"]:
            return float(entry.get("error_percent", entry["loss"]))
    return float("nan")

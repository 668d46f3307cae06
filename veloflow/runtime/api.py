"""``veloflow.run`` and ``veloflow.load``: what the command line does, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from veloflow.core import Journal, Message, Settings, Unit, Workflow
from veloflow.devices import Device
from veloflow.devices.selection import choose_device, open_device
from veloflow.errors import CheckpointError, ClusterError, OptionError
from veloflow.places import Place, RemotePath, place_of
from veloflow.protocol.elasticity import Bounds
from veloflow.protocol.faults import FaultPlan
from veloflow.runtime.definition import Definition, find_definition
from veloflow.runtime.master.crew import Crew, OwnCrew
from veloflow.runtime.master.simulated_crew import SimulatedCrew, VirtualCluster
from veloflow.runtime.master.story import StoryFile
from veloflow.runtime.option_rules import check_faults, check_slave_options, check_topology
from veloflow.runtime.plan import checksum, name_of, settings_of, source_of, workers_of
from veloflow.runtime.profile import Profile
from veloflow.runtime.session import Session, build_workflow
from veloflow.runtime.slaves.job_form import Workers, cut_of
from veloflow.runtime.storage.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from veloflow.runtime.storage.claim import claimed
from veloflow.runtime.storage.files import check_writable
from veloflow.runtime.storage.history import History, Spoiled
from veloflow.runtime.storage.journal import FileJournal
from veloflow.runtime.storage.store import CheckpointStore
from veloflow.runtime.transport.found_vector import found_vector_of
from veloflow.sharing.codecs import parse_codec, text_of
from veloflow.sharing.policies import (
    Auto,
    LocalPolicy,
    Policy,
    parse_sharing,
    sharing_text,
)

# ZeroMQ and keys are imported where there are slaves: a lone run starts 60 ms earlier.
if TYPE_CHECKING:
    from veloflow.runtime.engine import Engine
    from veloflow.runtime.keys import ServerKeys
    from veloflow.runtime.master.cluster import Cluster
    from veloflow.runtime.master.settings import ClusterSettings
    from veloflow.runtime.result import Result
    from veloflow.sharing.topologies import Topology

__all__ = ["load", "prepare", "run"]

T = TypeVar("T")

#: so often a run goes back before spoiled updates
_MOST_UNDONE = 5


def load(workflow: str | Path, **options: object) -> Workflow:
    """Build a workflow without running it, to look at or to draw.

    Args:
        workflow: the name of a definition, or the path of its file.
        **options: the definition's own options.
    """
    return build_workflow(find_definition(str(workflow)), options)[0]


def run(
    workflow: str | Path | Callable[..., None],
    *,
    device: str | Device = "auto",
    seed: int | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    precision_level: Literal[0, 1, 2] = 0,
    test: bool = False,
    sharing: str | None = None,
    codec: str | None = None,
    topology: str = "star",
    cluster: VirtualCluster | None = None,
    slaves: int | str = 0,
    listen: Sequence[str] = (),
    patience: float = 1.0,
    audit: float = 0.0,
    undo_spoiled: bool = False,
    master_works: bool = False,
    faults: str = "",
    keys: str | Path | None = None,
    send_definition: bool = False,
    data_from: Literal["slave", "master"] = "slave",
    on: object | None = None,
    engine_options: Mapping[str, object] | None = None,
    advertise: str = "",
    story: str | Path | None = None,
    checkpoint: str | Place | None = None,
    checkpoint_every: float = 60.0,
    resume: bool | str | Place = False,
    result: str | Place | None = None,
    profile: str | Path | None = None,
    reuse_memory: bool = True,
    watch: Callable[[Session], None] | None = None,
    options: Mapping[str, object] | None = None,
    **more_options: object,
) -> Result:
    """Run a workflow to its end and return its result.

    Args:
        workflow: the name of a definition, the path of its file, or a ``build`` function.
        device: "numpy", "opencl", "opencl:0:0", "auto" (measured), or an open device.
        seed: the root of all random numbers; 0 unless a checkpoint says otherwise.
        dtype: of parameters and activations; float32 unless a checkpoint says otherwise.
        precision_level: 0, or 1 or 2 for products of matrices that lose less to rounding.
        test: evaluate once, without training; with a checkpoint, the best model in it.
        sharing: how parameters are shared: "sync" (same bits with any number of slaves), "async",
            "ssp:3", "average:every=20", "elastic:0.9,10", "groups:2"; see docs/sharing.md.
        codec: how updates travel: "plain", "float16", "onebit", "topk:0.01" …
        topology: by which ways: "star" (the master), "servers:2", "ring", "tree" (sync only).
        cluster: slaves that are simulated in this process, with virtual time; needs ``sharing``.
        slaves: how many local slave processes compute; "2:8" is two at least, and up to eight while
            work waits.
        listen: addresses at which more slaves may join, such as "tcp://127.0.0.1:5555".
        patience: scales every wait for slaves.
        audit: the share of the pieces that two slaves compute, compared bit for bit (sync).
        undo_spoiled: go back to before a slave that the audit exposes; needs ``checkpoint``.
        master_works: compute in this process too while there are no slaves.
        faults: what is to go wrong with local slaves, such as "kill=0.01,hang=slave2@job5".
        keys: a folder of keys, for addresses that other machines can reach.
        send_definition: send the definition file to slaves that accept it; needs keys.
        data_from: whether each "slave" reads the data, or gets its samples from the "master".
        on: an engine that starts the slaves: "dask", "ray", "spark", "ssh", "slurm",
            "kubernetes", "mpi", or your own distributed.Client, SparkSession, the module ray, or
            a launcher.
            ``slaves`` is then how many it starts, 0 for as many as it has places for.
        engine_options: the engine's own, such as {"address": "tcp://head:8786"}.
        advertise: the host by which the engine's slaves reach this machine.
        story: a file to write what happens to slaves and pieces to, a line each.
        checkpoint: the folder to keep checkpoints in, or the URL of one.
        checkpoint_every: seconds between them (besides those at improvements and at the end).
        resume: go on from the checkpoint in ``checkpoint``, or from this folder, file or URL.
        result: a file to write the result to, as JSON.
        profile: a file to write what ran when to, a trace for Perfetto; ".json" or ".json.gz".
        reuse_memory: let arrays that are never alive together share memory; the bits are the same.
        watch: called with the session before it runs, to subscribe to its events.
        options: the definition's own options; they may also be given as keywords.

    Raises:
        VeloflowError: see :mod:`veloflow.errors` for the tree.
    """
    if result is not None:
        check_writable(place_of(result))
    told = None if story is None else StoryFile(Path(story))
    for _ in range(_MOST_UNDONE):
        with prepare(
            workflow,
            device=device,
            seed=seed,
            dtype=dtype,
            precision_level=precision_level,
            test=test,
            sharing=sharing,
            codec=codec,
            topology=topology,
            cluster=cluster,
            slaves=slaves,
            listen=listen,
            patience=patience,
            audit=audit,
            undo_spoiled=undo_spoiled,
            master_works=master_works,
            faults=faults,
            keys=keys,
            send_definition=send_definition,
            data_from=data_from,
            on=on,
            engine_options=engine_options,
            advertise=advertise,
            story=told,
            checkpoint=checkpoint,
            resume=resume,
            profile=profile,
            reuse_memory=reuse_memory,
            watch=watch,
            options={**(options or {}), **more_options},
        ) as session:
            try:
                outcome = session.run(checkpoint_every=checkpoint_every)
            except Spoiled as spoiled:
                resume = _go_back(session, spoiled)
                faults = str(replace(FaultPlan.parse(faults), appointments=()))
                continue
        if result is not None:
            outcome.save(result)
        return outcome
    raise ClusterError(
        f"slaves spoiled updates {_MOST_UNDONE} times; look for broken memory or a driver that "
        "does not give equal bits"
    )


def _go_back(session: Session, spoiled: Spoiled) -> Path | Literal[False]:
    """Return the checkpoint from which to undo what was spoiled; False for the very start."""
    assert session.store is not None
    assert session.store.history is not None
    if session.store.journal is not None:
        session.store.journal.restart()  # the spoiler's results are in it as well
    source = session.store.history.before(spoiled.first)
    where = "the start" if source is None else "an older checkpoint"
    session.events.publish(Message(f"{spoiled}; the run goes back to {where}, before its first"))
    return source or False


@contextmanager
def prepare(
    workflow: str | Path | Callable[..., None],
    *,
    device: str | Device = "auto",
    seed: int | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    precision_level: Literal[0, 1, 2] = 0,
    test: bool = False,
    sharing: str | None = None,
    codec: str | None = None,
    topology: str = "star",
    cluster: VirtualCluster | None = None,
    slaves: int | str = 0,
    listen: Sequence[str] = (),
    patience: float = 1.0,
    audit: float = 0.0,
    undo_spoiled: bool = False,
    master_works: bool = False,
    faults: str = "",
    keys: str | Path | None = None,
    send_definition: bool = False,
    data_from: Literal["slave", "master"] = "slave",
    on: object | None = None,
    engine_options: Mapping[str, object] | None = None,
    advertise: str = "",
    story: StoryFile | None = None,
    checkpoint: str | Place | None = None,
    resume: bool | str | Place = False,
    profile: str | Path | None = None,
    reuse_memory: bool = True,
    watch: Callable[[Session], None] | None = None,
    options: Mapping[str, object] | None = None,
) -> Iterator[Session]:
    """Give a session that is set up, and restored if asked, but has not run; see :func:`run`."""
    definition = _definition_of(workflow)
    folder = place_of(checkpoint) if checkpoint is not None else None
    if folder is None and not isinstance(resume, bool) and not place_of(resume).is_file():
        folder = place_of(resume)
    source = _source(folder, resume, test=test)
    saved = read_checkpoint(source) if source else None
    if saved is not None and saved.workflow != definition.name:
        raise CheckpointError(
            f"{source} is a checkpoint of workflow {saved.workflow!r}, not of {definition.name!r}"
        )
    given = {**(saved.options if saved else {}), **(options or {})}
    bounds = Bounds.parse(slaves)
    has_slaves = bool(bounds.least or listen or on is not None)
    check_slave_options(
        has_slaves=has_slaves,
        listen=listen,
        on=on,
        engine_options=engine_options,
        advertise=advertise,
        has_keys=keys is not None,
        master_works=master_works,
        send_definition=send_definition,
        data_from=data_from,
        has_story=story is not None,
    )
    if undo_spoiled and isinstance(folder, RemotePath):
        raise OptionError("--undo-spoiled keeps many checkpoints: give --checkpoint a local folder")
    if undo_spoiled and not (audit and folder):
        raise OptionError("--undo-spoiled needs both --audit SHARE and --checkpoint DIR")
    if precision_level not in (0, 1, 2):
        raise OptionError(f"precision_level is {precision_level!r}; give 0, 1 or 2")
    mode = _sharing_of(sharing, saved, default="sync" if has_slaves else None)
    if cluster is not None and (has_slaves or mode is None):
        raise OptionError("simulated slaves need a mode of sharing, and no real slaves beside them")
    # auto changes codecs itself, and begins with none
    coding = "plain" if isinstance(mode, Auto) else _coding_of(codec, saved, mode)
    codec = _fixed_codec(codec, mode)
    ways = check_topology(
        topology, mode, coding, has_slaves=has_slaves, audits=bool(audit), works=master_works
    )
    plan = check_faults(audit, faults, mode, coding, slaves=bounds.least, has_slaves=has_slaves)
    settings = Settings(
        seed=_same("seed", seed, saved.settings["seed"] if saved else None, 0),
        dtype=_same("dtype", dtype, saved.settings["dtype"] if saved else None, "float32"),
        testing=test,
        precision_level=precision_level,
        role="alone" if mode is None else "master",
        shards=1 if mode is None else cut_of(mode),
        local=isinstance(mode, LocalPolicy),
        codec=coding,
        gives_data=data_from == "master",
    )
    with ExitStack() as stack:
        record = None
        if profile is not None:
            record = stack.enter_context(Profile(Path(profile), f"veloflow {definition.name}"))
        why = ""
        if not has_slaves:
            place, why = stack.enter_context(_opened(device))
            if record is not None:
                place = stack.enter_context(closing(record.observed(place)))
        own = place if mode is None else stack.enter_context(closing(open_device("numpy")))
        session = stack.enter_context(
            Session(definition, given, own, settings, reuse_memory=reuse_memory)
        )
        if record is not None:
            record.watch(session)
        # now, for the file may be changed while the run goes on
        own_checksum = checksum(definition, session.json_options(), settings_of(settings))
        if folder and not test:
            if isinstance(folder, Path):
                stack.enter_context(claimed(folder))
            history = None
            if undo_spoiled and isinstance(folder, Path):
                history = History(folder / "history", source)
            session.store = CheckpointStore(folder, history)
            if isinstance(folder, Path):  # nothing is appended to an object at a URL
                journal = _journal(session, folder, own_checksum, goes_on=source is not None)
                stack.enter_context(closing(journal))
                session.store.journal = journal
                session.workflow.provide(Journal, journal)
        if watch is not None:
            watch(session)
        if why:
            session.events.publish(Message(why))
        if mode is not None and has_slaves:
            from veloflow.runtime.master.settings import ClusterSettings

            engine = None
            if on is not None:
                from veloflow.runtime.engine import Engine

                engine = (
                    on
                    if isinstance(on, Engine)
                    else Engine(
                        on,
                        engine_options or {},
                        bounds=bounds,
                        listen=listen[0] if listen else "",
                        advertise=advertise,
                    )
                )
                stack.enter_context(closing(engine))
            wishes = ClusterSettings(
                slaves=0 if engine else bounds.least,
                bounds=bounds,
                scale=engine.scale if engine else None,
                listen=tuple(engine.listener.addresses) if engine else tuple(listen),
                others=engine.listener if engine else None,
                device=device if isinstance(device, str) else device.name,
                patience=patience,
                audit=audit,
                works=master_works,
                faults=plan,
                keys=engine.server_keys if engine else _keys_in(keys),
                undo=undo_spoiled,
                story=story,
                exactly=_begins_exactly(mode) and not parse_codec(coding).has_feedback,
                bound=mode.bound,
                environment=() if record is None else record.slaves(),
                grace=2.0 if record is None else 60.0,  # they write their records first
            )
            # now, for the file may be changed while the run goes on
            text = source_of(definition) if send_definition or engine else ""
            crowd = stack.enter_context(closing(_cluster(session, wishes, engine, ways)))
            session.set_up()

            def stand_in() -> Crew:
                place, _ = stack.enter_context(_opened(device))
                return stack.enter_context(_own_crew(definition, given, place, settings, record))

            _open_cluster(crowd, session, own_checksum, stand_in, text)
            session.employ(crowd, mode, codec)
        else:
            session.set_up()
            if mode is not None:
                make = partial(_simulated, cluster, settings, mode) if cluster else OwnCrew
                crew = stack.enter_context(
                    _own_crew(definition, given, place, settings, record, make)
                )
                session.employ(crew, mode, codec)
        if saved is not None:
            session.restore(saved)
        yield session


def _journal(session: Session, folder: Path, own: str, *, goes_on: bool) -> FileJournal:
    """Return the journal of a run that keeps checkpoints."""
    return FileJournal(
        folder / "journal",
        own,
        goes_on=goes_on,
        say=lambda text: session.events.publish(Message(text)),
        is_stopping=lambda: session.is_stopping,
    )


def _keys_in(folder: str | Path | None) -> ServerKeys | None:
    if folder is None:
        return None
    from veloflow.runtime.keys import ServerKeys

    return ServerKeys.load(Path(folder))


def _cluster(
    session: Session, wishes: ClusterSettings, engine: Engine | None, ways: Topology
) -> Cluster:
    """Start slaves, which load what they need while the master does."""

    def say(text: str) -> None:
        session.events.publish(Message(text))

    from veloflow.runtime.master.cluster import Cluster

    name_of(session.definition)  # raises if slaves cannot find it

    def is_stopping() -> bool:
        if engine is not None:
            engine.check()
        return session.is_stopping

    if ways.is_star:
        cluster = Cluster(wishes, say=say, is_stopping=is_stopping)
    else:
        from veloflow.runtime.master.peer_cluster import PeerCluster

        cluster = PeerCluster(wishes, ways, say=say, is_stopping=is_stopping)
    if engine is not None:
        engine.say_to(say)
        engine.start(device=wishes.device, patience=wishes.patience)
        return cluster
    for address in cluster.addresses[1:]:
        say(f"slaves join with: veloflow slave {address}")
    return cluster


def _open_cluster(
    cluster: Cluster, session: Session, own: str, stand_in: Callable[[], Crew], source: str
) -> None:
    """Let slaves in, once the master's session is set up."""
    cluster.open(
        workflow=name_of(session.definition),
        options=session.json_options(),
        settings=settings_of(session.settings),
        checksum=own,
        size=session.parameters.gradients.size,
        dtype=session.parameters.dtype,
        templates={
            unit.path: unit.make_update()
            for unit in session.workflow.all_units()
            if type(unit).make_update is not Unit.make_update
        },
        stand_in=stand_in,
        source=source,
        data=_data_facts(session),
        found=found_vector_of(session.parameters, session.settings),
        found_of=lambda form: found_vector_of(session.parameters, form.into(session.settings)),
    )


def _begins_exactly(mode: Policy) -> bool:
    """Whether jobs name the version of the parameters at first; auto begins as sync."""
    return mode.is_exact or isinstance(mode, Auto)


def _data_facts(session: Session) -> dict[str, object]:
    """Return what slaves must know of data that they are given, by unit path."""
    if not session.settings.gives_data:
        return {}
    found = {}
    for unit in session.workflow.all_units():
        facts = getattr(unit, "data_facts", None)
        if callable(facts):
            found[unit.path] = facts()
    session.events.publish(Message("slaves get their samples from the master"))
    return found


def _sharing_of(given: str | None, saved: Checkpoint | None, default: str | None) -> Policy | None:
    """Return the mode of sharing that was asked for, or that a checkpoint was made with."""
    before = saved.settings.get("sharing") if saved else None
    text = _same(
        "sharing", None if given is None else sharing_text(parse_sharing(given)), before, default
    )
    return None if text is None else parse_sharing(text)


def _coding_of(given: str | None, saved: Checkpoint | None, mode: Policy | None) -> str:
    """Return the codec that was asked for, or that a checkpoint was made with."""
    before = saved.settings.get("codec") if saved else None
    text: str = _same(
        "codec", None if given is None else text_of(parse_codec(given)), before, "plain"
    )
    if text == "plain":
        return text
    if mode is None:
        raise OptionError("--codec is for updates of slaves: give --slaves, --listen or --sharing")
    if isinstance(mode, LocalPolicy) and parse_codec(text).needs_factors:
        raise OptionError(
            f"--codec {text} needs gradients, and with --sharing {mode.name} none travel"
        )
    return text


def _fixed_codec(given: str | None, mode: Policy | None) -> str | None:
    """Return the codec that auto is to keep to, if the user has said one."""
    if given is None or not isinstance(mode, Auto):
        return given
    codec = parse_codec(given)
    if codec.needs_factors:
        raise OptionError(f"--codec {given} needs gradients, and auto may take modes without them")
    return text_of(codec)


def _simulated(
    cluster: VirtualCluster, settings: Settings, mode: Policy, worker: Workers
) -> SimulatedCrew:
    return SimulatedCrew(worker, cluster, seed=settings.seed, bound=mode.bound)


@contextmanager
def _own_crew(
    definition: Definition,
    given: Mapping[str, object],
    device: Device,
    settings: Settings,
    record: Profile | None,
    make: Callable[[Workers], Crew] = OwnCrew,
) -> Iterator[Crew]:
    """Give a crew that is this process alone."""
    settings = replace(settings, role="slave", gives_data=False)
    own = Session(definition, given, device, settings)
    with own as session, ExitStack() as stack:
        if record is not None:
            record.watch(session)
        session.set_up()
        crew = make(workers_of(session, given, stack))
        try:
            yield crew
        finally:
            crew.close()


@contextmanager
def _opened(device: str | Device) -> Iterator[tuple[Device, str]]:
    """Give the device, and why it was chosen; close it unless the caller had opened it."""
    if isinstance(device, Device):
        yield device, ""
        return
    place, why = choose_device() if device == "auto" else (open_device(device), "")
    try:
        yield place, why
    finally:
        place.close()


def _definition_of(workflow: str | Path | Callable[..., None]) -> Definition:
    if callable(workflow):
        return Definition(workflow.__name__, workflow, None)
    return find_definition(os.fspath(workflow))


def _source(folder: Place | None, resume: bool | str | Place, *, test: bool) -> Place | None:
    """Return the checkpoint to start from, if any."""
    if isinstance(resume, bool):
        if resume and folder is None:
            raise OptionError("--resume needs to know from where: give --checkpoint DIR too")
        if not resume and not (test and folder is not None):
            return None
        assert folder is not None
        cure = "train first, without --test" if test else "start without --resume"
        return find_checkpoint(folder, best=test, cure=cure)
    return find_checkpoint(place_of(resume), best=test)


def _same(name: str, given: T | None, saved: T | None, default: T) -> T:
    """Return what holds for the run; a checkpoint's value cannot be overruled."""
    if given is not None and saved is not None and given != saved:
        raise CheckpointError(f"the checkpoint was made with {name} {saved}, not {given}")
    if given is not None:
        return given
    return default if saved is None else saved

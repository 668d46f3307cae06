"""The ``veloflow`` command. Thin: each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from veloflow import __version__
from veloflow.cli_places import PlaceType, RunCommand
from veloflow.errors import InputError, VeloflowError

if TYPE_CHECKING:
    from veloflow.places import Place
    from veloflow.runtime.definition import Definition

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

_DEBUG = "veloflow.debug"


def _remember_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_DEBUG] = True


def _debug_option(command: F) -> F:
    return click.option(
        "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)  # fmt: skip


class _Group(click.Group):
    """Turns errors into one line and an exit code; suggests the nearest command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away: nothing more can be said to it
            ctx.exit(1)
        except KeyboardInterrupt:
            _say_error("interrupted", ctx)
            ctx.exit(130)
        except VeloflowError as error:
            _say_error(str(error), ctx)
            ctx.exit(error.exit_code)
        except Exception as error:
            _say_error(f"{type(error).__name__}: {error} (see it whole with --debug)", ctx)
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from veloflow.errors import nearest

        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}{nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)


def _say_error(text: str, context: click.Context) -> None:
    if context.meta.get(_DEBUG):
        import traceback

        traceback.print_exc()
    click.echo(f"veloflow: {' '.join(text.split())}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
@_debug_option
def main() -> None:
    """Wire units into a workflow, look at it as a graph, run it.

    \b
    Examples:
      veloflow run digits_mlp                      train on handwritten digits
      veloflow run digits_mlp hidden=50 rate=0.2   with other options
      veloflow run digits_mlp --help               what the options are
      veloflow graph digits_mlp -o digits.svg      draw it
      veloflow devices                             what can compute here
      veloflow doctor                              what is missing here
    """


@main.command(
    cls=RunCommand, add_help_option=False, context_settings={"ignore_unknown_options": False}
)
@click.argument("workflow", required=False)
@click.argument("assignments", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--device", "-d", default="auto", show_default=True,
              help="numpy, opencl, opencl:P:D, or auto: the quickest by measurement.")  # fmt: skip
@click.option("--seed", type=int, help="Root of all random numbers.  [default: 0]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]),
              help="Of parameters and activations.  [default: float32]")  # fmt: skip
@click.option("--precision-level", type=click.Choice(["0", "1", "2"]), default="0",
              metavar="0|1|2",
              help="1, 2: products of matrices lose less to rounding, more slowly.")  # fmt: skip
@click.option(
    "--sharing",
    metavar="MODE",
    help="How parameters are shared: sync, async, ssp:3, average:20, elastic, groups:2.",
)
@click.option("--codec", metavar="CODEC",
              help="How updates travel: plain, float16, int8, onebit, topk:0.01 ...")  # fmt: skip
@click.option("--topology", default="star", metavar="WAYS",
              help="Gradients go by: star (the master), servers:2, ring, tree.")  # fmt: skip
@click.option("--slaves", default="0", metavar="N|MIN:MAX",
              help="Compute in N local slave processes; more or fewer of them as work waits.",
              )  # fmt: skip
@click.option("--listen", multiple=True, metavar="ADDRESS",
              help="Let more slaves join at tcp://HOST:PORT; may be given again.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(min=0.01), default=1.0, metavar="FACTOR",
              help="Scales every wait for slaves.  [default: 1]")  # fmt: skip
@click.option("--master-works", is_flag=True,
              help="Compute in this process too while there are no slaves.")  # fmt: skip
@click.option("--audit", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE",
              help="Compute that share of the work twice and compare the bits.")  # fmt: skip
@click.option("--undo-spoiled", is_flag=True,
              help="Go back to before a slave that the audit exposes.")  # fmt: skip
@click.option("--story", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write there what happens to slaves; see veloflow story.")  # fmt: skip
@click.option("--faults", default="", metavar="PLAN",
              help="Let local slaves fail, to try it: kill=0.01,hang=slave2@job5.")  # fmt: skip
@click.option("--keys", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Keys for addresses that others can reach; see veloflow keys.")  # fmt: skip
@click.option("--send-definition", is_flag=True,
              help="Send the definition file to slaves that accept it; needs --keys.")  # fmt: skip
@click.option("--data-from", type=click.Choice(["slave", "master"]), default="slave",
              help="master: send slaves their samples, where they cannot read the data.",
              )  # fmt: skip
@click.option("--on", metavar="ENGINE",
              help="Slaves from dask, ray, spark, ssh, slurm, kubernetes, mpi.")  # fmt: skip
@click.option("--engine-option", "engine_options", multiple=True, metavar="KEY=VALUE",
              help="Of the engine, such as address=tcp://head:8786.")  # fmt: skip
@click.option("--advertise", default="", metavar="HOST",
              help="By which name the engine's slaves reach this machine.")  # fmt: skip
@click.option("--checkpoint", type=PlaceType(file_okay=False), metavar="DIR",
              help="Keep checkpoints in this folder, or at this URL: s3://bucket/run.")  # fmt: skip
@click.option("--checkpoint-every", type=click.FloatRange(min=0.1), default=60.0,
              show_default=True, metavar="SECONDS",
              help="Besides those at improvements, on Ctrl-C and at the end.")  # fmt: skip
@click.option("--resume", is_flag=True,
              help="Go on from the last checkpoint there; --resume PLACE: from one elsewhere.",
              )  # fmt: skip
@click.option("--resume-from", type=PlaceType(), hidden=True)
@click.option("--test", is_flag=True, help="Evaluate the best checkpoint, without training.")
@click.option("--result", type=PlaceType(dir_okay=False), metavar="FILE",
              help="Write the result there, as JSON.")  # fmt: skip
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write there what ran when, a trace that ui.perfetto.dev opens.")  # fmt: skip
@click.option("--reuse-memory/--no-reuse-memory", default=True,
              help="Whether arrays that are never alive together share memory.  [default: reuse]",
              )  # fmt: skip
@click.option("--dry-run", is_flag=True,
              help="Check and set up, show units and memory, do not run.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, a line each.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.option("--help", "-h", "wants_help", is_flag=True,
              help="Show this message, and the named workflow's own options.")  # fmt: skip
@_debug_option
@click.pass_context
def run(
    context: click.Context,
    /,
    workflow: str | None,
    assignments: tuple[str, ...],
    *,
    wants_help: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    resume_from: Any,
    **settings: Any,
) -> None:
    """Run a workflow, given by name or by the path of its file.

    \b
    Examples:
      veloflow run digits_mlp hidden=50 --device numpy
      veloflow run ./mine.py --checkpoint saved --result result.json
      veloflow run ./mine.py --checkpoint saved --resume
      veloflow run mnist_mlp data=s3://bucket/mnist --checkpoint s3://bucket/run
      veloflow run mnist_mlp --on dask --engine-option address=tcp://head:8786
      veloflow run mnist_mlp --help
    """
    if wants_help:
        _show_help(context, workflow)
        return
    if workflow is None:
        raise click.UsageError(f"name a workflow: {_listing()}", context)
    from veloflow.runtime.options import parse_assignments

    options = parse_assignments(assignments)
    settings["resume"] = settings["resume"] if resume_from is None else resume_from
    settings["precision_level"] = int(settings["precision_level"])
    settings["engine_options"] = parse_assignments(settings["engine_options"])
    if dry_run:
        _dry_run(workflow, options, settings)
        return
    from veloflow.runtime.api import run as run_workflow
    from veloflow.views.terminal import TerminalView

    with TerminalView(as_json=as_json, quiet=quiet) as view:
        view.finish(run_workflow(workflow, options=options, watch=view.watch, **settings))


@main.command()
@click.argument("address", required=False)
@click.option("--offer", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
              metavar="FILE", help="Join the master of this secret file; - is a pipe.")  # fmt: skip
@click.option("--check", "wants_check", is_flag=True,
              help="Do not join: try each step of the way, and say which fails.")  # fmt: skip
@click.option("--device", "-d", default="auto", show_default=True,
              help="numpy, opencl, opencl:P:D, or auto.")  # fmt: skip
@click.option("--name", default="", help="What to call this slave.  [default: the host's name]")
@click.option("--patience", type=click.FloatRange(min=0.01), default=1.0, metavar="FACTOR",
              help="Scales every wait for the master.  [default: 1]")  # fmt: skip
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The slave's own NAME.key_secret.")  # fmt: skip
@click.option("--master-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The master's public master.key.")  # fmt: skip
@click.option("--accept-definition", is_flag=True,
              help="Run the definition file that the master sends; needs keys.")  # fmt: skip
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write there what ran when, as veloflow run --profile does.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@_debug_option
@click.pass_context
def slave(
    context: click.Context,
    /,
    address: str | None,
    device: str,
    *,
    offer: Path | None,
    wants_check: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Compute for the master at ADDRESS until its run is over.

    SIGTERM or Ctrl-C: the slave ends its job and leaves. It has to have the same version of
    veloflow as the master, and the same definition, or --accept-definition.

    \b
    Examples:
      veloflow run mnist_mlp --listen tcp://127.0.0.1:5555
      veloflow slave tcp://127.0.0.1:5555
      veloflow slave --check tcp://head:5555 --key gpu-box.key_secret --master-key master.key
    """
    if (address is None) == (offer is None):
        raise click.UsageError("give the ADDRESS of a master, or --offer FILE", context)

    def say(text: str) -> None:
        if not quiet:
            click.echo(text)

    if wants_check:
        from veloflow.runtime.slaves.reachability import check

        check(address, offer, settings["key"], settings["master_key"], say=say)
        return
    from veloflow.runtime.slaves.slave import join, join_offer

    if offer is not None:
        join_offer(offer, name=settings["name"], say=say)
        return
    assert address is not None
    join(address, device, say=say, **settings)


@main.command()
@click.argument("workflow")
@click.argument("assignments", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--sharing", multiple=True, metavar="MODES",
              help="Modes, with spaces between; may be given again.  [default: all]")  # fmt: skip
@click.option("--codec", multiple=True, metavar="CODECS",
              help="Codecs, with spaces between.  [default: plain]")  # fmt: skip
@click.option("--topology", multiple=True, metavar="WORDS",
              help="Topologies for sync, with spaces between.  [default: star]")  # fmt: skip
@click.option("--slaves", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
              help="Local slave processes.")  # fmt: skip
@click.option("--simulate", metavar="SLAVES",
              help="Simulate slaves, with virtual time: 8,latency=0.001,slow=1.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Runs of each.")  # fmt: skip
@click.option("--device", "-d", default="auto", show_default=True,
              help="numpy, opencl, opencl:P:D, or auto.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .svg or .png file for the curves.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_debug_option
def compare(
    workflow: str,
    assignments: tuple[str, ...],
    sharing: tuple[str, ...],
    codec: tuple[str, ...],
    topology: tuple[str, ...],
    simulate: str | None,
    output: Path | None,
    *,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run a workflow with several modes of sharing and codecs, and show them side by side.

    \b
    Examples:
      veloflow compare digits_mlp epochs=5 --slaves 2
      veloflow compare digits_mlp --sharing "sync ssp:3 elastic:0.9,10" --codec "plain onebit"
      veloflow compare mnist_mlp --sharing sync --topology "star servers:2 ring" --slaves 4
      veloflow compare digits_mlp --simulate 8,bandwidth=1.25e7 --seeds 3 -o modes.svg
    """
    from rich.console import Console

    from veloflow.runtime.comparison import ALL_MODES
    from veloflow.runtime.comparison import compare as compare_modes
    from veloflow.runtime.master.simulated_crew import parse_cluster
    from veloflow.runtime.options import parse_assignments
    from veloflow.views.comparison import comparison_chart, comparison_table
    from veloflow.views.report import json_text

    if output is not None and output.suffix not in (".svg", ".png"):
        raise InputError(f"{output}: a chart is a .svg or a .png file")
    modes = [one for text in sharing for one in text.split()]
    rows = compare_modes(
        workflow,
        sharing=ALL_MODES if modes in ([], ["all"]) else modes,
        codecs=[one for text in codec for one in text.split()] or ["plain"],
        topologies=[one for text in topology for one in text.split()] or ["star"],
        cluster=parse_cluster(simulate) if simulate else None,
        options=parse_assignments(assignments),
        say=lambda text: click.echo(text, err=True),
        **settings,
    )
    if as_json:
        click.echo(json_text([row.as_json() for row in rows]))
    else:
        Console().print(comparison_table(rows))
    if output is not None:
        comparison_chart(rows, output, f"{workflow}: modes of sharing")
        click.echo(str(output), err=as_json)


@main.command()
@click.argument("address")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="How many push to a step; it begins when as many are here.")  # fmt: skip
@click.option("--mode", type=click.Choice(["sync", "async"]), default="sync", show_default=True,
              help="A step for what all have pushed, or one for each push.")  # fmt: skip
@click.option("--updater", default="assign", show_default=True, metavar="WORD",
              help="assign, add, or a solver: momentum:0.1,moment=0.9, adam:0.001.")  # fmt: skip
@click.option("--mean", is_flag=True, help="A step is the mean of its pushes, not their sum.")
@click.option("--keys", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Keys for addresses that others can reach; see veloflow keys.")  # fmt: skip
@click.option("--once", is_flag=True, help="End when all workers have come and gone.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the values there at the end, as safetensors.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(min=0.01), default=1.0, metavar="FACTOR",
              help="Scales every wait.  [default: 1]")  # fmt: skip
@_debug_option
def store(address: str, keys: Path | None, save: Path | None, **settings: Any) -> None:
    """Hold values by key for training loops written by hand; they push and pull at ADDRESS.

    \b
    Examples:
      veloflow store tcp://127.0.0.1:5600 --workers 4 --updater momentum:0.1,moment=0.9
      veloflow store tcp://0.0.0.0:5600 --mode async --updater adam:0.001 --keys cluster-keys
    """
    from veloflow.kvstore.command import serve

    serve(address, keys, save, say=lambda text: click.echo(text, err=True), **settings)


@main.group()
def keys() -> None:
    """Make keys for masters and slaves on different machines.

    \b
    Examples:
      veloflow keys new cluster-keys
      veloflow keys add cluster-keys gpu-box
      veloflow run mnist_mlp --listen tcp://0.0.0.0:5555 --keys cluster-keys
      veloflow slave tcp://head:5555 --key gpu-box.key_secret --master-key master.key
    """


@keys.command("new")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@_debug_option
def new_keys(folder: Path) -> None:
    """Make the master's pair of keys in DIR."""
    from veloflow.runtime.keys import make_keys

    public = make_keys(folder)
    click.echo(f"{public} is for slaves to know the master by; the secret one stays here")


@keys.command("add")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.argument("name")
@_debug_option
def add_keys(folder: Path, name: str) -> None:
    """Make a pair of keys for the slave NAME, which masters with the keys in DIR accept."""
    from veloflow.runtime.keys import add_slave

    secret = add_slave(folder, name)
    click.echo(f"take {secret} and {folder / 'master.key'} to the slave's machine")


def _listing() -> str:
    from veloflow.runtime.definition import known_definitions

    return ", ".join(known_definitions())


def _show_help(context: click.Context, workflow: str | None) -> None:
    click.echo(context.get_help())
    if workflow is None:
        click.echo(f"\nWorkflows that come along: {_listing()}")
        return
    from veloflow.runtime.definition import find_definition
    from veloflow.runtime.options import options_of

    definition = find_definition(workflow)
    click.echo(f"\nOptions of {definition.name} ({definition.summary})")
    formatter = context.make_formatter()
    rows = [(f"{o.name}=<{o.type_name}>", _describe_option(o)) for o in options_of(definition)]
    if rows:
        formatter.write_dl(rows)
    click.echo(formatter.getvalue().rstrip() or "  none")


def _describe_option(option: Any) -> str:
    default = "required" if option.is_required else f"default: {option.default}"
    return f"{option.help}  [{default}]".strip()


def _dry_run(workflow: str, options: dict[str, str], settings: dict[str, Any]) -> None:
    from rich.console import Console

    from veloflow.runtime.api import prepare
    from veloflow.views.report import memory_table, units_table

    if settings["on"]:
        from veloflow.runtime.engine import describe

        text = describe(settings["on"], settings["engine_options"], slaves=settings["slaves"])
        click.echo(text)
        return
    with prepare(
        workflow,
        device=settings["device"],
        seed=settings["seed"],
        dtype=settings["dtype"],
        reuse_memory=settings["reuse_memory"],
        options=options,
    ) as session:
        Console().print(
            units_table(session.describe_units()),
            memory_table(session.describe_memory(), session.memory_used()),
        )


def _definition(name: str) -> Definition:
    from veloflow.runtime.definition import find_definition

    return find_definition(name)


_workflow_option = click.option(
    "--workflow", "-w", metavar="WORKFLOW",
    help="The definition, by name or by its file, if it does not come along.",
)  # fmt: skip


@main.command()
@click.argument("workflow")
@click.argument("assignments", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .svg, .png, .pdf or .dot file.  [default: WORKFLOW.svg]")  # fmt: skip
@click.option("--times", type=click.Path(path_type=Path, dir_okay=False), metavar="RESULT",
              help="Colour units by their share of the time in this result file.")  # fmt: skip
@_debug_option
def graph(
    workflow: str, assignments: tuple[str, ...], output: Path | None, times: Path | None
) -> None:
    """Draw a workflow: control links, data links, gates.

    \b
    Examples:
      veloflow graph digits_mlp -o digits.svg
      veloflow run digits_mlp --result r.json && veloflow graph digits_mlp --times r.json
    """
    from veloflow.runtime.options import parse_assignments
    from veloflow.runtime.session import build_workflow
    from veloflow.views.graph import draw
    from veloflow.views.report import read_times

    definition = _definition(workflow)
    built, _ = build_workflow(definition, parse_assignments(assignments))
    target = output or Path(f"{definition.name}.svg")
    draw(built, target, read_times(times) if times else None)
    click.echo(str(target))


@main.command()
@click.argument("result", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="A .md or .html file.")  # fmt: skip
@_workflow_option
@_debug_option
def report(result: Path, output: Path, workflow: str | None) -> None:
    """Write a report of the run whose RESULT file is given: tables, curves, the graph.

    \b
    Examples:
      veloflow run digits_mlp --result result.json
      veloflow report result.json -o report.html
    """
    from veloflow.errors import NotFoundError
    from veloflow.runtime.session import build_workflow
    from veloflow.views.document import read_result, write_report

    record = read_result(result)
    try:
        definition = _definition(workflow or record["workflow"])
    except NotFoundError:
        if workflow is not None:
            raise
        click.echo("without the graph: give the definition's file with --workflow", err=True)
        built = None
    else:
        built = build_workflow(definition, record.get("options", {}))[0]
    write_report(record, output, built)
    click.echo(str(output))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--tune", "tunes", is_flag=True, help="First search the quickest kernels.")
@click.option("--device", default="opencl", show_default=True, help="The device to tune.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="How long the search may take; Ctrl-C ends it early and keeps what it found.",
)
@_debug_option
def devices(*, as_json: bool, tunes: bool, device: str, seconds: float) -> None:
    """List the devices of this machine, test them, and measure a multiplication.

    \b
    Examples:
      veloflow devices
      veloflow devices --tune
      veloflow devices --tune --device opencl:0:0 --seconds 60
    """
    from rich.console import Console

    from veloflow.devices.selection import examine_devices
    from veloflow.views.report import devices_table, json_text

    if tunes:
        from veloflow.devices.opencl.platforms import open_hardware
        from veloflow.devices.opencl.tune import tune
        from veloflow.views.counting import telling

        with telling() as tell:
            tune(open_hardware(device), budget=seconds, report=tell)

    reports = examine_devices()
    if as_json:
        click.echo(json_text(reports))
    else:
        Console().print(devices_table(reports))


@main.command()
@click.argument("checkpoint", type=PlaceType())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_debug_option
def inspect(checkpoint: Place, *, as_json: bool) -> None:
    """Show what is in a checkpoint: a file, or the last one in a folder.

    \b
    Example:
      veloflow inspect saved
    """
    from rich.console import Console

    from veloflow.runtime.storage.checkpoint import find_checkpoint, read_checkpoint, summary
    from veloflow.views.report import checkpoint_tables, json_text

    path = find_checkpoint(checkpoint)
    found = summary(read_checkpoint(path))
    if as_json:
        click.echo(json_text(found))
    else:
        Console().print(*checkpoint_tables(path, found), sep="\n")


@main.command()
@click.argument("checkpoint", type=PlaceType())
@click.argument("data", type=PlaceType())
@click.option("--output", "-o", required=True, type=PlaceType(dir_okay=False),
              metavar="FILE", help="A .parquet or .csv file.")  # fmt: skip
@click.option("--key", metavar="NAME", help="The array in DATA, where there are several.")
@click.option("--device", "-d", default="auto", show_default=True,
              help="numpy, opencl, opencl:P:D, or auto.")  # fmt: skip
@click.option("--minibatch-size", type=click.IntRange(min=1), default=100, show_default=True,
              metavar="N", help="Samples that are computed together.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@_workflow_option
@_debug_option
def predict(
    checkpoint: Place,
    data: Place,
    output: Place,
    *,
    key: str | None,
    device: str,
    minibatch_size: int,
    quiet: bool,
    workflow: str | None,
) -> None:
    """Predict for the samples in DATA with the model in CHECKPOINT, a file or a folder.

    DATA is a file of arrays (.npy, .npz, .h5, .zarr), a table (.csv, .parquet), an IDX file, or
    what the workflow's own loader reads, such as images in a folder; each may be a URL.

    \b
    Examples:
      veloflow run digits_mlp --checkpoint saved
      veloflow predict saved digits.csv -o predictions.parquet
      veloflow predict s3://bucket/run https://example.org/new.csv -o s3://bucket/out.parquet
    """
    from veloflow.models import open_model
    from veloflow.models.prediction import check_table, predict
    from veloflow.views.counting import counting

    check_table(output)
    with (
        open_model(
            checkpoint, workflow=workflow, device=device, minibatch_size=minibatch_size
        ) as model,
        counting("samples", quiet=quiet) as progress,
    ):
        count = predict(model, data, output, key=key, progress=progress)
    if not quiet:
        click.echo(f"{output}: {count} samples")


@main.command()
@click.argument("checkpoint", type=PlaceType())
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="An .onnx file.")  # fmt: skip
@click.option("--check", type=PlaceType(), metavar="DATA",
              help="Compare with onnxruntime on these samples.")  # fmt: skip
@click.option("--key", metavar="NAME", help="The array in DATA, where there are several.")
@_workflow_option
@_debug_option
def export(
    checkpoint: Place, output: Path, check: Place | None, key: str | None, workflow: str | None
) -> None:
    """Write the model in CHECKPOINT, a file or a folder, as an ONNX file (opset 20).

    The file takes raw samples: the normalization is a part of it. Needs the extra onnx.

    \b
    Examples:
      veloflow export saved -o model.onnx
      veloflow export saved -o model.onnx --check digits.csv
    """
    import numpy as np

    from veloflow.models import export_onnx, open_model
    from veloflow.models.onnx_export import compare

    if output.suffix != ".onnx":
        raise InputError(f"{output}: the file of a model ends with .onnx")
    with open_model(checkpoint, workflow=workflow, device="numpy") as model:
        if check is None:
            click.echo(str(export_onnx(model, output)))
            return
        samples = np.asarray(model.loader.read_raw(check, key=key)[1][:1000])
        export_onnx(model, output)
        difference = compare(model, output, samples)
    click.echo(f"{output}: on {len(samples)} samples onnxruntime differs by {difference:.2g}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("who", default="")
@_debug_option
def story(file: Path, who: str) -> None:
    """Show the story in FILE: of the slave WHO (s2), of the piece WHO (17), or of all.

    Each line has the seconds since the start, the slave, what happened, and the piece with the
    number of the attempt.

    \b
    Examples:
      veloflow run digits_mlp --slaves 2 --faults kill=0.01 --story story.txt
      veloflow story story.txt s2
      veloflow story story.txt 17
    """
    from veloflow.runtime.master.story import read_story

    click.echo("\n".join(read_story(file, who)))


@main.command()
@_debug_option
@click.pass_context
def doctor(context: click.Context) -> None:
    """Look over this machine: devices, BLAS, ZeroMQ, Graphviz, versions; say what is missing.

    \b
    Example:
      veloflow doctor
    """
    from rich.console import Console

    from veloflow.runtime.doctor import examine
    from veloflow.views.report import findings_table

    findings = examine()
    Console().print(findings_table(findings))
    if any(finding.status == "fail" for finding in findings):
        raise InputError("something that veloflow needs does not work here; see the table")

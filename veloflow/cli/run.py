"""What runs a workflow: ``veloflow run``."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import click

from veloflow.cli.options import debug_option
from veloflow.cli.places import PlaceType
from veloflow.places import is_url

__all__ = ["run"]


class RunCommand(click.Command):
    """A command whose ``--resume`` may be followed by the place to go on from.

    What follows is that place when it is a URL, or a checkpoint's folder or file that is there;
    otherwise it is the next argument. ``--resume=PLACE`` is always the place.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn ``--resume PLACE`` into the option that takes it."""
        changed: list[str] = []
        for number, word in enumerate(args):
            following = args[number + 1] if number + 1 < len(args) else ""
            if word == "--resume" and _is_checkpoint(following):
                word = "--resume-from"
            elif word.startswith("--resume="):
                word = "--resume-from=" + word.partition("=")[2]
            changed.append(word)
        return super().parse_args(ctx, changed)


def _is_checkpoint(word: str) -> bool:
    if is_url(word):
        return True
    path = Path(word).expanduser()
    return path.suffix == ".safetensors" or (path / "last.safetensors").is_file()


@click.command(
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
@debug_option
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
    with ExitStack() as stack:
        if settings["on"] and not (settings["keys"] or settings["undo_spoiled"]):
            settings["on"] = stack.enter_context(_early(workflow, settings))
        from veloflow.runtime.api import run as run_workflow
        from veloflow.views.terminal import TerminalView

        view = stack.enter_context(TerminalView(as_json=as_json, quiet=quiet))
        view.finish(run_workflow(workflow, options=options, watch=view.watch, **settings))


def _early(workflow: str, settings: dict[str, Any]) -> AbstractContextManager[Any]:
    """Have an engine that runs already start slaves, before what the master needs is imported."""
    from veloflow.runtime.engine import started_early

    names = ("on", "slaves", "listen", "advertise", "device", "patience")
    return started_early(
        workflow, options=settings["engine_options"], **{name: settings[name] for name in names}
    )


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

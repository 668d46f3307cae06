"""What shows something: graph, report, devices, inspect, story, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from veloflow.cli.options import debug_option, workflow_option
from veloflow.cli.places import PlaceType
from veloflow.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from veloflow.places import Place

__all__ = ["devices", "doctor", "graph", "inspect", "report", "story"]


@click.command()
@click.argument("workflow")
@click.argument("assignments", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .svg, .png, .pdf or .dot file.  [default: WORKFLOW.svg]")  # fmt: skip
@click.option("--times", type=click.Path(path_type=Path, dir_okay=False), metavar="RESULT",
              help="Colour units by their share of the time in this result file.")  # fmt: skip
@debug_option
def graph(
    workflow: str, assignments: tuple[str, ...], output: Path | None, times: Path | None
) -> None:
    """Draw a workflow: control links, data links, gates.

    \b
    Examples:
      veloflow graph digits_mlp -o digits.svg
      veloflow run digits_mlp --result r.json && veloflow graph digits_mlp --times r.json
    """
    from veloflow.runtime.definition import find_definition
    from veloflow.runtime.options import parse_assignments
    from veloflow.runtime.session import build_workflow
    from veloflow.views.graph import draw
    from veloflow.views.report import read_times

    definition = find_definition(workflow)
    built, _ = build_workflow(definition, parse_assignments(assignments))
    target = output or Path(f"{definition.name}.svg")
    draw(built, target, read_times(times) if times else None)
    click.echo(str(target))


@click.command()
@click.argument("result", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False),
              metavar="FILE", help="A .md or .html file.")  # fmt: skip
@workflow_option
@debug_option
def report(result: Path, output: Path, workflow: str | None) -> None:
    """Write a report of the run whose RESULT file is given: tables, curves, the graph.

    \b
    Examples:
      veloflow run digits_mlp --result result.json
      veloflow report result.json -o report.html
    """
    from veloflow.runtime.definition import find_definition
    from veloflow.runtime.session import build_workflow
    from veloflow.views.document import read_result, write_report

    record = read_result(result)
    try:
        definition = find_definition(workflow or record["workflow"])
    except NotFoundError:
        if workflow is not None:
            raise
        click.echo("without the graph: give the definition's file with --workflow", err=True)
        built = None
    else:
        built = build_workflow(definition, record.get("options", {}))[0]
    write_report(record, output, built)
    click.echo(str(output))


@click.command()
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
@debug_option
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


@click.command()
@click.argument("checkpoint", type=PlaceType())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
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


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("who", default="")
@debug_option
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


@click.command()
@debug_option
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

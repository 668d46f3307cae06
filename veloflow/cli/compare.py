"""What runs modes side by side: ``veloflow compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from veloflow.cli.options import debug_option
from veloflow.errors import InputError

__all__ = ["compare"]


@click.command()
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
@debug_option
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

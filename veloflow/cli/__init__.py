"""The ``veloflow`` command. Thin: each command imports what it needs when it runs."""

from __future__ import annotations

import click

from veloflow import __version__
from veloflow.cli.cluster import keys, slave, store
from veloflow.cli.compare import compare
from veloflow.cli.group import Group
from veloflow.cli.looking import devices, doctor, graph, inspect, report, story
from veloflow.cli.model import export, predict
from veloflow.cli.options import debug_option
from veloflow.cli.run import run

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
@debug_option
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


for command in (
    *(run, slave, keys, store, compare, graph, report, inspect),
    *(predict, export, devices, story, doctor),
):
    main.add_command(command)

"""What runs beside a master: ``veloflow slave``, ``veloflow keys``, ``veloflow store``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from veloflow.cli.options import debug_option

__all__ = ["keys", "slave", "store"]


@click.command()
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
@debug_option
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


@click.command()
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
@debug_option
def store(address: str, keys: Path | None, save: Path | None, **settings: Any) -> None:
    """Hold values by key for training loops written by hand; they push and pull at ADDRESS.

    \b
    Examples:
      veloflow store tcp://127.0.0.1:5600 --workers 4 --updater momentum:0.1,moment=0.9
      veloflow store tcp://0.0.0.0:5600 --mode async --updater adam:0.001 --keys cluster-keys
    """
    from veloflow.kvstore.command import serve

    serve(address, keys, save, say=lambda text: click.echo(text, err=True), **settings)


@click.group()
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
@debug_option
def new_keys(folder: Path) -> None:
    """Make the master's pair of keys in DIR."""
    from veloflow.runtime.keys import make_keys

    public = make_keys(folder)
    click.echo(f"{public} is for slaves to know the master by; the secret one stays here")


@keys.command("add")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.argument("name")
@debug_option
def add_keys(folder: Path, name: str) -> None:
    """Make a pair of keys for the slave NAME, which masters with the keys in DIR accept."""
    from veloflow.runtime.keys import add_slave

    secret = add_slave(folder, name)
    click.echo(f"take {secret} and {folder / 'master.key'} to the slave's machine")

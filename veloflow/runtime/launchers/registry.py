"""Which launchers there are: those that come along, and others' in ``veloflow.launchers``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from veloflow.errors import NotFoundError, OptionError, nearest
from veloflow.runtime.launchers.base import Launcher, convert_engine_options

if TYPE_CHECKING:
    import msgspec

__all__ = ["known_launchers", "launcher_of_handle", "open_launcher"]

_GROUP = "veloflow.launchers"
#: name -> the class in veloflow.runtime.launchers.NAME
_OWN = {
    "dask": "DaskLauncher",
    "kubernetes": "KubernetesLauncher",
    "mpi": "MPILauncher",
    "ray": "RayLauncher",
    "slurm": "SlurmLauncher",
    "spark": "SparkLauncher",
    "ssh": "SSHLauncher",
}
#: the first part of the module of a handle -> the launcher that takes it
_HANDLES = {"distributed": "dask", "ray": "ray", "pyspark": "spark"}


def known_launchers() -> list[str]:
    """Return the names of all engines."""
    return sorted({*_OWN, *(entry.name for entry in entry_points(group=_GROUP))})


def open_launcher(
    name: str, given: Mapping[str, Any], handle: object | None = None
) -> Launcher[msgspec.Struct]:
    """Return the launcher of an engine, not connected yet.

    Args:
        name: such as "dask".
        given: the engine's options, as texts or values.
        handle: the caller's own connection to the engine.

    Raises:
        NotFoundError: there is no such engine.
        OptionError: an option does not exist or does not fit.
    """
    kind = _find(name)
    return kind(convert_engine_options(kind.Options, name, given), handle)


def launcher_of_handle(handle: object) -> str:
    """Return the name of the engine that a client, session or module is of.

    Raises:
        OptionError: it is of none that is known.
    """
    module = getattr(handle, "__name__", "") or type(handle).__module__
    name = _HANDLES.get(module.partition(".")[0])
    if name is None:
        raise OptionError(
            f"on={handle!r}: give the name of an engine ({', '.join(known_launchers())}), a "
            "distributed.Client, a SparkSession or the module ray"
        )
    return name


def _find(name: str) -> type[Launcher[Any]]:
    if name in _OWN:
        module = importlib.import_module(f"veloflow.runtime.launchers.{name}")
        found: type[Launcher[Any]] = getattr(module, _OWN[name])
        return found
    for entry in entry_points(group=_GROUP, name=name):
        loaded: type[Launcher[Any]] = entry.load()
        return loaded
    raise NotFoundError(
        f"no engine {name!r}{nearest(name, known_launchers())}; "
        f"there are: {', '.join(known_launchers())}"
    )

"""Every error that veloflow raises, as one tree, so that a caller knows what to catch.

VeloflowError
├── InputError                 what the user gave is wrong: exit code 2, nothing is lost
│   ├── NotFoundError          no such workflow, device or file; names the nearest one
│   ├── DefinitionError        a definition file that cannot be read or built (file and line)
│   ├── OptionError            an unknown, missing or badly typed option
│   ├── DataError              a missing or damaged data file; says how to get it
│   ├── GraphError             the graph is wrong
│   │   ├── LinkError          an unlinked input, or a link to something that does not exist
│   │   ├── ShapeError         two ends of a data link do not fit
│   │   └── ControlError       an unreachable unit, a loop without a repeater, no way to the end
│   ├── DeviceError            a device that does not exist or does not work here
│   ├── CheckpointError        a checkpoint that is damaged or belongs to something else
│   └── StorageError           a full disk, a folder that cannot be written
├── RunError                   the run failed: exit code 1
│   ├── UnitError              a unit raised; names the unit and keeps the cause
│   ├── StalledError           control stopped before the end was reached
│   ├── NumericsError          NaN or infinity; names the first unit that had it
│   ├── KernelError            a device could not compile or launch a kernel
│   └── ClusterError           slaves: none could be started, or this one was refused
│       └── EngineError        an engine that is not there, or refuses: exit code 2
├── WireError                  what came over a connection is no message; never leaves the runtime
└── Interrupted                Ctrl-C or SIGTERM: exit code 130, after a checkpoint
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ClusterError",
    "ControlError",
    "DataError",
    "DefinitionError",
    "DeviceError",
    "EngineError",
    "GraphError",
    "InputError",
    "Interrupted",
    "KernelError",
    "LinkError",
    "NotFoundError",
    "NumericsError",
    "OptionError",
    "RunError",
    "ShapeError",
    "StalledError",
    "StorageError",
    "UnitError",
    "VeloflowError",
    "WireError",
    "nearest",
]


class VeloflowError(Exception):
    """The root of all errors that veloflow raises on purpose."""

    exit_code = 1


class InputError(VeloflowError):
    """Something that the user gave is wrong; the message names it and the cure."""

    exit_code = 2


class NotFoundError(InputError):
    """No workflow, device or file of that name."""


class DefinitionError(InputError):
    """A definition file that cannot be read, imported or built."""


class OptionError(InputError):
    """An option that is unknown, missing or of the wrong type."""


class DataError(InputError):
    """A data file that is missing or damaged."""


class GraphError(InputError):
    """The graph of units is wrong."""


class LinkError(GraphError):
    """A data input that is not linked, or linked to something that does not exist."""


class ShapeError(GraphError):
    """The two ends of a data link differ in shape or dtype."""


class ControlError(GraphError):
    """The control links cannot work: unreachable unit, dead loop, end never reached."""


class DeviceError(InputError):
    """A device that does not exist or does not work on this machine."""


class CheckpointError(InputError):
    """A checkpoint that is damaged or belongs to another workflow."""


class StorageError(InputError):
    """A file that could not be written: full disk, no permission."""


class RunError(VeloflowError):
    """The run itself failed."""


class UnitError(RunError):
    """A unit raised an exception; ``__cause__`` keeps it."""

    def __init__(self, unit: str, message: str) -> None:
        super().__init__(f"unit {unit!r}: {message}")
        self.unit = unit


class StalledError(RunError):
    """No control signal is left and the end was not reached."""


class NumericsError(RunError):
    """NaN or infinity where a finite number must be."""


class KernelError(RunError):
    """A device could not compile or launch a kernel."""


class ClusterError(RunError):
    """Slaves: none could be started, or this one was refused."""


class EngineError(ClusterError):
    """An engine that is not installed, cannot be reached, or refuses; the message has the cure."""

    exit_code = 2


class WireError(VeloflowError):
    """What came over a connection is no message; never leaves the runtime."""


class Interrupted(VeloflowError):  # noqa: N818 - it is an event, not a fault
    """The user asked the run to stop."""

    exit_code = 130


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the name in ``known`` nearest to ``wrong``, or ''."""
    matches = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""

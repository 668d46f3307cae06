"""What was tuned for a device: kept in the cache folder, read by every engine that opens it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from veloflow.devices.cache import cache_folder, write_bytes
from veloflow.devices.opencl.recipes import kernel_source
from veloflow.devices.opencl.tiles import Blas, Choice, default_choices, fits
from veloflow.errors import StorageError

if TYPE_CHECKING:
    from veloflow.devices.opencl.platforms import Hardware
    from veloflow.devices.opencl.tiles import Facts

__all__ = ["Figure", "SetAside", "Tuning", "load_tuning", "save_tuning", "tuning_file"]

_log = logging.getLogger(__name__)

#: goes up when what is in the file means something else
_FORMAT = 1
#: a file is worth nothing for other kernels than these
_KERNELS = ("gemm", "panels", "gemm_write", "gemm_packed", "gemm_local")
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Figure(_Record, frozen=True):
    """What a method reached in the product of two square matrices of float32.

    Attributes:
        method: for people.
        size: the edge of the matrices.
        gflops: 10^9 multiplications and additions a second.
    """

    method: str
    size: int
    gflops: _Positive


class SetAside(_Record, frozen=True):
    """A method that did not work, and why."""

    method: str
    reason: str


class Tuning(_Record, frozen=True):
    """The methods for a device, and what was measured.

    Attributes:
        format, device, kernels: what it is valid for; see :func:`load_tuning`.
        gemm: the methods for products, in rising order of the sizes from which on they are taken.
        figures: what was measured.
        set_aside: what did not work.
        when: the time, in ISO 8601; '' for the built-in choice.
        seconds: how long the search took.
        load: processes that wanted a core when it began, divided by the cores.
        is_complete: whether the search came to its end.
    """

    format: int
    device: str
    kernels: str
    gemm: tuple[Choice, ...]
    figures: tuple[Figure, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    when: str = ""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    load: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    is_complete: bool = True

    @classmethod
    def builtin(cls, identity: str, facts: Facts) -> Tuning:
        """Return what is taken where nobody has tuned."""
        return cls(_FORMAT, identity, _digest(), default_choices(facts))

    def fingerprint(self, facts: Facts) -> str:
        """A few letters for what changes the bits of a run, '' where that is the built-in choice.

        Kernels of products all give the same bits; the host's BLAS does not.
        """
        blas, usual = (
            [one.from_size for one in choices if isinstance(one.method, Blas)]
            for choices in (self.gemm, default_choices(facts))
        )
        if blas == usual:
            return ""
        return hashlib.sha256(str(blas).encode()).hexdigest()[:8]

    def lines(self) -> list[str]:
        """Return what is chosen from which size on, with its rate, for people."""
        found = []
        for number, one in enumerate(self.gemm):
            name = str(one.method)
            rates = [f for f in self.figures if f.method == name and f.size >= one.from_size]
            limit = self.gemm[number + 1].from_size if number + 1 < len(self.gemm) else None
            within = [f for f in rates if limit is None or f.size < limit]
            best = max(within, key=lambda figure: figure.gflops, default=None)
            speed = "" if best is None else f", {best.gflops:.0f} GFLOP/s at {best.size}"
            found.append(f"products from {one.from_size}: {name}{speed}")
        if self.when:
            state = "" if self.is_complete else ", not to its end"
            found.append(
                f"tuned {self.when} in {self.seconds:.0f} s{state}, load {self.load:.1f}, "
                f"{len(self.set_aside)} methods set aside"
            )
        else:
            found.append("built-in choice; measure with: veloflow devices --tune")
        return found

    def problem(self, identity: str, facts: Facts) -> str:
        """Return why this is not valid for a device, '' if it is."""
        if (self.format, self.kernels) != (_FORMAT, _digest()):
            return "it is of other kernels than this veloflow's"
        if self.device != identity:
            return f"it is of {self.device}"
        sizes = [one.from_size for one in self.gemm]
        if not sizes or sizes[0] != 0 or sizes != sorted(set(sizes)):
            return f"its sizes {sizes} do not rise from 0"
        if isinstance(self.gemm[0].method, Blas):
            return "it has no kernel for small products"
        for one in self.gemm:
            if not fits(one.method, facts):
                return f"this device does not take its {one.method}"
        return ""


def _digest() -> str:
    text = "".join(kernel_source(name) for name in _KERNELS)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tuning_file(identity: str) -> Path:
    """Return where the tuning of a device and driver is kept.

    Raises:
        StorageError: there can be no cache folder.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_folder("tuning") / f"{name}.json"


def load_tuning(hardware: Hardware) -> Tuning:
    """Return what was tuned for a device, or the built-in choice.

    A file that is damaged, or of another version of the kernels, is named in the log and ignored.
    """
    builtin = Tuning.builtin(hardware.identity, hardware.facts)
    try:
        path = tuning_file(hardware.identity)
        content = path.read_bytes()
    except FileNotFoundError:
        return builtin
    except (OSError, StorageError) as error:
        _log.warning("the tuning of %s cannot be read: %s", hardware.name, error)
        return builtin
    try:
        tuning = msgspec.json.decode(content, type=Tuning)
        problem = tuning.problem(hardware.identity, hardware.facts)
    except msgspec.MsgspecError as error:
        problem = f"it is damaged ({error})"
    if not problem:
        return tuning
    _log.warning("%s is ignored: %s; make it anew with: veloflow devices --tune", path, problem)
    return builtin


def save_tuning(tuning: Tuning) -> Path:
    """Keep a tuning in one step, whoever else writes at the same moment; return its file.

    Raises:
        StorageError: it cannot be written.
    """
    path = tuning_file(tuning.device)
    write_bytes(path, msgspec.json.format(msgspec.json.encode(tuning), indent=1))
    return path

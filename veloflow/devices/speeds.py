"""How long a measured speed of a device is believed, and which of two figures is. No clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["Speed", "cost", "merged", "to_measure_again"]

#: seconds after which a figure is made anew, whatever it is
_OLD = 30 * 86400.0
#: seconds after which a figure is made anew where it decides by a little, or is a failure
_DAY = 86400.0
#: processes that want a core, for each core, from which on a machine is called busy
_BUSY = 0.5
#: how much quieter a machine must be for a figure to be worth making anew
_QUIETER = 0.25
#: costs nearer to each other than this may be the other way round the next time
_CLOSE = 1.15


@dataclass(frozen=True)
class Speed:
    """What was measured of a device, or why it cannot be chosen.

    Attributes:
        small_step_seconds, gemm_gflops: see :mod:`veloflow.devices.benchmark`.
        problem: why it cannot be chosen, or ''.
        load: processes that wanted a core when this was measured, for each core.
        when: seconds since 1970.
    """

    small_step_seconds: float = math.inf
    gemm_gflops: float = 0.0
    problem: str = ""
    load: float = 0.0
    when: float = 0.0


def cost(speed: Speed) -> float:
    """Return what counts when devices are compared: less is better."""
    return speed.small_step_seconds / speed.gemm_gflops if speed.gemm_gflops else math.inf


def to_measure_again(speeds: Mapping[str, Speed], *, now: float, load: float) -> set[str]:
    """Return the names of the devices whose kept figures should not decide any more.

    Those of a busy machine, once it is quieter; the two best, where a little decides between them
    and they are a day old; those that say that a device does not work, after a day; old ones.

    Args:
        speeds: what is kept, by name.
        now: seconds since 1970.
        load: processes that want a core now, for each core.
    """
    again = set()
    for name, speed in speeds.items():
        age = now - speed.when
        is_quieter = speed.load > _BUSY and load <= speed.load - _QUIETER
        if age > _OLD or age < 0 or is_quieter or (speed.problem and age > _DAY):
            again.add(name)
    ranked = sorted(
        (one for one in speeds if not speeds[one].problem), key=lambda n: cost(speeds[n])
    )
    if len(ranked) > 1:
        first, second = (speeds[name] for name in ranked[:2])
        is_close = cost(second) < _CLOSE * cost(first)
        if is_close and now - min(first.when, second.when) > _DAY:
            again |= set(ranked[:2])
    return again


def merged(old: Speed, new: Speed) -> Speed:
    """Return what to keep of two figures: a quiet machine's, unless it is too old."""
    is_busier = new.load > _BUSY and new.load > old.load + _QUIETER
    if old.problem or new.problem or not is_busier or not 0 <= new.when - old.when <= _OLD:
        return new
    return replace(old, when=new.when)

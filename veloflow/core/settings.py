"""What holds for a whole run and every unit may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The settings of a run, a service of the workflow.

    Attributes:
        seed: the root of all random numbers.
        dtype: the dtype of parameters and activations.
        testing: evaluate once, without training.
    """

    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    testing: bool = False

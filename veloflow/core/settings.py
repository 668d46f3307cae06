"""What holds for a whole run and every unit may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["DataFacts", "Role", "Settings"]

#: alone computes all; a master steers and has slaves compute; a slave computes what it is told
Role = Literal["alone", "master", "slave"]


@dataclass(frozen=True)
class Settings:
    """The settings of a run, a service of the workflow.

    Attributes:
        seed: the root of all random numbers.
        dtype: the dtype of parameters and activations.
        testing: evaluate once, without training.
        role: of this process in the run.
        shards: into how many parts a minibatch is cut for slaves; 0 lets its size say.
        precision_level: 0 multiplies matrices as fast as it goes; 1 and 2 lose less to rounding.
        local: whether slaves take steps of their own, and send what has become of the parameters.
        codec: how the vectors of updates travel, as ``--codec`` has it.
        gives_data: whether the master gives slaves their samples, which then read no data.
    """

    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    testing: bool = False
    role: Role = "alone"
    shards: int = 1
    precision_level: Literal[0, 1, 2] = 0
    local: bool = False
    codec: str = "plain"
    gives_data: bool = False


@dataclass(frozen=True)
class DataFacts:
    """What slaves must know of data that their master gives them; a service of the workflow.

    Attributes:
        facts: what ``data_facts`` of a loader says, by its path.
    """

    facts: Mapping[str, Mapping[str, object]]

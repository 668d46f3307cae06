"""Which farm serves a policy of sharing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from veloflow.errors import OptionError
from veloflow.runtime.farms.farm import PieceFarm, SyncFarm
from veloflow.runtime.farms.local import LocalFarm
from veloflow.runtime.farms.task import TaskFarm
from veloflow.sharing.policies import Auto, GradientPolicy, LocalPolicy, Policy, Sync

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.master.crew import Crew

__all__ = ["make_farm"]


def make_farm(
    policy: Policy,
    workflow: Workflow,
    parameters: Parameters,
    crew: Crew,
    codec: str | None = None,
) -> PieceFarm:
    """Return the farm for a mode of sharing.

    Args:
        policy: the mode.
        workflow, parameters, crew: see :class:`PieceFarm`.
        codec: the one that the user wants, if the farm may change it.

    Raises:
        OptionError: the policy is of another package, and is neither of gradients nor of stretches.
    """
    if isinstance(policy, Auto):
        from veloflow.runtime.farms.auto import AutoFarm  # the largest, and seldom the one

        make = partial(make_farm, workflow=workflow, parameters=parameters, crew=crew)
        return AutoFarm(workflow, parameters, crew, policy, codec, make)
    if isinstance(policy, Sync):
        return SyncFarm(workflow, parameters, crew, policy.shards)
    if isinstance(policy, GradientPolicy):
        return TaskFarm(workflow, parameters, crew, policy)
    if isinstance(policy, LocalPolicy):
        return LocalFarm(workflow, parameters, crew, policy)
    raise OptionError(
        f"--sharing {policy.name}: {type(policy).__name__} is neither a GradientPolicy nor a "
        "LocalPolicy"
    )

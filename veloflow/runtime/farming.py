"""Which farm serves a policy of sharing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veloflow.errors import OptionError
from veloflow.runtime.farms import PieceFarm, SyncFarm
from veloflow.runtime.local_farm import LocalFarm
from veloflow.runtime.task_farm import TaskFarm
from veloflow.sharing.policies import GradientPolicy, LocalPolicy, Policy, Sync

if TYPE_CHECKING:
    from veloflow.core import Workflow
    from veloflow.devices.parameters import Parameters
    from veloflow.runtime.crew import Crew

__all__ = ["make_farm"]


def make_farm(policy: Policy, workflow: Workflow, parameters: Parameters, crew: Crew) -> PieceFarm:
    """Return the farm for a mode of sharing.

    Raises:
        OptionError: the policy is of another package, and is neither of gradients nor of stretches.
    """
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

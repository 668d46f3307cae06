"""What options of a run go together: what is wrong is said before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from veloflow.errors import OptionError
from veloflow.protocol.faults import FaultPlan
from veloflow.sharing.codecs import parse_codec
from veloflow.sharing.policies import Sync, sharing_text
from veloflow.sharing.topologies import Topology, parse_topology

if TYPE_CHECKING:
    from veloflow.sharing.policies import Policy

__all__ = ["check_faults", "check_slave_options", "check_topology"]


def check_slave_options(
    *,
    has_slaves: bool,
    listen: Sequence[str],
    on: object | None,
    engine_options: Mapping[str, object] | None,
    advertise: str,
    has_keys: bool,
    master_works: bool,
    send_definition: bool,
    data_from: str,
    has_story: bool,
) -> None:
    """Look whether what was said of slaves can be had; see :func:`veloflow.run`.

    Raises:
        InputError: an address is none, or needs keys.
        OptionError: two options do not go together.
    """
    if listen:
        from veloflow.runtime.keys import check_address

        for address in listen:
            check_address(address, has_keys=has_keys or on is not None)
    if on is None and (engine_options or advertise):
        raise OptionError("--engine-option and --advertise are for engines: give --on ENGINE too")
    if on is not None and (has_keys or len(listen) > 1):
        raise OptionError("--on makes keys for each run, and listens on one address: leave --keys")
    if master_works and not has_slaves:
        raise OptionError("--master-works is for runs with slaves: give --slaves or --listen too")
    if send_definition and not has_keys:
        raise OptionError("--send-definition is for masters that prove who they are: give --keys")
    if data_from not in ("slave", "master"):
        raise OptionError(f"--data-from is {data_from!r}; give slave or master")
    if data_from == "master" and not has_slaves:
        raise OptionError("--data-from master is for runs with slaves: give --slaves or --on too")
    if has_story and not has_slaves:
        raise OptionError("--story is about slaves: give --slaves or --listen too")


def check_topology(
    text: str, mode: Policy | None, coding: str, *, has_slaves: bool, audits: bool, works: bool
) -> Topology:
    """Return the topology; see that it goes with the rest.

    Raises:
        OptionError: it does not, or there is no such topology.
    """
    topology = parse_topology(text)
    if topology.is_star:
        return topology
    if not has_slaves:
        raise OptionError(f"--topology {text} is for slaves: give --slaves or --listen too")
    if not isinstance(mode, Sync):
        given = "" if mode is None else sharing_text(mode)
        raise OptionError(f"--topology {text} adds up as sync does, and not with --sharing {given}")
    if coding != "plain":
        raise OptionError(f"--topology {text} sends gradients as they are: leave --codec {coding}")
    if audits or works:
        other = "--audit" if audits else "--master-works"
        raise OptionError(f"--topology {text} does not go with {other}: the master sees no shards")
    return topology


def check_faults(
    audit: float,
    faults: str,
    mode: Policy | None,
    coding: str,
    *,
    slaves: int,
    has_slaves: bool,
) -> FaultPlan:
    """Return the plan of faults; see that it and the audit can be had.

    Raises:
        OptionError: they cannot.
    """
    plan = FaultPlan.parse(faults)
    if not 0 <= audit <= 1:
        raise OptionError(f"--audit {audit}: give a share of the work from 0 to 1")
    if audit and not has_slaves:
        raise OptionError("--audit compares slaves: give --slaves or --listen too")
    if audit and mode is not None and not mode.is_exact:
        raise OptionError(
            f"--audit needs equal bits, and --sharing {sharing_text(mode)} has none; use sync"
        )
    if audit and parse_codec(coding).has_feedback:
        raise OptionError(f"--audit needs equal bits, and --codec {coding} has none")
    if str(plan) and not slaves:
        raise OptionError("--faults strike local slaves: give --slaves too")
    for one in ("join", "restart"):
        if getattr(plan, one) or any(one == it.fault for it in plan.appointments):
            raise OptionError(f"--faults {one}: this one is for simulations; see veloflow.testing")
    return plan

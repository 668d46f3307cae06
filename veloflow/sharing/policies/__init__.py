"""Policies: the modes of sharing parameters. What a user writes after ``--sharing``."""

from __future__ import annotations

from veloflow.sharing.policies.asynchronous import Async
from veloflow.sharing.policies.automatic import Auto
from veloflow.sharing.policies.average import Average
from veloflow.sharing.policies.base import GradientPolicy, LocalPolicy, Period, Policy
from veloflow.sharing.policies.bounded import Bounded
from veloflow.sharing.policies.elastic import Elastic
from veloflow.sharing.policies.grouped import Groups
from veloflow.sharing.policies.synchronous import Sync
from veloflow.sharing.words import known_words, read_word, write_word

__all__ = [
    "Async",
    "Auto",
    "Average",
    "Bounded",
    "Elastic",
    "GradientPolicy",
    "Groups",
    "LocalPolicy",
    "Period",
    "Policy",
    "Sync",
    "known_policies",
    "parse_sharing",
    "sharing_text",
]

#: others add to these by an entry point whose name is the mode's and whose object is its class
GROUP = "veloflow.policies"

_OWN: tuple[type[Policy], ...] = (Sync, Async, Bounded, Average, Elastic, Groups, Auto)


def known_policies() -> dict[str, type[Policy]]:
    """Return all modes by name: veloflow's own, and those of installed packages.

    Raises:
        DefinitionError: an installed package's policy cannot be loaded.
    """
    return known_words(_OWN, GROUP, "policy")


def parse_sharing(text: str) -> Policy:
    """Read ``sync:shards=4``, ``ssp:3``, ``average:every=20``, ``elastic:0.9,10``.

    Raises:
        OptionError: the text is no mode of sharing; the message says which there are.
    """
    policy: Policy = read_word(text, known_policies(), "--sharing", "mode")  # type: ignore[type-var]
    return policy


def sharing_text(policy: Policy) -> str:
    """Return the text that :func:`parse_sharing` makes the policy of."""
    return write_word(policy.name, policy)  # type: ignore[arg-type]

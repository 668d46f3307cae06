"""Topologies: by which ways gradients come together. What a user writes after ``--topology``."""

from __future__ import annotations

from veloflow.sharing.topologies.attempts import Attempts, Verdict
from veloflow.sharing.topologies.base import Cost, Group, Node, Packet, Topology, shards_of
from veloflow.sharing.topologies.ring import Ring
from veloflow.sharing.topologies.servers import RangeServer, Servers
from veloflow.sharing.topologies.star import Star
from veloflow.sharing.topologies.tree import Tree
from veloflow.sharing.words import known_words, read_word, write_word

__all__ = [
    "Attempts",
    "Cost",
    "Group",
    "Node",
    "Packet",
    "RangeServer",
    "Ring",
    "Servers",
    "Star",
    "Topology",
    "Tree",
    "Verdict",
    "known_topologies",
    "parse_topology",
    "shards_of",
    "topology_text",
]

#: others add to these by an entry point whose name is the topology's and whose object is its class
GROUP = "veloflow.topologies"

_OWN: tuple[type[Topology], ...] = (Star, Servers, Ring, Tree)


def known_topologies() -> dict[str, type[Topology]]:
    """Return all topologies by name: veloflow's own, and those of installed packages.

    Raises:
        DefinitionError: an installed package's topology cannot be loaded.
    """
    return known_words(_OWN, GROUP, "topology")


def parse_topology(text: str) -> Topology:
    """Read ``star``, ``servers:2``, ``ring``, ``tree``.

    Raises:
        OptionError: the text is no topology; the message says which there are.
    """
    topology: Topology = read_word(text, known_topologies(), "--topology", "topology")  # type: ignore[type-var]
    return topology


def topology_text(topology: Topology) -> str:
    """Return the text that :func:`parse_topology` makes the topology of."""
    return write_word(topology.name, topology)  # type: ignore[arg-type]

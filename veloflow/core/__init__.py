"""The control-flow graph: units, links, gates, the run loop. No arrays, sockets or clocks."""

from veloflow.core.bools import Bool
from veloflow.core.events import CheckpointWanted, EpochDone, Events, Message, SharingStatus
from veloflow.core.farming import (
    Batch,
    BatchSource,
    Farm,
    Journal,
    Part,
    Payload,
    shard_size,
)
from veloflow.core.flow import Flow, Outcome, UnitTime
from veloflow.core.inputs import DataLink, Input, Inputs
from veloflow.core.plumbing import EndPoint, Repeater, StartPoint
from veloflow.core.settings import DataFacts, Role, Settings
from veloflow.core.unit import Progress, Unit
from veloflow.core.workflow import Workflow

__all__ = [
    "Batch",
    "BatchSource",
    "Bool",
    "CheckpointWanted",
    "DataFacts",
    "DataLink",
    "EndPoint",
    "EpochDone",
    "Events",
    "Farm",
    "Flow",
    "Input",
    "Inputs",
    "Journal",
    "Message",
    "Outcome",
    "Part",
    "Payload",
    "Progress",
    "Repeater",
    "Role",
    "Settings",
    "SharingStatus",
    "StartPoint",
    "Unit",
    "UnitTime",
    "Workflow",
    "shard_size",
]

"""The control-flow graph: units, links, gates, the run loop. No arrays, sockets or clocks."""

from veloflow.core.bools import Bool
from veloflow.core.events import CheckpointWanted, EpochDone, Events, Message
from veloflow.core.flow import Flow, Outcome, UnitTime
from veloflow.core.inputs import DataLink, Input
from veloflow.core.plumbing import EndPoint, Repeater, StartPoint
from veloflow.core.settings import Settings
from veloflow.core.unit import Progress, Unit
from veloflow.core.workflow import Workflow

__all__ = [
    "Bool",
    "CheckpointWanted",
    "DataLink",
    "EndPoint",
    "EpochDone",
    "Events",
    "Flow",
    "Input",
    "Message",
    "Outcome",
    "Progress",
    "Repeater",
    "Settings",
    "StartPoint",
    "Unit",
    "UnitTime",
    "Workflow",
]

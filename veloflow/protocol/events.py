"""What goes into the pure machines of master and slave, and what comes out.

An event and the time go in, a list of actions comes out; whoever holds sockets and clocks does
what the actions say, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veloflow.protocol.messages import (
        Failure,
        FromMaster,
        FromSlave,
        LeaseId,
        Piece,
        Update,
    )

__all__ = [
    "STAND_IN",
    "Action",
    "Applied",
    "Apply",
    "Away",
    "BoundChanged",
    "Computed",
    "Event",
    "Exit",
    "Exposed",
    "Failed",
    "Garbage",
    "GiveUp",
    "Grant",
    "Heard",
    "Inherit",
    "Lost",
    "PauseAsked",
    "PutOut",
    "Recruit",
    "Rejected",
    "ResumeAsked",
    "Said",
    "Say",
    "Send",
    "Skipped",
    "SlaveAction",
    "SlaveEvent",
    "StandDown",
    "StandIn",
    "StopAsked",
    "Tell",
    "TermAsked",
    "Tick",
    "Want",
    "Withdrawn",
    "WorkAdded",
]  # fmt: skip

#: the client that is the master itself
STAND_IN = b"the master itself"

# -- into the master ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A client said something. Beats come over a connection of their own and name their slave."""

    client: bytes
    message: FromSlave
    is_local: bool = False  #: whether the master started it itself and may kill it
    digest: bytes = b""  #: of an update's bits, if its piece is audited


@dataclass(frozen=True, slots=True)
class Lost:
    """A client is gone for sure: its process ended, or its connection broke."""

    client: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """A client sent what is no message."""

    client: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WorkAdded:
    """There are new pieces, to be leased in this order.

    ``is_shared``: those who compute them work together, so an idle slave gets one that another has
    only when it is late. ``wishes``: which slave each of them is cut for, if any: that one gets it
    if it is free, and anybody otherwise.
    """

    pieces: tuple[Piece, ...]
    is_shared: bool = False
    wishes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Pieces need not be computed any more; those that are done are passed over."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """The update of a piece can be seen in the parameters; needed where staleness is bounded."""

    number: int


@dataclass(frozen=True, slots=True)
class BoundChanged:
    """From now on a slave may be so many clocks ahead of the slowest; nothing is under way."""

    bound: int | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The content of an update was looked at, and it is not to be applied.

    ``is_lie``: it has not even the right form, so the slave is wrong. Otherwise the numbers are
    not finite, which may be the workflow's own fault: another slave is asked.
    """

    client: bytes
    lease: LeaseId
    reason: str
    is_lie: bool


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Give no work for a while."""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Give work again."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The run is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody listened for a while; what has arrived meanwhile is not handled yet."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; everything that had arrived was handled before."""


Event = (
    Heard
    | Lost
    | Garbage
    | WorkAdded
    | Applied
    | BoundChanged
    | Withdrawn
    | Rejected
    | PauseAsked
    | ResumeAsked
    | StopAsked
    | Away
    | Tick
)

# -- out of the master ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a client."""

    client: bytes
    message: FromMaster


@dataclass(frozen=True, slots=True)
class Grant:
    """Send a job for this lease; whoever sends it adds what the units say."""

    client: bytes
    lease: LeaseId
    piece: Piece


@dataclass(frozen=True, slots=True)
class Apply:
    """This result is the one that counts for its piece."""

    client: bytes
    slave: str
    piece: Piece
    update: Update


@dataclass(frozen=True, slots=True)
class PutOut:
    """Have no more to do with this client; kill its process if ``kill``."""

    client: bytes
    slave: str
    reason: str
    kill: bool


@dataclass(frozen=True, slots=True)
class Inherit:
    """This client is gone, and was honest: others are to send what its codec has left out."""

    client: bytes


@dataclass(frozen=True, slots=True)
class Exposed:
    """The audit has shown that this slave spoils updates; some of its others were applied."""

    slave: str
    reason: str


@dataclass(frozen=True, slots=True)
class StandIn:
    """The master is to compute itself: say Hello in the name of the client STAND_IN."""


@dataclass(frozen=True, slots=True)
class StandDown:
    """There are slaves again: say Bye in the name of the client STAND_IN."""


@dataclass(frozen=True, slots=True)
class Recruit:
    """One slave more is needed, to say which of two is right."""


@dataclass(frozen=True, slots=True)
class Want:
    """So many slaves are to be there from now on, of those that are started for this run."""

    count: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The piece failed wherever it was tried, or slaves died of it: the run fails."""

    piece: Piece
    failure: Failure
    is_deadly: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the user."""

    level: str  #: "info" or "warning"
    text: str


Action = (
    Send
    | Grant
    | Apply
    | PutOut
    | Inherit
    | Exposed
    | Recruit
    | Want
    | StandIn
    | StandDown
    | GiveUp
    | Say
)

# -- into the slave -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """The master said something."""

    message: FromMaster


@dataclass(frozen=True, slots=True)
class Computed:
    """The job is done."""

    update: Update


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit raised while the job was computed."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Skipped:
    """The job cannot be computed any more: its parameters are gone, so others were quicker."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class TermAsked:
    """The slave is to leave when its present job is done."""

    reason: str = "asked to leave"


SlaveEvent = Said | Computed | Failed | Skipped | TermAsked | Tick

# -- out of the slave -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to the master."""

    message: FromSlave


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave, with this exit code."""

    code: int
    reason: str = field(default="")


SlaveAction = Tell | Exit | Say

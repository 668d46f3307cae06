"""What goes into the pure machines of master and slave, and what comes out.

An event and the time go in, a list of actions comes out; whoever holds sockets and clocks does
what the actions say, in order. They are Structs of msgspec, as messages are: several are made for
each job, and a frozen dataclass takes five times as long.
"""

from __future__ import annotations

from msgspec import Struct

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


class Heard(Struct, frozen=True):
    """A client said something. Beats come over a connection of their own and name their slave."""

    client: bytes
    message: FromSlave
    is_local: bool = False  #: whether the master started it itself and may kill it
    digest: bytes = b""  #: of an update's bits, if its piece is audited


class Lost(Struct, frozen=True):
    """A client is gone for sure: its process ended, or its connection broke."""

    client: bytes
    reason: str


class Garbage(Struct, frozen=True):
    """A client sent what is no message."""

    client: bytes
    reason: str


class WorkAdded(Struct, frozen=True):
    """There are new pieces, to be leased in this order.

    ``is_shared``: those who compute them work together, so an idle slave gets one that another has
    only when it is late. ``wishes``: which slave each of them is cut for, if any: that one gets it
    if it is free, and anybody otherwise.
    """

    pieces: tuple[Piece, ...]
    is_shared: bool = False
    wishes: tuple[str, ...] = ()


class Withdrawn(Struct, frozen=True):
    """Pieces need not be computed any more; those that are done are passed over."""

    numbers: tuple[int, ...]


class Applied(Struct, frozen=True):
    """The update of a piece can be seen in the parameters; needed where staleness is bounded."""

    number: int


class BoundChanged(Struct, frozen=True):
    """From now on a slave may be so many clocks ahead of the slowest; nothing is under way."""

    bound: int | None


class Rejected(Struct, frozen=True):
    """The content of an update was looked at, and it is not to be applied.

    ``is_lie``: it has not even the right form, so the slave is wrong. Otherwise the numbers are
    not finite, which may be the workflow's own fault: another slave is asked.
    """

    client: bytes
    lease: LeaseId
    reason: str
    is_lie: bool


class PauseAsked(Struct, frozen=True):
    """Give no work for a while."""


class ResumeAsked(Struct, frozen=True):
    """Give work again."""


class StopAsked(Struct, frozen=True):
    """The run is over."""

    reason: str


class Away(Struct, frozen=True):
    """Nobody listened for a while; what has arrived meanwhile is not handled yet."""


class Tick(Struct, frozen=True):
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


class Send(Struct, frozen=True):
    """Send a message to a client."""

    client: bytes
    message: FromMaster


class Grant(Struct, frozen=True):
    """Send a job for this lease; whoever sends it adds what the units say."""

    client: bytes
    lease: LeaseId
    piece: Piece


class Apply(Struct, frozen=True):
    """This result is the one that counts for its piece."""

    client: bytes
    slave: str
    piece: Piece
    update: Update


class PutOut(Struct, frozen=True):
    """Have no more to do with this client; kill its process if ``kill``."""

    client: bytes
    slave: str
    reason: str
    kill: bool


class Inherit(Struct, frozen=True):
    """This client is gone, and was honest: others are to send what its codec has left out."""

    client: bytes


class Exposed(Struct, frozen=True):
    """The audit has shown that this slave spoils updates; some of its others were applied."""

    slave: str
    reason: str


class StandIn(Struct, frozen=True):
    """The master is to compute itself: say Hello in the name of the client STAND_IN."""


class StandDown(Struct, frozen=True):
    """There are slaves again: say Bye in the name of the client STAND_IN."""


class Recruit(Struct, frozen=True):
    """One slave more is needed, to say which of two is right."""


class Want(Struct, frozen=True):
    """So many slaves are to be there from now on, of those that are started for this run."""

    count: int


class GiveUp(Struct, frozen=True):
    """The piece failed wherever it was tried, or slaves died of it: the run fails."""

    piece: Piece
    failure: Failure
    is_deadly: bool = False


class Say(Struct, frozen=True):
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


class Said(Struct, frozen=True):
    """The master said something."""

    message: FromMaster


class Computed(Struct, frozen=True):
    """The job is done."""

    update: Update


class Failed(Struct, frozen=True):
    """A unit raised while the job was computed."""

    failure: Failure


class Skipped(Struct, frozen=True):
    """The job cannot be computed any more: its parameters are gone, so others were quicker."""

    lease: LeaseId


class TermAsked(Struct, frozen=True):
    """The slave is to leave when its present job is done."""

    reason: str = "asked to leave"


SlaveEvent = Said | Computed | Failed | Skipped | TermAsked | Tick

# -- out of the slave -----------------------------------------------------------------------------


class Tell(Struct, frozen=True):
    """Send a message to the master."""

    message: FromSlave


class Exit(Struct, frozen=True):
    """Leave, with this exit code."""

    code: int
    reason: str = ""


SlaveAction = Tell | Exit | Say

"""What master and slaves say to each other: headers with a schema, and raw array frames.

Every message is a tagged record; arrays travel beside it as raw frames that ``frames`` declares.
Nothing here is code, and nothing that is received is ever executed.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "PROTOCOL",
    "Ask",
    "Beat",
    "Bye",
    "Cancel",
    "Collect",
    "Data",
    "Failure",
    "FrameHeader",
    "FromMaster",
    "FromSlave",
    "GiveBack",
    "Hello",
    "Introduce",
    "Job",
    "LeaseId",
    "Part",
    "Pause",
    "Piece",
    "Plan",
    "Refusal",
    "Residual",
    "Resume",
    "Stop",
    "Update",
    "Welcome",
]

#: raised whenever old and new peers would misunderstand each other
PROTOCOL = 1

Name = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]

#: what a unit says to its twin on the other side: JSON values, by name
Scalar = int | float | bool | str | None
Data = dict[Name, Scalar | list[Scalar] | dict[Name, Scalar]]


class _Record(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A message or a part of one."""


class Piece(_Record, frozen=True, order=True):
    """The identity of a piece of work.

    Attributes:
        number: its place in the order in which pieces are applied; unique in a run.
        epoch: the pass over the data.
        kind: TEST (0), VALIDATION (1), TRAIN (2), or -1 for work that is no minibatch.
        first: place of its first sample in the epoch's order, or of its first item.
        count: how many samples or items.
    """

    number: Count
    epoch: Count
    kind: Annotated[int, Meta(ge=-1, le=2)]
    first: Count
    count: Count

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.kind < 0:
            return f"item {self.first}"
        kind = ("test", "validation", "training")[self.kind]
        last = self.first + self.count - 1
        return f"{kind} samples {self.first} to {last} of epoch {self.epoch}"


class LeaseId(_Record, frozen=True, order=True):
    """One attempt at one piece."""

    number: Count
    attempt: Count


class FrameHeader(_Record, frozen=True):
    """An array frame that follows the message: its name, shape and dtype."""

    name: Name
    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[tuple[Count, ...], Meta(max_length=8)]


# -- from a slave -----------------------------------------------------------------------------


class Ask(_Record, frozen=True):
    """A slave asks what is run, before it says hello; see :class:`Plan`."""

    protocol: Count


class Hello(_Record, frozen=True):
    """A slave asks to be taken in.

    Attributes:
        protocol: see :data:`PROTOCOL`.
        checksum: of the definition's code, its options and the version of veloflow.
        name: what the slave calls itself, for people.
        device: the device's name; ``hardware`` the processor's own.
        host, pid: where it runs.
        memory: the name of the slave's file in the run's folder of shared memory, if it can reach
            that folder: then no parameters and no gradients go over the socket; or ''.
        capacity: how many jobs it takes at once: one to compute, the others in advance.
        former: the id it had before it lost the master, or ''.
        moves: whether it can move a copy of the parameters itself, to the master's bits.
        peer: where other slaves reach it, if it can compute with them; or ''.
    """

    protocol: Count
    checksum: Name
    name: Name
    device: Name
    hardware: Name
    host: Name
    pid: Count
    memory: Name = ""
    capacity: Annotated[int, Meta(ge=1, le=64)] = 2
    former: Name = ""
    moves: bool = False
    peer: Name = ""


class Update(_Record, frozen=True):
    """The result of a job.

    Attributes:
        lease: the attempt that it answers.
        data: what each unit says, by unit path.
        frames: the arrays that follow; named ``unit path:name``, or ``gradients``.
        seconds: how long it computed.
        parameters: the version of the parameters that it was computed with.
    """

    lease: LeaseId
    data: dict[Name, Data]
    frames: Annotated[tuple[FrameHeader, ...], Meta(max_length=4096)]
    seconds: Seconds
    parameters: Count = 0


class Part(_Record, frozen=True):
    """Some ranges of a gradient, ahead of the update: they leave while others are computed.

    Attributes:
        lease: the attempt that they are of.
        frames: the arrays that follow; named ``gradients@`` and the place of the first number.
    """

    lease: LeaseId
    frames: Annotated[tuple[FrameHeader, ...], Meta(max_length=64)]


class Residual(_Record, frozen=True):
    """What the codec of a sender has left out of its updates so far.

    A slave says it when it is asked and before it leaves, where the master cannot see it in shared
    memory. A master says what the slave is to add to its own: what others had left out.

    Attributes:
        frames: one array, ``residual``.
    """

    frames: Annotated[tuple[FrameHeader, ...], Meta(max_length=1)] = ()


class Beat(_Record, frozen=True):
    """A sign of life, sent from outside the computing thread over a connection of its own.

    The master answers with the same message, so that the slave knows that it is heard.

    Attributes:
        slave: the id that the master gave.
        progress: counts steps of the computing thread: it proves that the work advances.
        memory: resident bytes.
        run: the id of the run in which it has that id.
    """

    slave: Name
    progress: Count
    memory: Count = 0
    run: Name = ""


class GiveBack(_Record, frozen=True):
    """A slave returns a lease that it has not begun: it leaves, or the lease was cancelled.

    A slave answers each lease exactly once, by Update, Failure or GiveBack.
    """

    lease: LeaseId


class Failure(_Record, frozen=True):
    """A unit raised on the slave; the slave itself is well."""

    lease: LeaseId
    unit: Name
    reason: Text


class Bye(_Record, frozen=True):
    """A slave leaves on purpose; it holds nothing any more."""

    reason: Text


# -- from the master --------------------------------------------------------------------------


class Plan(_Record, frozen=True):
    """What is run: the answer to :class:`Ask`. The slave has the definition itself, by its name.

    Attributes:
        workflow: the name of the definition, or the path of its file.
        options: its options, as JSON values.
        settings: seed, dtype, testing, shards, and the mode of sharing.
        checksum: of the definition's code, options and settings, and of the version of veloflow.
        folder: the run's folder of shared memory on the master's machine; ``token`` is in it, so
            that a slave can tell whether it is on the same machine.
        token: see ``folder``.
        parameters: how many numbers the flat vector of parameters has.
        source: the text of the definition, where the master sends it.
        topology: by which ways gradients come together.
        peers: of the group that exchanges gradients: its secret token, and where there are keys
            its public and its secret one; empty in a star.
        data: what slaves must know of data that the master gives them, by unit path.
    """

    workflow: Name
    options: dict[str, object]
    settings: dict[str, object]
    checksum: Name
    folder: Annotated[str, Meta(max_length=4000)]
    token: Name
    parameters: Count
    source: Annotated[str, Meta(max_length=1_000_000)] = ""
    topology: Name = "star"
    peers: tuple[Name, ...] = ()
    data: dict[str, object] = {}


class Introduce(_Record, frozen=True):
    """The master does not know who speaks, for it has started anew: say hello again.

    Attributes:
        run: what the beat said that this answers, or '': a slave that is of another run by now has
            said hello since.
    """

    run: Name = ""


class Welcome(_Record, frozen=True):
    """A slave is taken in.

    Attributes:
        slave: its id in this run.
        run: the run's id.
        beat_every: seconds between signs of life.
    """

    slave: Name
    run: Name
    beat_every: Seconds


class Refusal(_Record, frozen=True):
    """A slave is not taken in, or is put out; ``reason`` is for people. It need not come back."""

    reason: Text


class Job(_Record, frozen=True):
    """A piece to compute.

    Attributes:
        lease: the attempt; the update names it.
        piece: the identity of the work.
        data: what each unit says, by unit path.
        frames: arrays that follow; named ``unit path:name``, or ``parameters``.
        parameters: the version of the parameters to compute with.
        slot: where in the slave's own shared memory to leave the update's arrays.
    """

    lease: LeaseId
    piece: Piece
    data: dict[Name, Data]
    frames: Annotated[tuple[FrameHeader, ...], Meta(max_length=4096)] = ()
    parameters: Count = 0
    slot: Count = 0


class Cancel(_Record, frozen=True):
    """Somebody else was first: the lease is void."""

    lease: LeaseId


class Collect(_Record, frozen=True):
    """Say what your codec has left out: a checkpoint is being written."""


class Pause(_Record, frozen=True):
    """No more jobs for a while; go on beating."""


class Resume(_Record, frozen=True):
    """Jobs come again."""


class Stop(_Record, frozen=True):
    """The run is over, or the slave is not needed any more."""

    reason: Text


FromSlave = Ask | Hello | Update | Beat | GiveBack | Failure | Bye | Residual | Part
FromMaster = (
    Plan | Welcome | Introduce | Refusal | Job | Cancel | Beat | Pause | Resume | Stop | Collect
    | Residual
)  # fmt: skip

"""The pure worker of a key-value store: numbers its commands and says them until they are taken."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from veloflow.protocol.kvstore.messages import (
    PROTOCOL,
    Denied,
    FromStore,
    FromWorker,
    Join,
    Joined,
    Pull,
    Push,
    Start,
    Stranger,
    Taken,
    Value,
)

if TYPE_CHECKING:
    from veloflow.protocol.messages import FrameHeader

__all__ = ["Client", "State"]

#: seconds, times patience, until something is said again: at first, and at most; and until the
#: store counts as gone
_FIRST, _LONGEST, _GIVE_UP = 1.0, 8.0, 60.0


class State(Enum):
    """Where a worker is in the conversation."""

    JOINING = "joining"
    HERE = "here"
    FAILED = "failed"


class Client:
    """The state of a worker. What the store says and the time go in, messages come out.

    Args:
        join: what it says of itself.
        patience: scales every wait.
    """

    def __init__(self, join: Join, patience: float = 1.0) -> None:
        self.state = State.JOINING
        self.joined: Joined | None = None
        self.failure = ""  #: why it failed
        self.faults: list[str] = []  #: of commands
        self.answers: dict[int, Value | str] = {}  #: to questions, or what was wrong with them
        self._join = join
        self._patience = patience
        self.number = 0  #: of the last command
        self._request = 0
        self._last: dict[str, int] = {}  # by key: the last command about it
        self._unsaid: dict[int, Start | Push] = {}  # commands that are not taken
        self._questions: dict[int, Pull] = {}
        self._again: float | None = None  # when all is said once more
        self._wait = _FIRST * patience
        self._heard = 0.0

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`pass_time` at the latest."""
        return self._again

    @property
    def untaken(self) -> int:
        """How many commands are not taken yet."""
        return len(self._unsaid)

    def is_untaken(self, number: int) -> bool:
        """Whether a command may have to be said again."""
        return number in self._unsaid

    def start(self, now: float) -> list[FromWorker]:
        """Join."""
        self._heard = now
        self._rest(now)
        return [self._join]

    def command(
        self, kind: type[Start] | type[Push], key: str, frames: tuple[FrameHeader, ...], now: float
    ) -> list[FromWorker]:
        """Give a command the next number; say it."""
        self.number += 1
        message = kind(self._join.worker, self.number, key, frames)
        self._unsaid[self.number] = message
        self._last[key] = self.number
        return self._say(message, now)

    def ask(self, key: str, now: float) -> tuple[int, list[FromWorker]]:
        """Ask for a value; return the number of the question, and what to say."""
        self._request += 1
        pull = Pull(self._join.worker, self._request, key, self._last.get(key, 0))
        self._questions[self._request] = pull
        return self._request, self._say(pull, now)

    def _say(self, message: FromWorker, now: float) -> list[FromWorker]:
        if self._again is None:
            self._heard = now  # until now there was nothing to hear
            self._rest(now)
        return [message] if self.state is State.HERE else []

    def _rest(self, now: float) -> None:
        self._again = now + self._wait

    def hear(self, message: FromStore, now: float) -> list[FromWorker]:
        """Take in what the store says."""
        self._heard = now
        self._wait = _FIRST * self._patience
        if isinstance(message, Denied):
            self._fail(f"the store does not take this worker: {message.reason}")
        elif isinstance(message, Stranger):
            if self.state is State.HERE:
                self.state = State.JOINING
                return [self._join]
        elif isinstance(message, Joined):
            return self._on_joined(message, now)
        elif isinstance(message, Taken):
            self._taken(message.number)
        elif isinstance(message, Value):
            if self._questions.pop(message.request, None) is not None:
                self.answers[message.request] = message
        elif message.request:
            if self._questions.pop(message.request, None) is not None:
                self.answers[message.request] = message.reason
        elif message.number in self._unsaid:  # it is told before the command counts as taken
            del self._unsaid[message.number]
            self.faults.append(message.reason)
        self._look(now)
        return []

    def _on_joined(self, joined: Joined, now: float) -> list[FromWorker]:
        if self.joined is not None and joined.store != self.joined.store:
            self._fail("the store has been started anew, and its values with it; start over")
            return []
        is_again = self.state is State.HERE
        self.joined, self.state = joined, State.HERE
        self._taken(joined.taken)
        self._look(now)
        return [] if is_again else [*self._unsaid.values(), *self._questions.values()]

    def _taken(self, number: int) -> None:
        for one in [one for one in self._unsaid if one <= number]:
            del self._unsaid[one]

    def _look(self, now: float) -> None:
        """Say things again later, if there is anything to say."""
        is_busy = self.state is State.JOINING or self._unsaid or self._questions
        if self.state is State.FAILED or not is_busy:
            self._again = None
        else:
            self._rest(now)

    def pass_time(self, now: float) -> list[FromWorker]:
        """Say all again that was not answered; or give up."""
        if self._again is None or now < self._again:
            return []
        if now >= self._heard + _GIVE_UP * self._patience:
            self._fail(f"no word from the store for {_GIVE_UP * self._patience:g} s")
            return []
        self._wait = min(2 * self._wait, _LONGEST * self._patience)
        self._rest(now)
        if self.state is State.JOINING:
            return [self._join]
        return [*self._unsaid.values(), *self._questions.values()]

    def _fail(self, reason: str) -> None:
        self.state, self.failure, self._again = State.FAILED, reason, None

    @staticmethod
    def greeting(worker: str, codec: str, name: str, *, observes: bool) -> Join:
        """Return what a worker says first."""
        return Join(PROTOCOL, worker, codec, name, observes)

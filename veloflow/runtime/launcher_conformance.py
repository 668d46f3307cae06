"""What every launcher must do, own or of another package.

A package that registers one in the entry-point group ``veloflow.launchers`` calls this in its
tests, where its engine can be reached::

    from veloflow.runtime.launcher_conformance import check_launcher

    def test_my_launcher():
        check_launcher("mine", {"queue": "short"})
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from veloflow.core import EpochDone
from veloflow.errors import UnitError, VeloflowError
from veloflow.runtime.api import run
from veloflow.runtime.launchers.registry import known_launchers, open_launcher

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer
    from veloflow.runtime.session import Session

__all__ = ["check_declarations", "check_launcher"]

#: a workflow that ends when it is told to; slaves are sent its text
_ENDLESS = '''"""Digits, for as long as one likes."""

from veloflow import Workflow
from veloflow.units import DigitsLoader, softmax, standard_workflow


def build(wf: Workflow) -> None:
    """Fill in a network that learns next to nothing, so that it never has learnt all."""
    standard_workflow(
        wf, loader=DigitsLoader(wf, minibatch_size=60), layers=[softmax(10)],
        learning_rate=1e-6, max_epochs=10**9, fail_iterations=10**9,
    )
'''
#: seconds that a launcher may take to stop
_STOP = 30.0


def check_launcher(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    handle: object | None = None,
    count: int = 2,
    timeout: float = 120.0,
) -> None:
    """See that a launcher keeps its promises, with its real engine.

    As many slaves come as were asked for, and no others; where it says that it is elastic, one
    alone stays, and others come again; the parameters have the bits that a run without slaves
    gives; no secret is on a command line of this machine; all is taken back in time, also where
    nothing was started.

    Args:
        name: by which it is registered.
        options: the engine's, as users give them.
        handle: a connection to the engine, for launchers that take one.
        count: how many slaves to ask for; 2 at least.
        timeout: seconds in which the engine has to bring them.

    Raises:
        AssertionError: it does not; the message says which promise.
        VeloflowError: the engine refuses, or cannot be reached.
    """
    options = options or {}
    check_declarations(name, options)
    unused = open_launcher(name, options, handle)
    unused.most = count
    unused.connect()
    _stop(unused)
    settings: dict[str, Any] = {"device": "numpy", "sharing": "sync"}
    alone = run("digits_mlp", epochs=3, **settings)
    launcher = _watched(name, options, handle, timeout)
    found = run("digits_mlp", epochs=3, on=launcher, slaves=count, **settings)
    assert found.parameters_sha256 == alone.parameters_sha256, "other bits than without slaves"
    launcher = _watched(name, options, handle, timeout)
    launcher.steps = [count, 1, count] if launcher.is_elastic else [count]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError), _told():
        path = Path(folder) / "endless.py"
        path.write_text(_ENDLESS)
        run(path, on=launcher, slaves=count, watch=launcher.follow, **settings)
        raise AssertionError("the run ended before all was seen")


def check_declarations(name: str, options: Mapping[str, Any]) -> None:
    """See that a launcher is declared as users expect it, without its engine.

    Raises:
        AssertionError: it is not; the message says what.
    """
    assert name in known_launchers(), f"{name} is not registered in veloflow.launchers"
    launcher = open_launcher(name, options)
    kind = type(launcher)
    assert kind.name == name, f"it is registered as {name} and calls itself {kind.name}"
    fields = kind.Options.__struct_fields__
    assert issubclass(kind.Options, msgspec.Struct), "its Options are no msgspec.Struct"
    assert kind.Options.__struct_config__.frozen, "its Options can be changed"
    silent = [one for one in fields if one not in (kind.Options.__doc__ or "")]
    assert not silent, f"options without a word in the docstring of Options: {silent}"
    assert launcher.describe(2).strip(), "--dry-run would show nothing"


class _EnoughError(VeloflowError):
    """All was seen that was to be seen."""


def _watched(name: str, options: Mapping[str, Any], handle: object | None, timeout: float) -> Any:
    """Return a launcher that takes note of what happens to it, and is resized in its own thread."""
    kind: Any = type(open_launcher(name, options))

    class Watched(kind):  # type: ignore[misc]
        """The launcher, watched: so many slaves are to be seen; then fewer; then more."""

        steps: ClassVar[list[int]] = []
        wanted = 0

        def start(self, count: int, offer: Offer) -> None:
            self.secret = offer.secret
            self.wanted = self.had = count
            self.until = time.monotonic() + timeout
            super().start(count, offer)

        def tend(self) -> Iterable[str]:
            if self.wanted != self.had:
                self.had = self.wanted
                self.resize(self.had)
            for line in super().tend():
                assert self.secret not in line, "a line for the user has the run's secret"
                yield line

        def stop(self, grace: float) -> None:
            _stop(super(), grace)

        def follow(self, session: Session) -> None:
            session.events.subscribe(EpochDone, lambda event: self.look(session))

        def look(self, session: Session) -> None:
            """Go to the next step when there are so many slaves as this one says."""
            assert session.farm is not None
            slaves: Any = session.farm.crew.results()["slaves"]
            present = sum(one["state"] == "well" for one in slaves)
            if present == self.steps[0]:
                _look_for(self.secret)
                del self.steps[0]
                if not self.steps:
                    raise _EnoughError
                self.wanted, self.until = self.steps[0], time.monotonic() + timeout
            assert time.monotonic() < self.until, (
                f"{present} slaves and not {self.steps[0]}, {timeout:g} s after they were wanted"
            )

    kept = open_launcher(name, options)
    return Watched(kept.options, handle)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Give assertions as they are, which are made where units run."""
    try:
        yield
    except UnitError as error:
        if isinstance(error.__cause__, AssertionError):
            raise error.__cause__ from None
        raise


def _stop(launcher: Any, grace: float = 0.0) -> None:
    began = time.monotonic()
    launcher.stop(grace)
    took = time.monotonic() - began
    assert took < _STOP, f"stop({grace:g}) took {took:.0f} s"


def _look_for(secret: str) -> None:
    """See that no secret is on a command line of this machine, where these can be read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended, or is another user's
        assert secret not in line, "the run's secret is on a command line"

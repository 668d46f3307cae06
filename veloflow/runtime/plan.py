"""What master and slaves must agree on: the definition, its options, the settings."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

import veloflow
from veloflow.core import DataFacts, Settings
from veloflow.errors import DefinitionError, NotFoundError
from veloflow.runtime.definition import find_definition, known_definitions
from veloflow.runtime.session import Session
from veloflow.runtime.slaves.job_form import Workers
from veloflow.runtime.slaves.worker import Worker

if TYPE_CHECKING:
    from contextlib import ExitStack

    from veloflow.devices import Device
    from veloflow.protocol.messages import Plan
    from veloflow.runtime.definition import Definition

__all__ = ["checksum", "name_of", "session_of", "settings_of", "source_of", "workers_of"]


def name_of(definition: Definition) -> str:
    """Return the name or path by which a slave finds the definition.

    Raises:
        DefinitionError: it is a function of a running program, which no other process can find.
    """
    if definition.name in known_definitions():
        return definition.name
    if definition.path is None:
        raise DefinitionError(
            f"{definition.name}: slaves cannot find a function of this program; "
            "put build() into a file and give its path"
        )
    return str(definition.path)


#: a definition that is sent may be so long, in characters
_LONGEST = 1_000_000


def source_of(definition: Definition) -> str:
    """Return the text of a definition file, to be sent; "" for one that each slave has by name.

    Raises:
        DefinitionError: the file is too long, or no UTF-8.
    """
    if definition.path is None or definition.name in known_definitions():
        return ""
    try:
        text = definition.path.read_bytes().decode()
    except UnicodeDecodeError:
        raise DefinitionError(f"{definition.path}: it cannot be sent: it is no UTF-8") from None
    if len(text) > _LONGEST:
        raise DefinitionError(
            f"{definition.path}: it cannot be sent: it has {len(text)} characters, and "
            f"{_LONGEST} are allowed; copy it to the slaves"
        )
    return text


def settings_of(settings: Settings) -> dict[str, object]:
    """Return the settings as slaves need them, as JSON values."""
    return {
        "seed": settings.seed,
        "dtype": settings.dtype,
        "testing": settings.testing,
        "shards": settings.shards,
        "precision_level": settings.precision_level,
        "local": settings.local,
        "codec": settings.codec,
        "gives_data": settings.gives_data,
    }


def checksum(
    definition: Definition, options: Mapping[str, object], settings: Mapping[str, object]
) -> str:
    """Return what a slave's definition, options, settings and version must come to."""
    digest = hashlib.sha256(veloflow.__version__.encode())
    if definition.path is not None:
        digest.update(definition.path.read_bytes())
    for part in (options, settings):
        plain = msgspec.to_builtins(part, enc_hook=str)
        digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def session_of(plan: Plan, device: Device, *, accepts_source: bool = False) -> tuple[Session, str]:
    """Return the session of a slave, and the checksum of what this machine has.

    Args:
        plan: what the master says.
        device: of the slave.
        accepts_source: whether a definition that the master sends is imported, which runs it.

    Raises:
        NotFoundError: this machine does not have the definition.
        DefinitionError, OptionError, GraphError: what it has does not fit.
    """
    if plan.source and accepts_source:
        with _written(plan) as path:
            definition = find_definition(str(path))
            return _session(definition, plan, device)
    try:
        return _session(find_definition(plan.workflow), plan, device)
    except NotFoundError as error:
        hint = "; with --accept-definition it is taken from the master" if plan.source else ""
        raise NotFoundError(f"{error}{hint}") from None


@contextlib.contextmanager
def _written(plan: Plan) -> Iterator[Path]:
    """Give a file, of this user alone, with the definition that the master has sent."""
    name = Path(plan.workflow).name
    if not re.fullmatch(r"\w{1,100}\.(py|ya?ml|toml)", name):
        name = "definition.py"
    with tempfile.TemporaryDirectory(prefix="veloflow-definition-") as folder:
        path = Path(folder) / name
        path.write_bytes(plan.source.encode())
        yield path


def _session(definition: Definition, plan: Plan, device: Device) -> tuple[Session, str]:
    settings = Settings(**cast("dict[str, Any]", plan.settings))
    own = checksum(definition, plan.options, settings_of(settings))
    session = Session(definition, plan.options, device, replace(settings, role="slave"))
    facts = cast("dict[str, dict[str, object]]", plan.data)
    session.workflow.provide(DataFacts, DataFacts(facts))
    return session, own


def workers_of(session: Session, given: Mapping[str, object], stack: ExitStack) -> Workers:
    """Return the worker of a slave's session, which makes others for jobs of other forms.

    Args:
        session: set up, with the role "slave".
        given: its options.
        stack: closes the other sessions.
    """

    def make(settings: Settings) -> Worker:
        other = stack.enter_context(Session(session.definition, given, session.device, settings))
        if settings.gives_data:
            other.workflow.provide(DataFacts, session.workflow.find_service(DataFacts))
        other.set_up()
        return Worker(other)

    return Workers(Worker(session), session.settings, make)

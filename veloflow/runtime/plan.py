"""What master and slaves must agree on: the definition, its options, the settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

import veloflow
from veloflow.core import Settings
from veloflow.errors import DefinitionError
from veloflow.runtime.definition import find_definition, known_definitions
from veloflow.runtime.session import Session

if TYPE_CHECKING:
    from veloflow.devices import Device
    from veloflow.protocol.messages import Plan
    from veloflow.runtime.definition import Definition

__all__ = ["checksum", "name_of", "session_of", "settings_of"]


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


def settings_of(settings: Settings) -> dict[str, object]:
    """Return the settings as slaves need them, as JSON values."""
    return {
        "seed": settings.seed,
        "dtype": settings.dtype,
        "testing": settings.testing,
        "shards": settings.shards,
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


def session_of(plan: Plan, device: Device) -> tuple[Session, str]:
    """Return the session of a slave, and the checksum of what this machine has.

    Raises:
        NotFoundError: this machine does not have the definition.
        DefinitionError, OptionError, GraphError: what it has does not fit.
    """
    definition = find_definition(plan.workflow)
    settings = Settings(**cast("dict[str, Any]", plan.settings))
    own = checksum(definition, plan.options, settings_of(settings))
    return Session(definition, plan.options, device, replace(settings, role="slave")), own

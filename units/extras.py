"""Libraries that only some loaders need: imported when used, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from veloflow.errors import InputError

__all__ = ["needs"]


def needs(module: str, extra: str, why: str) -> Any:
    """Import and return a module that comes with one of veloflow's extras.

    Raises:
        InputError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{why}, install {module}: pip install 'veloflow[{extra}]'") from error

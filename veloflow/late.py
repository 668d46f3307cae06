"""Names of a package that are loaded when first used: to import the package costs little."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

__all__ = ["late_names", "names_for_checkers"]


class _Package(ModuleType):
    """A package in which a name stays what it stands for when a module of that name is loaded."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in self.__dict__["__all__"]:
            return  # Python binds each module that it has loaded in the package around it
        super().__setattr__(name, value)


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package, which has its ``__all__`` already.

    Args:
        package: its name.
        homes: name -> the module that has it. A name is looked for there once.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    sys.modules[package].__class__ = _Package
    return load


def names_for_checkers(file: str) -> dict[str, str]:
    """Return name -> module of what a file imports for type checkers alone.

    So a package with many names lists them once.
    """
    checked = [
        one.body
        for one in ast.parse(Path(file).read_bytes()).body
        if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"
    ]
    return {
        alias.name: line.module
        for body in checked
        for line in body
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }

"""YAML and TOML files whose values know their lines, so that an error can name one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from veloflow.errors import DefinitionError

if TYPE_CHECKING:
    import yaml

__all__ = ["Marked", "Plain", "read_marked"]

#: what files hold: JSON's values
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
#: from the root to a value: keys of mappings, places in lists
Place: TypeAlias = "tuple[str | int, ...]"


@dataclass(frozen=True)
class Marked:
    """The values of a file, and the line of each.

    Attributes:
        path: the file.
        values: its root, a mapping.
        lines: of every value and key that is known, from 1 on.
    """

    path: Path
    values: dict[str, Plain]
    lines: Mapping[Place, int]

    def error(self, place: Place, what: str) -> DefinitionError:
        """Return an error that names the line of a value, or of what holds it."""
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place)
        return DefinitionError(f"{self.path}{'' if line is None else f':{line}'}: {what}")


def read_marked(path: Path) -> Marked:
    """Read a file; its suffix says whether it is YAML or TOML.

    Raises:
        DefinitionError: it cannot be read, is damaged, or is no mapping.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DefinitionError(f"{path}: it is no text in UTF-8") from None
    return _read_toml(path, text) if path.suffix == ".toml" else _read_yaml(path, text)


# -- YAML ------------------------------------------------------------------------------------------


def _read_yaml(path: Path, text: str) -> Marked:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        lines: dict[Place, int] = {}
        values = None if root is None else _Nodes(path, loader, lines).value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise DefinitionError(f"{path}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise DefinitionError(f"{path}: it must be a mapping, such as 'layers: [softmax: 10]'")
    return Marked(path, values, lines)


class _Nodes:
    """Turns YAML's nodes into values, noting the lines."""

    def __init__(self, path: Path, loader: yaml.SafeLoader, lines: dict[Place, int]) -> None:
        self._path = path
        self._loader = loader
        self._lines = lines
        self._open: list[int] = []

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._open:
            raise self._error(node, "it holds itself")
        self._open.append(id(node))
        try:
            return self._of(node, place)
        finally:
            self._open.pop()

    def _of(self, node: yaml.Node, place: Place) -> Any:
        import yaml

        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, (*place, number)) for number, one in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = self._scalar(key_node)
                if not isinstance(key, str):
                    raise self._error(key_node, f"the key {key!r} is no name; put it in quotes")
                if key in found:
                    raise self._error(key_node, f"{key!r} is there twice")
                self._lines[(*place, key)] = key_node.start_mark.line + 1
                found[key] = self.value(value_node, (*place, key))
            return found
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        value = self._loader.construct_object(node, deep=True)
        if value is not None and not isinstance(value, str | int | float | bool):
            raise self._error(node, f"{value!r} is no text, number or truth value")
        # YAML 1.1 takes 1e-4 for a text, for it has no point
        if isinstance(value, str) and node.style is None and _EXPONENT.fullmatch(value):
            return float(value)
        return value

    def _error(self, node: yaml.Node, what: str) -> DefinitionError:
        return DefinitionError(f"{self._path}:{node.start_mark.line + 1}: {what}")


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


# -- TOML ------------------------------------------------------------------------------------------


def _read_toml(path: Path, text: str) -> Marked:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        what = str(error) if at is None else str(error)[: at.start()]
        raise DefinitionError(f"{path}{f':{at[1]}' if at else ''}: {what}") from None
    lines: dict[Place, int] = {}
    _find_lines(values, (), text.splitlines(), 0, lines)
    return Marked(path, values, lines)


def _find_lines(
    value: object, place: Place, text: Sequence[str], start: int, lines: dict[Place, int]
) -> int:
    """Note where the keys below ``value`` stand, and return the line (from 0) of the last.

    tomllib gives no positions, so keys are looked for in their order, each from where the one
    before was found; in a file that parses that finds them, for keys come in the file's order.
    """
    here = start
    if isinstance(value, Mapping):
        for key, one in value.items():
            pattern = re.compile(rf"""(^|[\s{{,\[."']){re.escape(key)}["']?\s*(=|\.|\])""")
            found = next((n for n in range(here, len(text)) if pattern.search(text[n])), None)
            if found is None:  # a table that was begun before: from the top
                found = next((n for n, line in enumerate(text) if pattern.search(line)), here)
            lines[(*place, key)] = found + 1
            here = max(here, _find_lines(one, (*place, key), text, found, lines))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            here = _find_lines(one, (*place, number), text, here, lines)
    return here

"""Finding a workflow's definition by name or by file, and building the workflow from it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from veloflow.errors import DefinitionError, NotFoundError, VeloflowError, nearest

if TYPE_CHECKING:
    from veloflow.core import Workflow

__all__ = ["Definition", "find_definition", "is_known", "known_definitions"]

_PACKAGE = "veloflow.workflows"
_GROUP = "veloflow.workflows"
#: files that describe a network instead of building it, and what reads them
_DOCUMENTS = (".yaml", ".yml", ".toml")
_READER = "veloflow.units.document"

Build = Callable[..., None]


@dataclass(frozen=True)
class Definition:
    """A workflow's definition: its name, its ``build`` function and the file it stands in."""

    name: str
    build: Build
    path: Path | None

    @property
    def summary(self) -> str:
        """The first line of what the definition says of itself."""
        module = sys.modules.get(self.build.__module__)
        text = (module.__doc__ if module else None) or self.build.__doc__ or ""
        return text.strip().split("\n", maxsplit=1)[0]

    def build_into(self, workflow: Workflow, options: Mapping[str, object]) -> None:
        """Call ``build``; errors of the definition's own come out with file and line.

        Raises:
            DefinitionError: ``build`` raised something that is no error of veloflow.
        """
        try:
            self.build(workflow, **options)
        except VeloflowError:
            raise
        except Exception as error:
            raise DefinitionError(f"{self._place(error)}: {_describe(error)}") from error

    def _place(self, error: BaseException) -> str:
        """Name the innermost line of the definition that the error passed through."""
        frames = traceback.extract_tb(error.__traceback__)
        if self.path is not None:
            for frame in reversed(frames):
                if Path(frame.filename) == self.path:
                    return f"{self.path}:{frame.lineno}"
        return str(self.path or self.name)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def known_definitions() -> list[str]:
    """Return the names of all definitions that come with veloflow or with other packages."""
    others = [entry.name for entry in entry_points(group=_GROUP)]
    return sorted({*_own_definitions(), *others})


def _own_definitions() -> list[str]:
    package = importlib.import_module(_PACKAGE)
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def is_known(name: str) -> bool:
    """Return whether there is such a definition, without importing it: its file or its name."""
    path = Path(name).resolve()
    if path.suffix in (*_DOCUMENTS, ".py") or "/" in name:
        return path.is_file()
    return name in _own_definitions() or bool(entry_points(group=_GROUP, name=name))


def find_definition(name: str) -> Definition:
    """Find a definition by name (of veloflow or another package) or by path of a file.

    Raises:
        NotFoundError: there is none; the message names the nearest.
        DefinitionError: the file cannot be read, or has no ``build`` function.
    """
    path = Path(name).resolve()
    if path.suffix in _DOCUMENTS:
        return _from_document(path)
    if path.suffix == ".py" or "/" in name:
        return _from_module(path.stem, _import_file(path))
    for entry in entry_points(group=_GROUP, name=name):
        return _from_module(name, _import_module(entry.module))
    if name not in _own_definitions():  # to ask for the entry points again would take 20 ms
        hint = nearest(name, known_definitions()) or f"; there are {', '.join(known_definitions())}"
        raise NotFoundError(
            f"no workflow named {name!r}{hint}; a definition of your own is given as a path: "
            f"./{name}.py"
        )
    return _from_module(name, _import_module(f"{_PACKAGE}.{name}"))


def _from_document(path: Path) -> Definition:
    """Return the definition that a YAML or TOML file describes."""
    _demand_file(path)
    build_of: Callable[[Path], Build] = importlib.import_module(_READER).build_of
    return Definition(path.stem, build_of(path), path)


def _demand_file(path: Path) -> None:
    if not path.is_file():
        near = nearest(path.name, [one.name for one in path.parent.glob(f"*{path.suffix}")])
        raise NotFoundError(f"no definition file {path}{near}")


def _from_module(name: str, module: ModuleType) -> Definition:
    file = getattr(module, "__file__", None)
    build = getattr(module, "build", None)
    if not callable(build):
        raise DefinitionError(
            f"{file or name}: it has no function 'build'; write "
            "def build(wf: Workflow, *, option: int = 1) -> None"
        )
    return Definition(name, build, Path(file).resolve() if file else None)


def _import_file(path: Path) -> ModuleType:
    _demand_file(path)
    # a name of its own for each path, so that two files of one name do not meet
    digest = blake2b(str(path).encode(), digest_size=6).hexdigest()
    spec = importlib.util.spec_from_file_location(f"_veloflow_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # annotations and dataclasses look modules up there
    loader = spec.loader

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _import(load, path)
    except BaseException:
        del sys.modules[module.__name__]
        raise


def _import_module(name: str) -> ModuleType:
    return _import(lambda: importlib.import_module(name))


def _import(load: Callable[[], ModuleType], path: Path | None = None) -> ModuleType:
    try:
        return load()
    except SyntaxError as error:
        raise DefinitionError(
            f"{error.filename}:{error.lineno}: {error.msg}: {(error.text or '').strip()!r}"
        ) from error
    except VeloflowError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = next(
            (
                f"{f.filename}:{f.lineno}"
                for f in reversed(frames)
                if path and f.filename == str(path)
            ),
            f"{frames[-1].filename}:{frames[-1].lineno}",
        )
        raise DefinitionError(f"{where}: {_describe(error)}") from error

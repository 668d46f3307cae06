"""Who may import whom: the table of docs/architecture.md as data, checked with ast.

A module belongs to the layer with the longest matching name. It may import the standard library
but for what its layer forbids, the veloflow modules that its layer names (each with all below it),
and the named distributions. What stands under ``late`` may be imported inside a function or for
type checking only, so that the module itself loads without it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from checkout import ROOT, modules


@dataclass(frozen=True)
class Layer:
    """One row of the table."""

    name: str
    may: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    """Parts of the standard library that this layer must do without."""
    exactly: tuple[str, ...] = ()
    """Modules that may be imported, but nothing below them."""


CLOCKS_AND_SOCKETS = (
    *("asyncio", "concurrent", "logging", "multiprocessing", "random", "select", "selectors"),
    *("signal", "socket", "subprocess", "threading", "time"),
)
PROCESSES_AND_SOCKETS = ("asyncio", "multiprocessing", "select", "selectors", "socket")
#: what the parts of veloflow.runtime may import of the layers below it
BELOW_RUNTIME = (
    *("veloflow.core", "veloflow.devices", "veloflow.errors", "veloflow.protocol"),
    *("veloflow.sharing", "msgspec", "numpy", "zmq"),
)

LAYERS = (
    Layer("veloflow.errors", never=CLOCKS_AND_SOCKETS),
    Layer("veloflow.late", never=CLOCKS_AND_SOCKETS),
    Layer(
        "veloflow.places",
        may=("veloflow.errors",),
        late=("fsspec",),
        never=CLOCKS_AND_SOCKETS,
    ),
    Layer(
        "veloflow.core",
        may=("veloflow.core", "veloflow.errors", "networkx"),
        never=CLOCKS_AND_SOCKETS,
    ),
    Layer(
        "veloflow.devices",
        may=("veloflow.devices", "veloflow.errors", "numpy", "platformdirs", "threadpoolctl"),
        exactly=("veloflow",),  # for its version, which is a part of what is cached
        never=("asyncio", "select", "selectors", "socket"),
    ),
    Layer(
        "veloflow.devices.opencl",
        may=(
            *("veloflow.devices", "veloflow.errors", "msgspec", "numpy", "platformdirs"),
            "pyopencl",
        ),
        exactly=("veloflow",),  # for its version, which is a part of what is cached
        never=("asyncio", "select", "selectors", "socket"),
    ),
    Layer(
        "veloflow.protocol",
        may=("veloflow.errors", "veloflow.protocol", "msgspec"),
        never=CLOCKS_AND_SOCKETS,
    ),
    Layer(
        "veloflow.sharing",
        may=("veloflow.errors", "veloflow.protocol.messages", "veloflow.sharing", "numpy"),
        late=("_typeshed", "lz4", "zstandard"),
        never=CLOCKS_AND_SOCKETS,
    ),
    Layer(
        "veloflow.units",
        may=(
            *("veloflow.core", "veloflow.errors", "veloflow.late", "veloflow.places"),
            *("veloflow.units", "numpy"),
            *("veloflow.devices.base", "veloflow.devices.expressions"),
            *("veloflow.devices.memory", "veloflow.devices.parameters", "veloflow.devices.random"),
        ),
        exactly=("veloflow.devices",),
        late=("PIL", "polars", "scipy", "sklearn", "yaml"),  # and what units.extras imports by name
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer("veloflow.__main__", may=("veloflow.cli",)),
    Layer(
        "veloflow.sklearn",
        may=(
            *("veloflow.core", "veloflow.devices", "veloflow.errors", "veloflow.models"),
            *("veloflow.runtime", "veloflow.units", "numpy", "sklearn"),
        ),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow.runtime",
        may=(
            *("veloflow.core", "veloflow.devices", "veloflow.errors", "veloflow.protocol"),
            *("veloflow.late", "veloflow.places", "veloflow.runtime", "veloflow.sharing"),
            *("msgspec", "numpy", "platformdirs", "safetensors", "threadpoolctl", "zmq"),
        ),
        exactly=("veloflow",),  # for its version, which is written into results and checkpoints
    ),
    Layer(
        "veloflow.runtime.transport",
        may=(*BELOW_RUNTIME, "veloflow.runtime.keys", "veloflow.runtime.transport"),
    ),
    Layer(
        "veloflow.runtime.jobs",
        may=(*BELOW_RUNTIME, "veloflow.runtime.jobs", "veloflow.runtime.transport"),
    ),
    Layer(
        "veloflow.runtime.storage",
        may=(
            *(*BELOW_RUNTIME, "veloflow.places", "safetensors"),
            *(f"veloflow.runtime.{one}" for one in ("jobs", "storage", "transport")),
        ),
        exactly=("veloflow",),  # for its version, which is written into checkpoints
    ),
    Layer(
        "veloflow.runtime.slaves",
        may=(
            *(*BELOW_RUNTIME, "threadpoolctl"),
            *(f"veloflow.runtime.{one}" for one in ("jobs", "slaves", "transport")),
            *(f"veloflow.runtime.{one}" for one in ("keys", "offer", "plan", "profile", "session")),
        ),
        exactly=("veloflow",),  # for its version, which the master must have too
    ),
    Layer(
        "veloflow.runtime.master",
        may=(
            *(*BELOW_RUNTIME, "threadpoolctl", "veloflow.runtime.keys"),
            *(f"veloflow.runtime.{one}" for one in ("jobs", "master", "slaves", "storage")),
            "veloflow.runtime.transport",
        ),
        exactly=("veloflow",),
    ),
    Layer(
        "veloflow.runtime.farms",
        may=(
            *BELOW_RUNTIME,
            *(f"veloflow.runtime.{one}" for one in ("farms", "jobs", "master", "slaves")),
            "veloflow.runtime.transport",
        ),
    ),
    Layer(
        "veloflow.kvstore",
        may=(
            *("veloflow.devices.numpy", "veloflow.devices.parameters", "veloflow.errors"),
            *("veloflow.kvstore", "veloflow.protocol", "veloflow.runtime", "veloflow.sharing"),
            *("veloflow.units.solvers", "veloflow.units.update", "numpy", "safetensors"),
        ),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow.models",
        may=(
            *("veloflow.core", "veloflow.devices", "veloflow.errors", "veloflow.models"),
            *("veloflow.places", "veloflow.runtime", "veloflow.units", "numpy"),
        ),
        exactly=("veloflow",),  # for its version, which is written into files
        late=("polars",),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow.runtime.launchers",
        may=("veloflow.errors", "veloflow.runtime.launchers", "veloflow.runtime.offer", "msgspec"),
        exactly=("veloflow",),  # for its version, which nodes must have too
        late=("asyncssh", "distributed", "pyspark", "ray"),
    ),
    Layer(
        "veloflow.views",
        may=(
            *("veloflow.core", "veloflow.errors", "veloflow.late", "veloflow.views"),
            "veloflow.runtime.events",
            *("graphviz", "networkx", "rich"),
        ),
        late=("PIL", "polars"),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow.workflows",
        may=("veloflow.errors", "veloflow.units", "veloflow.workflows", "numpy"),
        exactly=("veloflow", "veloflow.core", "veloflow.devices"),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow",
        may=("veloflow.errors", "veloflow.late"),
        late=(
            *("veloflow.core", "veloflow.devices", "veloflow.kvstore", "veloflow.runtime"),
            "veloflow.views",
        ),
    ),
    Layer(
        "veloflow.conformance",
        may=("veloflow.errors", "veloflow.protocol", "veloflow.sharing", "numpy"),
        never=CLOCKS_AND_SOCKETS,
    ),
    Layer(
        "veloflow.testing",
        may=("veloflow.conformance", "veloflow.errors", "veloflow.protocol", "veloflow.sharing"),
        never=tuple(name for name in CLOCKS_AND_SOCKETS if name != "random"),
    ),
    Layer(
        "veloflow.spark",
        may=("veloflow.errors", "veloflow.places"),
        late=("veloflow.models", "veloflow.runtime", "numpy", "pyarrow"),
        never=PROCESSES_AND_SOCKETS,
    ),
    Layer(
        "veloflow.cli",
        may=("veloflow.cli", "veloflow.errors", "veloflow.places", "click"),
        exactly=("veloflow",),
        late=(
            *("veloflow.core", "veloflow.devices", "veloflow.kvstore", "veloflow.models"),
            *("veloflow.runtime", "veloflow.views", "numpy", "rich"),
        ),
    ),
)

CODE_IN_DATA = ("cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve")
"""Modules that turn data into code; nothing here may read with them."""


@dataclass(frozen=True)
class Import:
    """An import statement: the module it needs, its line, and whether it waits."""

    target: str
    line: int
    late: bool


SOURCES = modules()


def layer_of(module: str) -> Layer | None:
    """Return the layer of a module; a bare module of ``veloflow`` needs a row of its own."""
    rows = [row for row in LAYERS if below(module, row.name)]
    row = max(rows, key=lambda row: len(row.name))
    return None if row.name == "veloflow" and module != "veloflow" else row


def below(module: str, top: str) -> bool:
    """Tell whether a module is ``top`` or lies in it."""
    return module == top or module.startswith(top + ".")


def imports(module: str, tree: ast.Module, *, package: bool) -> Iterator[Import]:
    """Yield every import at any depth, by absolute name."""
    late = {id(node) for outer in ast.walk(tree) if waits(outer) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        for target in targets(node, module if package else module.rpartition(".")[0]):
            yield Import(target, node.lineno, id(node) in late)


def waits(node: ast.AST) -> bool:
    """Tell whether what is inside this node does not run when the module loads."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def targets(node: ast.AST, parent: str) -> Iterator[str]:
    """Yield the modules that one statement or call imports."""
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            base = node.module or ""
            if node.level:
                up = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                base = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in SOURCES else base
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(function) in ("importlib.import_module", "import_module", "__import__"):
                yield name


def allowed(layer: Layer, found: Import) -> bool:
    """Tell whether the layer's row admits this import."""
    top = found.target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return top not in layer.never
    names = layer.may + (layer.late if found.late else ())
    return found.target in layer.exactly or any(below(found.target, name) for name in names)


def offences(module: str, code: str, *, package: bool = False) -> list[str]:
    """Return one line for each thing in a module that its layer or the whole project forbids."""
    tree = ast.parse(code)
    layer = layer_of(module)
    if layer is None:
        return [f"{module} is in no layer: give it a row in LAYERS and in docs/architecture.md"]
    found = [
        f"{module}:{each.line} imports {each.target}, which {layer.name} may not"
        f"{' do when it loads' if any(below(each.target, name) for name in layer.late) else ''}"
        for each in imports(module, tree, package=package)
        if not allowed(layer, each)
    ]
    if below(module, "veloflow.workflows"):
        found += [f"{module}:{line} does work at import" for line in work_at_import(tree)]
    return found + [f"{module}:{text}" for text in unsafe(tree)]


def unsafe(tree: ast.Module) -> Iterator[str]:
    """Yield each place where data could become code."""
    for node in ast.walk(tree):
        for name in targets(node, ""):
            if name.partition(".")[0] in CODE_IN_DATA:
                yield f"{node.lineno} imports {name}, which runs what it reads"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                yield f"{node.lineno} calls {node.func.id}"
            for keyword in node.keywords:
                harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not harmless:
                    yield f"{node.lineno} lets pickle in"


def work_at_import(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of a definition at which loading it would do more than define names."""
    for node in tree.body:
        match node:
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                continue  # the guard, or a main block
            case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.Expr(value=value):
                if value is not None and any(isinstance(n, ast.Call) for n in ast.walk(value)):
                    yield node.lineno
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case _:
                yield node.lineno


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_module_keeps_to_its_layer(module):
    path = SOURCES[module]
    code = path.read_text(encoding="utf-8")
    assert offences(module, code, package=path.name == "__init__.py") == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.name)
def test_tests_turn_no_data_into_code(path):
    assert list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("veloflow.core.flow", "import numpy"),
        ("veloflow.core.flow", "from time import perf_counter"),
        ("veloflow.core.flow", "def late():\n    import threading"),
        ("veloflow.core.flow", "from ..devices import base"),
        ("veloflow.core.flow", "from veloflow import devices"),
        ("veloflow.core.flow", "import importlib\nimportlib.import_module('zmq')"),
        ("veloflow.devices.base", "import pyopencl"),
        ("veloflow.devices.base", "from veloflow.core import Unit"),
        ("veloflow.devices.base", "if TYPE_CHECKING:\n    from veloflow.runtime import events"),
        ("veloflow.protocol.ledger", "import numpy"),
        ("veloflow.protocol.ledger", "import time"),
        ("veloflow.sharing.average", "from veloflow.protocol.master import Master"),
        ("veloflow.units.loaders", "import sklearn.datasets"),
        ("veloflow.units.loaders", "import veloflow.devices.opencl.device"),
        ("veloflow.units.loaders", "from veloflow.runtime import checkpoint"),
        ("veloflow.runtime.loading", "import veloflow.units"),
        ("veloflow.views.graph", "from veloflow.devices import Array"),
        ("veloflow.workflows.wine", "from veloflow.core.flow import Flow"),
        ("veloflow.workflows.wine", "print('loaded')"),
        ("veloflow.workflows.wine", "DATA = load()"),
        ("veloflow.workflows.wine", "for i in range(3): pass"),
        ("veloflow.cli", "import veloflow.runtime"),
        ("veloflow.newcomer", ""),
        ("veloflow.runtime.storage.files", "import pickle"),
        ("veloflow.runtime.storage.files", "def f(x):\n    return eval(x)"),
        ("veloflow.runtime.storage.files", "np.load(f, allow_pickle=True)"),
        ("veloflow.runtime.storage.files", "np.load(f, allow_pickle=trusted)"),
    ],
)
def test_offence_is_seen(module, code):
    assert len(offences(module, code)) == 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("veloflow.core.flow", "import networkx\nfrom . import bools\nfrom ..errors import Error"),
        ("veloflow.devices.opencl.device", "import pyopencl as cl"),
        ("veloflow.units.loaders", "def load():\n    from sklearn.datasets import load_digits"),
        ("veloflow.units.loaders", "from veloflow.devices import Array"),
        ("veloflow.runtime.storage.files", "np.load(f, allow_pickle=False)"),
        ("veloflow.workflows.wine", "RATE: float = 0.1\ndef build(wf): print(wf)"),
        ("veloflow.cli", "def main():\n    import veloflow.runtime"),
    ],
)
def test_good_manners_are_no_offence(module, code):
    assert offences(module, code) == []

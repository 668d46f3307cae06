"""What users see: every public name is listed, described, and says that it is ours."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

from checkout import modules

MODULES = modules()
PACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
DESCRIBED = ("veloflow.core", "veloflow.devices", "veloflow.units")
"""The packages that others build on: every public function and method there says what it does."""


def public(module):
    """Tell whether no part of a module's name is private."""
    return not any(part.startswith("_") for part in module.split("."))


def order(name):
    """Sort as ruff does: CONSTANTS, then Classes, then functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def own_callables(module):
    """Yield (name, object) of the public functions, classes and methods that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for attribute in vars(value):
                bound = inspect.getattr_static(value, attribute)
                if isinstance(bound, staticmethod | classmethod):
                    bound = bound.__func__
                if not attribute.startswith("_") and (
                    inspect.isfunction(bound) or isinstance(bound, property)
                ):
                    yield f"{name}.{attribute}", bound


@pytest.mark.parametrize("name", PACKAGES)
def test_package_lists_its_public_names(name):
    package = importlib.import_module(name)
    assert list(package.__all__) == sorted(package.__all__, key=order)
    assert [each for each in package.__all__ if not hasattr(package, each)] == []


@pytest.mark.parametrize("name", sorted(filter(public, MODULES)))
def test_listed_names_are_described_and_ours(name):
    module = importlib.import_module(name)
    listed = {each: getattr(module, each) for each in getattr(module, "__all__", ())}
    things = {k: v for k, v in listed.items() if inspect.isclass(v) or inspect.isroutine(v)}
    assert [each for each, thing in things.items() if not inspect.getdoc(thing)] == []
    strangers = {
        each: thing.__module__
        for each, thing in things.items()
        if not thing.__module__.startswith("veloflow")
    }
    assert strangers == {}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_first_line_says_the_purpose(name):
    text = MODULES[name].read_text(encoding="utf-8")
    purpose = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    assert text.startswith('"""' + purpose)
    assert len(purpose.split()) >= 3


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if name.startswith(DESCRIBED) and public(name))
)
def test_functions_to_build_on_are_described(name):
    module = importlib.import_module(name)
    assert [each for each, thing in own_callables(module) if not inspect.getdoc(thing)] == []


def test_a_name_stays_when_a_module_of_that_name_is_loaded():
    code = (
        "import sys; import veloflow.units as units; import veloflow.units.activation;"
        "assert callable(units.activation) and callable(units.rbm);"
        "print('veloflow.units.recurrent' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", "a unit that nobody asked for is not loaded"


def test_a_slave_loads_no_more_than_it_needs():
    code = "import sys, veloflow.runtime.slaves.slave; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"asyncio", "veloflow.units", "veloflow.runtime.farms"} & loaded

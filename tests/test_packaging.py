"""What is shipped: every package and nothing else, once, under one name."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

import veloflow
from checkout import FOLDERS, ROOT, files

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = CONFIG["tool"]["setuptools"]


@pytest.fixture(scope="session")
def shipped():
    """Return what the installed wheel holds, as paths below site-packages."""
    if Path(veloflow.__file__).parent == ROOT / "veloflow":
        pytest.skip("veloflow is imported from the checkout, so there is no wheel to look into")
    found = importlib.metadata.files("veloflow") or []
    paths = [PurePosixPath(path.as_posix()) for path in found]
    return [path for path in paths if path.suffix != ".pyc"]


def in_wheel(path):
    """Return where a file of the checkout belongs in the wheel."""
    name, top = max(
        ((name, top) for name, top in FOLDERS.items() if top in path.parents),
        key=lambda row: len(row[0]),
    )
    return PurePosixPath(*name.split("."), *path.relative_to(top).parts)


def test_package_list_is_what_lies_on_disk():
    on_disk = {package for path, package in files().items() if path.suffix == ".py"}
    assert sorted(SETUPTOOLS["packages"]) == sorted(on_disk)


def test_every_package_has_an_init():
    folders = {package: path.parent for path, package in files().items() if path.suffix == ".py"}
    assert [name for name, path in folders.items() if not (path / "__init__.py").is_file()] == []


def test_every_other_file_is_package_data():
    data = SETUPTOOLS["package-data"]
    patterns = {
        package: [str(PurePosixPath(*package.split(".")) / each) for each in data[package]]
        for package in data
    }
    others = [str(in_wheel(path)) for path in files() if path.suffix != ".py"]
    known = [pattern for each in patterns.values() for pattern in each]
    assert [path for path in others if not any(fnmatch(path, each) for each in known)] == []


@pytest.mark.parametrize("name", ["units", "workflows"])
def test_link_points_to_the_folder_at_the_top(name):
    link = ROOT / "veloflow" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


@pytest.mark.parametrize("name", ["units", "workflows"])
def test_folder_cannot_be_imported_under_its_short_name(name):
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"ImportError: this folder is imported as 'veloflow.{name}'" in done.stderr


def test_version_has_one_source():
    assert importlib.metadata.version("veloflow") == veloflow.__version__
    assert "version" not in CONFIG["project"]


def test_changelog_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(veloflow.__version__)}\]", text, re.MULTILINE)


def test_command_starts():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="veloflow")
    assert callable(entry.load())


def test_wheel_holds_each_file_of_the_checkout_once(shipped):
    ours = [path for path in shipped if path.parts[0] == "veloflow"]
    assert sorted(ours) == sorted(in_wheel(path) for path in files())


def test_wheel_adds_nothing_beside_the_package(shipped):
    tops = {path.parts[0] for path in shipped if path.parts[0] != ".."}
    assert tops == {"veloflow", f"veloflow-{veloflow.__version__}.dist-info"}

"""The checkout as seen by the tests of its form: where it is, which modules and packages it has."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = {
    "veloflow": ROOT / "veloflow",
    "veloflow.units": ROOT / "units",
    "veloflow.workflows": ROOT / "workflows",
}
"""Where the modules of each name lie; veloflow/units and veloflow/workflows are links."""


def files() -> dict[Path, str]:
    """Return every file that could be shipped -> the package that it lies in."""
    found = {}
    for name, top in FOLDERS.items():
        links = [path for path in top.iterdir() if path.is_symlink()]
        for path in sorted(top.rglob("*")):
            inside = path.relative_to(top).parent.parts
            linked = any(link in (path, *path.parents) for link in links)
            if path.is_file() and not linked and "__pycache__" not in inside:
                found[path] = ".".join((name, *inside))
    return found


def modules() -> dict[str, Path]:
    """Return module name -> file for the package, its units and its workflows."""
    return {
        package if path.stem == "__init__" else f"{package}.{path.stem}": path
        for path, package in files().items()
        if path.suffix == ".py"
    }

"""From DOT to files: the system's Graphviz, or the layout that comes along; atomic writing."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from veloflow.errors import InputError, RunError, StorageError, nearest
from veloflow.views.pdf import pdf_of_layout

__all__ = ["SUFFIXES", "check_suffix", "render", "write"]

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".gv")
_EMBEDDED = "graphviz-pure"
#: seconds; a graph of 1,000 units takes about one
_TIME_LIMIT = 300.0
#: what SVG shows texts in: fonts of the widths that the layout has counted on come first
_FONTS = (b"Helvetica,sans-Serif", b"Helvetica,Arial,Liberation Sans,Arimo,sans-serif")
#: twice the size of SVG; and at most 30,000 pixels either way, which few programs can open more of
_PNG = ("-Gdpi=144", "-Gsize=208,208")
_CURE = f"pip install {_EMBEDDED}, or install Graphviz with the packages of your system"


def check_suffix(path: Path) -> str:
    """Return the format that the suffix of a path asks for.

    Raises:
        InputError: nothing can be drawn as that.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        what = f"the suffix {suffix!r} is no format{nearest(suffix, SUFFIXES)}"
        raise InputError(
            f"cannot draw {str(path)!r}: {what if suffix else 'it has no suffix'}; "
            f"end it with one of {', '.join(SUFFIXES)}"
        )
    return suffix[1:]


def render(source: str, kind: str) -> bytes:
    """Return DOT drawn as svg, png or pdf, or as it is for dot and gv.

    The system's Graphviz draws where there is one, else the one that comes with veloflow, which
    has no PDF: then its layout is written as PDF here.

    Raises:
        InputError: there is nothing to draw with.
        RunError: the program failed.
    """
    if kind in ("dot", "gv"):
        return source.encode()
    system = shutil.which("dot")
    if kind == "pdf" and system is None:
        return pdf_of_layout(_lay_out(_embedded(), source, "json"))
    drawn = _lay_out(system or _embedded(), source, kind)
    return drawn.replace(*_FONTS) if kind == "svg" else drawn


def _embedded() -> str:
    """Return the path of the program that comes from PyPI; it need not be on ``PATH``."""
    with contextlib.suppress(metadata.PackageNotFoundError):  # the error below says so better
        for file in metadata.files(_EMBEDDED) or ():
            path = Path(str(file.locate())).resolve()
            if path.stem == _EMBEDDED and os.access(path, os.X_OK) and path.is_file():
                return str(path)
    found = shutil.which(_EMBEDDED)
    if found is None:
        raise InputError(f"there is nothing to draw with here: {_CURE}; .dot files need neither")
    return found


def _lay_out(program: str, source: str, kind: str) -> bytes:
    command = [program, f"-T{kind}", *(_PNG if kind == "png" else ())]
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, check=False, timeout=_TIME_LIMIT
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"{program} did not finish the drawing in {_TIME_LIMIT:.0f} s; "
            "write a .dot file and lay it out with another program"
        ) from error
    except OSError as error:
        raise InputError(f"cannot start {program} ({error.strerror}): {_CURE}") from error
    if done.returncode:
        story = done.stderr.decode(errors="replace").strip()
        raise RunError(f"{program} failed with exit code {done.returncode}: {story}")
    return done.stdout


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, making the folders that it needs.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what counts is the first error
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        raise StorageError(f"cannot write {path}: {why}; choose another place with -o") from error

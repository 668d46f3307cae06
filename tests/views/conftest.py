"""What the tests of views share: machines with and without the system's Graphviz."""

from __future__ import annotations

import os
import shutil

import pytest

from veloflow.views import render


@pytest.fixture
def no_dot(monkeypatch, tmp_path):
    """Hide the system's Graphviz, as on a machine that has only Python."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))


@pytest.fixture
def system_dot(monkeypatch, tmp_path, no_dot):
    """Put a ``dot`` on the path that is known to draw, and that writes its arguments down."""
    program, log = render._embedded(), tmp_path / "calls.txt"
    shell = shutil.which("sh", path=os.defpath)
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "dot"
    script.write_text(f'#!{shell}\necho "$@" >> "{log}"\nexec "{program}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return log

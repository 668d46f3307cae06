"""A launcher of another package: registered by an entry point, found by name, and conforming."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from veloflow.runtime.launcher_conformance import check_declarations, check_launcher
from veloflow.runtime.launchers import known_launchers

_CODE = '''
import subprocess

import msgspec

from veloflow.runtime.launchers import Launcher
from veloflow.runtime.launchers.task import command


class Options(msgspec.Struct, frozen=True):
    """Options of ``--on processes``.

    Attributes:
        prefix: of the names of slaves.
    """

    prefix: str = "process"


class Processes(Launcher[Options]):
    """Starts processes on this machine."""

    name = "processes"
    Options = Options

    def connect(self):
        self.slaves, self.leaving = [], []

    def start(self, count, offer):
        self.offer = offer
        self.resize(count or 1)

    def resize(self, count):
        while len(self.slaves) > count:
            self.leaving.append(self.slaves.pop())
            self.leaving[-1].terminate()
        while len(self.slaves) < count:
            name = f"{self.options.prefix}-{len(self.slaves)}"
            one = subprocess.Popen(
                command("--offer", "-", "--name", name), stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            one.stdin.write(self.offer.encode())
            one.stdin.flush()
            self.slaves.append(one)

    def stop(self, grace):
        for one in (*self.slaves, *self.leaving):
            try:
                one.wait(grace)
            except subprocess.TimeoutExpired:
                one.kill()
            one.stdin.close()
            one.wait()
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package that registers a launcher; give its folder."""
    (tmp_path / "outside_launcher.py").write_text(_CODE)
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    entry = "[veloflow.launchers]\nprocesses = outside_launcher:Processes\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("outside_launcher", None)


def test_it_is_found_by_name_and_declared_well(package):
    assert "processes" in known_launchers()
    check_declarations("processes", {"prefix": "mine"})


@pytest.mark.cluster
@pytest.mark.slow
def test_it_keeps_the_promises_of_launchers(package):
    check_launcher("processes", {"prefix": "mine"}, timeout=60)


@pytest.mark.parametrize(("change", "words"), [
    (("frozen=True", "frozen=False"), "can be changed"),
    (("        prefix: of the names of slaves.\n", ""), r"without a word .*\['prefix'\]"),
    (('name = "processes"', 'name = "other"'), "calls itself other"),
])  # fmt: skip
def test_what_is_declared_badly_is_told(package, change, words):
    (package / "outside_launcher.py").write_text(_CODE.replace(*change))
    with pytest.raises(AssertionError, match=words):
        check_declarations("processes", {})


@pytest.mark.cluster
@pytest.mark.slow
def test_one_that_starts_too_few_is_told(package):
    code = _CODE.replace("self.resize(count or 1)", "self.resize(1)")
    (package / "outside_launcher.py").write_text(code)
    with pytest.raises(AssertionError, match="1 slaves and not 2"):
        check_launcher("processes", timeout=3)


@pytest.mark.slow
def test_the_command_line_shows_and_describes_it(package):
    words = [sys.executable, "-P", "-m", "veloflow", "run", "digits_mlp", "--dry-run", "--on"]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([*words, "processes"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "processes" in done.stdout
    done = subprocess.run([*words, "process"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'processes'" in done.stderr

"""The Containerfile: its steps, read and as far as can be run without a container."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

from checkout import ROOT


def instructions():
    """Return the instructions of the file, each with its words."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    lines = [one.split(None, 1) for one in text.splitlines() if one and not one.startswith("#")]
    return [(word, rest) for word, rest in lines]


def stages():
    """Return the instructions of each stage."""
    found = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def copied():
    """Return what the first stage copies from the checkout."""
    words = [shlex.split(rest) for word, rest in stages()[0] if word == "COPY"]
    return [source for one in words for source in one[:-1]]


def test_only_known_instructions_are_used():
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions()} <= known


def test_what_is_built_from_is_in_the_checkout_and_not_ignored():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["setuptools"]["package-dir"].values())
    assert needed <= set(copied())
    kept = (ROOT / ".containerignore").read_text().splitlines()
    for one in copied():
        assert (ROOT / one).exists()
        assert f"!{one}" in kept


def test_a_slave_has_no_rights_and_hears_sigterm():
    last = stages()[-1]
    users = [rest for word, rest in last if word == "USER"]
    assert users == ["10001"], "Kubernetes can check numbers only"
    assert ("ENTRYPOINT", '["veloflow"]') in last, "a shell would keep SIGTERM to itself"
    assert ("STOPSIGNAL", "SIGTERM") in last


@pytest.mark.slow
@pytest.mark.stress
def test_what_is_copied_is_enough_to_build_and_start_a_slave(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for one in copied():
        if (ROOT / one).is_dir():
            shutil.copytree(ROOT / one, source / one, symlinks=True)
        else:
            shutil.copy(ROOT / one, source / one)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps",
         "--target", str(tmp_path / "out"), str(source)], check=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "veloflow", "run", "digits_mlp", "epochs=1", "--slaves", "1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "out")}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

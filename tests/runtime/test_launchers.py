"""Launchers without their engines: options, what engines would be told, errors, the bound slave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import msgspec
import pytest

from veloflow.errors import ClusterError, EngineError, NotFoundError, OptionError
from veloflow.protocol.elasticity import Bounds
from veloflow.runtime.engine import Engine, describe
from veloflow.runtime.launchers import Launcher, known_launchers, open_launcher
from veloflow.runtime.launchers.base import last_line, look_whether_open, own_address
from veloflow.runtime.launchers.kubernetes import KubernetesOptions, manifests
from veloflow.runtime.launchers.registry import launcher_of_handle
from veloflow.runtime.launchers.ssh import _Place
from veloflow.runtime.launchers.task import serve

#: what Kubernetes publishes of the kinds that are used here
KUBERNETES = Path(__file__).parents[1] / "data" / "kubernetes-1.30.json"


def test_engines_have_names_and_options():
    assert known_launchers() == ["dask", "kubernetes", "mpi", "ray", "slurm", "spark", "ssh"]
    for name in known_launchers():
        kind = type(open_launcher(name, {}))
        assert kind.name == name
        documented = kind.Options.__doc__
        assert [one for one in kind.Options.__struct_fields__ if one not in documented] == []


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("dusk", {}, NotFoundError, "no engine 'dusk' .did you mean 'dask'"),
        ("dask", {"adress": "x"}, OptionError, "no option 'adress' .did you mean 'address'"),
        ("ray", {"cpus": "many"}, OptionError, "--on ray: Expected `float`"),
        ("ray", {"strategy": "FAR"}, OptionError, "--on ray: Invalid enum value 'FAR'"),
    ],
)
def test_wrong_engines_and_options_are_named(name, options, error, words):
    with pytest.raises(error, match=words):
        open_launcher(name, options)


@pytest.mark.parametrize(("name", "module"), [
    ("dask", "distributed"), ("ray", "ray"), ("spark", "pyspark"), ("ssh", "asyncssh"),
])  # fmt: skip
def test_a_missing_package_names_the_extra(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    options = {"address": "tcp://127.0.0.1:1"} if name == "dask" else {}
    with pytest.raises(ClusterError, match=rf"pip install 'veloflow\[{name}\]'"):
        open_launcher(name, options).connect()


@pytest.mark.parametrize(("name", "options", "words"), [
    ("ssh", {}, "hosts=one,user@two:4"),
    ("ssh", {"hosts": "one:many"}, "'one:many' is no host"),
    ("ssh", {"hosts": "-oProxyCommand=x:1"}, "is no host"),
    ("kubernetes", {}, "image=NAME"),
    ("kubernetes", {"image": "x"}, "host=NAME"),
    ("slurm", {"partition": "main\n#SBATCH --uid=0"}, "signs that it cannot have"),
])  # fmt: skip
def test_what_an_engine_has_to_be_told_is_asked_for(name, options, words):
    if name == "ssh":
        pytest.importorskip("asyncssh")
    with pytest.raises(OptionError, match=words):
        open_launcher(name, options).connect()


def test_a_slurm_script_has_quoted_words_and_no_secret():
    script = describe("slurm", {"folder": "/a b", "mem": "2G", "cpus": "3"}, slaves=4)
    assert "#SBATCH --array=1-4\n" in script
    assert "#SBATCH --mem=2G\n" in script
    assert "--requeue" in script
    assert "--offer '/a b/offer.json'" in script
    assert "POCL_MAX_PTHREAD_COUNT=3" in script
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0


def test_manifests_are_what_kubernetes_knows():
    options = KubernetesOptions(image="example/veloflow:1", host="head", namespace="lab")
    secret, job = manifests(options, "veloflow-1", 5, b"the secret")
    text = json.dumps(job)
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert "the secret" not in text
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 5
    assert job["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    mounted = job["spec"]["template"]["spec"]["volumes"][0]["secret"]
    assert mounted["secretName"] == secret["metadata"]["name"]
    for one in (secret, job):
        validate(one)
    job["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="'imagge' was unexpected"):
        validate(job)


def validate(manifest):
    """See that a manifest fits the published schema of its kind."""
    known = json.loads(KUBERNETES.read_text())
    schema = {**known["kinds"][manifest["kind"]], "$defs": known["$defs"]}
    jsonschema.validate(manifest, schema, cls=jsonschema.Draft202012Validator)


def test_a_dry_run_shows_manifests_without_the_secret():
    text = describe("kubernetes", {"image": "x", "host": "h"}, slaves=2)
    first, second = text.split("---\n")
    assert json.loads(first)["kind"] == "Secret"
    assert json.loads(second)["kind"] == "Job"


def test_what_is_no_handle_of_an_engine_is_refused():
    with pytest.raises(OptionError, match="give the name of an engine"):
        launcher_of_handle(object())
    assert launcher_of_handle(type("Client", (), {"__module__": "distributed.client"})()) == "dask"


def test_the_own_address_towards_this_machine_is_the_loopback():
    assert own_address() == own_address("localhost") == own_address("127.0.0.2") == "127.0.0.1"


# -- the process that an engine's task binds to itself -------------------------------------------


def test_a_slave_that_cannot_start_says_why():
    with pytest.raises(RuntimeError, match=r"slave one ended with exit code 2: .*no offer"):
        serve(b"nonsense\n", "one")


@pytest.mark.slow
def test_a_slave_that_is_not_wanted_leaves():
    server_public, public, secret = ("x" * 40,) * 3
    from veloflow.runtime.offer import Offer

    offer = Offer("tcp://127.0.0.1:9", server_public, public, secret, device="numpy")
    wanted = threading.Event()
    wanted.set()
    ended = []

    def run():
        try:
            serve(offer.encode(), "one", is_wanted=wanted.is_set)
        except RuntimeError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    wanted.clear()
    thread.join(20)
    assert not thread.is_alive()
    assert len(ended) == 1


# -- a run on an engine: a launcher that starts processes here -----------------------------------


class Options(msgspec.Struct, frozen=True):
    """None."""


class Refusing(Launcher[Options]):
    """An engine that refuses everything."""

    name = "refusing"
    Options = Options

    def start(self, count, offer):
        raise ClusterError(f"no room for {count}")

    def stop(self, grace):
        self.stopped = True


def test_an_engine_that_refuses_ends_the_run(monkeypatch):
    import veloflow

    made = []

    def open_one(name, given, handle=None):
        made.append(Refusing(Options()))
        return made[0]

    monkeypatch.setattr("veloflow.runtime.engine.open_launcher", open_one)
    with pytest.raises(ClusterError, match="no room for 3"):
        veloflow.run("digits_mlp", on="refusing", slaves=3, device="numpy", epochs=1)
    assert made[0].stopped


def test_engines_make_their_own_keys_and_options_belong_to_them(tmp_path):
    import veloflow

    with pytest.raises(OptionError, match="leave --keys"):
        veloflow.run("digits_mlp", on="dask", keys=tmp_path)
    with pytest.raises(OptionError, match="give --on ENGINE too"):
        veloflow.run("digits_mlp", engine_options={"address": "x"})
    with pytest.raises(OptionError, match="needs a tcp:// address"):
        Engine("dask", {}, bounds=Bounds(1, 1), listen="ipc:///x")


def test_an_engine_that_nobody_answers_for_is_told_at_once():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"nothing answers at {address}: .*; start one"):
            look_whether_open("ray", address, "start one")
        one.listen()
        look_whether_open("ray", f"127.0.0.1:1,{address}", "start one")
    with pytest.raises(OptionError, match="write HOST:PORT"):
        look_whether_open("ray", "head", "start one")


@pytest.mark.parametrize(("options", "words"), [
    ({"address": "head"}, "'head' is no address; write HOST:PORT"),
    ({"address": "inproc://head:1"}, "write tcp://HOST:PORT"),
    ({"address": "tcp://127.0.0.1:1"}, "nothing answers at 127.0.0.1:1: .*; start one with dask"),
    ({"scheduler_file": "/nowhere/file"}, "there is no file /nowhere/file; start one with dask"),
])  # fmt: skip
def test_a_scheduler_of_dask_that_is_not_there_is_told_at_once(options, words):
    pytest.importorskip("distributed")
    with pytest.raises((EngineError, OptionError), match=words):
        open_launcher("dask", options).connect()


def test_of_what_a_command_says_at_length_the_last_line_is_told():
    assert last_line("error: one\n fatal: two \n\n") == "fatal: two"
    assert last_line("\n") == ""


def test_an_engine_whose_places_all_refuse_ends_the_run():
    ssh = pytest.importorskip("asyncssh")
    assert ssh
    launcher = open_launcher("ssh", {"hosts": "one:2"})
    launcher.connect()
    try:
        launcher._slaves = [_Place("one", "ssh-1"), _Place("one", "ssh-2")]
        launcher._lines = ["ssh: one: another version"]
        launcher._slaves[0].is_refused = True
        assert list(launcher.tend()) == ["ssh: one: another version"]
        launcher._slaves[1].is_refused = True
        launcher._lines = ["ssh: one: another version"]
        with pytest.raises(EngineError, match="another version; no place has a slave"):
            list(launcher.tend())
        launcher._slaves = []
    finally:
        launcher.stop(1.0)
    assert EngineError("x").exit_code == 2


def test_slurm_that_is_not_set_up_says_what_to_do(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    said = "scontrol: fatal: Could not establish a configuration source"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    launcher = open_launcher("slurm", {})
    launcher.connect()
    with pytest.raises(EngineError, match=f"^--on slurm: {said}; run it on a machine of the"):
        launcher.reach()

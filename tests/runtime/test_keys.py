"""Keys: who has one gets in, and nobody else hears a word."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

import pytest
import zmq

from veloflow.errors import ClusterError, InputError, NotFoundError
from veloflow.runtime.keys import ClientKeys, ServerKeys, add_slave, check_address, make_keys
from veloflow.runtime.transport.connections import ZmqConnection, ZmqListener


@pytest.fixture
def folder(tmp_path):
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def hears(listener, connection, limit):
    try:
        connection.send([b"hello"])
    except ClusterError:  # its connection was closed before
        return False
    until = time.monotonic() + limit
    while time.monotonic() < until:
        listener.wait(0.02)
        if listener.receive() is not None:
            return True
    return False


def test_an_accepted_key_gets_in_and_no_other(folder, tmp_path):
    own = add_slave(folder, "one")
    keys = ServerKeys.load(folder)
    listener = ZmqListener(["tcp://127.0.0.1:0"], keys)
    good = ClientKeys.load(own, folder / "master.key")
    foreign = ClientKeys(*zmq.curve_keypair(), keys.public)
    connect = partial(ZmqConnection, listener.addresses[0], patience=0.05)
    clients = {
        "accepted": connect(b"a", good),
        "unknown": connect(b"c", foreign),
        "plain": connect(b"d", None),
    }  # fmt: skip
    heard = {name for name, one in clients.items() if hears(listener, one, 0.5)}
    assert heard == {"accepted"}
    for one in clients.values():
        one._socket.set(zmq.LINGER, 0)
        one.close()
    listener.close()


def test_secret_files_are_private_and_must_stay_so(folder):
    secret = add_slave(folder, "one")
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        ClientKeys.load(secret, folder / "master.key")


@pytest.mark.parametrize("name", ["", "../evil", ".hidden", "a/b"])
def test_a_name_that_is_none_is_refused(folder, name):
    with pytest.raises(InputError, match="no name"):
        add_slave(folder, name)


def test_keys_are_not_overwritten_and_their_lack_is_said(folder, tmp_path):
    with pytest.raises(InputError, match="there already"):
        make_keys(folder)
    with pytest.raises(NotFoundError, match="veloflow keys new"):
        add_slave(tmp_path / "other", "one")
    with pytest.raises(NotFoundError, match="no key file"):
        ServerKeys.load(tmp_path)
    (folder / "slaves").mkdir()
    (folder / "slaves" / "bad.key").write_text("nonsense")
    with pytest.raises(InputError, match="no key file"):
        ServerKeys.load(folder)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:5", "tcp://localhost:5", "tcp://[::1]:5", "ipc:///tmp/x"]
)
def test_this_machine_needs_no_keys(address):
    check_address(address, has_keys=False)


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:5", "tcp://*:5", "tcp://head:5", "tcp://[::]:5"]
)
def test_every_other_address_needs_keys(address):
    with pytest.raises(InputError, match="needs keys"):
        check_address(address, has_keys=False)
    check_address(address, has_keys=True)


@pytest.mark.parametrize("address", ["nonsense", "tcp://5555", "udp://127.0.0.1:5", ""])
def test_what_is_no_address_is_named(address):
    with pytest.raises(InputError, match="no address"):
        check_address(address, has_keys=True)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_with_keys_as_a_user_would(tmp_path):
    veloflow = [sys.executable, "-P", "-m", "veloflow"]
    for words in (["new", "k"], ["add", "k", "one"]):
        subprocess.run([*veloflow, "keys", *words], cwd=tmp_path, check=True, capture_output=True)
    master = subprocess.Popen(
        [*veloflow, "run", "digits_mlp", "epochs=2", "-d", "numpy", "--keys", "k", "--slaves", "1",
         "--listen", "tcp://0.0.0.0:0", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = master.stdout.read().splitlines()
    master.stdout.close()
    assert master.wait(60) == 0
    assert any("slave s1 joined" in line for line in lines)
    bare = subprocess.run(
        [*veloflow, "run", "digits_mlp", "--listen", "tcp://0.0.0.0:0"], capture_output=True,
        text=True,
    )  # fmt: skip
    assert bare.returncode == 2
    assert "needs keys" in bare.stderr


OWN = """
from veloflow.workflows.digits_mlp import build as whole
def build(wf, *, epochs: int = 3) -> None:
    whole(wf, epochs=epochs)
"""


def test_a_definition_travels_if_both_sides_say_so(tmp_path):
    """The slave's folder does not have the file: it is gone before the slave starts."""
    veloflow = [sys.executable, "-P", "-m", "veloflow"]
    for words in (["new", "k"], ["add", "k", "one"]):
        subprocess.run([*veloflow, "keys", *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "mine.py").write_text(OWN)
    master = subprocess.Popen(
        [*veloflow, "run", "mine.py", "-d", "numpy", "--keys", "k", "--send-definition",
         "--listen", "tcp://127.0.0.1:0", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        lines = iter(master.stdout)
        line = next(line for line in lines if "slaves join with" in line)
        address = line.split()[-1].strip('"}')
        (tmp_path / "mine.py").unlink()
        slave = [*veloflow, "slave", address, "-d", "numpy", "--key", "k/slaves/one.key_secret",
                 "--master-key", "k/master.key"]  # fmt: skip
        without = subprocess.run(
            slave, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert without.returncode == 2
        assert "--accept-definition" in without.stderr
        subprocess.run([*slave, "--accept-definition"], cwd=tmp_path, check=True, timeout=60)
        rest = list(lines)
        assert master.wait(60) == 0
    finally:
        master.kill()
        master.wait()
        master.stdout.close()
    assert any("slave s1 joined" in line for line in rest)


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["run", "digits_mlp", "--slaves", "1", "--send-definition"], "give --keys"),
        (["slave", "tcp://127.0.0.1:1", "--accept-definition"], "--master-key"),
    ],
)
def test_code_is_neither_sent_nor_taken_without_keys(words, cure):
    veloflow = [sys.executable, "-P", "-m", "veloflow"]
    done = subprocess.run([*veloflow, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert cure in done.stderr

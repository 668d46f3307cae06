"""``veloflow slave --check``: each step of the way that fails is named, with its cure."""

from __future__ import annotations

import socket
import threading

import pytest
import zmq

from veloflow.errors import ClusterError, InputError
from veloflow.protocol.codec import decode_from_slave, encode
from veloflow.protocol.messages import Plan
from veloflow.runtime.keys import ServerKeys, add_slave, make_keys
from veloflow.runtime.slaves.reachability import check
from veloflow.runtime.slaves.slave import join
from veloflow.runtime.transport.connections import ZmqListener

PLAN = Plan("digits_mlp", {}, {}, "sum", "/nowhere", "token", 1, "")


def answering(listener, stopping):
    """Answer each question with a plan."""
    while not stopping.is_set():
        listener.wait(0.02)
        while (found := listener.receive()) is not None:
            decode_from_slave(found[1])
            listener.send(found[0], [encode(PLAN)])


@pytest.fixture(params=["plain", "keys"])
def master(request, tmp_path):
    """Give a master's address, and the key files of a slave when it wants some."""
    keys, files = None, {}
    if request.param == "keys":
        make_keys(tmp_path / "keys")
        files = {"key": add_slave(tmp_path / "keys", "one")}
        files["master_key"] = tmp_path / "keys" / "master.key"
        keys = ServerKeys.load(tmp_path / "keys")
    listener = ZmqListener(["tcp://127.0.0.1:0"], keys)
    stopping = threading.Event()
    thread = threading.Thread(target=answering, args=(listener, stopping))
    thread.start()
    yield listener.addresses[0], files
    stopping.set()
    thread.join()
    listener.close()


def test_a_way_that_is_open_is_told_step_by_step(master):
    address, files = master
    said = []
    check(address, **files, say=said.append)
    assert [line.partition(":")[0] for line in said] == ["name", "port", "answer", "keys", "master"]
    assert "digits_mlp" in said[-1]


def test_keys_that_are_missing_superfluous_or_foreign_are_told(master, tmp_path):
    address, files = master
    other = tmp_path / "other"
    make_keys(other)
    foreign = {"key": add_slave(other, "one"), "master_key": other / "master.key"}
    if not files:
        with pytest.raises(ClusterError, match=r"keys: the master at .* has none"):
            check(address, **foreign, say=print)
        return
    with pytest.raises(ClusterError, match=r"keys: the master at .* wants keys"):
        check(address, say=print)
    unknown = {**foreign, "master_key": files["master_key"]}
    with pytest.raises(ClusterError, match=r"keys: .* does not accept them"):
        check(address, **unknown, say=print)


def test_a_slave_whose_keys_are_refused_ends_with_the_reason(master, tmp_path):
    address, files = master
    if not files:
        pytest.skip("this master wants no keys")
    other = tmp_path / "other"
    make_keys(other)
    unknown = {"key": add_slave(other, "one"), "master_key": files["master_key"]}
    for own, reason in (({}, "wants keys"), (unknown, "does not accept them")):
        with pytest.raises(ClusterError, match=f"keys: the master at .* {reason}"):
            join(address, "numpy", **own)
    said: list[str] = []
    wrong = {**unknown, "master_key": other / "master.key"}
    with pytest.raises(ClusterError):  # nothing can be sent to it, and nothing comes back
        join(address, "numpy", patience=0.05, **wrong, say=said.append)
    assert any("its key is not the master.key" in line for line in said)


def test_a_closed_port_a_wrong_name_and_another_program_are_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ClusterError, match=f"port: .* nothing listens on {port}"):
        check(f"tcp://127.0.0.1:{port}", say=print)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak():
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(ClusterError, match="does not speak ZeroMQ"):
            check(f"tcp://127.0.0.1:{server.getsockname()[1]}", say=print)
        thread.join()


def test_a_name_that_nobody_knows_is_told(monkeypatch, tmp_path):
    def nobody(host, port, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    make_keys(tmp_path / "keys")
    files = {"key": add_slave(tmp_path / "keys", "one"),
             "master_key": tmp_path / "keys" / "master.key"}  # fmt: skip
    with pytest.raises(ClusterError, match=r"name: nobody knows 'head\.invalid'"):
        check("tcp://head.invalid:5555", **files, say=print)


def test_a_master_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr("veloflow.runtime.slaves.reachability._ANSWER", 0.2)
    context = zmq.Context()
    silent = context.socket(zmq.ROUTER)
    port = silent.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(ClusterError, match="master: it does not answer"):
        check(f"tcp://127.0.0.1:{port}", say=print)
    silent.close(0)
    context.term()


@pytest.mark.parametrize("address", ["ipc:///x", "tcp://127.0.0.1:0", "tcp://127.0.0.1:many"])
def test_what_is_no_tcp_address_is_refused(address):
    with pytest.raises(InputError):
        check(address, say=print)

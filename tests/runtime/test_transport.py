"""Connections: what is sent arrives whole and in order; who is gone is told apart."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from veloflow.errors import ClusterError, InputError, StorageError
from veloflow.runtime.transport import memory
from veloflow.runtime.transport.connections import ZmqConnection, ZmqListener
from veloflow.runtime.transport.memory import MemoryConnection, MemoryListener
from veloflow.runtime.transport.unix import UnixConnection, UnixListener


def connect(address, identity):
    if address.startswith("memory:"):
        return MemoryConnection(address, identity)
    kind = UnixConnection if address.startswith("unix:") else ZmqConnection
    return kind(address, identity, patience=0.5)


@pytest.fixture(params=["ipc", "tcp", "unix", "both", "memory", "unix and memory"])
def listener(request, tmp_path):
    """A listener whose last address is the one that is tried."""
    others = {
        "both": lambda: ZmqListener(["tcp://127.0.0.1:0"]),
        "unix and memory": lambda: MemoryListener("memory://test"),
    }.get(request.param, lambda: None)
    if request.param == "memory":
        one = MemoryListener("memory://test")
    elif request.param in ("unix", "both", "unix and memory"):
        one = UnixListener(tmp_path / "s", others())
    else:
        address = f"ipc://{tmp_path}/s" if request.param == "ipc" else "tcp://127.0.0.1:0"
        one = ZmqListener([address])
    yield one
    one.close()


@pytest.fixture
def client(listener):
    one = connect(listener.addresses[-1], b"client")
    yield one
    one.close()


def receive(end, limit=5.0):
    until = time.monotonic() + limit
    while time.monotonic() < until:
        message = end.receive()
        if message is not None:
            return message
        end.wait(0.05)
    raise AssertionError("nothing arrived")


def receive_while(listener, client, limit=5.0):
    """Receive at the client, while the listener sends the rest whenever it looks."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        listener.wait(0.0)
        message = client.receive()
        if message is not None:
            return message
    raise AssertionError("nothing arrived")


def test_frames_go_there_and_back(listener, client):
    large = os.urandom(1_000_000)
    with ThreadPoolExecutor(1) as pool:  # a Unix socket takes what the other side reads
        pool.submit(client.send, [b"hello", large, b""])
        sender, frames = receive(listener)
    assert sender == b"client"
    assert [bytes(one) for one in frames] == [b"hello", large, b""]
    assert listener.send(b"client", [b"back", large])
    assert [bytes(one) for one in receive_while(listener, client)] == [b"back", large]


def test_messages_keep_their_order(listener, client):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: [client.send([str(number).encode()]) for number in range(1000)])
        found = [int(bytes(receive(listener)[1][0])) for _ in range(1000)]
    assert found == list(range(1000))


def test_who_is_not_there_is_told(listener, client):
    assert not listener.send(b"nobody", [b"x"])
    client.send([b"x"])
    receive(listener)
    client.close()
    until = time.monotonic() + 5
    while listener.send(b"client", [b"x"]) and time.monotonic() < until:
        listener.wait(0.02)
    assert not listener.send(b"client", [b"x"])


def test_empty_frames_and_many_of_them_arrive(listener, client):
    frames = [b"", *(bytes([number % 256]) * (number % 7) for number in range(3000)), b""]
    client.send(frames)
    assert [bytes(one) for one in receive(listener)[1]] == frames
    assert listener.send(b"client", frames)
    assert [bytes(one) for one in receive(client)] == frames


def test_arrays_of_any_shape_are_frames(listener, client):
    arrays = [np.arange(12.0).reshape(3, 4), np.zeros((0, 3)), np.array(2.5)]
    client.send([b"head", *(one.data for one in arrays)])
    _, frames = receive(listener)
    assert [bytes(one) for one in frames[1:]] == [one.tobytes() for one in arrays]


def test_a_client_that_does_not_read_stops_nobody(listener, client):
    client.send([b"x"])
    receive(listener)
    other = connect(listener.addresses[-1], b"other")
    other.send([b"x"])
    receive(listener)
    large = os.urandom(3_000_000)
    began = time.monotonic()
    for _ in range(3):
        assert listener.send(b"client", [b"head", large])
    assert listener.send(b"other", [b"quick"])
    assert time.monotonic() - began < 2.0
    assert bytes(receive(other)[0]) == b"quick"
    for _ in range(3):
        assert [bytes(one) for one in receive_while(listener, client)] == [b"head", large]
    other.close()


def test_waiting_ends_when_a_descriptor_is_ready(listener):
    reading, writing = os.pipe()
    listener.watch(reading)
    assert listener.wait(0.01) == set()
    os.write(writing, b"x")
    assert listener.wait(5.0) == {reading}
    listener.unwatch(reading)
    assert listener.wait(0.01) == set()
    os.close(reading)
    os.close(writing)


def test_a_slave_finds_a_master_that_comes_back(tmp_path):
    address = f"ipc://{tmp_path}/s"
    first = ZmqListener([address])
    client = ZmqConnection(address, b"client")
    client.send([b"one"])
    receive(first)
    first.close()
    second = ZmqListener([address])
    client.send([b"two"])
    assert bytes(receive(second)[1][0]) == b"two"
    client.close()
    second.close()


def test_a_busy_port_is_named():
    one = ZmqListener(["tcp://127.0.0.1:0"])
    with pytest.raises(InputError, match="cannot listen on tcp://127"):
        ZmqListener(one.addresses)
    one.close()


def test_a_name_in_memory_is_one_master_s():
    one = MemoryListener("memory://test")
    with pytest.raises(InputError, match="somebody does"):
        MemoryListener("memory://test")
    client = MemoryConnection("memory://test", b"client")
    one.close()
    client.send([b"lost"])
    with pytest.raises(ClusterError, match="is gone"):
        client.receive()
    client.close()
    with pytest.raises(InputError, match="no master"):
        MemoryConnection("memory://test", b"client")


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://127.0.0.1:notaport"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(InputError, match="no address"):
        ZmqConnection(address, b"client")


# -- the Unix socket alone ------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path):
    one = UnixListener(tmp_path / "s")
    yield one
    one.close()


def test_a_local_slave_is_told_when_its_master_is_gone(tmp_path):
    listener = UnixListener(tmp_path / "s")
    client = UnixConnection(listener.addresses[0], b"client")
    client.send([b"one"])
    receive(listener)
    listener.send(b"client", [b"the last word"])
    listener.close()
    client.send([b"two"])  # which is lost, and hides no word that has come
    assert bytes(receive(client)[0]) == b"the last word"
    for _ in range(2):
        with pytest.raises(ClusterError, match="is gone"):
            client.receive()
    client.close()
    assert not (tmp_path / "s").exists()


def test_a_master_that_takes_nothing_is_waited_for_but_not_for_ever(local):
    client = UnixConnection(local.addresses[0], b"client", patience=0.02)
    with pytest.raises(ClusterError, match="takes nothing"):
        client.send([os.urandom(10_000_000)])
    client.close()


def test_the_last_to_come_by_a_name_has_it(local):
    first = UnixConnection(local.addresses[0], b"client")
    first.send([b"first"])
    receive(local)
    second = UnixConnection(local.addresses[0], b"client")
    second.send([b"second"])
    assert bytes(receive(local)[1][0]) == b"second"
    assert local.send(b"client", [b"for the second"])
    assert bytes(receive(second)[0]) == b"for the second"
    with pytest.raises(ClusterError, match="is gone"):
        receive(first)
    first.close()
    second.close()


@pytest.mark.parametrize(
    "bytes_",
    [struct.pack("<I", 0), struct.pack("<I", 2**31), struct.pack("<IQ", 1, 2**40)],
    ids=["no frames", "too many frames", "too many bytes"],
)
def test_what_is_no_message_comes_as_an_empty_one_and_ends_the_connection(local, bytes_):
    client = UnixConnection(local.addresses[0], b"client")
    client.send([b"a message"])
    receive(local)
    client._stream.socket.send(bytes_)
    assert receive(local) == (b"client", [])
    assert not local.send(b"client", [b"x"])
    client.close()


def test_the_last_words_of_who_is_gone_are_received(local):
    client = UnixConnection(local.addresses[0], b"client")
    client.send([b"first"])
    receive(local)
    assert local.send(b"client", [b"which it does not read"])
    client.send([b"what is handed back", bytes(100_000)])
    client.send([b"goodbye"])
    client.close()
    assert not local.send(b"client", [b"a job"])
    assert receive(local) == (b"client", [b"what is handed back", bytes(100_000)])
    assert receive(local) == (b"client", [b"goodbye"])


def test_a_message_may_come_byte_by_byte(local):
    client = UnixConnection(local.addresses[0], b"client")
    one = struct.pack("<IQQ", 2, 3, 1) + b"abcd"
    for byte in one + one:
        client._stream.socket.send(bytes([byte]))
        local.wait(0.01)
    assert [receive(local) for _ in range(2)] == [(b"client", [b"abc", b"d"])] * 2
    client.close()


def test_slaves_from_elsewhere_have_their_turn_beside_busy_local_ones(tmp_path):
    listener = UnixListener(tmp_path / "s", ZmqListener(["tcp://127.0.0.1:0"]))
    near, far = (connect(address, b"client") for address in listener.addresses)
    far.send([b"far"])
    time.sleep(0.2)
    for _ in range(100):
        near.send([b"near"])
    first = [bytes(receive(listener)[1][0]) for _ in range(50)]
    assert first.count(b"far") == 1
    near.close()
    far.close()
    listener.close()


def test_who_has_said_nothing_yet_is_let_go_with_the_rest(tmp_path):
    listener = UnixListener(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(tmp_path / "s"))
        assert listener.receive() is None  # it is taken in here
        listener.close()
        silent.settimeout(5)
        assert silent.recv(1) == b""
    gc.collect()  # a socket that nobody closed would be told of now


def test_a_path_that_is_too_long_is_named(tmp_path):
    with pytest.raises(StorageError, match="TMPDIR"):
        UnixListener(tmp_path / ("x" * 120))


def test_no_master_at_a_socket_is_said(tmp_path):
    with pytest.raises(InputError, match="no master listens"):
        UnixConnection(f"unix://{tmp_path}/s", b"client")


def test_who_listens_is_ready_when_found(monkeypatch):
    """A slave that tries again and again connects in the very moment in which a master listens."""
    address, joined = "memory://at-once", []

    class Found(dict):
        def __setitem__(self, key, listener):
            super().__setitem__(key, listener)
            monkeypatch.setattr(memory, "_lock", contextlib.nullcontext())  # its maker holds it
            joined.append(MemoryConnection(address, b"early"))

    monkeypatch.setattr(memory, "_listeners", Found())
    listener = MemoryListener(address)
    assert listener.send(b"early", [b"hello"])
    assert joined[0].receive() == [b"hello"]
    joined[0].close()
    listener.close()

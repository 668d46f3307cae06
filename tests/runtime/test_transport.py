"""Connections: what is sent arrives whole and in order; who is gone is told apart."""

from __future__ import annotations

import os
import time

import pytest

from veloflow.errors import InputError
from veloflow.runtime.transport import ZmqConnection, ZmqListener


@pytest.fixture(params=["ipc", "tcp"])
def listener(request, tmp_path):
    address = f"ipc://{tmp_path}/s" if request.param == "ipc" else "tcp://127.0.0.1:0"
    one = ZmqListener([address])
    yield one
    one.close()


@pytest.fixture
def client(listener):
    one = ZmqConnection(listener.addresses[0], b"client")
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


def test_frames_go_there_and_back(listener, client):
    large = os.urandom(1_000_000)
    client.send([b"hello", large, b""])
    sender, frames = receive(listener)
    assert sender == b"client"
    assert [bytes(one) for one in frames] == [b"hello", large, b""]
    assert listener.send(b"client", [b"back", large])
    assert [bytes(one) for one in receive(client)] == [b"back", large]


def test_messages_keep_their_order(listener, client):
    for number in range(1000):
        client.send([str(number).encode()])
    assert [int(bytes(receive(listener)[1][0])) for _ in range(1000)] == list(range(1000))


def test_who_is_not_there_is_told(listener, client):
    assert not listener.send(b"nobody", [b"x"])
    client.send([b"x"])
    receive(listener)
    client.close()
    until = time.monotonic() + 5
    while listener.send(b"client", [b"x"]) and time.monotonic() < until:
        listener.wait(0.02)
    assert not listener.send(b"client", [b"x"])


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


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://127.0.0.1:notaport"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(InputError, match="no address"):
        ZmqConnection(address, b"client")

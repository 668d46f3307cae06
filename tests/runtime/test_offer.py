"""Offers: what a slave needs to join a run, kept secret, and told from other documents."""

from __future__ import annotations

import os
import platform

import pytest

import veloflow
from veloflow.errors import InputError, NotFoundError, StorageError
from veloflow.runtime.engine import keys_for_a_run
from veloflow.runtime.offer import Offer


@pytest.fixture
def offer():
    server, slave = keys_for_a_run()
    assert slave.public in server.accepted
    texts = (slave.server_public, slave.public, slave.secret)
    return Offer("tcp://127.0.0.1:5555", *(one.decode() for one in texts), patience=2.0)


def test_it_comes_through_a_file_and_a_pipe(offer, tmp_path):
    assert Offer.load(offer.save(tmp_path / "offer.json")) == offer
    reader, writer = os.pipe()
    os.write(writer, offer.encode() + b"what follows is not read")
    assert Offer.from_pipe(reader) == offer
    assert os.read(reader, 100) == b"what follows is not read"
    os.close(reader)
    os.close(writer)


def test_its_secret_is_not_shown_and_its_file_is_private(offer, tmp_path):
    assert offer.secret not in repr(offer)
    assert offer.secret not in f"{offer}"
    path = offer.save(tmp_path / "offer.json")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="exists"):  # nobody else's file is written over
        offer.save(path)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        Offer.load(path)


def test_another_version_says_what_to_install_and_where(offer):
    text = offer.encode().replace(veloflow.__version__.encode(), b"99.0")
    with pytest.raises(InputError, match=r"pip install veloflow==99\.0") as found:
        Offer.decode(text, "here")
    assert platform.node() in str(found.value)


@pytest.mark.parametrize("text", [b"", b"{}\n", b"nonsense", b'{"address": 1}', b"[" * 1000])
def test_what_is_no_offer_is_refused(text, tmp_path):
    with pytest.raises(InputError, match="no offer of a master"):
        Offer.decode(text, "here")
    with pytest.raises(NotFoundError, match="no offer in"):
        Offer.load(tmp_path / "none")


def test_a_pipe_that_ends_early_is_no_offer():
    reader, writer = os.pipe()
    os.write(writer, b'{"address"')
    os.close(writer)
    with pytest.raises(InputError, match="standard input is no offer"):
        Offer.from_pipe(reader)
    os.close(reader)

"""Wait-free backpropagation: gradients in pieces change no bit, and lies about pieces are seen."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from tests.runtime import slaves
from veloflow.errors import WireError
from veloflow.protocol.codec import decode_from_slave
from veloflow.protocol.messages import LeaseId, Part, Update
from veloflow.runtime.slaves.early import Arriving
from veloflow.runtime.transport.memory import MemoryConnection
from veloflow.runtime.transport.payloads import header_of

LEASE = LeaseId(3, 0)


def piece(start, values):
    return (header_of(f"gradients@{start}", values),), [values.data]


def numbers(start, stop):
    return np.arange(start, stop, dtype=np.float32)


class TestArriving:
    def test_pieces_become_a_gradient(self):
        arriving = Arriving(10, np.float32)
        arriving.hear(b"a", LEASE, *piece(6, numbers(6, 10)))
        whole = arriving.whole(b"a", LEASE, *piece(0, numbers(0, 6)))
        assert np.array_equal(whole, numbers(0, 10))

    def test_memory_is_used_again_when_nobody_reads_it(self):
        arriving = Arriving(4, np.float32)
        first = arriving.whole(b"a", LEASE, *piece(0, numbers(0, 4)))
        arriving.accept(b"a", LEASE)
        other = arriving.whole(b"b", LEASE, *piece(0, numbers(4, 8)))
        assert first[0] == 0
        arriving.release(3)
        arriving.drop(b"b")
        memory = {id(first), id(other)}
        for number in (4, 5):
            found = arriving.whole(b"a", LeaseId(number, 0), *piece(0, numbers(0, 4)))
            assert id(found) in memory

    def test_an_update_in_one_is_left_alone(self):
        arriving, values = Arriving(4, np.float32), numbers(0, 4)
        assert arriving.whole(b"a", LEASE, (header_of("gradients", values),), [values.data]) is None

    @pytest.mark.parametrize(
        ("start", "values"),
        [
            (5, numbers(0, 2)),  # some of these came before
            (9, numbers(0, 2)),  # beyond the end
            (0, np.zeros(2)),  # float64
        ],
    )
    def test_wrong_pieces_are_refused(self, start, values):
        arriving = Arriving(10, np.float32)
        arriving.hear(b"a", LEASE, *piece(6, numbers(6, 8)))
        with pytest.raises(WireError, match="no place"):
            arriving.hear(b"a", LEASE, *piece(start, values))

    def test_pieces_without_a_place_and_missing_ones_are_refused(self):
        arriving = Arriving(10, np.float32)
        values = numbers(0, 4)
        for name in ("gradients@", "gradients@-1", "gradients@1e3", "other"):
            with pytest.raises(WireError, match="a piece of a gradient"):
                arriving.hear(b"a", LEASE, (header_of(name, values),), [values.data])
        with pytest.raises(WireError, match="missing"):
            arriving.whole(b"a", LEASE, *piece(0, values))


OWN = """
from veloflow.units import *
def build(wf, *, epochs: int = 1) -> None:
    standard_workflow(wf, loader=DigitsLoader(wf, minibatch_size=300),
        layers=[tanh(300), tanh(300), tanh(200), softmax(10)], learning_rate=0.1,
        max_epochs=epochs)
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "deep.py"
    path.write_text(OWN)
    return path


def in_threads(own, count, sharing):
    """Run with slaves that are threads, and without shared memory; count what they send."""

    def run(address):
        return veloflow.run(own, device="numpy", sharing=sharing, listen=[address], epochs=1)

    return slaves.in_threads(count, run)


@pytest.fixture
def sent(monkeypatch):
    """What slaves send, without shared memory."""
    monkeypatch.setenv("VELOFLOW_NO_SHARED_MEMORY", "1")
    messages, send = [], MemoryConnection.send

    def note(self, frames):
        messages.append((decode_from_slave(frames)[0], sum(len(bytes(one)) for one in frames[1:])))
        send(self, frames)

    monkeypatch.setattr(MemoryConnection, "send", note)
    return messages


@pytest.mark.cluster
@pytest.mark.slow
class TestSlaves:
    def test_gradients_in_pieces_change_no_bit(self, own, sent):
        alone = veloflow.run(own, device="numpy", sharing="sync:shards=2").parameters_sha256
        result = in_threads(own, 2, "sync:shards=2")
        assert result.parameters_sha256 == alone
        parts = [nbytes for message, nbytes in sent if isinstance(message, Part)]
        assert len(parts) >= 2 * 5 * 2  # of two layers, for each shard of five minibatches
        assert max(parts) < result.more["bytes"]["updates"] / 10

    def test_small_gradients_and_those_that_are_not_wanted_early_travel_whole(
        self, own, sent, monkeypatch
    ):
        monkeypatch.setenv("VELOFLOW_NO_OVERLAP", "1")
        in_threads(own, 1, "async")
        monkeypatch.delenv("VELOFLOW_NO_OVERLAP")
        in_threads("digits_mlp", 1, "sync:shards=1")
        assert any(isinstance(message, Update) for message, _ in sent)
        assert not any(isinstance(message, Part) for message, _ in sent)

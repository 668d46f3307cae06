"""Arrays in files: read in blocks, in an order that can be repeated, however large they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from harness import ready, workflow_on

from veloflow.core import Events, Message
from veloflow.errors import DataError, InputError
from veloflow.units import ArrayFileLoader


def _save(folder, kind, data, labels, name="set"):
    path = folder / f"{name}.{kind}"
    match kind:
        case "npz":
            np.savez(path, data=data, labels=labels)
        case "h5":
            with pytest.importorskip("h5py").File(path, "w") as file:
                file["data"], file["labels"] = data, labels
        case "zarr":
            group = pytest.importorskip("zarr").open_group(path, mode="w")
            group["data"], group["labels"] = data, labels
        case "npy":
            np.save(path, data)
            np.save(folder / "labels.npy", labels)
    return path


def _served(loader):
    """Return (sample, first value, label) of all samples of the next pass, in order."""
    found = []
    while True:
        loader.run()
        size = loader.minibatch_size
        values = np.array(loader.minibatch_data.read()).reshape(len(loader.minibatch_indices), -1)
        rows = zip(
            loader.minibatch_indices, values[:, 0], loader.minibatch_labels.read(), strict=True
        )
        found += [(int(a), float(b), int(c)) for a, b, c in list(rows)[:size]]
        if loader.train_ended:
            return found


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "zarr"])
def test_every_kind_of_file(tmp_path, kind):
    data = np.arange(60, dtype=np.float32).reshape(20, 3)
    labels = np.array([7, 9] * 10)
    path = _save(tmp_path, kind, data, labels)
    more = {"labels": tmp_path / "labels.npy"} if kind == "npy" else {}
    loader = ArrayFileLoader(workflow_on(), path, minibatch_size=6, shuffle_window=4, **more)
    with ready(loader):
        found = _served(loader)
        assert sorted(sample for sample, _, _ in found) == [*range(20)]
        assert all(value == 3 * sample for sample, value, _ in found)
        assert all(label == sample % 2 for sample, _, label in found)
        assert loader.labels_mapping == {7: 0, 9: 1}


def test_windows_are_shuffled_and_what_is_in_them(tmp_path):
    path = _save(tmp_path, "npz", np.arange(40.0).reshape(40, 1), np.zeros(40, int))
    orders = []
    for seed in (1, 1, 2):
        loader = ArrayFileLoader(
            workflow_on(seed=seed), path, minibatch_size=8, shuffle_window=10, name="loader"
        )
        with ready(loader):
            orders.append([[sample for sample, _, _ in _served(loader)] for _ in range(2)])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    for order in orders[0]:
        blocks = [{sample // 10 for sample in order[at : at + 10]} for at in (0, 10, 20, 30)]
        assert [len(block) for block in blocks] == [1, 1, 1, 1]
        assert order[:10] != sorted(order[:10])


def test_a_normalization_is_learned_from_the_training_samples(tmp_path):
    data = np.arange(50, dtype=np.int16).reshape(50, 1)
    train = _save(tmp_path, "npz", data[:40], np.zeros(40, int))
    held = _save(tmp_path, "npz", data[40:], np.zeros(10, int), name="held")
    loader = ArrayFileLoader(
        workflow_on(), train, validation=held, normalization="pointwise", minibatch_size=50
    )
    with ready(loader):
        loader.run()
        np.testing.assert_allclose(
            loader.minibatch_data.read()[:10, 0], (data[40:, 0] / 39) * 2 - 1, rtol=1e-6
        )


def test_a_share_of_each_class_is_held_out(tmp_path):
    labels = np.array([0] * 80 + [1] * 20)
    path = _save(tmp_path, "npz", np.arange(100.0).reshape(100, 1), labels)
    loader = ArrayFileLoader(workflow_on(), path, validation_ratio=0.2, minibatch_size=20)
    with ready(loader):
        loader.run()
        assert loader.class_lengths == (0, 20, 80)
        assert np.bincount(loader.minibatch_labels.read()).tolist() == [16, 4]


@pytest.mark.parametrize("window", [None, 16])
def test_classes_come_equally_often_when_asked_and_blocks_are_read_in_runs(tmp_path, window):
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    path = _save(tmp_path, "npz", np.arange(100.0).reshape(100, 1), labels)
    loader = ArrayFileLoader(
        workflow_on(), path, balanced=True, minibatch_size=10, shuffle_window=window
    )
    with ready(loader):
        first, second = _served(loader), _served(loader)
        assert np.bincount([label for _, _, label in first]).tolist() == [34, 33, 33]
        assert all(labels[int(value)] == label for _, value, label in first)
        assert first != second
        blocks = np.array([place // 16 for place, _, _ in first])
        assert (np.count_nonzero(np.diff(blocks)) == 6) == (window == 16)


def test_drift_is_warned_of(tmp_path):
    random = np.random.default_rng(0)
    data, labels = random.normal(size=(300, 3)), np.arange(300) % 2
    train = _save(tmp_path, "npz", data, labels, name="train")
    held = _save(tmp_path, "npz", data[:90] + np.array([0, 2, 0]), np.zeros(90, int), name="held")

    def said(drift):
        wf, texts = workflow_on(), []
        wf.find_service(Events).subscribe(Message, lambda event: texts.append(event.text))
        with ready(ArrayFileLoader(wf, train, validation=held, drift=drift)) as _:
            return texts

    assert said("none") == []
    (label,) = said("labels")
    assert "unit 'ArrayFileLoader': train and validation samples differ: label" in label
    assert "feature 1 has means" in said("all")[1]


_TRAIN = """
import resource, sys
from pathlib import Path
import numpy as np
import veloflow
from veloflow.units import ArrayFileLoader, softmax, standard_workflow

folder, limit = Path(sys.argv[1]), int(sys.argv[2])


def build(wf):
    loader = ArrayFileLoader(
        wf, folder / "data.npy", labels=folder / "labels.npy", shuffle_window=64,
        minibatch_size=16,
    )
    standard_workflow(wf, loader=loader, layers=[softmax(2)], learning_rate=1e-6, max_epochs=1)


resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.load(folder / "data.npy")
except MemoryError:
    print("too large")
result = veloflow.run(build, device="numpy")
print(result.epochs[-1]["train"]["samples"], result.epochs[-1]["train"]["error_percent"])
"""


@pytest.mark.slow
def test_a_data_set_ten_times_larger_than_the_memory_trains(tmp_path):
    limit = 160 << 20
    width = 1 << 16
    count = 10 * limit // width + 1
    labels = np.arange(count) % 2
    with (tmp_path / "data.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for number in range(count):  # the rest are holes, which read as zeros
            file.seek(start + number * width + labels[number] * 8192)
            file.write(b"\xff" * 512)
        file.truncate(start + count * width)
    np.save(tmp_path / "labels.npy", labels)
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(tmp_path), str(limit)],
        capture_output=True, text=True, check=False,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, trained = done.stdout.splitlines()
    assert said == "too large"
    assert trained.split()[0] == str(count)
    assert float(trained.split()[1]) < 10


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (np.array([["a"], ["b"]]), [0, 1], "the samples are .*, and no numbers"),
        (np.zeros((3, 2)), [0, 1], "has 3 samples and 2 labels"),
        (np.zeros((2, 2)), [0, 5], "unknown labels 5; known are 0, 1"),
        (np.array([[0.0], [np.nan]]), [0, 1], "row 1 holds NaN or infinity"),
    ],
)
def test_bad_arrays_are_named(tmp_path, data, labels, message):
    path = _save(tmp_path, "npz", data, np.array(labels))
    loader = ArrayFileLoader(workflow_on(), path, classes=[0, 1], minibatch_size=2)
    with pytest.raises(DataError, match=message), ready(loader):
        loader.run()


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_files_that_are_cut_short_are_named(tmp_path, kind):
    path = _save(tmp_path, kind, np.zeros((100, 10)), np.zeros(100, int))
    path.write_bytes(path.read_bytes()[:-900])
    loader = ArrayFileLoader(workflow_on(), path, labels=None)
    with pytest.raises(DataError, match=f"set.{kind} is"), ready(loader):
        loader.run()


def test_a_missing_array_is_named_with_the_nearest(tmp_path):
    path = _save(tmp_path, "npz", np.zeros((4, 1)), np.zeros(4))
    loader = ArrayFileLoader(workflow_on(), path, labels="label")
    with (
        pytest.raises(DataError, match=r"no array 'label' \(did you mean 'labels'\?\)"),
        ready(loader),
    ):
        pass


def test_a_file_of_labels_is_for_one_file(tmp_path):
    with pytest.raises(InputError, match="a file of labels is for the training samples"):
        ArrayFileLoader(workflow_on(), "a.npy", validation="b.npy", labels=tmp_path / "l.npy")

"""Loaders: the order of classes and epochs, and each source of samples, good and damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import harness
import numpy as np
import pytest

from veloflow.errors import DataError
from veloflow.units import ArrayLoader, IDXLoader, ImageFolderLoader, TableLoader, read_idx


def _loader(wf, test=0, validation=0, train=0, **options):
    part = lambda n: (np.arange(n, dtype=float).reshape(n, 1), np.arange(n) % 3)  # noqa: E731
    data, labels = part(train)
    return ArrayLoader(
        wf, data, labels,
        test=part(test) if test else None, validation=part(validation) if validation else None,
        **options,
    )  # fmt: skip


def _story(loader, count):
    found = []
    for _ in range(count):
        loader.run()
        flags = (loader.last_minibatch, loader.epoch_ended, loader.train_ended)
        text = "".join(letter for letter, flag in zip("let", flags, strict=True) if flag)
        found.append((loader.minibatch_class, loader.minibatch_size, loader.epoch_number, text))
    return found


def test_classes_come_as_test_validation_train_and_validation_ends_the_epoch() -> None:
    loader = _loader(harness.workflow_on(), test=2, validation=3, train=4, minibatch_size=2)
    with harness.ready(loader):
        assert _story(loader, 7) == [
            (0, 2, 0, "l"),
            (1, 2, 0, ""), (1, 1, 0, "le"),
            (2, 2, 0, ""), (2, 2, 0, "lt"),
            (0, 2, 1, "l"), (1, 2, 1, ""),
        ]  # fmt: skip


def test_without_validation_training_ends_the_epoch_and_counts_it_first() -> None:
    loader = _loader(harness.workflow_on(), train=3, minibatch_size=2)
    with harness.ready(loader):
        assert _story(loader, 4) == [
            (2, 2, 0, ""),
            (2, 1, 1, "let"),
            (2, 2, 1, ""),
            (2, 1, 2, "let"),
        ]


def test_testing_leaves_training_out() -> None:
    loader = _loader(harness.workflow_on(testing=True), validation=2, train=4, minibatch_size=2)
    with harness.ready(loader):
        assert _story(loader, 2) == [(1, 2, 0, "le"), (1, 2, 1, "le")]


def test_the_last_minibatch_is_padded_with_zeros_and_no_labels() -> None:
    loader = _loader(harness.workflow_on(), train=3, minibatch_size=2)
    with harness.ready(loader):
        loader.run()
        loader.run()
        assert loader.minibatch_data.read()[1].tolist() == [0]
        assert loader.minibatch_labels.read()[1] == -1
        assert loader.minibatch_indices[1] == -1


def test_each_epoch_serves_all_samples_in_an_order_of_its_own() -> None:
    loader = _loader(harness.workflow_on(seed=4), train=20, minibatch_size=7)
    with harness.ready(loader):
        orders = []
        for _ in range(3):
            order = []
            for _ in range(3):
                loader.run()
                order += [n for n in loader.minibatch_indices.tolist() if n >= 0]
            orders.append(order)
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_a_restored_loader_goes_on_at_the_same_sample() -> None:
    def indices(loader, count):
        served = []
        for _ in range(count):
            loader.run()
            served.append(loader.minibatch_indices.tolist())
        return served

    first = _loader(harness.workflow_on(), validation=5, train=9, minibatch_size=4)
    with harness.ready(first):
        indices(first, 4)
        state = first.state()
        expected = indices(first, 9)
    second = _loader(harness.workflow_on(), validation=5, train=9, minibatch_size=4)
    with harness.ready(second):
        second.restore(state)
        assert indices(second, 9) == expected


def test_validation_samples_are_held_out_with_the_shares_of_the_classes() -> None:
    loader = _loader(harness.workflow_on(), train=60, minibatch_size=10, validation_ratio=0.2)
    with harness.ready(loader):
        assert loader.class_lengths == (0, 12, 48)
        assert loader.label_counts["validation"] == {0: 4, 1: 4, 2: 4}


def test_normalization_is_learned_from_training_and_restored_with_the_model() -> None:
    def loader_of(values):
        wf = harness.workflow_on()
        return ArrayLoader(wf, values, normalization="pointwise", minibatch_size=2)

    first = loader_of(np.array([[0.0], [10.0]]))
    with harness.ready(first):
        first.run()
        assert sorted(first.minibatch_data.read()[:, 0]) == [-1, 1]
        state = first.state()
    second = loader_of(np.array([[5.0], [20.0]]))
    with harness.ready(second):
        second.restore(state)
        second.run()
        assert sorted(second.minibatch_data.read()[:, 0].tolist()) == [0, 3]


# -- IDX ------------------------------------------------------------------------------------------


def _idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def _mnist(folder: Path, *, zipped: bool) -> None:
    for name, count in (("train", 6), ("t10k", 4)):
        images = np.arange(count * 4).reshape(count, 2, 2)
        for what, values in (("images-idx3", images), ("labels-idx1", np.arange(count) % 2)):
            content = _idx(values)
            path = folder / f"{name}-{what}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_pairs_are_found_and_read(tmp_path: Path, zipped: bool) -> None:
    _mnist(tmp_path, zipped=zipped)
    loader = IDXLoader(harness.workflow_on(), tmp_path, minibatch_size=4, normalization="none")
    with harness.ready(loader):
        assert loader.class_lengths == (0, 4, 6)
        loader.run()
        assert loader.minibatch_data.read()[1].tolist() == [[4, 5], [6, 7]]
        assert loader.minibatch_labels.read().tolist() == [0, 1, 0, 1]


def _shorten(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_shorten, "promises"),
        (lambda content: content + b"x", "promises"),
        (lambda content: b"PK" + content[2:], "no IDX file"),
        (lambda content: content[:6], "cut short"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "promises"),
        (lambda content: gzip.compress(content)[:-9], "damaged"),
        (lambda content: b"", "no IDX file"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage, says: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(_idx(np.zeros((3, 2, 2)))))
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.*{says}"):
        read_idx(path)


def test_missing_idx_files_say_how_to_get_them(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        loader = IDXLoader(harness.workflow_on(), folder)
        with pytest.raises(DataError, match=r"for MNIST put"), harness.ready(loader):
            pass


# -- tables ---------------------------------------------------------------------------------------

_CSV = "a,b,kind\n1,2,x\n3,4,y\n5,6,x\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_read(tmp_path: Path, suffix: str) -> None:
    import polars as pl

    path = tmp_path / f"table{suffix}"
    frame = pl.DataFrame({"a": [1, 3, 5], "b": [2.0, 4.0, 6.0], "kind": ["x", "y", "x"]})
    frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    loader = TableLoader(
        harness.workflow_on(), path, label="kind", minibatch_size=3, shuffle_limit=0
    )
    with harness.ready(loader):
        loader.run()
        assert loader.minibatch_data.read().tolist() == [[1, 2], [3, 4], [5, 6]]
        assert loader.labels_mapping == {"x": 0, "y": 1}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (_CSV, {"label": "knd"}, "did you mean 'kind'"),
        (_CSV, {"label": None}, "'kind' holds String"),
        (_CSV.replace("4", ""), {"label": "kind"}, "column 'b' has no number in row 2"),
        ("", {"label": "kind"}, "cannot be read"),
        ("a,b,kind\n", {"label": "kind"}, "has no rows"),
        (_CSV.replace("4", "four"), {"label": "kind"}, "'b' holds 'four' in row 2, which is no n"),
        (_CSV.replace("4", "nan"), {"label": "kind"}, "column 'b' has no number in row 2"),
        (_CSV.replace("4,y", "4,y,5"), {"label": "kind"}, "row 2 has 4 fields, and .* 3 columns"),
        (_CSV.replace("4,y", "4"), {"label": "kind"}, "row 2 has 2 fields, and .* 3 columns"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, text: str, options, says: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    loader = TableLoader(harness.workflow_on(), path, **options)
    with pytest.raises(DataError, match=says), harness.ready(loader):
        pass


def test_a_label_may_be_missing_where_rows_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(_CSV.replace("4,y", "4,"))
    loader = TableLoader(harness.workflow_on(), path, label="kind", shuffle_limit=0)
    with harness.ready(loader):
        loader.run()
        assert loader.minibatch_labels.read().tolist()[:3] == [0, -1, 0]


@pytest.mark.parametrize(("missing", "expected"), [("mean", [[2], [4], [6]]), ("drop", [[2], [6]])])
def test_missing_numbers_are_filled_or_dropped_when_asked(
    tmp_path: Path, missing, expected
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("b,kind\n2,x\n,y\n6,x\n")
    loader = TableLoader(
        harness.workflow_on(), path, label="kind", missing=missing,
        minibatch_size=len(expected), shuffle_limit=0,
    )  # fmt: skip
    with harness.ready(loader):
        loader.run()
        assert loader.minibatch_data.read().tolist() == expected


# -- images ---------------------------------------------------------------------------------------


def _images(root: Path, count: int = 4) -> None:
    from PIL import Image

    for kind, shade in (("dark", 0), ("light", 255)):
        (root / kind).mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", (8, 6), (shade, shade, shade)).save(root / kind / f"{n}.png")


def test_images_in_folders_are_read_ahead_and_served_in_order(tmp_path: Path) -> None:
    _images(tmp_path)
    loader = ImageFolderLoader(
        harness.workflow_on(), tmp_path, size=(3, 4), color="L", minibatch_size=3
    )
    with harness.ready(loader):
        assert loader.sample_shape == (3, 4)
        for _ in range(6):
            loader.run()
            rows = loader.minibatch_data.read()
            labels = loader.minibatch_labels.read()
            for n in range(loader.minibatch_size):
                assert rows[n].min() == rows[n].max() == (1 if labels[n] else -1)
            assert labels[loader.minibatch_size :].tolist() == [-1] * (3 - loader.minibatch_size)


def test_a_damaged_image_is_named_or_skipped_when_asked(tmp_path: Path) -> None:
    _images(tmp_path)
    (tmp_path / "dark" / "2.png").write_bytes(b"no picture")
    loader = ImageFolderLoader(harness.workflow_on(), tmp_path, size=(3, 4), minibatch_size=8)
    with harness.ready(loader), pytest.raises(DataError, match=r"2\.png is damaged"):
        loader.run()
    loader = ImageFolderLoader(
        harness.workflow_on(), tmp_path, size=(3, 4), minibatch_size=8, skip_bad=True
    )
    with harness.ready(loader):
        loader.run()
        assert loader.minibatch_size == 7
        assert [path.name for path in loader.skipped] == ["2.png"]


def test_subfolders_are_the_classes_of_samples(tmp_path: Path) -> None:
    _images(tmp_path / "train", 3)
    _images(tmp_path / "validation", 2)
    loader = ImageFolderLoader(harness.workflow_on(), tmp_path, size=(2, 2), minibatch_size=2)
    with harness.ready(loader):
        assert loader.class_lengths == (0, 4, 6)


@pytest.mark.parametrize("what", ["samples", "targets"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(what: str, value: float) -> None:
    data, targets = np.zeros((5, 2)), np.zeros((5, 1))
    (data if what == "samples" else targets)[3, 0] = value
    loader = ArrayLoader(harness.workflow_on(), data, targets=targets)
    says = f"the {what} hold NaN or infinity, the first in sample 3"
    with pytest.raises(DataError, match=says), harness.ready(loader):
        pass


def test_a_label_that_may_not_be_is_named() -> None:
    loader = ArrayLoader(harness.workflow_on(), np.zeros((3, 1)), ["a", "b", "x"], classes="ab")
    with pytest.raises(DataError, match="unknown labels 'x'; known are 'a', 'b'"):
        loader.load()

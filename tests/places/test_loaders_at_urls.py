"""Loaders of data at URLs serve what they serve from a folder, bit for bit."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from harness import ready, workflow_on
from PIL import Image
from web_folder import served

from veloflow.errors import DataError
from veloflow.places import place_of
from veloflow.runtime.definition import Definition
from veloflow.runtime.session import build_workflow
from veloflow.units import (
    ArrayFileLoader,
    IDXLoader,
    ImageFolderLoader,
    ImageListLoader,
    SoundLoader,
    TableLoader,
    TextLoader,
)
from veloflow.units.normalization import ExternalMean

pytest.importorskip("fsspec")


def _folder(root):
    """Fill a folder with data of every kind."""
    random = np.random.default_rng(1)
    data, labels = random.normal(size=(30, 4)), np.arange(30) % 3
    np.save(root / "x.npy", data)
    np.save(root / "y.npy", labels)
    np.savez(root / "x.npz", data=data, labels=labels)
    with pytest.importorskip("h5py").File(root / "x.h5", "w") as file:
        file["data"], file["labels"] = data, labels
    group = pytest.importorskip("zarr").open_group(root / "x.zarr", mode="w")
    group["data"], group["labels"] = data, labels
    columns = {f"c{n}": data[:, n] for n in range(4)} | {"kind": labels}
    frame = pl.DataFrame(columns)
    frame.write_csv(root / "t.csv")
    frame.write_parquet(root / "t.parquet")
    (root / "spark.parquet").mkdir()
    for part in range(3):
        name = f"part-0000{part}-ab.parquet"
        frame[10 * part : 10 * part + 10].write_parquet(root / "spark.parquet" / name)
    (root / "spark.parquet" / "_SUCCESS").touch()
    for number in range(6):
        for what in ("images", "texts", "sounds"):
            (root / what / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        inside = f"{'ab'[number % 2]}/{number}"
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{inside}.png")
        (root / "texts" / f"{inside}.txt").write_text(f"word{number} and more")
        values = random.uniform(-1, 1, 50).astype(np.float32)
        pytest.importorskip("soundfile").write(root / "sounds" / f"{inside}.wav", values, 8000)
    (root / "list.txt").write_text("".join(f"images/a/{n}.png\tl{n}\n" for n in (0, 2, 4)))
    (root / "idx").mkdir()
    for name, count in (("train", 20), ("t10k", 5)):
        images = random.integers(0, 256, (count, 2, 2), np.uint8)
        for what, values in (("images-idx3", images), ("labels-idx1", np.arange(count) % 2)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content = head + values.astype(np.uint8).tobytes()
            (root / "idx" / f"{name}-{what}-ubyte").write_bytes(content)
    (root / "unlisted").mkdir()
    for path in (root / "idx").iterdir():
        (root / "unlisted" / path.name).write_bytes(path.read_bytes())
    return root


KINDS = {
    "npy": lambda wf, at: ArrayFileLoader(
        wf, at / "x.npy", labels=str(at / "y.npy") if "://" in str(at) else at / "y.npy",
        shuffle_window=7,
    ),
    "npz": lambda wf, at: ArrayFileLoader(wf, at / "x.npz", validation_ratio=0.2),
    "h5": lambda wf, at: ArrayFileLoader(wf, str(at / "x.h5")),
    "zarr": lambda wf, at: ArrayFileLoader(wf, at / "x.zarr"),
    "csv": lambda wf, at: TableLoader(wf, str(at / "t.csv"), label="kind"),
    "parquet": lambda wf, at: TableLoader(wf, at / "t.parquet", label="kind"),
    "parts": lambda wf, at: TableLoader(wf, at / "spark.parquet", label="kind"),
    "images": lambda wf, at: ImageFolderLoader(wf, str(at / "images"), size=(8, 8)),
    "list": lambda wf, at: ImageListLoader(wf, str(at / "list.txt"), size=(6, 6)),
    "sounds": lambda wf, at: SoundLoader(wf, at / "sounds", frames=40),
    "texts": lambda wf, at: TextLoader(wf, str(at / "texts"), length=4),
    "idx": lambda wf, at: IDXLoader(wf, str(at / "idx"), normalization="linear"),
}  # fmt: skip


def _served(make, root):
    """Return data and labels of a pass."""
    wf = workflow_on()
    loader = make(wf, root)
    found = []
    with ready(loader):
        while True:
            loader.run()
            size = loader.minibatch_size
            for array in (loader.minibatch_data, loader.minibatch_labels):
                found.append(np.array(array.read())[:size].tobytes())
            if loader.train_ended:
                return found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with data of every kind."""
    return _folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def web(root):
    """Give the address of a server of that folder, and what it has sent."""
    with served(root) as found:
        yield found


@pytest.fixture(scope="module")
def memory(root):
    """Return that folder copied into fsspec's memory."""
    place = place_of("memory://loaders")
    for path in root.rglob("*"):
        if path.is_file():
            (place / str(path.relative_to(root))).write([path.read_bytes()])
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_samples_come_from_the_web_and_from_memory(root, web, memory, kind):
    at_home = _served(KINDS[kind], root)
    assert _served(KINDS[kind], place_of(web[0])) == at_home
    assert _served(KINDS[kind], memory) == at_home
    assert _served(KINDS[kind], place_of(f"file://{root}")) == at_home


def test_a_server_that_gives_no_ranges_serves_all_the_same(root):
    with served(root, gives_ranges=False) as (address, _):
        for kind in ("npy", "h5"):
            assert _served(KINDS[kind], place_of(address)) == _served(KINDS[kind], root)


def test_a_web_folder_that_is_not_listed(root, web):
    wf = workflow_on()
    loader = IDXLoader(wf, f"{web[0]}/unlisted")
    with ready(loader):
        assert loader.class_lengths == (0, 5, 20)


def test_of_an_array_only_the_rows_that_are_wanted_are_fetched(tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((50_000, 200), np.float64))  # 80 MB
    with served(tmp_path) as (address, sent):
        loader = ArrayFileLoader(
            workflow_on(), f"{address}/big.npy", labels=None, shuffle_window=100
        )
        with ready(loader):
            loader.run()
        assert sum(sent) < 30_000_000


def test_a_mean_sample_at_a_url(tmp_path):
    mean = np.arange(4.0)
    np.save(tmp_path / "m.npy", mean)
    place_of("memory://means/m.npy").write([(tmp_path / "m.npy").read_bytes()])
    np.testing.assert_array_equal(ExternalMean("memory://means/m.npy").mean, mean)


@pytest.mark.parametrize("kind", ["npy", "csv", "images", "list", "idx"])
def test_what_is_missing_is_named_by_its_url(web, kind):
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/nothing"):
        _served(KINDS[kind], place_of(web[0]) / "nothing")


def test_an_option_that_is_a_path_takes_a_url(web):
    def build(wf, *, data=None):
        IDXLoader(wf, data)

    build.__annotations__["data"] = Path
    workflow, options = build_workflow(Definition("x", build, None), {"data": f"{web[0]}/idx"})
    workflow.close()
    assert str(options["data"]) == f"{web[0]}/idx"

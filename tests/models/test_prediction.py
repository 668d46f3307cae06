"""Predictions: what a model said while it was trained it says of files, whatever their kind."""

from __future__ import annotations

import gzip
import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from models import model_of

import veloflow
from veloflow.cli import main
from veloflow.errors import CheckpointError, DataError, InputError, NotFoundError
from veloflow.models import open_model, predict
from veloflow.units import ArrayLoader, Dropout, digits, dropout, softmax, standard_workflow, tanh

_MINE = """
from veloflow import Workflow
from veloflow.units import TableLoader, softmax, standard_workflow, tanh

def build(wf: Workflow, *, table: str = "") -> None:
    loader = TableLoader(wf, table, label="kind", columns=["a", "b"], normalization="pointwise")
    standard_workflow(wf, loader=loader, layers=[tanh(4), softmax(2)], max_epochs=3)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with checkpoints of trained digits_mlp, and its error in per cent."""
    folder = tmp_path_factory.mktemp("saved")
    result = veloflow.run("digits_mlp", hidden=20, epochs=2, device="numpy", checkpoint=folder)
    return folder, result.best["validation_error_percent"]


def _call(*arguments: object):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_predictions_have_the_error_that_training_found(saved, tmp_path):
    data, labels = digits()
    np.save(tmp_path / "digits.npy", data)
    folder, error_percent = saved
    done = _call("predict", folder, tmp_path / "digits.npy", "-o", tmp_path / "out.parquet",
                 "--device", "numpy")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out.parquet'}: 1797 samples\n"
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table.columns == ["sample", "label", "probability", *(f"p({n})" for n in range(10))]
    held = np.arange(len(data)) % 5 == 0  # the loader's own validation samples
    wrong = (table["label"].to_numpy() != labels)[held].mean() * 100
    assert wrong == pytest.approx(error_percent)
    assert table["probability"].to_numpy() == pytest.approx(table[:, 3:].to_numpy().max(axis=1))


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "arrow", "idx", "h5", "zarr"])
def test_every_kind_of_file_gives_the_same(saved, tmp_path, kind):
    data = digits()[0][:150]
    path = tmp_path / f"digits.{kind}"
    frame = pl.DataFrame(data, schema=[f"p{n}" for n in range(64)])
    match kind:
        case "npz":
            np.savez(path, data=data, more=data)
        case "csv":
            frame.write_csv(path)
        case "parquet":
            frame.write_parquet(path)
        case "arrow":
            frame.write_ipc(path)
        case "idx":
            path = tmp_path / "digits-ubyte.gz"
            header = bytes([0, 0, 0x0E, 3]) + np.array([150, 8, 8], ">u4").tobytes()
            path.write_bytes(gzip.compress(header + data.astype(">f8").tobytes()))
        case "h5":
            with pytest.importorskip("h5py").File(path, "w") as file:
                file["data"] = data
        case "zarr":
            pytest.importorskip("zarr").save(path, data)
    with open_model(saved[0], device="numpy", minibatch_size=40) as model:
        assert predict(model, path, tmp_path / "out.csv") == 150
        expected = model.run(data)
    found = pl.read_csv(tmp_path / "out.csv")[:, 3:].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.opencl
def test_opencl_predicts_what_numpy_predicts(saved, opencl_device):
    data = digits()[0][:50]
    with open_model(saved[0], device=opencl_device) as model:
        there = model.run(data)
    with open_model(saved[0], device="numpy") as model:
        np.testing.assert_allclose(model.run(data), there, atol=1e-5)


def test_dropout_passes(tmp_path):
    def build(wf):
        data, labels = digits()
        loader = ArrayLoader(wf, data[:200], labels[:200], minibatch_size=50)
        layers = [tanh(20), dropout(0.5), softmax(10)]
        standard_workflow(wf, loader=loader, layers=layers, max_epochs=1)

    with model_of(build, runs=True) as model:
        (drop,) = (unit for unit in model.units if isinstance(unit, Dropout))
        first, again = model.run(digits()[0][:7]), model.run(digits()[0][:7])
        assert (drop.output.read() == drop.input.read()).all()
        assert (first == again).all()


@pytest.fixture
def mine(tmp_path):
    """Return a definition of one's own, and a folder with its checkpoint."""
    rows = [{"a": float(n), "b": 1.0 - n, "kind": "xy"[n % 2]} for n in range(20)]
    pl.DataFrame(rows).write_csv(tmp_path / "table.csv")
    path = tmp_path / "mine.py"
    path.write_text(_MINE)
    veloflow.run(path, device="numpy", checkpoint=tmp_path / "saved",
                 options={"table": str(tmp_path / "table.csv")})  # fmt: skip
    (tmp_path / "table.csv").unlink()  # a trained model needs no training data
    return path, tmp_path / "saved"


def test_a_definition_of_ones_own_is_given_and_columns_go_by_name(mine, tmp_path):
    path, folder = mine
    table = pl.DataFrame({"id": ["p", "q"], "b": [0.5, 0.25], "a": [3, 4]})
    table.write_parquet(tmp_path / "new.parquet")
    with open_model(folder, workflow=path, device="numpy") as model:
        predict(model, tmp_path / "new.parquet", tmp_path / "out.csv")
        expected = model.run(np.array([[3, 0.5], [4, 0.25]]))
    found = pl.read_csv(tmp_path / "out.csv")
    assert set(found["label"]) <= {"x", "y"}
    np.testing.assert_allclose(found[["p(x)", "p(y)"]].to_numpy(), expected, rtol=1e-5)


def test_a_missing_column_is_named(mine, tmp_path):
    path, folder = mine
    pl.DataFrame({"a": [1.0], "bb": [2.0]}).write_csv(tmp_path / "new.csv")
    done = _call("predict", folder, tmp_path / "new.csv", "-o", tmp_path / "out.csv",
                 "-w", path, "-d", "numpy")  # fmt: skip
    assert done.exit_code == 2
    assert "has no column 'b' (did you mean 'bb'?)" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_name_that_does_not_come_along_needs_the_file(mine):
    with pytest.raises(NotFoundError, match="give the path of its file with --workflow"):
        open_model(mine[1], device="numpy").__enter__()


def test_another_definition_is_refused(saved):
    with pytest.raises(CheckpointError, match="is of workflow 'digits_mlp', not of 'wine'"):
        open_model(saved[0], workflow="wine", device="numpy").__enter__()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 65)), r"shape \(65,\), and the model was trained on samples of shape \(64,"),
        (np.array([["a"] * 64]), "no numbers"),
        (np.where(np.arange(128).reshape(2, 64) == 70, np.nan, 0), "sample 1 holds NaN"),
    ],
)
def test_samples_that_do_not_fit_are_refused(saved, tmp_path, values, message):
    np.save(tmp_path / "bad.npy", values)
    with (
        open_model(saved[0], device="numpy") as model,
        pytest.raises(DataError, match=message),
    ):
        predict(model, tmp_path / "bad.npy", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.npy", None, "no data"),
        ("short.npy", b"\x93NUMPY\x01\x00", "no whole .npy file"),
        ("thing.xyz", b"", "no kind of file that holds samples"),
        ("few.csv", b"a,b\n1,2\n", "2 columns of numbers .* takes 64 numbers a sample"),
    ],
)
def test_files_that_cannot_be_read_are_named(saved, tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with open_model(saved[0], device="numpy") as model, pytest.raises(DataError, match=message):
        predict(model, path, tmp_path / "out.parquet")


def test_no_objects_are_read_from_npy_files(saved, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]))
    with (
        open_model(saved[0], device="numpy") as model,
        pytest.raises(DataError, match="holds Python objects, which are not read"),
    ):
        predict(model, tmp_path / "objects.npy", tmp_path / "out.csv")


def test_the_output_is_a_table(saved, tmp_path):
    with pytest.raises(InputError, match=r"'.txt' is no table; use .parquet or .csv"):
        predict(None, tmp_path, tmp_path / "out.txt")


def test_export_by_the_command_line(saved, tmp_path):
    pytest.importorskip("onnxruntime")
    np.save(tmp_path / "digits.npy", digits()[0])
    done = _call("export", saved[0], "-o", tmp_path / "m.onnx", "--check", tmp_path / "digits.npy")
    assert done.exit_code == 0, done.output
    assert "on 1000 samples onnxruntime differs by" in done.stdout
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "m.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == [*range(10)]


def test_nothing_is_exported_where_the_samples_to_check_it_are_wrong(saved, tmp_path):
    pytest.importorskip("onnxruntime")
    np.save(tmp_path / "wrong.npy", np.zeros((3, 5)))
    done = _call("export", saved[0], "-o", tmp_path / "m.onnx", "--check", tmp_path / "wrong.npy")
    assert done.exit_code == 2
    assert "the samples have shape (5,), and the model was trained on" in done.stderr
    assert not (tmp_path / "m.onnx").exists()

"""Tables, and times read from results."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
from rich.console import Console

from veloflow.errors import DataError, NotFoundError
from veloflow.views.report import (
    checkpoint_tables,
    devices_table,
    findings_table,
    json_text,
    units_table,
)
from veloflow.views.times import duration, read_times, shares, times_of


@dataclass
class Info:
    name: str = "opencl:0:0"
    kind: str = "opencl"
    hardware: str = "a [fast] processor"
    driver: str = "a driver 1.0"
    memory: int = 3 << 29
    compute_units: int = 2
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


@dataclass
class Report:
    info: Info
    problems: tuple[str, ...] = ()
    gemm_gflops: float | None = 123.4
    small_step_seconds: float | None = 0.0015


@dataclass
class Finding:
    name: str
    status: str
    value: str
    cure: str = ""


def text_of(*tables: object, width=100):
    out = Console(file=io.StringIO(), width=width)
    out.print(*tables, sep="\n")
    return out.file.getvalue()


def test_times_of_a_result():
    assert times_of({"unit_seconds": {"a": 1, "b/c": 0.5}}) == {"a": 1.0, "b/c": 0.5}


@pytest.mark.parametrize(
    "record",
    [{}, {"unit_seconds": [1]}, *({"unit_seconds": {"a": x}} for x in ("1", None, True, -1))],
    ids=str,
)
def test_times_must_be_seconds(record):
    with pytest.raises(DataError):
        times_of(record)


def test_times_are_read_from_a_file(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"unit_seconds": {"a": 2}}))
    assert read_times(path) == {"a": 2.0}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"unit_seconds": 3}', b"\xff\xfe"])
def test_what_is_no_result_is_named(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"r\.json"):
        read_times(path)


def test_missing_result_says_how_to_make_one(tmp_path):
    with pytest.raises(NotFoundError, match="veloflow run … --result"):
        read_times(tmp_path / "r.json")
    with pytest.raises(DataError, match="cannot read"):
        read_times(tmp_path)


def test_shares_count_nested_time_once():
    found = shares({"a": 1.0, "in": 3.0, "in/b": 2.0, "in/deep": 1.0, "in/deep/c": 1.0})
    assert found == {"a": 0.25, "in": 0.75, "in/b": 0.5, "in/deep": 0.25, "in/deep/c": 0.25}
    assert shares({"a": 0.0}) == {"a": 0.0}
    assert shares({}) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.0, "0 µs"), (4.2e-6, "4.2 µs"), (0.09, "90 ms"), (0.35, "350 ms")),
        *((1.0, "1 s"), (1.2345, "1.23 s"), (123.4, "123 s"), (98765.4, "98765 s")),
    ],
)
def test_duration_is_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_devices_with_their_tests_and_speeds():
    text = text_of(
        devices_table(
            [
                Report(Info()),
                Report(Info("bad", memory=0, compute_units=0), ("sum is wrong",), None, None),
                Report(Info("odd", notes=("softmax runs on NumPy",))),
            ]
        )
    )
    for words in ("a [fast] processor", "123 GFLOP/s", "1.5 ms", "1.5 GiB", "sum is wrong"):
        assert words in text
    assert text.count("passed") == 2
    assert text.count("failed") == 1
    assert "softmax runs on NumPy" in text


def test_findings_with_their_cures():
    text = text_of(
        findings_table([Finding("BLAS", "ok", "[openblas]"), Finding("x", "warn", "gone", "get x")])
    )
    rows = [line.split() for line in text.splitlines() if line.strip()][2:]
    assert rows == [["ok", "BLAS", "[openblas]"], ["warn", "x", "gone", "get", "x"]]


def test_units_with_their_sum():
    units = [
        {"unit": "a", "class": "A", "output": [60, 10], "parameters": 1010, "bytes": 2048},
        {"unit": "b", "class": "B", "output": None, "parameters": 0, "bytes": 0},
    ]
    text = text_of(units_table(units))
    assert "60 × 10" in text
    assert text.splitlines()[-1].split() == ["all", "1,010", "2", "KiB"]
    assert "all" in text_of(units_table([]))


def test_checkpoint_with_its_parameters(tmp_path):
    found = {
        "workflow": "wine",
        "reason": "improved",
        "settings": {"seed": 3},
        "options": {"rate": 0.5},
        "seconds": 2.0,
        "epochs": [{"epoch": 4, "train": {"samples": 9, "error_percent": 12.5, "loss": 0.25}}],
        "parameters": [
            {"name": "fc/weights", "shape": [3, 4], "dtype": "float32"}
            | {"minimum": -1.0, "mean": 0.0, "maximum": 1.0},
            {"name": "fc/none", "shape": [0], "dtype": "float32"}
            | {"minimum": None, "mean": None, "maximum": None},
        ],
    }
    text = text_of(*checkpoint_tables(tmp_path / "last", found), width=200)
    for words in ("wine", "improved", "rate", "0.5", "4; train 12.50 %, loss 0.25", "3 × 4"):
        assert words in text
    assert text_of(*checkpoint_tables(tmp_path, {**found, "epochs": [], "parameters": []}))


def test_json_of_dataclasses():
    assert json.loads(json_text([Report(Info())]))[0]["info"]["memory"] == 3 << 29

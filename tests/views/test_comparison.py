"""The comparison of modes: its table, its chart, and the command."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from veloflow.cli import main
from veloflow.errors import InputError
from veloflow.runtime.comparison import Row
from veloflow.views.chart import Curve, draw_chart
from veloflow.views.comparison import comparison_chart, comparison_table

ROWS = [
    Row("sync", "plain", [9.0, 11.0], 3.0, 2.5e6, 0.0, 1.0, 0.25, 0.0, [(0, 90), (1, 20), (2, 9)]),
    Row("ssp:s=3", "onebit", [12.0], 1.0, 8e4, 1e9, 29.5, 0.5, 2.5, [(0, 90), (1, 30), (2, 12)]),
    Row("async", "plain", failure="the loss is nan"),
    Row("auto", "its own", [11.0], 2.0, 1e5, 1e6, 1.0, 0.1, 0.0, [(0, 90), (1, 25), (2, 11)],
        picked="average:every=20 onebit"),
]  # fmt: skip


def test_the_table_says_what_was_measured():
    console = Console(file=io.StringIO(), width=140)
    console.print(comparison_table(ROWS))
    lines = console.file.getvalue().splitlines()
    assert "10.00 ± 1.41" in lines[1]
    assert "2.5 MB" in lines[1]
    assert "25 %" in lines[1]
    assert "29.5" in lines[2]
    assert "failed: the loss is nan" in lines[3]
    assert "auto: average:every=20 onebit" in lines[4]


def test_a_narrow_table_keeps_its_numbers_whole():
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table(ROWS[:2] + ROWS[3:]))
    text = console.file.getvalue()
    assert "…" not in text
    assert "10.00 ± 1.41" in text


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_chart_shows_each_run_that_did_not_fail(tmp_path, kind):
    path = tmp_path / f"modes.{kind}"
    comparison_chart(ROWS, path, "modes <all>")
    if kind == "png":
        with Image.open(path) as image:
            assert image.size == (1720, 920)
            assert len(image.getcolors(1 << 20)) > 10
        return
    root = ElementTree.parse(path).getroot()
    texts = {element.text for element in root.iter() if element.text}
    assert {"modes <all>", "sync", "ssp:s=3 onebit", "auto: average:every=20 onebit"} <= texts
    assert "async" not in texts


def test_a_chart_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is a \.svg or a \.png file"):
        draw_chart(tmp_path / "modes.gif", "", "", "", [Curve("a", [(0, 1)])])


def test_the_command_compares_simulated_slaves(tmp_path):
    chart = tmp_path / "modes.svg"
    given = ["compare", "digits_mlp", "epochs=1", "hidden=10", "--simulate", "3", "--seeds", "2",
             "--sharing", "sync average:4 auto", "--codec", "plain factors", "-d", "numpy",
             "-o", str(chart), "--json"]  # fmt: skip
    outcome = CliRunner().invoke(main, given)
    assert outcome.exit_code == 0, outcome.stderr
    rows = json.loads(outcome.stdout)
    assert [(row["sharing"], row["codec"]) for row in rows] == [
        ("sync", "plain"), ("sync", "factors"), ("average:every=4", "plain"),
        ("auto", "its own"),
    ]  # fmt: skip
    assert all(len(row["errors"]) == 2 and row["seconds"] > 0 for row in rows)
    assert chart.is_file()


@pytest.mark.cluster
@pytest.mark.slow
def test_the_command_compares_topologies():
    given = ["compare", "digits_mlp", "epochs=3", "hidden=10", "--slaves", "2", "-d", "numpy",
             "--sharing", "sync:shards=4 async", "--codec", "plain int8",
             "--topology", "star servers:1 ring", "--json"]  # fmt: skip
    outcome = CliRunner().invoke(main, given)
    assert outcome.exit_code == 0, outcome.stderr
    rows = json.loads(outcome.stdout)
    assert [(row["sharing"], row["codec"], row["topology"]) for row in rows] == [
        *(("sync:shards=4", "plain", way) for way in ("star", "servers:k=1", "ring")),
        ("sync:shards=4", "int8", "star"), ("async", "plain", "star"), ("async", "int8", "star"),
    ]  # fmt: skip
    assert len({tuple(row["errors"]) for row in rows[:3]}) == 1  # the bits of sync


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sharing", "snyc"], "no mode 'snyc'"),
        (["--codec", "x"], "no codec 'x'"),
        (["--simulate", "0"], "slaves is 0"),
        (["--simulate", "3,speed=2"], "no option 'speed'"),
        (["--topology", "rign"], "did you mean 'ring'"),
        (["--topology", "star ring", "--simulate", "3"], "simulated slaves are a star"),
        (["-o", "modes.gif"], "is a .svg or a .png file"),
    ],
)
def test_mistakes_are_named_before_anything_runs(given, said):
    outcome = CliRunner().invoke(main, ["compare", "digits_mlp", *given])
    assert outcome.exit_code == 2
    assert said in outcome.stderr

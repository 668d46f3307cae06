"""Reports of runs: what stands in them, in both forms, and what is no result."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from veloflow.cli import main
from veloflow.views.charts import bars, curves

RECORD = {
    "workflow": "digits_mlp", "options": {"hidden": 5}, "seed": 3, "device": "numpy",
    "epochs": [
        {"epoch": 0, "validation": {"samples": 9, "n_errors": 8, "error_percent": 88.9}},
        {"epoch": 1, "validation": {"samples": 9, "n_errors": 4, "error_percent": 44.4},
         "train": {"samples": 20, "n_errors": 5, "error_percent": 25.0}},
    ],
    "best": {"epoch": 1, "validation_error_percent": 44.4}, "seconds": 1.5,
    "unit_seconds": {"DigitsLoader": 0.25, "All2AllTanh": 0.75}, "parameters_sha256": "abc",
    "labels": {"train": {"a|b": 11, "<c>": 9}},
    "statistics": {"x/weights": [{"epoch": 0, "norm": 2.0, "similar": [[1, 2]]}]},
    "histogram of out": {"counts": [1, 3], "edges": [0.0, 1.0, 2.0], "total": 4},
}  # fmt: skip


def _call(*arguments: object):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


@pytest.fixture
def result(tmp_path):
    """Return a result file."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RECORD))
    return path


def test_markdown_with_pictures_beside_it(result, tmp_path):
    done = _call(result, "-o", tmp_path / "out" / "report.md")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "report.md").read_text()
    assert "# Run of digits_mlp" in text
    assert "| epoch | train error, % | validation error, % |" in text
    assert "| 1 | 25 | 44.4 |" in text
    assert "| All2AllTanh | 750 ms | 75.0% |" in text
    assert "| a\\|b | 11 |" in text
    pictures = sorted(one.name for one in (tmp_path / "out").glob("*.svg"))
    assert pictures == [
        "report-error_percent.svg", "report-graph.svg", "report-histogram-of-out.svg",
        "report-norms.svg",
    ]  # fmt: skip
    for name in pictures:
        assert f"({name})" in text
        ET.parse(tmp_path / "out" / name)


class Tags(HTMLParser):
    """Counts tags, opened and not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "rect", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open.remove(tag)


def test_html_is_one_file(result, tmp_path):
    assert _call(result, "-o", tmp_path / "report.html").exit_code == 0
    text = (tmp_path / "report.html").read_text()
    tags = Tags(text)
    assert tags.seen.count("svg") == 4
    assert "&lt;c&gt;" in text
    assert "<c>" not in text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "result.json"]


@pytest.mark.parametrize(
    ("content", "output", "message"),
    [
        (None, "x.md", "there is no result file"),
        ("{", "x.md", "cannot read the result file"),
        ("[1]", "x.md", "is no result of veloflow run --result"),
        (json.dumps(RECORD), "x.pdf", "'.pdf' is no report; use .md or .html"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, content, output, message):
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    done = _call(tmp_path / "r.json", "-o", tmp_path / output)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / output).exists()


def test_without_its_definition_the_graph_is_left_out(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({**RECORD, "workflow": "mine"}))
    done = _call(tmp_path / "r.json", "-o", tmp_path / "r.md")
    assert done.exit_code == 0
    assert "without the graph" in done.stderr
    assert "## Graph" not in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize(
    "lines",
    [
        {}, {"a": []}, {"a": [(0, 5.0)]}, {"a": [(0, 1.0), (1, float("nan"))], "<b>": [(0, 1e9)]},
        {"a": [(n, 10.0**-n) for n in range(9)]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("log", [False, True])
def test_curves_of_any_points(lines, log):
    root = ET.fromstring(curves("a <title>", "x", lines, log=log))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_bars_without_counts():
    ET.fromstring(bars("none", [0.0, 1.0], [0]))

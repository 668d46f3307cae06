"""Drawings in files: every format, with the system's Graphviz and without, and what goes wrong."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zlib
from importlib import metadata
from xml.etree import ElementTree

import pytest
from pictures import Part, nested, training
from PIL import Image

from checkout import ROOT
from veloflow.core import Workflow
from veloflow.errors import InputError, RunError, StorageError
from veloflow.views import render
from veloflow.views.graph import draw, svg_text
from veloflow.views.notebook import install
from veloflow.views.pdf import pdf_of_layout
from veloflow.workflows import digits_mlp

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def network():
    return training(2)


@pytest.mark.parametrize("suffix", [".dot", ".gv", ".DOT"])
def test_dot_needs_no_program(network, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(render, "_embedded", None)
    path = draw(network, tmp_path / f"graph{suffix}")
    assert path == str(tmp_path / f"graph{suffix}")
    text = (tmp_path / f"graph{suffix}").read_text(encoding="utf-8")
    assert text.startswith('digraph "net 2" {')


def test_svg_has_every_unit_and_link(network, tmp_path, no_dot):
    root = ElementTree.parse(draw(network, tmp_path / "graph.svg")).getroot()
    assert root.tag == SVG + "svg"
    kinds = [group.get("class") for group in root.iter(SVG + "g")]
    links = len(network.graph.edges) + 9  # pairs of units with data links
    assert kinds.count("node") == len(network)
    assert kinds.count("edge") == links


def test_svg_names_fonts_of_the_same_widths(network):
    texts = ElementTree.fromstring(svg_text(network)).iter(SVG + "text")
    assert {text.get("font-family").split(",")[1] for text in texts} == {"Arial"}


def test_picture_in_the_documentation_is_of_the_present_definition():
    wf = Workflow(name="digits_mlp")
    digits_mlp.build(wf)
    root = ElementTree.parse(ROOT / "docs" / "images" / "digits_mlp.svg").getroot()
    assert set(root.itertext()) == set(ElementTree.fromstring(svg_text(wf)).itertext())


def test_png_is_a_picture_of_some_size(network, tmp_path, no_dot):
    with Image.open(draw(network, tmp_path / "graph.png")) as picture:
        picture.load()
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").resize((64, 64)).getcolors(4096)) > 16


def content_of(page):
    """Return the drawing operations of a PDF page."""
    packed = re.search(rb"stream\n(.*)\nendstream", page, re.DOTALL)
    assert packed is not None
    return zlib.decompress(packed[1]).decode("cp1252")


def test_pdf_without_dot_holds_paths_and_texts(network, tmp_path, no_dot):
    draw(network, tmp_path / "graph.pdf")
    page = (tmp_path / "graph.pdf").read_bytes()
    assert page.startswith(b"%PDF-1.4")
    assert page.endswith(b"%%EOF\n")
    content = content_of(page)
    for unit in network:
        assert f"({unit.name}) Tj" in content
    assert "(block: not decision.ready) Tj" in content
    assert "[5 2] 0 d" in content  # dashed data links
    assert content.count(" m ") > len(network.graph.edges)


def test_pdf_says_where_its_objects_are(network, tmp_path, no_dot):
    page = (tmp_path / draw(network, tmp_path / "graph.pdf")).read_bytes()
    start = int(re.search(rb"startxref\n(\d+)", page)[1])
    assert page[start:].startswith(b"xref")
    places = re.findall(rb"(\d{10}) 00000 n", page)
    for number, place in enumerate(places, 1):
        assert page[int(place) :].startswith(b"%d 0 obj" % number)
    length = int(re.search(rb"/Length (\d+)", page)[1])
    assert len(re.search(rb"stream\n(.*)\nendstream", page, re.DOTALL)[1]) == length


def test_pdf_escapes_brackets_and_refuses_what_it_has_no_font_for(tmp_path, no_dot):
    wf = Workflow(name="wf")
    wf.start >> Part(wf, name="f(x) \\ é") >> wf.end
    draw(wf, tmp_path / "graph.pdf")
    assert r"(f\(x\) \\ é) Tj" in content_of((tmp_path / "graph.pdf").read_bytes())
    wf.start >> Part(wf, name="漢字") >> wf.end
    with pytest.raises(InputError, match=r"漢字.*\.svg"):
        draw(wf, tmp_path / "other.pdf")
    assert not (tmp_path / "other.pdf").exists()
    draw(wf, tmp_path / "other.svg")


def test_pdf_page_is_never_larger_than_pdf_allows():
    layout = b'{"bb": "0,0,100,30000", "objects": [], "edges": []}'
    width, height = re.search(
        rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf_of_layout(layout)
    ).groups()
    assert float(height) == 14400
    assert 0 < float(width) < 100


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_systems_dot_comes_first(network, tmp_path, system_dot, kind):
    draw(network, tmp_path / f"graph.{kind}")
    assert f"-T{kind}" in system_dot.read_text()


def test_the_systems_dot_writes_pdf_itself(network, tmp_path, system_dot):
    with pytest.raises(RunError, match="dot failed"):  # the one behind it here has no PDF
        draw(network, tmp_path / "graph.pdf")
    assert "-Tpdf" in system_dot.read_text()
    assert not (tmp_path / "graph.pdf").exists()


def test_layout_of_pypi_need_not_be_on_the_path(no_dot):
    program = render._embedded()
    assert os.access(program, os.X_OK)


def test_without_any_layout_the_cure_is_named(network, tmp_path, monkeypatch, no_dot):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(InputError, match=r"pip install graphviz-pure.*\.dot"):
        draw(network, tmp_path / "graph.svg")
    draw(network, tmp_path / "graph.dot")


def test_layout_that_fails_or_does_not_start_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(RunError, match="exit code"):
        render._lay_out(render._embedded(), "digraph {", "svg")
    with pytest.raises(InputError, match="cannot start"):
        render._lay_out(str(tmp_path / "absent"), "digraph {}", "svg")
    monkeypatch.setattr(render, "_TIME_LIMIT", 0.01)
    slow = tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    slow.chmod(0o755)
    with pytest.raises(RunError, match="did not finish"):
        render._lay_out(str(slow), "digraph {}", "svg")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("graph.jpg", r"'\.jpg'.*\.svg, \.png, \.pdf"),
        ("graph.pgn", r"did you mean '\.png'"),
        ("graph", "no suffix"),
    ],
)
def test_unknown_suffix_is_refused_before_anything_is_drawn(network, tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        draw(network, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made(network, tmp_path):
    draw(network, tmp_path / "a" / "b" / "graph.dot")
    assert (tmp_path / "a" / "b" / "graph.dot").is_file()


def test_unwritable_path_is_a_storage_error_that_leaves_nothing(network, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        draw(network, tmp_path / "file" / "graph.dot")
    (tmp_path / "folder.dot").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        draw(network, tmp_path / "folder.dot")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.dot"]


def test_failed_write_leaves_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "graph.dot"
    path.write_text("old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(StorageError, match="the disk is full"):
        draw(network, path)
    assert [one.name for one in tmp_path.iterdir()] == ["graph.dot"]
    assert path.read_text() == "old"


def test_file_has_the_users_usual_mode(network, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    draw(network, tmp_path / "graph.dot")
    assert (tmp_path / "graph.dot").stat().st_mode == plain.stat().st_mode


def test_times_reach_the_file(network, tmp_path):
    draw(network, tmp_path / "graph.dot", {"loader": 1.0})
    assert "100.0 %" in (tmp_path / "graph.dot").read_text()


def test_svg_text_is_a_document():
    assert ElementTree.parse(io.StringIO(svg_text(nested()))).getroot().tag == SVG + "svg"


def test_workflow_draws_itself_once_the_notebook_face_is_there(network, monkeypatch):
    monkeypatch.setattr(Workflow, "_drawer", None)
    assert network._repr_svg_() is None
    install()
    assert "<svg" in network._repr_svg_()


def test_public_workflow_brings_the_notebook_face():
    code = "import veloflow; print(veloflow.Workflow(name='w')._repr_svg_().count('<svg'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"

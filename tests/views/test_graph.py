"""What is in a drawing, read back from its DOT: units, links, gates, kinds, times, the legend."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from xml.etree import ElementTree

import pytest
from pictures import Part, nested, training

from veloflow.core import Input, Repeater, Workflow
from veloflow.errors import InputError
from veloflow.views import render, theme
from veloflow.views.graph import MANY_UNITS, svg_text, to_dot
from veloflow.workflows import digits_mlp


def parsed(wf, times=None):
    """Return the drawing as Graphviz itself reads it: graph, units by name, edges by (from, to)."""
    graph = json.loads(render._lay_out(render._embedded(), to_dot(wf, times).source, "dot_json"))
    objects = graph.get("objects", [])
    units = {one["name"]: one for one in objects if "nodes" not in one}
    edges = []
    for edge in graph.get("edges", []):
        ends = [objects[edge[end]]["name"] for end in ("tail", "head")]
        edges.append((tuple(reversed(ends) if edge.get("dir") == "back" else ends), edge))
    return graph, units, edges


def control(edges):
    return Counter(ends for ends, edge in edges if edge.get("style") != "dashed")


def data(edges):
    return {ends: edge for ends, edge in edges if edge.get("style") == "dashed"}


def words(label):
    """Return the texts of an HTML-like label, line by line."""
    lines = re.split(r"<BR/>|</TR>", label)
    return [text for line in lines if (text := re.sub(r"<[^>]*>", "", line).strip())]


@pytest.fixture
def digits():
    wf = Workflow(name="digits_mlp")
    digits_mlp.build(wf)
    return wf


def test_every_control_link_appears_once(digits):
    _, units, edges = parsed(digits)
    assert set(units) == {unit.path for unit in digits}
    assert control(edges) == Counter((a.path, b.path) for a, b in digits.graph.edges)


def test_data_links_between_two_units_share_an_edge(digits):
    _, _, edges = parsed(digits)
    found = data(edges)
    assert len(found) == sum(edge.get("style") == "dashed" for _, edge in edges)
    links = {
        (link.source.path, unit.path): set() for unit in digits for link in unit.data_links.values()
    }
    for unit in digits:
        for link in unit.data_links.values():
            links[link.source.path, unit.path].add(link.attribute)
    assert {ends: set(words(edge["label"])) for ends, edge in found.items()} == links
    assert all(edge["color"] == theme.DATA for edge in found.values())


def test_long_list_of_data_links_is_cut_and_whole_in_the_tooltip():
    wf = Workflow(name="wf")
    a = Part(wf, name="a")
    inputs = {f"in{number}": Input[object](optional=True) for number in range(7)}
    b = type("Reader", (Part,), inputs)(wf, name="b")
    b.link_data(a, **{f"in{number}": f"out{number}" for number in range(7)})
    wf.start >> a >> b >> wf.end
    edge = data(parsed(wf)[2])["a", "b"]
    assert words(edge["label"]) == ["out0", "out1", "out2", "out3", "and 3 more"]
    assert all(f"out{n} as in{n}" in edge["tooltip"] for n in range(7))


def test_gates_stand_in_the_units(digits):
    _, units, _ = parsed(digits)
    assert words(units["end"]["label"]) == ["end", "block: not DecisionGD.complete"]
    assert words(units["GDSoftmax"]["label"])[1:] == [
        "block: DecisionGD.complete",
        "skip: DecisionGD.gd_skip",
    ]
    assert words(units["All2AllTanh"]["label"]) == ["All2AllTanh"]


def test_kinds_have_their_colours_and_shapes(digits):
    _, units, _ = parsed(digits)
    for unit in digits:
        assert units[unit.path]["fillcolor"] == theme.KINDS[unit.group].fill
        assert (units[unit.path].get("shape") == "hexagon") == unit.ignores_gate
    assert len({kind.fill for kind in theme.KINDS.values()}) == len(theme.KINDS)


def test_unknown_kind_is_drawn_too():
    wf = Workflow(name="wf")
    wf.start >> Part(wf, "clusterer", name="k-means") >> wf.end
    graph, units, _ = parsed(wf)
    assert units["k-means"]["fillcolor"] not in {kind.fill for kind in theme.KINDS.values()}
    assert "clusterer" in words(graph["label"])[1]


def test_class_is_named_unless_the_name_says_it():
    wf = Workflow(name="wf")
    wf.start >> Part(wf) >> Part(wf) >> Part(wf, name="mine") >> wf.end
    _, units, _ = parsed(wf)
    assert words(units["Part"]["label"]) == ["Part"]
    assert words(units["Part_2"]["label"]) == ["Part_2"]
    assert words(units["mine"]["label"]) == ["mine", "Part"]


def test_legend_explains_what_is_there_and_nothing_else(network):
    text = " ".join(words(parsed(network)[0]["label"]))
    assert text.startswith("net 2")
    assert "10 units" in text
    for sign in ("trainer", "control links", "data links", "block:", "skip:", "hexagon:"):
        assert sign in text
    wf = Workflow(name="bare")
    wf.start >> wf.end
    bare = " ".join(words(parsed(wf)[0]["label"]))
    for sign in ("trainer", "data links", "block:", "skip:", "hexagon:", "share"):
        assert sign not in bare


@pytest.fixture
def network():
    return training(2)


def test_nested_workflow_is_a_box_around_its_units():
    wf = nested()
    graph, _, edges = parsed(wf)
    box = next(one for one in graph["objects"] if one["name"] == "cluster_clean")
    inside = {graph["objects"][number]["name"] for number in box["nodes"]}
    assert inside == {"clean/start", "clean/scale", "clean/clip", "clean/end"}
    assert words(box["label"]) == ["clean", "skip: not reader.ready"]
    assert ("reader", "clean/start") in control(edges)
    assert ("clean/end", "judge") in control(edges)
    borders = {ends: (edge.get("ltail"), edge.get("lhead")) for ends, edge in edges}
    assert borders["reader", "clean/start"] == (None, "cluster_clean")
    assert borders["clean/end", "judge"] == ("cluster_clean", None)
    assert set(data(edges)) == {
        ("reader", "clean/scale"),
        ("clean/scale", "clean/clip"),
        ("clean/clip", "judge"),
        ("clean/end", "judge"),  # an attribute of the nested workflow itself
    }


def test_nested_workflow_can_be_drawn_alone():
    inner = nested()["clean"]
    _, units, edges = parsed(inner)
    assert set(units) == {"clean/start", "clean/scale", "clean/clip", "clean/end"}
    assert set(data(edges)) == {("clean/scale", "clean/clip")}


def test_times_colour_units_by_their_share(network):
    times = {"loader": 1.0, "layer 0": 3.0, "layer 1": 0.0, "evaluator": 4.0}
    graph, units, _ = parsed(network, times)
    assert words(units["layer 0"]["label"])[-1] == "37.5 %  ·  3 s"
    assert units["evaluator"]["fillcolor"] == theme.HEAT[-1]
    assert units["layer 1"]["fillcolor"] == theme.HEAT[0] == units["decision"]["fillcolor"]
    assert units["layer 0"]["color"] == theme.KINDS["forward"].line
    text = " ".join(words(graph["label"]))
    assert "8 s in them" in text
    assert "share of the time: 0 %" in text
    assert "50 %" in text


def test_time_of_a_nested_workflow_is_not_counted_twice():
    times = {"reader": 1.0, "clean": 3.0, "clean/scale": 1.0, "clean/clip": 2.0, "judge": 0.0}
    graph, units, _ = parsed(nested(), times)
    assert words(units["clean/clip"]["label"])[-1] == "50.0 %  ·  2 s"
    box = next(one for one in graph["objects"] if one["name"] == "cluster_clean")
    assert words(box["label"])[-1] == "75.0 %  ·  3 s"


def test_times_that_are_all_zero_are_drawn(network):
    _, units, _ = parsed(network, {"loader": 0.0})
    assert units["loader"]["fillcolor"] == theme.HEAT[0]


def test_times_of_another_workflow_are_refused(network):
    with pytest.raises(InputError, match=r"not of workflow 'net 2'.*stranger"):
        to_dot(network, {"stranger": 1.0})


ODD = [
    "a<b>&c",
    'say "hi"',
    "back\\slash\\n",
    "half:port",
    "<tag>",
    "\x07bell",
    "漢字",
    "%",
    "{x|y}",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_drawn_as_they_are(name):
    wf = Workflow(name=name)
    other = Part(wf, "forward", name="other")
    unit = Part(wf, name=name).link_data(other, x=name)
    unit.gate_skip = ~unit.ready
    wf.start >> other >> unit >> wf.end
    _, units, edges = parsed(wf)
    assert len(units) == 4
    assert sum(control(edges).values()) == 3
    shown = theme.escape(name)
    assert f"<B>{shown}</B>" in to_dot(wf).source
    texts = ElementTree.fromstring(svg_text(wf)).itertext()
    assert theme.printable(name) in list(texts)


def test_many_units_lose_the_labels_of_data_links():
    few = data(parsed(training(3))[2])
    many = data(parsed(training(MANY_UNITS // 2))[2])
    assert all("label" in edge for edge in few.values())
    assert not any(edge.get("label") for edge in many.values())
    assert all(edge["tooltip"] for edge in many.values())


@pytest.mark.slow
def test_a_thousand_units_are_drawn_at_once():
    wf = training(498)
    assert len(wf) >= 1000
    start = time.perf_counter()
    source = to_dot(wf).source
    assert time.perf_counter() - start < 2
    picture = render.render(source, "svg")
    assert time.perf_counter() - start < 20  # about half a second on a quiet machine
    assert picture.count(b'class="node"') == len(wf)


def test_drawing_changes_nothing():
    wf = training(2)
    before = [(a.name, b.name) for a, b in wf.graph.edges]
    assert to_dot(wf).source == to_dot(wf).source
    assert [(a.name, b.name) for a, b in wf.graph.edges] == before


def test_loop_on_itself_and_unlinked_units_are_drawn():
    wf = Workflow(name="wf")
    repeater = Repeater(wf)
    unit = Part(wf, name="unit")
    unit.link_data(unit, x="ready")
    repeater >> repeater
    _, units, edges = parsed(wf)
    assert len(units) == 4
    assert control(edges) == {("Repeater", "Repeater"): 1}
    assert set(data(edges)) == {("unit", "unit")}

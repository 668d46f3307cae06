"""Networks in YAML and TOML files: the same bits as in Python, and errors that name the line."""

from __future__ import annotations

import numpy as np
import pytest

import veloflow
from veloflow.errors import DefinitionError, OptionError
from veloflow.runtime import find_definition
from veloflow.units.naming import KINDS, named

PYTHON = """
from veloflow import Workflow
from veloflow.units import *


def build(wf: Workflow) -> None:
    standard_workflow(
        wf,
        loader=DigitsLoader(wf, minibatch_size=100),
        layers=[
            residual(tanh(64), tanh(64, learning_rate=0.05)),
            dropout(0.1),
            softmax(10, solver=Adam(beta1=0.8), weights_filling=Glorot("normal")),
        ],
        learning_rate=0.01,
        max_epochs=2,
        policy=WarmUp(5, Cosine(100)),
        metrics=[AUC(), TopKError(3)],
        watchers=[Rollback(wf, patience=2)],
    )
"""

YAML = """\
about: Digits.
loader: {digits: {minibatch_size: 100}}
layers:
  - residual:
      - tanh: $width
      - tanh: {neurons: $width, learning_rate: 0.05}
  - dropout: 0.1
  - softmax: {classes: 10, solver: {adam: {beta1: 0.8}}, weights_filling: {glorot: normal}}
learning_rate: 1e-2
max_epochs: 2
policy: {warm_up: {length: 5, then: {cosine: 100}}}
metrics: [auc, {top_k_error: 3}]
watchers: [{rollback: {patience: 2}}]
options: {width: 64}
"""

TOML = """\
learning_rate = 0.01
max_epochs = 2
layers = [
  {residual = [{tanh = 64}, {tanh = {neurons = 64, learning_rate = 0.05}}]},
  {dropout = 0.1},
  {softmax = {classes = 10, weights_filling = {glorot = "normal"}, solver = {adam.beta1 = 0.8}}},
]
metrics = ["auc", {top_k_error = 3}]
watchers = [{rollback = {patience = 2}}]

[loader.digits]
minibatch_size = 100

[policy.warm_up]
length = 5
then = {cosine = 100}
"""


def written(folder, name, text):
    """Return the path of a file with this text."""
    path = folder / name
    path.write_text(text)
    return str(path)


def test_all_three_forms_give_the_same_bits(tmp_path):
    results = [
        veloflow.run(written(tmp_path, name, text), device="numpy")
        for name, text in (("a.py", PYTHON), ("b.yaml", YAML), ("c.toml", TOML))
    ]
    assert len({one.parameters_sha256 for one in results}) == 1
    assert results[0].epochs == results[1].epochs == results[2].epochs
    assert "auc" in results[0].epochs[-1]["validation"]


def test_options_of_a_file(tmp_path):
    path = written(tmp_path, "net.yaml", YAML.replace("residual:\n      -", "tanh: 5\n  -")
                   .replace("      - tanh: {", "  - tanh: {"))  # fmt: skip
    definition = find_definition(path)
    assert (definition.name, definition.summary) == ("net", "Digits.")
    result = veloflow.run(path, device="numpy", max_epochs=1, width=7, learning_rate="0.5")
    assert result.options == {"learning_rate": 0.5, "max_epochs": 1, "width": 7}
    assert result.graph["All2AllTanh_3"].weights.shape == (7, 7)
    assert result.graph["LearningRateAdjust"]._adjusted[0].base == 0.5
    with pytest.raises(OptionError, match=r"unknown option 'widht' \(did you mean 'width'\?\)"):
        veloflow.run(path, device="numpy", widht=7)


def test_a_topology_is_a_list_of_layers(tmp_path):
    path = written(tmp_path, "t.yaml", "loader: wine\nlayers: 8N-3N\nmax_epochs: 1\n")
    assert veloflow.run(path, device="numpy").graph["Dense"].output_shape == (8,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- tanh: $width\n", "- tahn: $width\n",
         r":5: there is no layer 'tahn' \(did you mean 'tanh'"),
        ("$width\n", "$widht\n",
         r":5: there is no option 'widht' \(did you mean 'width'"),
        ("{digits:", "{digit:",
         r":2: there is no loader 'digit' \(did you mean 'digits'"),
        ("minibatch_size", "minibatchsize",
         r":2: loader digits has no option 'minibatchsize' \(did"),
        ("learning_rate: 0.05", "learning_rat: 0.05",
         r":6: layer tanh has no option 'learning_rat'"),
        ("learning_rate: 0.05", "learning_rate: fast",
         r":6: learning_rate wants float, not 'fast'"),
        ("dropout: 0.1", "dropout: much",
         r":7: p wants float, not 'much'"),
        ("beta1: 0.8", "beta1: 1.8",
         r":8: Adam: beta1 is 1.8; give one in"),
        ("beta1: 0.8", "betta: 0.8",
         r":8: solver adam has no option 'betta' \(did you mean"),
        ("glorot: normal", "glorot: norml",
         r":8: distribution is 'norml' \(did you mean 'normal'"),
        ("max_epochs: 2", "max_epoch: 2",
         r":10: a network has no option 'max_epoch' \(did"),
        ("max_epochs: 2", "max_epochs: two",
         r":10: max_epochs wants int or None, not 'two'"),
        ("length: 5, ", "",
         r":11: policy warm_up needs length"),
        ("[auc,", "[acu,",
         r":12: there is no metric 'acu'"),
        ("options: {width: 64}", "options: {width: 64, depth: 3}",
         r":14: option 'depth' is used no"),
        ("options: {width: 64}", "options: {width: [1]}",
         r":14: option 'width' needs a name and"),
        ("about: Digits.", "a: [",
         r":\d+: "),
        ("about: Digits.", "loader: x",
         r":2: 'loader' is there twice"),
        ("layers:", "layer:",
         r"there is no 'layers'; it needs loader and layers"),
        ("- dropout: 0.1", "- 0.1",
         r":7: a layer is a name, or one name with what it is told"),
        ("classes: 10", "classes: true",
         r":8: classes wants int, not True"),
        ("tanh: $width", "tanh: [2, x]",
         r":5: neurons wants int or Sequence\[int\], not \[2, 'x'\]"),
        ("minibatch_size: 100", "normalization: standrad",
         r":2: there is no normalizer 'standrad' \(did you mean 'standard'"),
        ("{digits: {minibatch_size: 100}}", "{image_folder: {root: a, size: 3}}",
         r":2: size wants tuple\[int, int\], not 3"),
        ("{digits: {minibatch_size: 100}}", "{image_folder: {root: a}}",
         r":2: loader image_folder needs size"),
        ("{digits: {minibatch_size: 100}}",
         "{image_folder: {root: a, size: [2, 2], augment: {rotated: 3}}}",
         r":2: augment has no option 'rotated' \(did you mean 'rotate'"),
    ],
)  # fmt: skip
def test_errors_name_the_line(tmp_path, old, new, message):
    assert old in YAML
    path = written(tmp_path, "net.yaml", YAML.replace(old, new, 1))
    with pytest.raises(DefinitionError, match="net.yaml.*" + message):
        find_definition(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dropout = 0.1", "drpout = 0.1", r"c.toml:5: there is no layer 'drpout'"),
        ("beta1", "betta", r"c.toml:6: solver adam has no option 'betta'"),
        ("minibatch_size = 100", 'minibatch_size = "x"', r"c.toml:12: minibatch_size wants int"),
        ("length = 5", "lenght = 5", r"c.toml:15: policy warm_up has no option 'lenght'"),
        ("max_epochs = 2", "max_epochs = ", r"c.toml:2: Invalid value"),
    ],
)
def test_errors_of_toml_name_the_line_too(tmp_path, old, new, message):
    with pytest.raises(DefinitionError, match=message):
        find_definition(written(tmp_path, "c.toml", TOML.replace(old, new, 1)))


def test_files_that_are_none(tmp_path):
    for text, message in ((b"\xff\xfe", "no text in UTF-8"), (b"- 1", "must be a mapping")):
        path = tmp_path / "x.yaml"
        path.write_bytes(text)
        with pytest.raises(DefinitionError, match=message):
            find_definition(str(path))
    looped = "loader: wine\nlayers: &a\n  - residual: *a\n"
    with pytest.raises(DefinitionError, match=r":[23]: it holds itself"):
        find_definition(written(tmp_path, "loop.yaml", looped))


def test_layers_that_cannot_be_made_are_named_by_their_line(tmp_path):
    text = "loader: wine\nlayers:\n- tanh: 3\n- residual: [tanh: 3,\n   tanh: 0]\n- softmax: 3\n"
    path = written(tmp_path, "n.yaml", text)
    with pytest.raises(DefinitionError, match=r"n.yaml:5: unit 'All2AllTanh_.': .* has no neurons"):
        veloflow.run(path, device="numpy")


def test_sounds_with_all_that_they_may_be_told(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for name, sign in (("up", 1), ("down", -1)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(4):
            ramp = sign * np.linspace(-1, 1, 20 + number)
            soundfile.write(tmp_path / "sounds" / name / f"{number}.wav", ramp, 8000)
    text = (
        f"loader: {{sound: {{root: {tmp_path / 'sounds'}, frames: 20, validation_ratio: 0.25,\n"
        "  skip_bad: true, minibatch_size: 2, normalization: {linear: {interval: [0, 1]}}}}\n"
        "layers: [dense: {neurons: 4, activation: leaky_relu(0.2)}, softmax: 2]\nmax_epochs: 2\n"
    )
    result = veloflow.run(written(tmp_path, "s.yaml", text), device="numpy")
    assert {"validation", "train"} <= result.epochs[-1].keys()
    assert result.graph["Dense"].activation.name == "leaky_relu(0.2)"
    assert result.graph["SoundLoader"].normalizer.interval == (0, 1)


def test_errors_of_the_network_name_the_file(tmp_path):
    path = written(tmp_path, "n.yaml", "loader: wine\nlayers: [softmax: 3, tanh: 3]\n")
    with pytest.raises(DefinitionError, match=r"n.yaml.*softmax must be the last layer"):
        veloflow.run(path, device="numpy")


def test_names_are_found():
    assert {"tanh", "conv", "lstm", "residual", "parallel", "topology"} <= named("layer").keys()
    assert {"digits", "wine", "idx", "image_folder"} <= named("loader").keys()
    assert {"adam", "adamw", "rmsprop"} <= named("solver").keys()
    assert {"step_exp", "arbitrary_step", "warm_up"} <= named("policy").keys()
    assert {"auc", "f1", "r2", "top_k_error"} <= named("metric").keys()
    assert all(named(kind) for kind in KINDS)

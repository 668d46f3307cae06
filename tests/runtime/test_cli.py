"""The command line as a user meets it: what it prints, and one line with exit code 2 if wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from veloflow.cli import main

_DIGITS = """
from veloflow import Repeater, Workflow
from veloflow.units import (
    All2AllSoftmax, All2AllTanh, DecisionGD, DigitsLoader, EvaluatorSoftmax, GDSoftmax, GDTanh,
)

def build(wf: Workflow, *, hidden: int = 10, rate: float = 0.1) -> None:
    repeater = Repeater(wf)
    loader = DigitsLoader(wf, minibatch_size=60)
    fc1 = All2AllTanh(wf, hidden)
    fc2 = All2AllSoftmax(wf, 10)
    evaluator = EvaluatorSoftmax(wf)
    decision = DecisionGD(wf, max_epochs=2)
    gd2 = GDSoftmax(wf, fc2, learning_rate=rate)
    gd1 = GDTanh(wf, fc1, learning_rate=rate)
    wf.start >> repeater >> loader >> fc1 >> fc2 >> evaluator >> decision >> gd2 >> gd1 >> repeater
    decision >> wf.end
    fc1.link_data(loader, input="minibatch_data")
    fc2.link_data(fc1, input="output")
    evaluator.link_data(fc2, "output").link_data(loader, labels="minibatch_labels")
    decision.link_data(evaluator, "n_err", "samples", "loss")
    decision.link_data(loader, "minibatch_class", "last_minibatch", "epoch_ended", "epoch_number")
    gd2.link_data(evaluator, "err_output")
    gd1.link_data(gd2, err_output="err_input")
    wf.end.gate_block = ~decision.complete
    gd2.gate_block = decision.complete
    gd1.gate_skip = gd2.gate_skip = decision.gd_skip
"""


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _refused(result: Result, *words: str) -> None:
    """Check that a command ended in one line with these words and exit code 2."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def _definition(folder: Path, old: str = "", new: str = "") -> str:
    assert old in _DIGITS
    path = folder / "mine.py"
    path.write_text(_DIGITS.replace(old, new) if old else _DIGITS)
    return str(path)


def test_a_run_prints_epochs_and_writes_its_result(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    done = _call("run", _definition(tmp_path), "hidden=12", "--device", "numpy", "--seed", "3",
                 "--result", str(target))  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "epoch    2" in done.output
    record = json.loads(target.read_text())
    assert record["workflow"] == "mine"
    assert record["options"] == {"hidden": 12, "rate": 0.1}
    assert (record["seed"], record["device"]) == (3, "numpy")
    assert [one["epoch"] for one in record["epochs"]] == [0, 1, 2]
    train = record["epochs"][1]["train"]
    assert set(train) == {"samples", "n_errors", "error_percent", "loss"}
    assert train["samples"] == 1437
    assert record["best"]["validation_error_percent"] < 50
    assert set(record["unit_seconds"]) >= {"DigitsLoader", "GDTanh", "DecisionGD"}
    assert len(record["parameters_sha256"]) == 64


def test_json_lines_parse(tmp_path: Path) -> None:
    done = _call("run", _definition(tmp_path), "--device", "numpy", "--json")
    events = [json.loads(line) for line in done.stdout.strip().splitlines()]
    assert [one["event"] for one in events] == ["start", "epoch", "epoch", "epoch", "result"]


def test_help_lists_the_workflows_own_options() -> None:
    done = _call("run", "digits_mlp", "--help")
    assert done.exit_code == 0
    for words in ("hidden=<int>", "rate=<float>", "neurons in the hidden layer", "default: 100"):
        assert words in done.output


def test_a_dry_run_shows_the_units_and_runs_nothing(tmp_path: Path) -> None:
    done = _call("run", _definition(tmp_path), "--device", "numpy", "--dry-run")
    assert done.exit_code == 0
    assert "All2AllTanh" in done.output
    assert "epoch" not in done.output


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "dot"])
def test_a_graph_is_drawn(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"graph.{suffix}"
    done = _call("graph", "digits_mlp", "-o", str(target))
    assert done.exit_code == 0, done.output
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "dot": b"digraph"}[suffix]
    assert target.read_bytes().lstrip().startswith(start)


def test_a_graph_shows_links_gates_and_times(tmp_path: Path) -> None:
    result, target = tmp_path / "r.json", tmp_path / "g.dot"
    _call("run", "digits_mlp", "epochs=1", "--device", "numpy", "--result", str(result), "-q")
    _call("graph", "digits_mlp", "-o", str(target), "--times", str(result))
    dot = target.read_text()
    assert "block: not DecisionGD.complete" in dot
    assert "skip: DecisionGD.gd_skip" in dot
    assert "minibatch_data" in dot
    assert " %" in dot


def test_a_checkpoint_can_be_inspected(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    _call("run", "digits_mlp", "epochs=1", "--device", "numpy", "--checkpoint", folder, "-q")
    done = _call("inspect", folder)
    assert done.exit_code == 0, done.output
    assert "All2AllTanh/weights" in done.output
    found = json.loads(_call("inspect", folder, "--json").stdout)
    assert found["workflow"] == "digits_mlp"


@pytest.mark.opencl
@pytest.mark.slow
def test_devices_and_doctor_find_no_fault() -> None:
    devices = json.loads(_call("devices", "--json").stdout)
    assert {"numpy", "opencl"} <= {one["info"]["kind"] for one in devices}
    assert all(not one["problems"] for one in devices)
    doctor = _call("doctor")
    assert doctor.exit_code == 0, doctor.output
    assert "CURVE" in doctor.output


# -- what is wrong ends in one clear line and exit code 2 -----------------------------------------


def test_no_such_workflow() -> None:
    _refused(_call("run", "digits_mpl"), "digits_mpl", "did you mean 'digits_mlp'")


def test_no_such_command() -> None:
    done = _call("rum")
    assert done.exit_code == 2
    assert "did you mean 'run'" in done.stderr


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ndef build(wf:\n")
    _refused(_call("run", str(path)), f"{path}:2")


def test_a_definition_that_raises_names_the_line(tmp_path: Path) -> None:
    path = _definition(tmp_path, "repeater = Repeater(wf)", "repeater = Repeater(wf, nmae='x')")
    _refused(_call("run", path, "--device", "numpy"), f"{path}:8", "nmae")


def test_a_file_without_build(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("")
    _refused(_call("run", str(path)), "no function 'build'")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hiden=3", "did you mean 'hidden'"),
        ("hidden=many", "wants int"),
        ("rate", "name=value"),
        ("hidden=1.5", "wants int"),
    ],
)
def test_a_wrong_option(word: str, says: str) -> None:
    _refused(_call("run", "digits_mlp", word, "--device", "numpy"), word.split("=")[0], says)


def test_an_unlinked_input(tmp_path: Path) -> None:
    path = _definition(tmp_path, '    fc2.link_data(fc1, input="output")\n', "")
    _refused(_call("run", path, "--device", "numpy"), "All2AllSoftmax", "'input' is not linked")


def test_a_link_to_nothing(tmp_path: Path) -> None:
    path = _definition(tmp_path, 'input="output"', 'input="outptu"')
    _refused(_call("run", path, "--device", "numpy"), "outptu", "did you mean 'output'")


def test_a_shape_mismatch_between_two_layers(tmp_path: Path) -> None:
    old = 'gd1.link_data(gd2, err_output="err_input")'
    path = _definition(tmp_path, old, 'gd1.link_data(evaluator, "err_output")')
    _refused(_call("run", path, "hidden=12", "--device", "numpy"), "GDTanh", "(60, 10)")


def test_a_loop_without_a_repeater(tmp_path: Path) -> None:
    path = _definition(tmp_path, "wf.start >> repeater >> loader", "wf.start >> loader")
    text = Path(path).read_text().replace("gd1 >> repeater", "gd1 >> loader")
    Path(path).write_text(text.replace("    repeater = Repeater(wf)\n", ""))
    _refused(_call("run", path, "--device", "numpy"), "no repeater", "DigitsLoader")


def test_an_end_that_is_never_reached(tmp_path: Path) -> None:
    path = _definition(tmp_path, "    decision >> wf.end\n", "")
    _refused(_call("run", path, "--device", "numpy"), "never reached")


def test_no_such_device() -> None:
    _refused(_call("run", "digits_mlp", "--device", "openlc"), "did you mean 'opencl'")


def test_opencl_without_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    from veloflow.devices.opencl import platforms

    monkeypatch.setattr(platforms, "devices_by_name", dict)
    _refused(_call("run", "digits_mlp", "--device", "opencl"), "pip install 'pyopencl[pocl]'")


def test_a_checkpoint_of_nothing(tmp_path: Path) -> None:
    _refused(_call("run", "digits_mlp", "--checkpoint", str(tmp_path), "--resume"), "no checkpoint")
    _refused(_call("run", "digits_mlp", "--resume"), "--checkpoint DIR")


def test_a_picture_of_an_unknown_format(tmp_path: Path) -> None:
    _refused(_call("graph", "digits_mlp", "-o", str(tmp_path / "g.bmp")), ".bmp", ".svg")


def test_times_from_no_result(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("[]")
    target = str(tmp_path / "g.svg")
    _refused(_call("graph", "digits_mlp", "-o", target, "--times", str(path)), "no result")


# -- what goes wrong while it runs ------------------------------------------------------------


def test_an_exception_names_its_unit_and_debug_shows_the_traceback(tmp_path: Path) -> None:
    old = "    repeater = Repeater(wf)\n"
    text = _DIGITS.replace(old, old + "    bad = Bad(wf, name='bad one')\n")
    text = text.replace("wf.start >> repeater", "wf.start >> bad >> repeater")
    text += "\nfrom veloflow import Unit\nclass Bad(Unit):\n    def run(self):\n        1 / 0\n"
    path = tmp_path / "bad.py"
    path.write_text(text)
    done = _call("run", str(path), "--device", "numpy")
    assert done.exit_code == 1
    assert done.stderr.strip() == "veloflow: unit 'bad one': ZeroDivisionError: division by zero"
    assert "Traceback" in _call("run", str(path), "--device", "numpy", "--debug").stderr


def test_nan_stops_the_run_and_names_the_first_unit(tmp_path: Path) -> None:
    done = _call("run", _definition(tmp_path), "rate=1e30", "--device", "numpy")
    assert done.exit_code == 1
    assert "the loss is nan" in done.stderr
    assert "first unit with NaN or infinity is 'All2AllTanh': weights" in done.stderr

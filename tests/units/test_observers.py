"""Units that look on: the worst mistakes, statistics of parameters, histograms, kernels alike."""

from __future__ import annotations

import numpy as np
import pytest
from harness import trained
from PIL import Image

import veloflow
from veloflow.errors import DefinitionError, InputError, ShapeError
from veloflow.units import (
    Accumulator,
    ArrayLoader,
    Histogram,
    ImageSaver,
    ParameterStatistics,
    digits,
    similar_kernels,
    softmax,
    standard_workflow,
    tanh,
)


def build(wf, *, shape=(8, 8), epochs=2):
    """Train a little on some digits, two of them with wrong labels."""
    data, labels = digits()
    labels = labels[:200].copy()
    labels[[3, 5]] = [9, 0]
    return standard_workflow(
        wf,
        loader=ArrayLoader(
            wf, data[100:200].reshape(-1, *shape), labels[100:],
            validation=(data[:100].reshape(-1, *shape), labels[:100]), minibatch_size=30,
        ),
        layers=[tanh(20), softmax(10)], learning_rate=0.3, max_epochs=epochs,
    )  # fmt: skip


def saving(folder, **options):
    """Return a definition with an image saver."""

    def watched(wf, shape=(8, 8)):
        units = build(wf, shape=shape)
        saver = ImageSaver(wf, folder, **options).insert_after(units.evaluator)
        saver.link_data(units.forwards[-1], "output").link_data(
            units.loader, "minibatch_data", "minibatch_labels", "minibatch_indices",
            "minibatch_class", "last_minibatch", "labels_mapping",
        )  # fmt: skip

    return watched


def test_observers_of_the_short_form_link_themselves(tmp_path):
    data, labels = digits()
    data = data.reshape(-1, 8, 8)

    def watched(wf):
        loader = ArrayLoader(wf, data[100:400], labels[100:400], minibatch_size=50,
                             validation=(data[:100], labels[:100]))  # fmt: skip
        standard_workflow(
            wf, loader=loader, layers=[tanh(20, name="hidden"), softmax(10)], max_epochs=2,
            observers=[ImageSaver(wf, tmp_path / "mistakes", limit=3), ParameterStatistics(wf),
                       Accumulator(wf, "hidden", every=2), Accumulator(wf, name="last")],
        )  # fmt: skip

    result = veloflow.run(watched, device="numpy", seed=3)
    assert len(list((tmp_path / "mistakes" / "validation").iterdir())) == 3
    assert set(result.more["statistics"]) == {
        f"{layer}/{one}" for layer in ("hidden", "All2AllSoftmax") for one in ("weights", "bias")
    }
    assert [one["epoch"] for one in result.more["statistics"]["hidden/bias"]] == [0, 1, 2]
    minibatches = 3 * 2 + 2 * 6
    assert result.more["histogram of Accumulator"]["total"] == minibatches // 2 * 50 * 20
    assert result.more["histogram of last"]["total"] == minibatches * 50 * 10
    plain = veloflow.run(
        lambda wf: standard_workflow(
            wf, layers=[tanh(20, name="hidden"), softmax(10)], max_epochs=2,
            loader=ArrayLoader(wf, data[100:400], labels[100:400], minibatch_size=50,
                               validation=(data[:100], labels[:100])),
        ),
        device="numpy", seed=3,
    )  # fmt: skip
    assert plain.parameters_sha256 == result.parameters_sha256


def test_observers_stand_in_files(tmp_path):
    file = tmp_path / "net.yaml"
    text = (
        "loader: {digits: {minibatch_size: 200}}\n"
        "layers: [{tanh: {neurons: 9, name: fc1}}, {softmax: 10}]\n"
        "max_epochs: 1\n"
        "observers: [{parameter_statistics: {similarity: 0.8}}, {accumulator: fc1}]\n"
    )
    file.write_text(text)
    result = veloflow.run(file, device="numpy")
    assert {"statistics", "histogram of Accumulator"} <= set(result.more)
    file.write_text(text.replace("accumulator: fc1", "accumulator: fc2"))
    with pytest.raises(DefinitionError, match=r"no layer 'fc2' \(did you mean 'fc1'\?\)"):
        veloflow.run(file, device="numpy")


def test_the_worst_mistakes_are_saved_the_worst_first(tmp_path):
    trained(saving(tmp_path, limit=40))
    files = sorted((tmp_path / "validation").iterdir())
    assert [one.name for one in tmp_path.iterdir()] == ["validation"]
    assert 6 < len(files) <= 40
    assert [one.name[:5] for one in files] == [f"{n:04}_" for n in range(len(files))]
    for one in files:
        _, true, _, taken, _, number = one.stem.split("_")
        assert int(true) == {3: 9, 5: 0}.get(int(number), digits()[1][int(number)])
        assert taken != true
    sample = int(files[0].stem.rpartition("_")[2])
    with Image.open(files[0]) as image:
        pixels = np.asarray(image, float)
    expected = digits()[0][sample].reshape(8, 8)
    np.testing.assert_allclose(pixels, np.rint((expected + 1) * 127.5), atol=1)
    trained(saving(tmp_path, limit=3))
    assert sorted((tmp_path / "validation").iterdir()) == files[:3]


def test_samples_that_are_no_images_are_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"samples of shape \(64,\) are no images"):
        trained(saving(tmp_path), shape=(64,))
    with pytest.raises(InputError, match="kinds"):
        trained(saving(tmp_path, kinds=("all",)))


def test_parameters_are_looked_at_after_each_epoch():
    def watched(wf):
        units = build(wf, epochs=3)
        unit = ParameterStatistics(wf, units.forwards).insert_after(units.decision)
        unit.link_data(units.loader, "epoch_ended", "epoch_number")

    wf = trained(watched)
    found = wf["ParameterStatistics"].results()["statistics"]
    assert sorted(found) == [
        "All2AllSoftmax/bias", "All2AllSoftmax/weights", "All2AllTanh/bias", "All2AllTanh/weights",
    ]  # fmt: skip
    records = found["All2AllTanh/weights"]
    value = np.array(wf["All2AllTanh"].weights.value.read(), np.float64)
    assert [one["epoch"] for one in records] == [0, 1, 2, 3]
    assert records[-1]["norm"] == pytest.approx(np.linalg.norm(value))
    assert records[-1]["maximum"] == pytest.approx(value.max())
    assert records[0]["gradient_norm"] == 0
    assert records[1]["gradient_norm"] > 0
    assert "change" not in records[0]
    assert 0 < records[1]["change"] < 1
    unit = wf["ParameterStatistics"]
    again = dict(unit.state())
    unit.restore(again)
    assert unit.results()["statistics"] == found


def test_kernels_that_learned_the_same_are_found():
    random = np.random.default_rng(0)
    weights = random.normal(size=(8, 50))
    weights[3] = 2 * weights[0] + 0.01 * random.normal(size=50)
    weights[6] = -weights[0] + 1
    weights[7] = weights[5]
    weights[2] = 0
    assert similar_kernels(weights) == [[0, 3, 6], [5, 7]]
    assert similar_kernels(np.ones((4, 3))) == []


def test_cliques_are_those_that_networkx_finds():
    from networkx import Graph, find_cliques

    weights = np.random.default_rng(1).normal(size=(30, 6))
    likeness = np.abs(np.corrcoef(weights)) >= 0.5
    graph = Graph([(a, b) for a in range(30) for b in range(a) if likeness[a, b]])
    expected = sorted(sorted(one) for one in find_cliques(graph))
    assert sorted(similar_kernels(weights, 0.5)) == expected


def test_a_histogram_widens_and_forgets_nothing():
    random = np.random.default_rng(2)
    histogram, all_values = Histogram(16), []
    for scale in (0.1, 3.0, 1e-3, 700.0):
        values = random.normal(size=200) * scale - scale
        histogram.add(values)
        all_values.append(values)
    values = np.concatenate(all_values)
    expected, _ = np.histogram(values, histogram.edges)
    assert histogram.counts.tolist() == expected.tolist()
    assert histogram.total == 800 == histogram.counts.sum()
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
    histogram.add(np.array([np.nan, np.inf]))
    assert histogram.total == 800
    one = Histogram(4)
    one.add(np.full(5, 3.0))
    assert one.counts.sum() == 5


def test_an_array_is_accumulated_over_the_run_and_after_a_resumption():
    def watched(wf):
        units = build(wf)
        Accumulator(wf, name="outputs", bins=8).insert_after(units.evaluator).link_data(
            units.forwards[0], array="output"
        )

    wf = trained(watched)
    unit = wf["outputs"]
    # 4 + 4 minibatches of validation and training, and 4 of the last validation, of 30 rows
    assert unit.histogram.total == 5 * 4 * 30 * 20
    before = unit.results()["histogram of outputs"]
    state = unit.state()
    unit.histogram = Histogram(8)
    unit.restore(state)
    assert unit.results()["histogram of outputs"] == before

"""Data sets of other libraries, and texts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from harness import ready, workflow_on
from models import model_of

from veloflow.errors import DataError, InputError
from veloflow.units import DatasetLoader, TextLoader, Vocabulary, softmax, standard_workflow
from veloflow.units.text import tokens_of


class Squares:
    """A data set as torch has them: item n is n squared, of the class n % 3."""

    def __init__(self, count, form="pair"):
        self.count, self.form = count, form

    def __len__(self):
        return self.count

    def __getitem__(self, n):
        sample, label = np.array([n * n, 1.0]), n % 3
        match self.form:
            case "pair":
                return sample, label
            case "mapping":
                return {"image": sample, "label": label, "id": n}
        return sample


@pytest.mark.parametrize("form", ["pair", "mapping", "alone"])
def test_items_of_any_form(form):
    loader = DatasetLoader(
        workflow_on(), Squares(7, form), validation=Squares(2, form), minibatch_size=3
    )
    with ready(loader):
        assert loader.class_lengths == (0, 2, 7)
        for _ in range(4):
            loader.run()
            for row, n in enumerate(loader.minibatch_indices[: loader.minibatch_size]):
                place = n if n < 2 else n - 2
                assert loader.minibatch_data.read()[row].tolist() == [place * place, 1]
                wanted = -1 if form == "alone" else place % 3
                assert loader.minibatch_labels.read()[row] == wanted


def test_tensors_of_torch_train():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.randn(50, 4), torch.arange(50) % 2)

    def build(wf):
        loader = DatasetLoader(wf, data, classes=2, normalization="standard", minibatch_size=10)
        standard_workflow(wf, loader=loader, layers=[softmax(2)], max_epochs=2)

    with model_of(build, runs=True) as model:
        assert model.labels == [0, 1]
        assert model.run(np.zeros((3, 4))).shape == (3, 2)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set is empty"),
        ([("text", 0)], "is str, which are no numbers"),
        ([([1.0], 0), ([1.0, 2.0], 0)], r"sample 1 has shape \(2,\), and the first has \(1,\)"),
        ([([1.0], 0), ([np.nan], 0)], "sample 1 holds NaN or infinity"),
        ([([1.0], 0), ([2.0], None)], "sample 1 has no label, and the first has one"),
        ([([1.0], 0), ([2.0], 2)], "unknown labels 2; known are 0, 1"),
    ],
)
def test_bad_items_are_named(items, message):
    loader = DatasetLoader(workflow_on(), items, classes=2, minibatch_size=2)
    with pytest.raises(DataError, match=message), ready(loader):
        loader.run()


def test_an_item_that_raises_is_named():
    class Broken(Squares):
        def __getitem__(self, n):
            return super().__getitem__(n) if n < 2 else 1 / 0

    loader = DatasetLoader(workflow_on(), Broken(4), classes=3, minibatch_size=4)
    with (
        ready(loader),
        pytest.raises(DataError, match=r"item \d of a data set cannot be read: Zero"),
    ):
        loader.run()


def test_classes_of_items_come_equally_often_when_asked():
    items = [([float(n)], 0 if n < 8 else 1) for n in range(10)]
    loader = DatasetLoader(workflow_on(), items, classes=2, minibatch_size=10, balanced=True)
    with ready(loader):
        loader.run()
        assert np.bincount(loader.minibatch_labels.read()).tolist() == [5, 5]
        assert loader.label_counts == {"train": {0: 8, 1: 2}}


# -- texts ----------------------------------------------------------------------------------------

TEXTS = [("The cat sat.", "cat"), ("a dog, a dog!", "dog"), ("the dog isn't a cat", "dog")]


def test_tokens_and_their_numbers():
    assert tokens_of("The dog isn't, well, a cat!") == [
        "the", "dog", "isn't", ",", "well", ",", "a", "cat", "!",
    ]  # fmt: skip
    assert tokens_of("aB", "characters") == ["a", "B"]
    vocabulary = Vocabulary.of((tokens_of(text) for text, _ in TEXTS), 6)
    assert vocabulary.tokens == ["a", "dog", "cat", "the"]
    row = vocabulary.encode(tokens_of("the big dog"), 5)
    assert row.tolist() == [5, 1, 3, 0, 0]
    assert vocabulary.decode(row) == ["the", "?", "dog"]


def test_texts_are_padded_and_their_lengths_told():
    loader = TextLoader(workflow_on(), TEXTS, length=6, minibatch_size=4)
    with ready(loader):
        loader.run()
        assert loader.minibatch_data.dtype == np.int32
        by_sample = dict(zip(loader.minibatch_indices.tolist(), range(4), strict=True))
        tokens = loader.minibatch_data.read()[by_sample[0]]
        assert loader.vocabulary.decode(tokens) == ["the", "cat", "sat", "."]
        lengths = loader.minibatch_lengths.read()
        assert [int(lengths[by_sample[n]]) for n in (0, 1, 2)] == [4, 6, 5]
        assert loader.labels_mapping == {"cat": 0, "dog": 1}


def test_the_vocabulary_is_of_the_training_texts():
    texts = [(f"word{n}", n % 2) for n in range(10)]
    loader = TextLoader(workflow_on(), texts, length=2, validation_ratio=0.2, minibatch_size=10)
    with ready(loader):
        loader.run()
        assert loader.class_lengths == (0, 2, 8)
        assert len(loader.vocabulary) == 10
        assert loader.minibatch_data.read()[:2, 0].tolist() == [1, 1]


def test_folders_and_tables(tmp_path):
    for number, (text, label) in enumerate(TEXTS):
        (tmp_path / "texts" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / label / f"{number}.txt").write_text(text)
    pl.DataFrame(TEXTS, schema=["text", "label"], orient="row").write_parquet(
        tmp_path / "t.parquet"
    )
    rows = []
    for source in (tmp_path / "texts", tmp_path / "t.parquet"):
        loader = TextLoader(workflow_on(), source, length=6, minibatch_size=3, shuffle_limit=0)
        with ready(loader):
            loader.run()
            rows.append(np.array(loader.minibatch_data.read()))
            counts = loader.label_counts
    assert (rows[0] == rows[1]).all()
    assert counts == {"train": {"cat": 1, "dog": 2}}


def test_texts_of_a_folder_are_read_for_predictions(tmp_path):
    (tmp_path / "new" / "a").mkdir(parents=True)
    (tmp_path / "new" / "a" / "1.txt").write_text(TEXTS[0][0])
    (tmp_path / "new" / "b.txt").write_text("nothing known")
    loader = TextLoader(workflow_on(), TEXTS, length=6)
    with ready(loader):
        names, rows = loader.read_raw(tmp_path / "new")
        assert names == ["a/1.txt", "b.txt"]
        known = loader.vocabulary.encode(tokens_of(TEXTS[0][0]), 6)
        assert np.asarray(rows).tolist() == [known.tolist(), [1, 1, 0, 0, 0, 0]]
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no files in .*empty with any of \.txt"):
            loader.read_raw(tmp_path / "empty")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("text,kind\na,b\n"), "has no column 'label'"),
        (lambda path: path.write_text("text,label\n,b\n"), "has no text in row 1"),
        (lambda path: path.write_text("text,label\na,b,c\n"), "row 1 has 3 fields"),
    ],
)
def test_bad_tables_are_named(tmp_path, make, message):
    make(tmp_path / "t.csv")
    loader = TextLoader(workflow_on(), tmp_path / "t.csv", length=3)
    with pytest.raises(DataError, match=rf"t\.csv.*{message}"), ready(loader):
        pass


def test_texts_of_every_class_come_equally_often_when_asked():
    texts = [(f"word{n}", "b" if n else "a") for n in range(9)]
    loader = TextLoader(workflow_on(), texts, length=2, balanced=True, minibatch_size=9)
    with ready(loader):
        loader.run()
        assert np.bincount(loader.minibatch_labels.read()).tolist() == [5, 4]
    with pytest.raises(InputError, match="drift is 'all'; give 'none' or 'labels'"):
        TextLoader(workflow_on(), texts, length=2, drift="all")


def test_a_text_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(b"\xff\xfe\x00")
    loader = TextLoader(workflow_on(), tmp_path, length=3)
    with pytest.raises(DataError, match=r"x\.txt cannot be read.* it must be UTF-8"), ready(loader):
        pass


def test_bad_options():
    with pytest.raises(InputError, match="level is 'lines'"):
        TextLoader(workflow_on(), TEXTS, length=3, level="lines")

"""Which library is a docstring of? Real texts that come with Python, read by an embedded LSTM.

The texts are the docstrings of NumPy, scikit-learn, networkx (each BSD-3-Clause) and Python's
own library (PSF), as they are installed here; their sources are read, never run.
"""

import ast
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from veloflow import Workflow
from veloflow.units import (
    Adam,
    ArrayLoader,
    FanIn,
    embedding,
    lstm,
    softmax,
    standard_workflow,
)

LIBRARIES = ("numpy", "sklearn", "networkx", "python")
#: words that would give the library away
_NAMES = {"numpy", "np", "ndarray", "sklearn", "scikit", "networkx", "nx", "python", "scipy"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _sources(library: str) -> list[Path]:
    """Return at most a hundred files of a library, in the order of their names, and no tests."""
    if library == "python":
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        return [files[place] for place in _spread(len(files), 100)]
    spec = find_spec(library)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    files = sorted(one for one in root.rglob("*.py") if "test" not in str(one.relative_to(root)))
    return [files[place] for place in _spread(len(files), 100)]


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many places of ``count``, evenly spread."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, most))]


def _docstrings(library: str) -> Iterator[list[str]]:
    """Yield the words of each docstring of five words and more, each text once."""
    seen: set[tuple[str, ...]] = set()
    for path in _sources(library):
        with warnings.catch_warnings(action="ignore"):  # what is odd there is none of our business
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, _DEFINITIONS) else None
            words = [w for w in re.findall("[a-z]+", (text or "").lower()) if w not in _NAMES]
            if len(words) >= 5 and tuple(words) not in seen:
                seen.add(tuple(words))
                yield words


@cache
def texts(limit: int) -> tuple[list[list[str]], np.ndarray]:
    """Return at most ``limit`` texts of each library as words, and whose each is, (n,)."""
    found: list[list[str]] = []
    labels: list[int] = []
    for label, library in enumerate(LIBRARIES):
        own = list(_docstrings(library))
        places = _spread(len(own), limit)
        found += [own[place] for place in places]
        labels += [label] * len(places)
    return found, np.array(labels)


def tokens(documents: list[list[str]], held: np.ndarray, size: int, length: int) -> np.ndarray:
    """Return the numbers of words, (n, length), with zeros in front; 1 is any rare word.

    The vocabulary is made of the texts that are not held out.
    """
    known = (one for one, is_held in zip(documents, held, strict=True) if not is_held)
    counts = Counter(word for words in known for word in words)
    common = sorted(counts, key=lambda word: (-counts[word], word))[: size - 2]
    numbers = {word: number for number, word in enumerate(common, 2)}
    rows = np.zeros((len(documents), length), np.int32)
    for row, words in zip(rows, documents, strict=True):
        first = [numbers.get(word, 1) for word in words[:length]]
        row[length - len(first) :] = first
    return rows


def build(
    wf: Workflow,
    *,
    limit: int = 1000,
    vocabulary: int = 2000,
    length: int = 30,
    size: int = 32,
    cells: int = 64,
    epochs: int = 8,
    minibatch: int = 50,
    rate: float = 0.003,
) -> None:
    """Make the network; every fifth text is for validation.

    Args:
        limit: texts of each library.
        vocabulary: words that are told apart.
        length: words that are read of a text.
        size: of a word's vector.
        cells: of the LSTM.
        epochs: passes over the training texts.
        minibatch: texts in a minibatch.
        rate: the learning rate of Adam.
    """
    documents, labels = texts(limit)
    held = np.arange(len(documents)) % 5 == 0
    rows = tokens(documents, held, vocabulary, length)
    loader = ArrayLoader(
        wf,
        rows[~held],
        labels[~held],
        validation=(rows[held], labels[held]),
        minibatch_size=minibatch,
    )
    standard_workflow(
        wf,
        loader=loader,
        layers=[
            embedding(vocabulary, size, padding=0),
            lstm(cells),
            softmax(len(LIBRARIES), weights_filling=FanIn()),
        ],
        max_epochs=epochs,
        learning_rate=rate,
        solver=Adam(),
        weights_decay=0.0,
    )

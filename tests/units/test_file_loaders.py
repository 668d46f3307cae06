"""Loaders of files: images changed on the fly, sounds, lists; what is bad is named or skipped."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from harness import ready, workflow_on
from PIL import Image

import veloflow
from veloflow.core import Events, Message, Settings
from veloflow.errors import DataError, DefinitionError, InputError
from veloflow.units import (
    Augmentation,
    ImageFolderLoader,
    ImageListLoader,
    SoundLoader,
)
from veloflow.units.augmentation import fitted
from veloflow.units.loader import TRAIN


@pytest.fixture
def images(tmp_path):
    """Return a folder with six images of two classes, all of them different."""
    random = np.random.default_rng(5)
    for number in range(6):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


CHANGES = Augmentation(
    crop=0.5, mirror=True, rotate=20, shift=0.1, brightness=0.2, contrast=0.2, background=9
)


def _pass(loader):
    """Return the pixels of each sample of the next pass, by index."""
    found = {}
    while True:
        loader.run()
        rows = np.array(loader.minibatch_data.read())
        found.update(zip(loader.minibatch_indices.tolist(), rows, strict=True))
        if loader.train_ended:
            found.pop(-1, None)
            return found


def test_pixels_are_scaled_and_the_file_is_what_is_served(images):
    loader = ImageFolderLoader(workflow_on(), images, size=(12, 10), minibatch_size=4)
    with ready(loader):
        found = _pass(loader)
        assert loader.labels_mapping == {"a": 0, "b": 1}
        for number, pixels in found.items():
            with Image.open(loader._files[number]) as image:
                expected = np.asarray(image) / 127.5 - 1
            np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_changes_are_new_in_each_pass_and_the_same_whoever_reads(images):
    options = {"size": (8, 8), "augment": CHANGES, "inflation": 3, "minibatch_size": 5}
    alone = ImageFolderLoader(workflow_on(seed=2), images, name="images", **options)
    with ready(alone):
        first, second = _pass(alone), _pass(alone)
        assert sorted(first) == [*range(18)]
        assert all((first[n] != second[n]).any() for n in first)
        copies = {first[n].tobytes() for n in (0, 1, 2)}
        assert len(copies) == 3
    wf = workflow_on(seed=2)
    wf.provide(Settings, Settings(seed=2, role="slave"))
    slave = ImageFolderLoader(wf, images, name="images", **options)
    with ready(slave):
        for number, known in ((0, first), (1, second)):
            job = {"kind": TRAIN, "pass": number, "epoch": number + 1, "position": 0}
            slave.take_job({**job, "samples": np.array([7, 11, 2])})
            slave.run_as_slave()
            rows = slave.minibatch_data.read()
            assert all((rows[at] == known[n]).all() for at, n in enumerate((7, 11, 2)))


_DEFINITION = """
from veloflow import Workflow
from veloflow.units import Augmentation, ImageFolderLoader, softmax, standard_workflow

def build(wf: Workflow, *, root: str = "") -> None:
    augment = Augmentation(crop=0.5, mirror=True, rotate=20)
    loader = ImageFolderLoader(
        wf, root, size=(6, 6), augment=augment, inflation=3, minibatch_size=6
    )
    standard_workflow(wf, loader=loader, layers=[softmax(2)], max_epochs=2)
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_changed_images_give_the_same_bits_on_slaves(images, tmp_path):
    path = tmp_path / "pictures.py"
    path.write_text(_DEFINITION)
    given = {"device": "numpy", "sharing": "sync", "options": {"root": str(images)}}
    alone = veloflow.run(path, **given)
    together = veloflow.run(path, slaves=2, faults="kill=slave1@job2", **given)
    assert together.parameters_sha256 == alone.parameters_sha256


def test_what_is_held_out_is_not_changed(images):
    options = {"size": (8, 8), "augment": CHANGES, "validation_ratio": 0.34, "minibatch_size": 6}
    loader = ImageFolderLoader(workflow_on(), images, **options)
    with ready(loader):
        assert loader.class_lengths == (0, 2, 4)
        loader.run()
        first = np.array(loader.minibatch_data.read())
        loader.run()
        loader.run()
        assert (loader.minibatch_data.read() == first).all()


@pytest.mark.parametrize("option", ["crop", "mirror", "rotate", "shift", "brightness", "contrast"])
def test_each_change_changes_something_and_keeps_the_size(option):
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    value = {"crop": 0.3, "mirror": True, "rotate": 90.0}.get(option, 0.5)
    results = [
        Augmentation(**{option: value}).apply(image, np.random.default_rng(seed))
        for seed in range(8)
    ]
    assert {one.size for one in results} == {(10, 10)}
    assert any(one.tobytes() != image.tobytes() for one in results)
    assert Augmentation().apply(image, np.random.default_rng(1)).tobytes() == image.tobytes()


def test_proportions_are_kept_by_padding_and_by_cutting():
    wide = Image.new("L", (40, 10), 200)
    padded = np.asarray(fitted(wide, (20, 20), "pad", 7))
    assert padded.shape == (20, 20)
    assert (padded[0] == 7).all()
    assert (padded[10] == 200).all()
    assert (np.asarray(fitted(wide, (20, 20), "crop", 7)) == 200).all()


@pytest.mark.parametrize(
    ("color", "shape"), [("L", (6, 5)), ("HSV", (6, 5, 3)), ("CMYK", (6, 5, 4))]
)
def test_colour_spaces(images, color, shape):
    loader = ImageFolderLoader(workflow_on(), images, size=(6, 5), color=color, minibatch_size=2)
    with ready(loader):
        loader.run()
        assert loader.minibatch_data.shape == (2, *shape)


def test_images_are_loaded_by_a_yaml_file(images, tmp_path):
    file = tmp_path / "net.yaml"
    file.write_text(
        f"loader: {{image_folder: {{root: {images}, size: [4, 4], color: L, minibatch_size: 3}}}}\n"
        "layers: [{softmax: 2}]\nmax_epochs: 1\n"
    )
    assert veloflow.run(file, device="numpy").epochs[-1]["train"]["samples"] == 6
    file.write_text(file.read_text().replace("minibatch_size", "minibatch_sise"))
    with pytest.raises(DefinitionError, match="did you mean 'minibatch_size'"):
        veloflow.run(file, device="numpy")


def test_inflation_without_changes_is_refused(images):
    with pytest.raises(InputError, match="inflation is 2; give 1, or more with augment"):
        ImageFolderLoader(workflow_on(), images, size=(4, 4), inflation=2)


@pytest.mark.parametrize("kind", ["txt", "json", "csv", "sequence"])
def test_lists_of_files(images, kind):
    paths = sorted(images.rglob("*.png"))
    names = [str(one.relative_to(images)) for one in paths]
    source = images / f"list.{kind}"
    match kind:
        case "txt":
            source.write_text("\n".join(names))
        case "json":
            source.write_text(json.dumps([[name, name[0]] for name in names]))
        case "csv":
            source.write_text("path,label\n" + "".join(f"{n},{n[0]}\n" for n in names))
        case "sequence":
            source = paths
    loader = ImageListLoader(
        workflow_on(), source, validation=[(paths[0], "a")], size=(4, 4), minibatch_size=8
    )
    with ready(loader):
        assert loader.class_lengths == (0, 1, 6)
        assert loader.label_counts["train"] == {"a": 3, "b": 3}


def test_classes_of_images_come_equally_often_when_asked(images):
    for number in range(5):
        shutil.copy(images / "a" / "0.png", images / "a" / f"more{number}.png")
    loader = ImageFolderLoader(
        workflow_on(), images, size=(4, 4), minibatch_size=11, balanced=True, drift="all"
    )
    with ready(loader):
        loader.run()
        assert loader.label_counts["train"] == {"a": 8, "b": 3}
        assert np.bincount(loader.minibatch_labels.read()).tolist() == [6, 5]


def test_a_bad_image_is_named_and_skipped_only_if_asked(images):
    (images / "a" / "9.png").write_bytes(b"no image")
    loader = ImageFolderLoader(workflow_on(), images, size=(4, 4), minibatch_size=8)
    with ready(loader), pytest.raises(DataError, match=r"9\.png is damaged .* or give skip_bad"):
        loader.run()
    wf, said = workflow_on(), []
    wf.find_service(Events).subscribe(Message, lambda event: said.append(event.text))
    loader = ImageFolderLoader(wf, images, size=(4, 4), minibatch_size=8, skip_bad=True)
    with ready(loader):
        loader.run()
        assert loader.class_lengths == (0, 0, 6)
        assert loader.results()["skipped"] == [str(images / "a" / "9.png")]
    assert len(said) == 1
    assert "skips 1 bad files" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "c").mkdir(), "the class .*c has no image files"),
        (lambda root: [one.unlink() for one in root.rglob("*.png")], "has no image files"),
        (lambda root: root.rename(root.with_name("gone")), "no image folder"),
    ],
)
def test_an_empty_class_is_named(images, change, message):
    change(images)
    loader = ImageFolderLoader(workflow_on(), images, size=(4, 4))
    with pytest.raises(DataError, match=message), ready(loader):
        pass


def test_a_list_that_is_none(images):
    (images / "list.json").write_text('{"a": 1}')
    loader = ImageListLoader(workflow_on(), images / "list.json", size=(4, 4))
    with (
        pytest.raises(DataError, match=r"is no list of paths or of \[path, label\]"),
        ready(loader),
    ):
        pass
    loader = ImageListLoader(workflow_on(), ["x.png"], size=(4, 4))
    with pytest.raises(DataError, match="there is no label in it"), ready(loader):
        pass


# -- sounds ---------------------------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path):
    """Return a folder with sounds of two classes, 50 to 250 frames long."""
    soundfile = pytest.importorskip("soundfile")
    for number in range(4):
        folder = tmp_path / "sounds" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(50 + 100 * (number // 2)) / (5 + number)).astype(np.float32)
        soundfile.write(folder / f"{number}.wav", np.stack([wave, wave / 2], axis=1), 8000)
    return tmp_path / "sounds"


def test_sounds_are_padded_and_cut_at_random(sounds):
    loader = SoundLoader(workflow_on(), sounds, frames=100, minibatch_size=4)
    with ready(loader):
        first, second = _pass(loader), _pass(loader)
        assert loader.sample_shape == (100,)
        assert (first[0][50:] == 0).all()
        assert (first[0] == second[0]).all()
        assert (first[1] != second[1]).any()
        expected = 0.75 * np.sin(np.arange(50) / 5)
        np.testing.assert_allclose(first[0][:50], expected, atol=1e-4)


def test_channels_may_stay(sounds):
    loader = SoundLoader(workflow_on(), sounds, frames=60, mono=False, minibatch_size=2)
    with ready(loader):
        assert loader.sample_shape == (60, 2)


def test_a_bad_sound_and_another_rate_are_named(sounds):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(sounds / "a" / "5.wav", np.zeros(10), 16000)
    loader = SoundLoader(workflow_on(), sounds, frames=60, minibatch_size=8)
    with ready(loader), pytest.raises(DataError, match=r"5.wav has 16000 Hz, and 8000 Hz are want"):
        loader.run()
    (sounds / "a" / "5.wav").write_bytes(b"RIFF")
    loader = SoundLoader(workflow_on(), sounds, frames=60, minibatch_size=8)
    with ready(loader), pytest.raises(DataError, match=r"5\.wav is damaged"):
        loader.run()

"""Grad-CAM of a run: its epoch 0 is the network that the run's training began with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from result_trees import COUNTS, make_run, make_spec
from scratchbook import models
from scratchbook.cam.run import map_run
from scratchbook.config.layers import layer_object
from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import LeftOutError
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record

SHAPE = (32, 32, 3)
CHOICES = {"epochs": [1], "images": 4, "layer": None, "method": "gradcam", "target": "label"}
SEED = 3


def spec(first: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = ["GlobalAveragePooling2D", {"Dense": {"units": 2, "activation": "softmax"}}]
    layers = [layer_object(entry) for entry in (first, *head)]
    return make_spec(layers=layers, epochs=1, **more)


def trained(
    folder: Path, declared: dict[str, Any], seed: int, diverged: int | None = None
) -> RunFiles:
    """What a run of one epoch leaves of itself, weights drawn from `seed`."""
    make_run(
        folder, declared, SEED, classes=("x", "y"), counts=COUNTS, accuracy=0.5, diverged=diverged
    )
    run = RunFiles(folder)
    run.checkpoints.mkdir()
    for file in run.weights(read_record(run)).values():
        models.build(declared, SHAPE, seed=seed).save_weights(file)
    return run


def data() -> Any:
    """The prepared images of `seen`, all of them to test and to whiten on."""
    return SimpleNamespace(
        images=seen(), labels=np.array([0, 1, 0, 1]), split=np.full(4, 2, np.uint8),
        arrays_sha256="cd" * 32, path=Path("shapes.h5"),  # the run's
        names=["a", "b", "c", "d"], class_names=["x", "y"], indices=lambda split: np.arange(4),
    )  # fmt: skip


def probabilities(run: RunFiles, pretrained: Path, initial: RunFiles | None = None) -> np.ndarray:
    """What its maps say of the images of `seen`, (epoch, image, class)."""
    maps = run.cam("41c09be01f5a")
    map_run(run, data(), CHOICES, maps, pretrained=pretrained, initial_run=initial, say=print)
    cam = read_cam(maps)
    assert list(cam.epochs) == [0, 1]
    return cam.probability[:, np.argsort(cam.images)]


def seen() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)


def test_a_run_from_random_weights_is_first_seen_as_its_seed_drew_it(tmp_path: Path) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}})
    run = trained(tmp_path, declared, seed=9)
    drawn = models.build(declared, SHAPE, seed=SEED).predict_on_batch(seen())
    found = probabilities(run, tmp_path)
    np.testing.assert_allclose(found[0], softmax(drawn, axis=1), atol=1e-5)


def test_a_whitened_network_is_first_seen_with_the_filters_of_its_images(tmp_path: Path) -> None:
    declared = spec({"Whitening": 2})
    run = trained(tmp_path, declared, seed=9)
    started = models.start(declared, data(), seed=SEED, pretrained=tmp_path, initial_run=None)
    expected = softmax(started.predict_on_batch(seen()), axis=1)
    found = probabilities(run, tmp_path)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_a_warm_start_is_first_seen_with_the_weights_it_took_over(tmp_path: Path) -> None:
    conv = {"Conv2D": {"filters": 4, "kernel_size": 3}}
    first = trained(tmp_path / "first", spec(conv), seed=7)
    start = {"experiment": "first", "checkpoint": "best"}
    run = trained(tmp_path / "second", spec(conv, initial_weights=start), seed=9)
    found = probabilities(run, tmp_path, first)
    for epoch, seed in enumerate((7, 9)):
        weights = models.build(spec(conv), SHAPE, seed=seed)
        expected = softmax(weights.predict_on_batch(seen()), axis=1)
        np.testing.assert_allclose(found[epoch], expected, atol=1e-5)


def test_a_warm_start_whose_first_run_is_gone_says_so(tmp_path: Path) -> None:
    start = {"experiment": "first", "checkpoint": "best"}
    conv = {"Conv2D": {"filters": 4, "kernel_size": 3}}
    run = trained(tmp_path, spec(conv, initial_weights=start), seed=9)
    with pytest.raises(ScratchbookError, match="the run to start from is missing"):
        probabilities(run, tmp_path)


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_a_backbone_is_first_seen_with_its_pretrained_weights(tmp_path: Path, freeze: str) -> None:
    cut = {"application": "MobileNet", "output_layer": "conv_pw_1_relu"}
    stored = models.build(spec({"Backbone": {**cut, "weights": "none"}}), SHAPE, seed=5)
    stored.get_layer("mobilenet").save_weights(tmp_path / "cut.weights.h5")
    backbone = {"Backbone": {**cut, "weights": "cut.weights.h5", "freeze": freeze}}
    run = trained(tmp_path, spec(backbone), seed=9)
    found = probabilities(run, tmp_path)

    expected = models.build(spec(backbone), SHAPE, seed=SEED)  # the head is the seed's own
    expected.get_layer("mobilenet").set_weights(stored.get_layer("mobilenet").get_weights())
    np.testing.assert_allclose(
        found[0], softmax(expected.predict_on_batch(seen()), axis=1), atol=1e-5
    )


def mapped(run: RunFiles, choices: dict[str, Any], tmp_path: Path, seen_data: Any) -> list[str]:
    """What Grad-CAM says of a run; its maps are in cam.h5."""
    told: list[str] = []
    map_run(
        run, seen_data, choices, tmp_path / "cam.h5",
        pretrained=tmp_path, initial_run=None, say=told.append,
    )  # fmt: skip
    return told


def test_an_epoch_whose_weights_were_not_kept_is_left_out_and_named(tmp_path: Path) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}}) | {"epochs": 8}
    run = trained(tmp_path / "run/seed3", declared, seed=9)  # which kept epoch 6, its best
    told = mapped(run, CHOICES | {"epochs": [2, "best", "7-99"]}, tmp_path, data())
    cam = read_cam(tmp_path / "cam.h5")
    assert (list(cam.epochs), cam.missing, cam.diverged) == ([0, 6], [2, 7, 8], None)
    assert told[-1] == "no weights were kept of epochs 2, 7, 8"


def test_where_the_data_hold_other_pixels_there_are_no_maps_and_the_reason(tmp_path: Path) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}})
    run = trained(tmp_path / "run/seed3", declared, seed=9)
    other = SimpleNamespace(**vars(data()) | {"arrays_sha256": "ef" * 32})
    (told,) = mapped(run, CHOICES, tmp_path, other)
    why = "shapes.h5 holds other pixels than it was trained on, whose file is gone"
    assert told == f"no Grad-CAM: {why}"
    with pytest.raises(LeftOutError, match=why):
        read_cam(tmp_path / "cam.h5")


def test_a_run_that_diverged_is_explained_as_far_as_it_came(tmp_path: Path) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}}) | {"epochs": 8}
    run = trained(tmp_path / "run/seed3", declared, seed=9, diverged=2)
    mapped(run, CHOICES | {"epochs": [1, 5, "last"]}, tmp_path, data())
    cam = read_cam(tmp_path / "cam.h5")
    assert (list(cam.epochs), cam.missing, cam.diverged) == ([0, 1], [], 2)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_diverged_at_once_is_explained_untrained(tmp_path: Path, epoch: int) -> None:
    start = {"experiment": "first", "checkpoint": "best"}
    conv = {"Conv2D": {"filters": 4, "kernel_size": 3}}
    # One that inherited its end had nothing to start from.
    declared = spec(conv, **({} if epoch else {"initial_weights": start}))
    run = trained(tmp_path / "run/seed3", declared, seed=9, diverged=epoch)
    mapped(run, CHOICES | {"epochs": [1, "best", "last"]}, tmp_path, data())
    cam = read_cam(tmp_path / "cam.h5")
    assert (list(cam.epochs), cam.missing, cam.diverged) == ([0], [], epoch)
    drawn = models.build(spec(conv), SHAPE, seed=SEED).predict_on_batch(seen()[cam.images])
    np.testing.assert_allclose(cam.probability[0], softmax(drawn, axis=1), atol=1e-5)

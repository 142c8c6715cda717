"""Pretrained backbones and warm starts through the real workflow, from weights file to Grad-CAM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from projects import DATASETS, make_project, planned, run_of, snakemake
from scratchbook import models
from scratchbook.config.layers import layer_object
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared

SIZE = (32, 32, 3)
CUT = {"application": "MobileNet", "output_layer": "conv_pw_1_relu"}
NOTEBOOK = """
goal: Does a backbone that is thawed look elsewhere?
dataset: shapes
defaults: {batch_size: 8, epochs: 2}
experiments:
  frozen:
    layers:
      - Backbone: &cut
          application: MobileNet
          output_layer: conv_pw_1_relu
          weights: cut.weights.h5
          freeze: all
      - GlobalAveragePooling2D
      - Dense: {units: 3, activation: softmax, name: predictions}
  thawed:
    parent: frozen
    layers:
      - Backbone: {<<: *cut, freeze: none}
      - GlobalAveragePooling2D
      - Dense: {units: 3, activation: softmax, name: predictions}
    initial_weights: {experiment: frozen, checkpoint: best}
cam: {epochs: [1, last], images: 3}
"""
HEAD = ["GlobalAveragePooling2D", {"Dense": {"units": 3, "activation": "softmax"}}]


def save_weights(file: Path, seed: int) -> None:
    """Weights of MobileNet up to conv_pw_1_relu, drawn from `seed`, as if they were pretrained."""
    layers = [layer_object(e) for e in ({"Backbone": {**CUT, "weights": "none"}}, *HEAD)]
    model = models.build({"layers": layers, "augment": []}, SIZE, seed=seed)
    model.get_layer("mobilenet").save_weights(file)


@pytest.mark.long
def test_a_frozen_and_a_thawed_backbone_are_mapped_from_the_weights_they_started_with(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path / "project", NOTEBOOK)
    (project / "config/datasets.yaml").write_text(DATASETS.replace("[12, 12]", "[32, 32]"))
    save_weights(project / "data/cut.weights.h5", seed=5)
    answer = snakemake(project, "--resources", "gpu=0")
    assert answer.returncode == 0, answer.stderr[-5000:]

    runs, cams, places = {}, {}, {}
    for name in ("frozen", "thawed"):
        places[name] = run_of(project, name)
        files = RunFiles(project / "results/runs" / places[name])
        runs[name] = json.loads(files.record.read_text())
        cams[name] = read_cam(next(files.derived.glob("cam-*.h5")))
        assert cams[name].layer.startswith("mobilenet/")
        assert np.isfinite(cams[name].maps).all()
    head = 64 * 3 + 3
    assert runs["frozen"]["parameters"]["trainable"] == head
    assert runs["thawed"]["parameters"]["trainable"] > head

    data = Prepared(project / f"results/data/{runs['frozen']['data']['file']}.h5")
    images = data.images[cams["frozen"].images]
    np.testing.assert_allclose(
        cams["frozen"].probability[0], first_seen(runs["frozen"], project, images), atol=1e-4
    )
    best = list(cams["frozen"].epochs).index(runs["frozen"]["best_epoch"])
    np.testing.assert_allclose(
        cams["thawed"].probability[0], cams["frozen"].probability[best], atol=1e-4
    )
    weights_moved(project, runs, places)

    assert not planned(project)
    save_weights(project / "data/cut.weights.h5", seed=6)
    again = planned(project)
    for name in ("frozen", "thawed"):  # for the one starts from the other
        anew = run_of(project, name)
        assert anew != places[name]
        assert f"train_run {anew}" in again


def first_seen(run: dict[str, Any], project: Path, images: np.ndarray) -> np.ndarray:
    """What the pretrained backbone under the seed's own head says of images (n, class)."""
    model = models.build(run["spec"], SIZE, seed=0)
    model.get_layer("mobilenet").load_weights(project / "data/cut.weights.h5")
    return softmax(model.predict_on_batch(images), axis=1)


def weights_moved(project: Path, runs: dict[str, Any], places: dict[str, str]) -> None:
    """The frozen backbone ends as it began, the thawed one does not."""
    for name, run in runs.items():
        last = next(e["file"] for e in run["checkpoints"] if "last" in e["kept_for"])
        model = models.build(run["spec"], SIZE)
        model.load_weights(project / f"results/runs/{places[name]}/checkpoints/{last}")
        ended = model.get_layer("mobilenet").get_weights()
        model.get_layer("mobilenet").load_weights(project / "data/cut.weights.h5")
        began = model.get_layer("mobilenet").get_weights()
        same = [np.array_equal(a, b) for a, b in zip(began, ended, strict=True)]
        assert all(same) == (name == "frozen")

"""A trained run's Grad-CAM: its run.json, checkpoints and data in, cam.h5 out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from scratchbook import models
from scratchbook.cam import maps as cam_maps
from scratchbook.cam.choices import choose_images, resolve_epochs
from scratchbook.models.weights import load_weights
from scratchbook.results.hdf5 import leave_out_cam, write_cam
from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_record
from scratchbook.results.records import CamMaps, RunRecord
from scratchbook.specs import Cam, Spec

if TYPE_CHECKING:
    import keras


def map_run(
    run: RunFiles,
    prepared: Prepared,
    choices: Cam,
    output: Path,
    *,
    pretrained: Path,
    initial_run: RunFiles | None,
    say: Callable[[str], None],
    on_epoch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Explains a notebook's images in every epoch that was asked for and kept, and in the weights
    that the run started from: drawn at random, pretrained, or another run's.

    Args:
        run: trained.
        prepared: the data it was trained on.
        choices: the notebook's `cam` section.
        output: where the maps are written.
        pretrained: the folder of backbones' weights files.
        initial_run: the run that `initial_weights` names.
        say: takes a line for the log and the terminal.
        on_epoch: takes (epochs done, epochs in all).

    An epoch whose weights were not kept is left out and named; all maps are, where the pixels are
    not those that the run was trained on.

    Raises:
        ScratchbookError: no such layer, image or method; weights that cannot be loaded.
    """
    record = read_record(run)
    if prepared.arrays_sha256 != record["data"]["arrays_sha256"]:
        why = f"{prepared.path.name} holds other pixels than it was trained on, whose file is gone"
        leave_out_cam(output, why)
        say(f"no Grad-CAM: {why}")
        return
    seed, files = record["seed"], run.weights(record)
    rows = choose_images(
        prepared.labels, prepared.split, choices["images"], seed=0, names=prepared.names
    )
    wanted = resolve_epochs(choices["epochs"], record["best_epoch"], record["epochs"])
    missing = [epoch for epoch in wanted if epoch and epoch not in files]
    cam = explain_epochs(
        lambda: models.start(
            _spec_to_start(record),
            prepared,
            seed=seed,
            pretrained=pretrained,
            initial_run=initial_run,
        ),
        {epoch: files[epoch] for epoch in wanted if epoch in files},
        prepared,
        rows,
        choices,
        seed,
        on_epoch,
    )
    write_cam(output, replace(cam, missing=missing, diverged=record.get("diverged")))
    say(f"Grad-CAM of {len(rows)} images in epochs {', '.join(map(str, cam.epochs))}")
    if missing:
        say(f"no weights were kept of epochs {', '.join(map(str, missing))}")


def _spec_to_start(record: RunRecord) -> Spec:
    """What built the run's network; one that inherited its end had nothing to start from."""
    if record.get("diverged") != 0:
        return record["spec"]
    told: Any = {name: part for name, part in record["spec"].items() if name != "initial_weights"}
    return told


def explain_epochs(
    build: Callable[[], keras.Model],
    checkpoints: Mapping[int, Path],
    prepared: Prepared,
    rows: np.ndarray,
    choices: Cam,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] = lambda done, total: None,
) -> CamMaps:
    """Explains images in every epoch.

    The network is built once and compiled once; each epoch only loads its weights. Epoch 0, the
    network as `build` returns it, is always explained too: it is one of drift's baselines.

    Args:
        build: returns the float32 network, uint8 (batch, H, W, C) to logits (batch, classes).
        checkpoints: weights file of each epoch after that.
        prepared: the data.
        rows: int64 (image,): which of its images.
        choices: the notebook's `cam` section: `layer`, `method` and `target` (explain the image's
            `label`, or the class that is `predicted` in each epoch).
        seed: of the random head's weights.
        on_epoch: takes (epochs done, epochs in all).

    Raises:
        ScratchbookError: no such layer or method, or weights that do not fit the network.
    """
    images, labels = prepared.images[rows], prepared.labels[rows]
    method, target = choices["method"], choices["target"]
    model = build()
    layer = cam_maps.choose_layer(model, choices["layer"])
    explain = cam_maps.mapper(model, layer.name, method)
    wanted = labels if target == "label" else np.full_like(labels, cam_maps.PREDICTED)
    fresh = _fresh_weights(cam_maps.head_layers(model, layer.name), seed)

    epochs = [0, *sorted(checkpoints)]
    found, logits, randomised = [], [], []
    for epoch in epochs:
        if epoch:
            load_weights(model, checkpoints[epoch])
        epoch_maps, epoch_logits = explain(images, wanted)
        found.append(epoch_maps)  # (image, h, w)
        logits.append(epoch_logits)  # (image, class)
        for head, weights in fresh:
            head.set_weights(weights)
        randomised.append(explain(images, wanted)[0])
        on_epoch(len(found), len(epochs))

    return CamMaps(
        maps=np.stack(found), epochs=np.array(epochs), images=rows, labels=labels,
        probability=softmax(np.stack(logits), axis=-1),  # (epoch, image, class)
        names=[prepared.names[row] for row in rows], random_head=np.stack(randomised),
        layer=layer.name, method=method, target=target, grid=layer.grid,
        input_size=models.seen_size(model), class_names=prepared.class_names,
        flags=list(layer.flags), missing=[], diverged=None,
    )  # fmt: skip


def _fresh_weights(layers: list[keras.Layer], seed: int) -> list[tuple[keras.Layer, Any]]:
    """Weights for each layer as its own initializers draw them, also where it was pretrained."""
    import keras

    keras.utils.set_random_seed(seed)
    fresh = []
    for layer in layers:
        twin = type(layer).from_config(layer.get_config())
        twin.build_from_config(layer.get_build_config())
        fresh.append((layer, twin.get_weights()))
    return fresh

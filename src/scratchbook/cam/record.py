"""One network through all epochs: its checkpoints and some images in, their maps out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from scratchbook.cam import maps as cam_maps
from scratchbook.errors import ScratchbookError
from scratchbook.results.prepared import Prepared
from scratchbook.results.records import CamMaps
from scratchbook.specs import Cam

if TYPE_CHECKING:
    import keras


def explain_epochs(
    build: Callable[[], keras.Model],
    checkpoints: Mapping[int, Path | None],
    prepared: Prepared,
    rows: np.ndarray,
    choices: Cam,
    seed: int = 0,
) -> CamMaps:
    """Explains images in every epoch.

    The network is built once and compiled once; each epoch only loads its weights. Epoch 0, the
    network as `build` returns it, is always explained too: it is one of drift's baselines.

    Args:
        build: returns the float32 network, uint8 (batch, H, W, C) to logits (batch, classes).
        checkpoints: weights file of each epoch; None (allowed for epoch 0) means as built.
        prepared: the data.
        rows: int (image,): which of its images.
        choices: the notebook's `cam` section: `layer`, `method` and `target` (explain the image's
            `label`, or the class that is `predicted` in each epoch).
        seed: of the random head's weights.

    Raises:
        ScratchbookError: no such layer, method or target, or weights that do not fit the network.
    """
    images, labels = prepared.images[rows], prepared.labels[rows]
    method, target = choices["method"], choices["target"]
    model = build()
    chosen = cam_maps.choose_layer(model, choices["layer"])
    explain = cam_maps.mapper(model, chosen.name, method)
    if target not in ("label", "predicted"):
        raise ScratchbookError(f"cam.target: {target!r}; write 'label' or 'predicted'")
    wanted = labels if target == "label" else np.full_like(labels, cam_maps.PREDICTED)
    fresh = _fresh_weights(cam_maps.head_layers(model, chosen.name), seed)

    files = {0: None, **checkpoints}
    epochs = sorted(files)
    found, logits, randomised = [], [], []
    for epoch in epochs:
        load_epoch(model, epoch, files[epoch])
        epoch_maps, epoch_logits = explain(images, wanted)
        found.append(epoch_maps)  # (image, h, w)
        logits.append(epoch_logits)  # (image, class)
        for head, weights in fresh:
            head.set_weights(weights)
        randomised.append(explain(images, wanted)[0])

    return CamMaps(
        maps=np.stack(found),
        epochs=np.array(epochs, dtype=np.int64),
        images=np.asarray(rows, dtype=np.int64),
        labels=np.asarray(labels, dtype=np.int64),
        probability=softmax(np.stack(logits), axis=-1),  # (epoch, image, class)
        names=[prepared.names[row] for row in rows],
        random_head=np.stack(randomised),
        layer=chosen.name,
        method=method,
        target=target,
        grid=chosen.grid,
        input_size=images.shape[1:3],
        class_names=prepared.class_names,
        flags=list(chosen.flags),
    )


def load_epoch(model: keras.Model, epoch: int, file: Path | None) -> None:
    """Loads an epoch's weights; None, allowed for epoch 0, leaves the network as it was built.

    Raises:
        ScratchbookError: there is no such file, or it is not this network's.
    """
    if file is None:
        if epoch:
            raise ScratchbookError(f"cam: epoch {epoch} has no checkpoint")
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Skipping", UserWarning)  # half of it would load
            model.load_weights(file)
    except (OSError, ValueError, UserWarning) as error:
        raise ScratchbookError(
            f"{file}: epoch {epoch}'s weights do not load into this network: {error}"
        ) from error


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

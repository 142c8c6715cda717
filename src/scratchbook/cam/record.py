"""One job for all epochs: checkpoints and images in, cam.h5 and drift.csv out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
from scipy.special import softmax

from scratchbook.cam import maps as cam_maps
from scratchbook.cam.drift import write_drift
from scratchbook.config.errors import ScratchbookError
from scratchbook.files import write_atomically

if TYPE_CHECKING:
    import keras

Target = Literal["label", "predicted"]


def write_cam(
    build: Callable[[], keras.Model],
    checkpoints: Mapping[int, Path | None],
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    index: np.ndarray,
    class_names: Sequence[str],
    layer: str | None,
    method: cam_maps.Method,
    output: Path,
    drift_output: Path | None,
    *,
    target: Target = "label",
    seed: int = 0,
    other_seeds: Sequence[Path] = (),
    batch_size: int | None = None,
) -> None:
    """Explains the images in every epoch and measures how the maps move between epochs.

    The network is built once and compiled once; each epoch only loads its weights. Epoch 0, the
    network as `build` returns it, is always explained too: it is one of drift's baselines.

    Args:
        build: returns the float32 network, uint8 (batch, H, W, C) to logits (batch, classes).
        checkpoints: weights file of each epoch; None (allowed for epoch 0) means as built.
        images: uint8 (image, H, W, C).
        labels: int (image,): the class that is explained.
        names: str (image,).
        index: int (image,): rows in the prepared data.
        class_names: (class,).
        layer: its name, or None for the deepest with a grid of at least 7×7.
        method: `gradcam` or `hirescam`.
        output: cam.h5, as in the contract, with `random_head` float32 (epoch, image, h, w) and
            the attribute `target` besides.
        drift_output: drift.csv, or None where `write_drift` measures the maps later.
        target: explain the image's `label`, or the class that is `predicted` in each epoch.
        seed: of the random head's weights.
        other_seeds: cam.h5 of the same experiment under other seeds, for drift's baseline.
        batch_size: images at a time, as `mapper` chooses unless given.

    Raises:
        ScratchbookError: no such layer or method, weights that do not fit the network, or other
            seeds' maps that cannot be compared.
    """
    model = build()
    chosen = cam_maps.choose_layer(model, layer)
    explain = cam_maps.mapper(model, chosen.name, method, batch_size)
    if target not in ("label", "predicted"):
        raise ScratchbookError(f"cam.target: {target!r}; write 'label' or 'predicted'")
    wanted = labels if target == "label" else np.full_like(labels, cam_maps.PREDICTED)
    fresh = _fresh_weights(cam_maps.head_layers(model, chosen.name), seed)

    files = {0: None, **dict(sorted(checkpoints.items()))}
    found, logits, randomised = [], [], []
    for epoch, file in sorted(files.items()):
        load_epoch(model, epoch, file)
        epoch_maps, epoch_logits = explain(images, wanted)
        found.append(epoch_maps)  # (image, h, w)
        logits.append(epoch_logits)  # (image, class)
        for head, weights in fresh:
            head.set_weights(weights)
        randomised.append(explain(images, wanted)[0])

    _write_h5(
        output,
        arrays={
            "maps": np.stack(found),
            "random_head": np.stack(randomised),
            "epochs": np.array(sorted(files), dtype=np.int64),
            "images": np.asarray(index, dtype=np.int64),
            "labels": np.asarray(labels, dtype=np.int64),
            "probability": softmax(np.stack(logits), axis=-1),  # (epoch, image, class)
            "names": np.array([str(name) for name in names], dtype=h5py.string_dtype()),
        },
        attributes={
            "layer": chosen.name,
            "method": method,
            "target": target,
            "grid": json.dumps(chosen.grid),
            "input_size": json.dumps(images.shape[1:3]),
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "flags": json.dumps(chosen.flags),
        },
    )
    if drift_output is not None:
        write_drift(output, drift_output, other_seeds)


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


def _write_h5(output: Path, arrays: dict[str, np.ndarray], attributes: dict[str, str]) -> None:
    """Everything into one file that is there whole or not at all."""

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            for name, array in arrays.items():
                file[name] = array
            file.attrs.update(attributes)

    write_atomically(output, write)

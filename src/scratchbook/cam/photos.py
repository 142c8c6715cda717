"""Photos of one's own under a trained run's epochs: files in, maps and probabilities out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from scratchbook import models
from scratchbook.cam import maps as cam_maps
from scratchbook.cam.choices import resolve_epochs
from scratchbook.cam.record import load_epoch
from scratchbook.config.errors import ScratchbookError, nearest
from scratchbook.data.image import to_rgb


def read_photos(files: Sequence[Path], dataset: dict[str, Any]) -> np.ndarray:
    """Photos as the data set's own images were made: turned upright, converted and resized.

    Args:
        files: image files.
        dataset: its declaration, with `size` and `resize`.

    Returns:
        uint8 (n, h, w, 3).

    Raises:
        ScratchbookError: a file that is not there, or is no whole image.
    """
    size, resize = tuple(dataset["size"]), dataset["resize"]
    photos = []
    for file in files:
        try:
            photos.append(to_rgb(file.read_bytes(), size, resize["method"], resize["fit"])[0])
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ScratchbookError(f"--image {file}: {reason}") from None
    return np.stack(photos)


def map_photos(
    run: dict[str, Any],
    checkpoints: Path,
    photos: np.ndarray,
    choices: dict[str, Any],
    class_name: str | None = None,
    epochs: Sequence[int | str] = (),
) -> dict[str, Any]:
    """Explains photos in a run's epochs.

    One class is explained through all epochs, so that what moves is the network's attention: the
    one that is named, or for each photo the one that the last of these epochs predicts.

    Args:
        run: the run's run.json.
        checkpoints: the folder of its weights.
        photos: uint8 (image, H, W, 3).
        choices: the notebook's `cam` section: `layer` and `method`.
        class_name: of the class to explain.
        epochs: as in `cam.epochs`; every epoch whose weights were kept if empty.

    Returns:
        As cam.h5: `maps` float32 (epoch, image, h, w), `epochs` int (epoch,), `labels` int
        (image,) of the explained classes, `probability` float32 (epoch, image, class); `layer`,
        `method`, `class_names`, `input_size`, `flags`.

    Raises:
        ScratchbookError: no such class, layer or epoch.
    """
    classes = run["data"]["class_names"]
    if class_name is not None and class_name not in classes:
        raise ScratchbookError(f"--class {class_name!r}: {nearest(class_name, classes)}")
    files = {entry["epoch"]: checkpoints / entry["file"] for entry in run["checkpoints"]}
    wanted = resolve_epochs(epochs, run["best_epoch"], run["epochs"]) if epochs else sorted(files)
    for epoch in wanted:
        if epoch not in files:
            raise ScratchbookError(
                f"--epochs: the weights of epoch {epoch} were not kept; "
                f"there are {', '.join(map(str, sorted(files)))}"
            )
    if not wanted:
        raise ScratchbookError(f"--epochs: none of them; there are {sorted(files)}")
    model = models.build(run["spec"], photos.shape[1:], seed=run["seed"])
    layer = cam_maps.choose_layer(model, choices["layer"])
    explain = cam_maps.mapper(model, layer.name, choices["method"])

    def explained(epoch: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        load_epoch(model, epoch, files[epoch])
        return explain(photos, labels)

    if class_name is not None:
        labels = np.full(len(photos), classes.index(class_name))
    else:
        anything = np.full(len(photos), cam_maps.PREDICTED)
        labels = explained(wanted[-1], anything)[1].argmax(axis=1)
    found = [explained(epoch, labels) for epoch in wanted]
    return {
        "maps": np.stack([maps for maps, _ in found]),
        "epochs": np.array(wanted),
        "labels": labels,
        "probability": softmax(np.stack([logits for _, logits in found]), axis=-1),
        "layer": layer.name,
        "method": choices["method"],
        "class_names": json.dumps(classes, ensure_ascii=False),
        "input_size": json.dumps(photos.shape[1:3]),
        "flags": json.dumps(layer.flags),
    }

"""Photos of one's own under a trained run's epochs: files in, maps and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from scratchbook import models
from scratchbook.cam import maps as cam_maps
from scratchbook.cam.choices import resolve_epochs
from scratchbook.config.datasets import Dataset
from scratchbook.data.image import to_rgb
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.models.weights import load_weights
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record
from scratchbook.results.records import CamMaps
from scratchbook.specs import Cam


def read_photos(files: Sequence[Path], dataset: Dataset) -> np.ndarray:
    """Photos as the data set's own images were made: turned upright, converted and resized.

    Args:
        files: image files.
        dataset: its declaration.

    Returns:
        uint8 (n, h, w, 3).

    Raises:
        ScratchbookError: a file that is not there, or is no whole image.
    """
    (height, width), resize = dataset.size, dataset.resize
    photos = []
    for file in files:
        try:
            photos.append(to_rgb(file.read_bytes(), (height, width), resize.method, resize.fit)[0])
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ScratchbookError(f"--image {file}: {reason}") from None
    return np.stack(photos)


def map_photos(
    run: RunFiles,
    photos: np.ndarray,
    names: Sequence[str],
    choices: Cam | None,
    class_name: str | None = None,
    epochs: Sequence[int | str] = (),
) -> CamMaps:
    """Explains photos in a run's epochs.

    One class is explained through all epochs, so that what moves is the network's attention: the
    one that is named, or for each photo the one that the last of these epochs predicts.

    Args:
        run: trained.
        photos: uint8 (image, H, W, 3).
        names: (image,).
        choices: the notebook's `cam` section, of which `layer` and `method` are used.
        class_name: of the class to explain.
        epochs: as in `cam.epochs`; every epoch whose weights were kept if empty.

    Returns:
        The photos' maps; `labels` are the explained classes.

    Raises:
        ScratchbookError: no such class, layer or epoch.
    """
    record = read_record(run)
    classes = record["data"]["class_names"]
    if class_name is not None and class_name not in classes:
        raise ScratchbookError(f"--class {class_name!r}: {nearest(class_name, classes)}")
    files = run.weights(record)
    wanted = sorted(files)
    if epochs:
        wanted = resolve_epochs(epochs, record["best_epoch"], record["epochs"])
    for epoch in wanted:
        if epoch not in files:
            raise ScratchbookError(
                f"--epochs: the weights of epoch {epoch} were not kept; "
                f"there are {', '.join(map(str, sorted(files)))}"
            )
    if not wanted:
        raise ScratchbookError(f"--epochs: none of them; there are {sorted(files)}")
    model = models.build(record["spec"], photos.shape[1:], seed=record["seed"])
    layer = cam_maps.choose_layer(model, choices["layer"] if choices else None)
    method = choices["method"] if choices else "gradcam"
    explain = cam_maps.mapper(model, layer.name, method)

    def explained(epoch: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        load_weights(model, files[epoch])
        return explain(photos, labels)

    if class_name is not None:
        labels = np.full(len(photos), classes.index(class_name))
    else:
        anything = np.full(len(photos), cam_maps.PREDICTED)
        labels = explained(wanted[-1], anything)[1].argmax(axis=1)
    found = [explained(epoch, labels) for epoch in wanted]
    return CamMaps(
        maps=np.stack([maps for maps, _ in found]), epochs=np.array(wanted),
        images=np.arange(len(photos)), labels=labels,
        probability=softmax(np.stack([logits for _, logits in found]), axis=-1),
        names=list(names), random_head=None,
        layer=layer.name, method=method, target="label", grid=layer.grid,
        input_size=models.seen_size(model), class_names=classes, flags=list(layer.flags),
        missing=[], diverged=None,
    )  # fmt: skip

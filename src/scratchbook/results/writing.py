"""Write what `scratchbook.results.reading` reads: values in, a file that is whole or absent out."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from .files import try_room, write_atomically
from .records import CamMaps, Epoch, SplitPredictions

HDF5_OVERHEAD = 8192  # bytes an array, at most


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """history.csv."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(Epoch.__annotations__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    write_atomically(path, write)


def write_predictions(
    path: Path,
    predictions: Mapping[str, tuple[int, Mapping[str, SplitPredictions]]],
    class_names: Sequence[str],
    validation: str,
) -> None:
    """predictions.h5.

    Args:
        predictions: of `best` and `last` the epoch, and what was said of each split; the logits
            are stored as float32.
        class_names: (class,).
        validation: the split that the best epoch was chosen on.

    Raises:
        OSError: the disk has no room for it.
    """

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            file.attrs["class_names"] = json.dumps(class_names)
            file.attrs["validation"] = validation
            for when, (epoch, splits) in predictions.items():
                group = file.create_group(when)
                group.attrs["epoch"] = epoch
                for split, said in splits.items():
                    group[f"{split}/logits"] = said.logits.astype(np.float32)  # (n, classes)
                    group[f"{split}/labels"] = said.labels
                    group[f"{split}/index"] = said.index

    said = [one for _, splits in predictions.values() for one in splits.values()]
    size = sum(one.logits.size * 4 + 16 * len(one.labels) + 3 * HDF5_OVERHEAD for one in said)
    try_room(path, size + HDF5_OVERHEAD)
    write_atomically(path, write)


def write_cam(path: Path, cam: CamMaps) -> None:
    """cam.h5: arrays as arrays, all else as attributes."""
    values = {field.name: getattr(cam, field.name) for field in fields(cam)}
    names = np.array(values.pop("names"), dtype=h5py.string_dtype())

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            file["names"] = names
            for key, value in values.items():
                if isinstance(value, np.ndarray):
                    file[key] = value
                elif value is not None:
                    text = (
                        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                    )
                    file.attrs[key] = text

    write_atomically(path, write)

"""Read and write the arrays of a run: predictions.h5 and cam.h5."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import DivergedError, LeftOutError, usable
from .files import try_room, write_atomically
from .records import SPLITS, CamMaps, SplitPredictions

HDF5_OVERHEAD = 8192  # bytes an array, at most


class Predictions:
    """An open predictions.h5: what a run's net says of every split, at its best epoch and its last
    (`best`, `last`)."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file
        self.class_names = [str(name) for name in json.loads(file.attrs["class_names"])]
        self.validation = str(file.attrs.get("validation", "validation"))
        self.diverged = int(file.attrs["diverged"]) if "diverged" in file.attrs else None

    @property
    def is_empty(self) -> bool:
        """Whether the run diverged before its first epoch was whole."""
        return self.diverged is not None and "best" not in self._file

    def epoch(self, when: str) -> int:
        with usable(self._path):
            return int(self._group(when).attrs["epoch"])

    def splits(self, when: str) -> list[str]:
        """Those that there are, in the order of SPLITS."""
        with usable(self._path):
            return [split for split in SPLITS if split in self._group(when)]

    def read(self, when: str, split: str) -> SplitPredictions:
        """One split, checked.

        Raises:
            DivergedError: its logits are not finite.
            DamagedError: it is missing, holds no image, or arrays that do not fit each other.
        """
        what, classes = f"{when}/{split}", len(self.class_names)
        with usable(self._path):
            if split not in (group := self._group(when)):
                raise ValueError(f"no {what}")
            logits = np.asarray(group[f"{split}/logits"], dtype=np.float64)  # (n, classes)
            labels = np.asarray(group[f"{split}/labels"], dtype=np.int64)  # (n,)
            index = np.asarray(group[f"{split}/index"], dtype=np.int64)  # (n,)
            if len(labels) == 0:
                raise ValueError(f"{what} holds no image: a figure needs one image at least")
            if logits.shape != (len(labels), classes) or len(index) != len(labels):
                raise ValueError(
                    f"{what} does not fit together: logits {logits.shape}, labels {labels.shape}, "
                    f"index {index.shape}, {classes} class names"
                )
            unusable = ~np.isfinite(logits).all(axis=1)
            if unusable.any():
                raise DivergedError(
                    f"{what}: the logits of {unusable.sum()} of {len(labels)} images are NaN or "
                    f"infinite (first: image {index[unusable][0]}); the run diverged, try a lower "
                    "learning rate"
                )
            if labels.min() < 0 or labels.max() >= classes:
                wrong = labels.min() if labels.min() < 0 else labels.max()
                raise ValueError(f"{what}: label {wrong} has no class name, {classes} are named")
            return SplitPredictions(logits, labels, index)

    def arrays(self) -> dict[str, np.ndarray]:
        """{`best/test/logits`: its values} of all there is."""
        found: dict[str, np.ndarray] = {}

        def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = np.asarray(item[()])

        with usable(self._path):
            self._file.visititems(collect)
        return found

    def _group(self, when: str) -> h5py.Group:
        if when not in self._file:
            raise ValueError(f"no group {when!r}, found {sorted(self._file)}")
        return self._file[when]


@contextmanager
def open_predictions(file: Path) -> Iterator[Predictions]:
    """A run's predictions.h5, for as long as the `with` block lasts."""
    with ExitStack() as stack:
        with usable(file):
            predictions = Predictions(file, stack.enter_context(h5py.File(file, "r")))
        yield predictions


def write_predictions(
    path: Path,
    predictions: Mapping[str, tuple[int, Mapping[str, SplitPredictions]]],
    class_names: Sequence[str],
    validation: str,
    diverged: int | None = None,
) -> None:
    """predictions.h5.

    Args:
        predictions: of `best` and `last` the epoch, and what was said of each split; the logits
            are stored as float32.
        class_names: (class,).
        validation: the split that the best epoch was chosen on.
        diverged: the epoch in which the run did.

    Raises:
        OSError: the disk has no room for it.
    """

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            file.attrs["class_names"] = json.dumps(class_names)
            file.attrs["validation"] = validation
            if diverged is not None:
                file.attrs["diverged"] = diverged
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


def read_cam(path: Path) -> CamMaps:
    """A run's maps.

    Raises:
        LeftOutError: they could not be made.
    """
    with usable(path), h5py.File(path, "r") as file:
        told = {name: _text(value) for name, value in file.attrs.items()}
        if "left_out" in told:
            raise LeftOutError(path, told["left_out"])
        return CamMaps(
            maps=file["maps"][()],
            epochs=file["epochs"][()],
            images=file["images"][()],
            labels=file["labels"][()],
            probability=file["probability"][()],
            names=[str(name) for name in file["names"].asstr()[()]],
            random_head=file["random_head"][()] if "random_head" in file else None,
            layer=told["layer"],
            method=told["method"],  # type: ignore[arg-type] # as it was declared
            target=told["target"],  # type: ignore[arg-type]
            grid=tuple(json.loads(told["grid"])),
            input_size=tuple(json.loads(told["input_size"])),
            class_names=json.loads(told["class_names"]),
            flags=json.loads(told["flags"]),
            missing=json.loads(told["missing"]),
            diverged=json.loads(told["diverged"]) if "diverged" in told else None,
        )


def maps_missing(path: Path) -> tuple[str, list[int]]:
    """Why there are no maps at all, or which epochs have none, without reading them."""
    try:
        with h5py.File(path, "r") as file:
            told = {name: _text(value) for name, value in file.attrs.items()}
            return told.get("left_out", ""), json.loads(told.get("missing", "[]"))
    except (OSError, ValueError):
        return "", []  # told by whoever reads it


def write_cam(path: Path, cam: CamMaps) -> None:
    """A run's maps: arrays as arrays, all else as attributes."""
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


def leave_out_cam(path: Path, why: str) -> None:
    """Writes, in place of maps, why there are none: a job that failed would fail at every start."""

    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            file.attrs["left_out"] = why

    write_atomically(path, write)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

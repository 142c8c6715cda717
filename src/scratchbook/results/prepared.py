"""Read a prepared data set: results/data/{dataset}.h5 in, arrays on disk and their labels out."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from .errors import usable
from .records import SPLITS


class Prepared:
    """A prepared data set; `images` stays on disk and is read as it is used.

    Raises:
        MissingError, DamagedError: the file is not there, is cut short, or none of ours.
    """

    path: Path
    dataset: str
    title: str
    source: str  # where the images came from
    sha256: str  # of the source
    class_names: list[str]
    notes: list[str]
    duplicates: list[list[str]]  # [name_a, split_a, name_b, split_b]
    images: np.memmap  # uint8 [n, height, width, 3], read-only
    labels: np.ndarray  # int64 [n]
    split: np.ndarray  # uint8 [n]: a split is stored as its place in SPLITS

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with usable(self.path), h5py.File(self.path, "r") as file:
            images = file["images"]
            offset, shape = images.id.get_offset(), images.shape
            if offset is None or images.dtype != np.uint8 or len(shape) != 4:
                raise ValueError("`images` is not a contiguous uint8 [n, height, width, 3]")
            self.labels = file["labels"][()]
            self.split = file["split"][()]
            self.dataset, self.title, self.source, self.sha256 = (
                str(file.attrs[key]) for key in ("dataset", "title", "source", "sha256")
            )
            self.class_names, self.notes, self.duplicates = (
                json.loads(file.attrs[key]) for key in ("class_names", "notes", "duplicates")
            )
            self.images = np.memmap(self.path, np.uint8, "r", offset, shape)

    @cached_property
    def names(self) -> list[str]:
        """Each image's name in the source."""
        with usable(self.path), h5py.File(self.path, "r") as file:
            return [str(name) for name in file["names"].asstr()[()]]

    def names_of(self, rows: np.ndarray) -> list[str]:
        """The names of a few of the images."""
        with usable(self.path), h5py.File(self.path, "r") as file:
            names = file["names"].asstr()
            return [str(names[int(row)]) for row in rows]

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {name: int(np.sum(self.split == i)) for i, name in enumerate(SPLITS)}

    def indices(self, split: str) -> np.ndarray:
        """Rows of a split, int64, rising."""
        return np.flatnonzero(self.split == SPLITS.index(split))

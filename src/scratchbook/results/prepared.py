"""Read a prepared data set: its file in, arrays on disk and their labels out."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from .errors import usable
from .records import SPLITS

_BLOCK_BYTES = 4 << 20


class Prepared:
    """A prepared data set; `images` stays on disk and is read as it is used.

    Raises:
        MissingError, DamagedError: the file is not there, is cut short, or none of ours.
    """

    path: Path
    dataset: str
    source: str  # where the images came from
    sha256: str  # the content of the source
    arrays_sha256: str  # of images, labels, split and names, as `hash_arrays` has it
    preparing: int  # the number of the code that prepared it
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
            self.dataset, self.source, self.sha256, self.arrays_sha256 = (
                str(file.attrs[key]) for key in ("dataset", "source", "sha256", "arrays_sha256")
            )
            self.preparing = int(file.attrs["preparing"])
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


def hash_arrays(file: h5py.File) -> str:
    """The sha256 over dtypes, shapes and bytes of what runs read of a prepared file.

    A few images are in memory at a time. Names end with a zero byte, which none holds.
    """
    digest = hashlib.sha256()
    images = file["images"]
    digest.update(f"{images.dtype.str}{images.shape}".encode())
    step = max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).data)
    for key in ("labels", "split"):
        array = np.ascontiguousarray(file[key][()])
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    digest.update(b"".join(bytes(name) + b"\0" for name in file["names"][()]))
    return digest.hexdigest()

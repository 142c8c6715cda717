"""Open the source of a data set: its spec and files in, a list of labelled images out."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scratchbook.config import datasets
from scratchbook.data import layout
from scratchbook.data.files import open_files
from scratchbook.data.location import Located
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.results.files import sha256_file
from scratchbook.results.records import SPLITS


@dataclass(frozen=True)
class Source:
    """Images that can be read one by one, in an order that their content alone decides."""

    text: str  # what it is, for the report
    class_names: list[str]
    names: list[str]  # [n]
    labels: np.ndarray  # int64 [n]
    splits: np.ndarray | None  # uint8 [n], as in SPLITS; None: the source comes with no splits
    read: Callable[[int], bytes | np.ndarray]  # an encoded image, or uint8 [h, w(, channels)]
    sha256: Callable[[list[str]], str]  # its content, of the sha256 of each image's bytes
    stored: dict[int, str] | None = None  # file of each image, in the order to read; None: of none
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_source(found: Located) -> Iterator[Source]:
    """Open a located source, for as long as the `with` block lasts.

    Raises ScratchbookError where it cannot be used: the message names the file and what is wrong.
    """
    with ExitStack() as stack:
        yield OPENED[found.source.kind](found.source, found.paths, stack)


# --- folder, archive and csv: files -------------------------------------------------------------


def _files(
    spec: datasets.FolderSource | datasets.ArchiveSource | datasets.CsvSource,
    paths: dict[str, Path],
    stack: ExitStack,
) -> Source:
    files = open_files(paths["path"], stack)
    used = layout.used_files(spec, files)
    number = {value: i for i, value in enumerate(used.classes)}
    names = [image.name for image in used.images]
    row = {image.stored: i for i, image in enumerate(used.images)}
    has_splits = any(image.split for image in used.images)
    splits = [SPLITS.index(image.split) for image in used.images] if has_splits else None
    return Source(
        text=f"{spec.kind} {files.path.name}",
        class_names=list(used.classes.values()),
        names=names,
        labels=np.array([number[image.label] for image in used.images], np.int64),
        splits=None if splits is None else np.array(splits, np.uint8),
        read=lambda i: files.read(used.images[i].stored),
        sha256=lambda digests: layout.content_hash(
            [*zip(names, digests, strict=True), *used.tables]
        ),
        stored={row[name]: name for name in files.sizes if name in row},
        notes=used.notes,
    )


# --- arrays: hdf5, keras, bundled -----------------------------------------------------------------


def _hdf5(spec: datasets.Hdf5Source, paths: dict[str, Path], stack: ExitStack) -> Source:
    images: list[h5py.Dataset] = []
    labels, names, splits = [], [], []
    for split in sorted(spec.splits, key=SPLITS.index):
        x = _hdf5_array(paths[f"{split} images"], spec.images, stack)
        y = _hdf5_array(paths[f"{split} labels"], spec.labels, stack)
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or y.size != len(x):
            raise ScratchbookError(
                f"{x.file.filename}: {spec.images!r} is {x.dtype} {list(x.shape)} and its "
                f"labels are {list(y.shape)}; expected uint8 [n, height, width, channels] and n "
                "labels"
            )
        images.append(x)
        labels.append(np.asarray(y[()]).reshape(-1))
        names += [f"{split}/{i:06d}" for i in range(len(x))]
        splits += [SPLITS.index(split)] * len(x)
    starts = np.cumsum([0, *(len(x) for x in images)])

    def read(i: int) -> np.ndarray:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return np.asarray(images[part][i - starts[part]])

    first = next(iter(paths.values())).name
    return Source(
        text=f"hdf5 {first}" + (" and others" if len(paths) > 1 else ""),
        class_names=spec.class_names,
        names=names,
        labels=_checked_labels(np.concatenate(labels), spec.class_names, first),
        splits=np.array(splits, np.uint8),
        read=read,
        sha256=lambda _: layout.content_hash(
            [(role, sha256_file(path)) for role, path in paths.items()]
        ),
    )


def _hdf5_array(path: Path, key: str, stack: ExitStack) -> h5py.Dataset:
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        packed = " It is compressed: run gunzip on it first." if path.suffix == ".gz" else ""
        raise ScratchbookError(f"{path}: not a whole HDF5 file ({error}).{packed}") from error
    if not isinstance(file.get(key), h5py.Dataset):
        raise ScratchbookError(f"{path}: there is no array {key!r} in it ({nearest(key, file)})")
    return file[key]


def _keras(spec: datasets.KerasSource, _paths: dict[str, Path], _stack: ExitStack) -> Source:
    try:
        parts = getattr(importlib.import_module("keras").datasets, spec.name).load_data()
    except Exception as error:  # a download fails in many ways; all mean the same to the user
        raise ScratchbookError(
            f"keras.datasets.{spec.name} could not be loaded: {error}\n"
            "Keras downloads it once and needs the internet for that; on a machine without it, "
            "put one of the data set's other sources into data_dir."
        ) from error
    images = [np.asarray(x) for x, _ in parts]  # train, test
    labels = np.concatenate([np.asarray(y).reshape(-1) for _, y in parts])
    splits = np.repeat(np.array([0, 2], np.uint8), [len(x) for x in images])

    def read(i: int) -> np.ndarray:
        train, test = images
        return np.asarray(train[i] if i < len(train) else test[i - len(train)])

    return Source(
        text=f"keras.datasets.{spec.name}",
        class_names=spec.class_names,
        names=[
            f"{split}/{i:06d}"
            for split, x in zip(("train", "test"), images, strict=True)
            for i in range(len(x))
        ],
        labels=_checked_labels(labels, spec.class_names, spec.name),
        splits=splits,
        read=read,
        sha256=lambda _: layout.published_hash(spec.name),
    )


def _bundled(spec: datasets.BundledSource, paths: dict[str, Path], _stack: ExitStack) -> Source:
    height, width = spec.shape
    path = paths["path"]
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    try:
        table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise ScratchbookError(f"{path}: not a table of whole numbers: {error}") from error
    pixels, labels = table[:, :-1], table[:, -1]  # (n, height × width), (n,)
    if pixels.shape[1] != height * width or pixels.min() < 0 or pixels.max() > 255:
        raise ScratchbookError(
            f"{path}: {pixels.shape[1]} pixels a row, from {pixels.min()} to {pixels.max()}; "
            f"{height} × {width} values from 0 to 255 were expected"
        )
    images = pixels.astype(np.uint8).reshape(-1, height, width)
    return Source(
        text=f"{path.name} of the package {spec.package}",
        class_names=spec.class_names,
        names=[f"{i:06d}" for i in range(len(images))],
        labels=_checked_labels(labels, spec.class_names, path.name),
        splits=None,
        read=images.__getitem__,
        sha256=lambda _: layout.content_hash([("path", hashlib.sha256(content).hexdigest())]),
    )


def _checked_labels(labels: np.ndarray, class_names: list[str], where: str) -> np.ndarray:
    """int64 labels; ScratchbookError where one is no number of a class."""
    numbers = labels.astype(np.int64)
    bad = np.flatnonzero((numbers != labels) | (numbers < 0) | (numbers >= len(class_names)))
    if len(bad):
        raise ScratchbookError(
            f"{where}: the label of image {bad[0]} is {labels[bad[0]]}; `class_names` names the "
            f"classes 0 to {len(class_names) - 1}"
        )
    return numbers


# --- how each kind is opened, for as long as the stack lasts --------------------------------------

OPENED: dict[str, Callable[[Any, dict[str, Path], ExitStack], Source]] = {
    "folder": _files,
    "archive": _files,
    "csv": _files,
    "hdf5": _hdf5,
    "keras": _keras,
    "bundled": _bundled,
}

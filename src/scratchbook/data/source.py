"""Open the source of a data set: its spec and files in, a list of labelled images out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from scratchbook.config import datasets
from scratchbook.data.files import (
    IMAGE_SUFFIXES,
    READ_ERRORS,
    Files,
    counted,
    listed,
    open_files,
    sha256_file,
)
from scratchbook.data.location import Located
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.results.records import SPLITS

_LOOKS_LIKE_SPLITS = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation")
)


@dataclass(frozen=True)
class Source:
    """Images that can be read one by one, in the order in which the source stores them."""

    text: str  # what it is, for the report
    class_names: list[str]
    names: list[str]  # [n]
    labels: np.ndarray  # int64 [n]
    splits: np.ndarray | None  # uint8 [n], as in SPLITS; None: the source comes with no splits
    read: Callable[[int], bytes | np.ndarray]  # an encoded image, or uint8 [h, w(, channels)]
    sha256: Callable[[], str]
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_source(found: Located) -> Iterator[Source]:
    """Open a located source, for as long as the `with` block lasts.

    Raises ScratchbookError where it cannot be used: the message names the file and what is wrong.
    """
    with ExitStack() as stack:
        yield OPENED[found.source.kind](found.source, found.paths, stack)


# --- folder and archive: one folder a class -------------------------------------------------------


def _class_folders(
    spec: datasets.FolderSource | datasets.ArchiveSource, paths: dict[str, Path], stack: ExitStack
) -> Source:
    files = open_files(paths["path"], stack)
    images, others = files.images()
    splits = spec.splits
    roots: dict[str, str] = (
        {folder.strip("/"): split for split, folder in splits.items()}
        if splits
        else {_only_folder(images): ""}
    )
    rows: list[tuple[str, str, str]] = []  # (image, class, split)
    outside, loose = [], []
    for name in images:
        root = next((root for root in roots if name.startswith(root + "/") or not root), None)
        if root is None:
            outside.append(name)
            continue
        below = name[len(root) + 1 :] if root else name
        folder, slash, _ = below.partition("/")
        if slash:
            rows.append((name, folder, roots[root]))
        else:
            loose.append(name)
    if loose:
        raise ScratchbookError(
            f"{files.path}: {counted(len(loose), 'image')} in no class folder:\n{listed(loose)}\n"
            "Each class needs a folder of its own."
        )
    for split, folder in (splits or {}).items():
        if not any(row[2] == split for row in rows):
            tops = sorted({name.split("/")[0] for name in images if "/" in name})
            raise ScratchbookError(
                f"{files.path}: no images for {split} below {folder!r}; the folders at the top "
                f"are {', '.join(tops) or 'none'}"
            )
    if not rows:
        raise ScratchbookError(
            f"{files.path}: no images found. Expected <class>/<image>, the image one of "
            + " ".join(sorted(IMAGE_SUFFIXES))
        )
    empty = [folder for root in roots for folder in _folders_below(files, root)]
    classes = sorted({row[1] for row in rows} | set(empty))
    if not splits and _LOOKS_LIKE_SPLITS.issuperset(name.lower() for name in classes):
        raise ScratchbookError(
            f"{files.path}: the folders {', '.join(classes)} look like splits, not classes. "
            "Name them in the source: `splits: {train: train, test: test}`."
        )
    number = {name: i for i, name in enumerate(classes)}
    notes = _skipped_note(others)
    if outside:
        notes.append(f"left out: {counted(len(outside), 'image')} outside of the split folders")
    return Source(
        text=f"{spec.kind} {files.path.name}",
        class_names=classes,
        names=[row[0] for row in rows],
        labels=np.array([number[row[1]] for row in rows], np.int64),
        splits=np.array([SPLITS.index(row[2]) for row in rows], np.uint8) if splits else None,
        read=lambda i: files.read(rows[i][0]),
        sha256=files.sha256,
        notes=notes,
    )


def _only_folder(images: list[str]) -> str:
    """The folder around all class folders, where an archive holds one: `dogs/` of `dogs/beagle/…`.

    One class alone is never a data set, so one folder at the top that holds folders is no class.
    """
    tops = {name.split("/")[0] for name in images}
    nested = all(name.count("/") >= 2 for name in images)
    return tops.pop() if len(tops) == 1 and nested else ""


def _folders_below(files: Files, root: str) -> list[str]:
    """Names of the folders right below one: classes, even if they hold nothing."""
    prefix = root + "/" if root else ""
    below = [folder[len(prefix) :] for folder in files.folders if folder.startswith(prefix)]
    names = {folder.split("/")[0] for folder in below}
    return sorted(name for name in names if name and name[0] != "." and name != "__MACOSX")


def _skipped_note(others: list[str]) -> list[str]:
    if not others:
        return []
    kinds = Counter(PurePosixPath(name).name for name in others)
    some = ", ".join(name for name, _ in kinds.most_common(3))
    more = ", …" if len(kinds) > 3 else ""
    return [f"skipped: {counted(len(others), 'file')} not an image ({some}{more})"]


# --- csv: a table of labels -----------------------------------------------------------------------


def _csv(spec: datasets.CsvSource, paths: dict[str, Path], stack: ExitStack) -> Source:
    files = open_files(paths["path"], stack)
    table = f"{files.path.name}/{spec.labels}"
    rows = _table_rows(spec, files, table)
    prefix, _, rest = spec.image.partition("{")
    suffix = rest.rpartition("}")[2]
    images, others = files.images()
    images = [name for name in images if name.startswith(prefix) and name.endswith(suffix)]
    missing = [f"{name} (line {rows[name][2]})" for name in rows if name not in files.sizes]
    if missing:
        raise ScratchbookError(
            f"{table}: {counted(len(missing), 'row')} without its image, looked for as "
            f"`{spec.image}`:\n{listed(missing)}"
        )
    unlabelled = [name for name in images if name not in rows]
    if unlabelled:
        raise ScratchbookError(
            f"{table}: {counted(len(unlabelled), 'image')} without a row:\n{listed(unlabelled)}\n"
            "Give each a label, or move it out of the way."
        )
    names = [name for name in files.sizes if name in rows]  # in storage order: quick to read
    values = sorted({label for label, _, _ in rows.values()}, key=_natural)
    titles = spec.class_names or {value: value for value in values}
    unknown = [value for value in values if value not in titles]
    if unknown:
        raise ScratchbookError(
            f"{table}: column {spec.label!r} holds {unknown[0]!r}, which is not in "
            f"`class_names` ({nearest(unknown[0], titles)})"
        )
    number = {value: i for i, value in enumerate(titles)}
    splits = [SPLITS.index(rows[name][1]) for name in names] if spec.split else None
    return Source(
        text=f"csv {files.path.name}",
        class_names=list(titles.values()),
        names=names,
        labels=np.array([number[rows[name][0]] for name in names], np.int64),
        splits=None if splits is None else np.array(splits, np.uint8),
        read=lambda i: files.read(names[i]),
        sha256=files.sha256,
        notes=_skipped_note([name for name in others if name != spec.labels]),
    )


def _table_rows(
    spec: datasets.CsvSource, files: Files, table: str
) -> dict[str, tuple[str, str, int]]:
    """(label, split or "", line) of each image that the table names."""
    if spec.labels not in files.sizes:
        raise ScratchbookError(
            f"{files.path}: there is no {spec.labels} in it ("
            + nearest(spec.labels, [name for name in files.sizes if name.endswith(".csv")])
            + ")"
        )
    try:
        text = files.content(spec.labels).decode("utf-8-sig")
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ScratchbookError(f"{table}: cannot be read as UTF-8 text: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or [])
    columns_of_name = re.findall(r"{([^{}]*)}", spec.image)
    wanted = [spec.label, *columns_of_name]
    if spec.split:
        wanted.append(spec.split)
    for column in wanted:
        if column not in columns:
            raise ScratchbookError(
                f"{table}: no column {column!r}; its columns are {', '.join(columns) or 'none'}"
            )
    rows: dict[str, tuple[str, str, int]] = {}
    empty, twice, strange = [], [], []
    for row in reader:
        line = reader.line_num
        name = spec.image
        for column in columns_of_name:
            name = name.replace(f"{{{column}}}", row[column] or "")
        label = (row[spec.label] or "").strip()
        split = (row[spec.split] or "").strip().lower() if spec.split else ""
        if not label:
            empty.append(f"line {line}: {name}")
        if spec.split and split not in SPLITS:
            strange.append(f"line {line}: {split!r}")
        if name in rows:
            twice.append(f"lines {rows[name][2]} and {line}: {name}")
        rows[name] = (label, split, line)
    for bad, what in (
        (empty, f"without a label in column {spec.label!r}"),
        (twice, "with an image that another row has"),
        (strange, f"without one of {', '.join(SPLITS)} in column {spec.split!r}"),
    ):
        if bad:
            raise ScratchbookError(f"{table}: {counted(len(bad), 'row')} {what}:\n{listed(bad)}")
    if not rows:
        raise ScratchbookError(f"{table}: it has no rows")
    return rows


def _natural(value: str) -> tuple[int, int, str]:
    """Sorts whole numbers by value and before words."""
    return (0, int(value), "") if re.fullmatch(r"-?\d+", value) else (1, 0, value)


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

    def sha256() -> str:
        lines = [f"{sha256_file(paths[role])}  {role}\n" for role in sorted(paths)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    first = next(iter(paths.values())).name
    return Source(
        text=f"hdf5 {first}" + (" and others" if len(paths) > 1 else ""),
        class_names=spec.class_names,
        names=names,
        labels=_checked_labels(np.concatenate(labels), spec.class_names, first),
        splits=np.array(splits, np.uint8),
        read=read,
        sha256=sha256,
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

    def sha256() -> str:
        whole = hashlib.sha256(labels.astype(np.int64).tobytes())
        for x in images:
            whole.update(np.ascontiguousarray(x).data)
        return whole.hexdigest()

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
        sha256=sha256,
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
        sha256=lambda: hashlib.sha256(content).hexdigest(),
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
    "folder": _class_folders,
    "archive": _class_folders,
    "csv": _csv,
    "hdf5": _hdf5,
    "keras": _keras,
    "bundled": _bundled,
}

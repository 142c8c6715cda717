"""Which files of a source are a data set: its declaration and the files in, images, classes and
their content hash out.

Only the standard library is imported: a Snakefile asks for contents whenever it is parsed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from scratchbook.data.files import IMAGE_SUFFIXES, READ_ERRORS, Files, counted, listed
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.results.records import SPLITS

if TYPE_CHECKING:
    from scratchbook.config.datasets import ArchiveSource, CsvSource, FolderSource

_LOOKS_LIKE_SPLITS = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation")
)
_TABLE = "/table"  # which is no image's name: those are relative
# What Keras downloads, by the sha256 that keras/src/datasets gives as `file_hash`. It gives none
# for Fashion-MNIST: these are the MD5 sums of its four files (train images, train labels, test
# images, test labels) in the README of github.com/zalandoresearch/fashion-mnist.
_PUBLISHED = {
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    "fashion_mnist": "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
    "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310",
    "mnist": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
}


class UsedImage(NamedTuple):
    name: str  # the same in a folder, an archive, and an archive with a folder around it all
    stored: str  # the name of its file
    label: str  # its class folder, or the value of the label column
    split: str  # "" where the source comes with no splits


@dataclass(frozen=True)
class Used:
    """What a data set uses of the files of its source."""

    images: list[UsedImage]  # by name
    classes: dict[str, str]  # the class of each label, in order; some may have no image
    tables: list[tuple[str, str]]  # name and sha256
    notes: list[str]


def used_files(spec: FolderSource | ArchiveSource | CsvSource, files: Files) -> Used:
    """Raises ScratchbookError where the files are not as the source was declared."""
    used = _of_table(spec, files) if spec.kind == "csv" else _of_class_folders(spec, files)
    used.images.sort()
    return used


def content_hash(parts: Iterable[tuple[str, str]]) -> str:
    """The sha256 of (name, sha256) pairs, in whatever order they come."""
    lines = "".join(f"{sha256}  {len(name)} {name}\n" for name, sha256 in sorted(parts))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def published_hash(name: str) -> str:
    """The content of a data set that Keras downloads, which is the same before it did."""
    return content_hash([(name, _PUBLISHED[name])])


# --- folder and archive: one folder a class -------------------------------------------------------


def _of_class_folders(spec: FolderSource | ArchiveSource, files: Files) -> Used:
    images, others = files.images()
    splits = spec.splits
    roots: dict[str, str] = (
        {folder.strip("/"): split for split, folder in splits.items()}
        if splits
        else {_only_folder(images): ""}
    )
    rows: list[UsedImage] = []
    outside, loose = [], []
    for name in images:
        root = next((root for root in roots if name.startswith(root + "/") or not root), None)
        if root is None:
            outside.append(name)
            continue
        below = name[len(root) + 1 :] if root else name
        folder, slash, _ = below.partition("/")
        if slash:
            split = roots[root]
            rows.append(UsedImage(f"{split}/{below}" if split else below, name, folder, split))
        else:
            loose.append(name)
    if loose:
        raise ScratchbookError(
            f"{files.path}: {counted(len(loose), 'image')} in no class folder:\n{listed(loose)}\n"
            "Each class needs a folder of its own."
        )
    for split, folder in (splits or {}).items():
        if not any(row.split == split for row in rows):
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
    classes = sorted({row.label for row in rows} | set(empty))
    if not splits and _LOOKS_LIKE_SPLITS.issuperset(name.lower() for name in classes):
        raise ScratchbookError(
            f"{files.path}: the folders {', '.join(classes)} look like splits, not classes. "
            "Name them in the source: `splits: {train: train, test: test}`."
        )
    notes = _skipped_note(others)
    if outside:
        notes.append(f"left out: {counted(len(outside), 'image')} outside of the split folders")
    return Used(rows, {name: name for name in classes}, [], notes)


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


def _of_table(spec: CsvSource, files: Files) -> Used:
    table = f"{files.path.name}/{spec.labels}"
    content = _table(spec, files, table)
    rows = _table_rows(spec, content, table)
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
    values = sorted({label for label, _, _ in rows.values()}, key=_natural)
    titles = spec.class_names or {value: value for value in values}
    unknown = [value for value in values if value not in titles]
    if unknown:
        raise ScratchbookError(
            f"{table}: column {spec.label!r} holds {unknown[0]!r}, which is not in "
            f"`class_names` ({nearest(unknown[0], titles)})"
        )
    return Used(
        [UsedImage(name, name, label, split) for name, (label, split, _) in rows.items()],
        dict(titles),
        [(_TABLE, hashlib.sha256(content).hexdigest())],
        _skipped_note([name for name in others if name != spec.labels]),
    )


def _table(spec: CsvSource, files: Files, table: str) -> bytes:
    if spec.labels not in files.sizes:
        raise ScratchbookError(
            f"{files.path}: there is no {spec.labels} in it ("
            + nearest(spec.labels, [name for name in files.sizes if name.endswith(".csv")])
            + ")"
        )
    try:
        return files.content(spec.labels)
    except READ_ERRORS as error:
        raise ScratchbookError(f"{table}: cannot be read as UTF-8 text: {error}") from error


def _table_rows(spec: CsvSource, content: bytes, table: str) -> dict[str, tuple[str, str, int]]:
    """(label, split or "", line) of each image that the table names."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
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
    return (0, int(value), value) if re.fullmatch(r"-?\d+", value) else (1, 0, value)

"""What a data set consists of, wherever it lies: its declaration and `data_dir` in, hashes out.

The content of a source is the sha256 over the names and bytes of the images and the table that are
used. Unpacking, packing, moving or touching leaves it as it is; one other byte, name, image or
label changes it.

Only the standard library is imported: a Snakefile asks for contents whenever it is parsed.
"""

from __future__ import annotations

import csv
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchbook.data import layout
from scratchbook.data.files import (
    IMAGE_SUFFIXES,
    READ_ERRORS,
    counted,
    listed,
    open_files,
)
from scratchbook.data.location import Located, all_there, locate
from scratchbook.data.numbers import KINDS
from scratchbook.errors import ScratchbookError
from scratchbook.keys import digits_of
from scratchbook.results.files import sha256_file, write_text

if TYPE_CHECKING:
    from scratchbook.config.datasets import Dataset, Source

_RACY_NS = 2_000_000_000  # the coarsest clock of a file system that is in use: FAT's
_SHA256 = re.compile(r"[0-9a-f]{64}")

# What of a declaration decides pixels, labels, groups, folds and splits, each field with the value
# that it had when it was introduced: at that value it is left out of the hash, so that a field that
# comes later changes no identity. This list only grows.
_ALWAYS = object()  # it has no default
DECIDING: dict[str, dict[str, object]] = {
    "dataset": {"size": _ALWAYS, "sample": None},
    "resize": {"method": "bilinear", "fit": "stretch"},
    "split": {"validation": 0.1, "test": 0.2, "seed": 0},
    "class folders": {"splits": None},
    "csv": {"image": _ALWAYS, "label": _ALWAYS, "split": None, "class_names": None},
    "hdf5": {"images": "x", "labels": "y", "class_names": _ALWAYS},
    "keras": {"class_names": _ALWAYS},
    "bundled": {"shape": _ALWAYS, "class_names": _ALWAYS},
}
# Where a source lies and what of it is used, which its content tells too, but only if it is there.
PLACES: dict[str, tuple[str, ...]] = {
    "class folders": ("path", "splits"),
    "csv": ("path", "labels"),
    "hdf5": ("splits",),
    "keras": ("name",),
    "bundled": ("package", "file"),
}


@dataclass(frozen=True)
class Content:
    """What a data set consists of, and which source it is that of."""

    index: int  # of the source in `sources`
    sha256: str
    there: bool  # False: it was seen before, and its source is gone


def data_identity(dataset: Dataset, content: Content, limit: int | None = None) -> str:
    """12 hex digits that tell what is prepared of a content: the same for a folder and its zip.

    Neither titles, places and downloads count, nor sources that are not used, nor a field at the
    value that it had when it was introduced.
    """
    source = _declared(dataset.sources[content.index])
    parts: dict[str, object] = {**_declared_dataset(dataset), "source": source}
    if limit is not None:
        parts["limit"] = limit
    return digits_of({**parts, "content": content.sha256})


class Sources:
    """Contents of sources, and what was found out about them before.

    As git's index does it, a file is not read again whose size, times and inode are as they were.
    The memory travels with the results; where it cannot be read or written, it is as if it were
    empty.
    """

    def __init__(self, memory_file: Path) -> None:
        self._memory_file = memory_file
        self._memory = _read_memory(memory_file)
        self._new = _empty()
        self._gone: list[tuple[str, str]] = []  # (folder, name) of files that were removed

    def content(
        self,
        dataset: Dataset,
        data_dir: Path,
        is_prepared: Callable[[str], bool],
        limit: int | None = None,
    ) -> Content:
        """The content of a data set.

        It is that of the first source that is there, as long as that is no surprise. A source that
        appears before the one in use changes nothing while `is_prepared` says, of a
        `data_identity` (of that `limit`), that its prepared file is there. Where the one in use is
        gone, what was seen of it counts, whatever less preferred ones there are.

        Raises ScratchbookError where no source is there and none was seen, and where the one that
        counts cannot be read: the message names the file and what is wrong.
        """
        try:
            found = self._found(dataset, data_dir, is_prepared, limit)
        except ScratchbookError:
            raise
        except OSError as error:  # a folder that may not be entered, a file that vanishes meanwhile
            place = error.filename or dataset.title
            raise ScratchbookError(f"{place}: {error.strerror or error}") from error
        if found.there:
            self._see(dataset, found)
        return found

    def file_sha256(self, path: str | Path) -> str | None:
        """The sha256 of a file, or the last that was seen of it; None where there was none.

        Raises ScratchbookError where it cannot be read.
        """
        try:
            return self._file(os.fspath(path))
        except (FileNotFoundError, NotADirectoryError):
            _, _, sha256 = self._known("files", *os.path.split(path)).rpartition(" ")
            return sha256 if _SHA256.fullmatch(sha256) else None
        except OSError as error:
            raise ScratchbookError(f"{path}: {error.strerror or error}") from error

    def save(self) -> None:
        """Writes down what is new, beside what other processes have written down meanwhile."""
        if not any(self._new.values()) and not self._gone:
            return
        memory = _read_memory(self._memory_file)
        for folder, name in self._gone:
            memory["files"].get(folder, {}).pop(name, None)
        for part, places in self._new.items():
            for place, entries in places.items():
                known = memory[part].setdefault(place, {})
                for name, entry in entries.items():
                    later = part == "seen" and _turn(known.get(name, "")) > _turn(entry)
                    known[name] = known[name] if later else entry
        try:
            # With escapes, since a name need not be UTF-8.
            write_text(self._memory_file, json.dumps(memory, indent=1) + "\n", sync=False)
        except OSError:
            return
        self._memory = memory
        self._new, self._gone = _empty(), []

    # --- which content counts ---------------------------------------------------------------------

    def _found(
        self,
        dataset: Dataset,
        data_dir: Path,
        is_prepared: Callable[[str], bool],
        limit: int | None,
    ) -> Content:
        seen = self._last_seen(dataset)
        there = all_there(dataset, data_dir)
        if seen is None:
            return self._read(locate(dataset, data_dir))
        if not there:
            return seen
        first = there[0]
        if first.index == seen.index:
            return self._read(first)
        same = next((one for one in there if self._holds(one, seen.sha256)), None)
        if same is first:
            return self._read(first)
        if same is None and any(one.index == seen.index for one in there):
            return self._read(first)  # it was changed by hand: there is nothing to hold on to
        kept = self._read(same) if same else seen
        if first.index > seen.index or is_prepared(data_identity(dataset, seen, limit)):
            return kept
        return self._read(first)

    def _holds(self, found: Located, sha256: str) -> bool:
        try:
            return self._read(found).sha256 == sha256
        except (ScratchbookError, OSError):  # it is told of where it counts
            return False

    def _last_seen(self, dataset: Dataset) -> Content | None:
        entries = [self._known("seen", *_seen_key(dataset, source)) for source in dataset.sources]
        latest = max(entries, key=_turn)
        sha256 = latest.rpartition(" ")[2]
        if _turn(latest) and _SHA256.fullmatch(sha256):
            return Content(entries.index(latest), sha256, False)
        return None

    def _see(self, dataset: Dataset, content: Content) -> None:
        """Makes this content the latest of the data set's."""
        last = self._last_seen(dataset)
        if last and (last.index, last.sha256) == (content.index, content.sha256):
            return
        keys = [_seen_key(dataset, source) for source in dataset.sources]
        turn = 1 + max(_turn(self._known("seen", *key)) for key in keys)
        place, name = keys[content.index]
        self._new["seen"].setdefault(place, {})[name] = f"{turn} {content.sha256}"

    # --- what is read of a source -----------------------------------------------------------------

    def _read(self, found: Located) -> Content:
        source, paths = found.source, found.paths
        if source.kind == "keras":
            sha256 = layout.published_hash(source.name)
        elif source.kind in ("folder", "archive", "csv"):
            if paths["path"].is_dir():
                sha256 = self._of_files(source, paths["path"], self._file)
            else:
                sha256 = self._of_archive(source, paths["path"])
        else:
            sha256 = layout.content_hash(
                (role, self._file(os.fspath(path))) for role, path in paths.items()
            )
        return Content(found.index, sha256, True)

    def _of_archive(self, source: Any, path: Path) -> str:
        """Known by the archive as a whole; what is read of it hangs on the declaration too."""
        rules = [_declared(source), _place(source), sorted(IMAGE_SUFFIXES)]
        return self._remembered(
            "archives",
            (str(path), digits_of(rules)),
            path,
            lambda: self._of_files(source, path, None),
        )

    def _of_files(self, source: Any, path: Path, hash_file: Callable[[str], str] | None) -> str:
        unreadable = []
        parts = []
        with ExitStack() as stack:
            files = open_files(path, stack, hashing=True)
            if hash_file:
                self._forget_others(path, files.sizes)
            try:
                used = layout.used_files(source, files)
            except csv.Error as error:
                raise ScratchbookError(f"{path}: {error}") from error
            by_file = {image.stored: image for image in used.images}
            for stored in files.sizes:  # in the order of storage: quick to read
                if stored in by_file:
                    try:
                        sha256 = (
                            hash_file(f"{path}{os.sep}{stored}")
                            if hash_file
                            else files.digest(stored)
                        )
                        parts.append((by_file[stored].name, sha256))
                    except READ_ERRORS as error:
                        unreadable.append(f"{stored}: {error}")
        if unreadable:
            raise ScratchbookError(
                f"{path}: cannot read {counted(len(unreadable), 'image')}:\n"
                f"{listed(unreadable)}\nReplace or remove them."
            )
        return layout.content_hash([*parts, *used.tables])

    # --- the memory -------------------------------------------------------------------------------

    def _file(self, path: str) -> str:
        """The sha256 of a file's bytes."""
        return self._remembered("files", os.path.split(path), path, lambda: sha256_file(Path(path)))

    def _remembered(
        self, part: str, key: tuple[str, str], path: str | Path, hash_it: Callable[[], str]
    ) -> str:
        began = time.time_ns()
        status = os.stat(path)  # noqa: PTH116
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        known, _, sha256 = self._known(part, *key).rpartition(" ")
        if known == stamp and _SHA256.fullmatch(sha256):
            return sha256
        sha256 = hash_it()
        # What was changed just now may be changed once more within one tick of the clock, and look
        # the same: it is read again next time. (Git calls such an entry racily clean.)
        if max(status.st_mtime_ns, status.st_ctime_ns) >= began - _RACY_NS:
            stamp = "changing"
        self._new[part].setdefault(key[0], {})[key[1]] = f"{stamp} {sha256}"
        return sha256

    def _known(self, part: str, place: str, name: str) -> str:
        new = self._new[part].get(place, {}).get(name)
        return new or self._memory[part].get(place, {}).get(name, "")

    def _forget_others(self, folder: Path, names: Iterable[str]) -> None:
        """Of the files of a folder all but these, which are there."""
        there = {f"{folder}{os.sep}{name}" for name in names}
        inside = f"{folder}{os.sep}"
        for place, entries in self._memory["files"].items():
            if f"{place}{os.sep}".startswith(inside):
                gone = [name for name in entries if f"{place}{os.sep}{name}" not in there]
                self._gone += [(place, name) for name in gone]


def _empty() -> dict[str, dict[str, dict[str, str]]]:
    return {
        "files": {},  # of each folder, by name: size, times, inode and sha256
        "archives": {},  # the same of each archive, by what is read of it, with its content
        "seen": {},  # of each data set, by source: when it was in use, counted on, and its content
    }


def _read_memory(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        memory = json.loads(file.read_bytes())
        whole = all(
            isinstance(entry, str)
            for part in _empty()
            for entries in memory[part].values()
            for entry in entries.values()
        )
        return {part: memory[part] for part in _empty()} if whole else _empty()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _empty()


def _turn(seen: str) -> int:
    turn = seen.partition(" ")[0]
    return int(turn) if turn.isascii() and turn.isdigit() else 0


def _seen_key(dataset: Dataset, source: Source) -> tuple[str, str]:
    """A declaration, but for words: a source that is added later leaves those of the others."""
    return digits_of(_declared_dataset(dataset)), digits_of([_declared(source), _place(source)])


# --- what is declared -----------------------------------------------------------------------------


def _declared_dataset(dataset: Dataset) -> dict[str, object]:
    return {
        "dataset": _deciding("dataset", dataset),
        "resize": _deciding("resize", dataset.resize),
        "split": _deciding("split", dataset.split),
    }


def _declared(source: Source) -> dict[str, object]:
    kind = KINDS.get(source.kind, source.kind)
    return {"kind": kind, **_deciding(kind, source)}


def _deciding(part: str, declared: object) -> dict[str, object]:
    """The fields that decide, of those that are not as they were when they were introduced."""
    fields = {name: getattr(declared, name) for name in DECIDING[part]}
    if part == "class folders" and fields["splits"]:
        fields["splits"] = sorted(fields["splits"])  # their folders' names decide nothing
    return {
        # As pairs, since the order of `class_names` is that of the classes.
        name: list(value.items()) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value != DECIDING[part][name]
    }


def _place(source: Any) -> dict[str, object]:
    kind = KINDS.get(source.kind, source.kind)
    place = {name: getattr(source, name) for name in PLACES[kind]}
    if kind == "hdf5":
        place["splits"] = {split: [of.images, of.labels] for split, of in source.splits.items()}
    return place

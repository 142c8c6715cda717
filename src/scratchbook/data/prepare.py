"""Prepare a data set once for all runs: its declaration and `data_dir` in, one HDF5 file out."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from scratchbook.config.datasets import Dataset
from scratchbook.data import division
from scratchbook.data.files import READ_ERRORS, counted, listed
from scratchbook.data.image import RESIZED, to_rgb
from scratchbook.data.location import locate
from scratchbook.data.numbers import preparing_number
from scratchbook.data.source import Source, open_source
from scratchbook.errors import ScratchbookError
from scratchbook.results.prepared import hash_arrays
from scratchbook.results.records import SPLITS

_BLOCK_BYTES = 4 << 20  # of encoded or of prepared images, whichever is reached first
_BLOCK_IMAGES = 64
_Raw = list[tuple[int, bytes | np.ndarray | Exception]]  # rows of the source, and what was read


def prepare(
    name: str,
    dataset: Dataset,
    data_dir: Path,
    output: Path,
    say: Callable[[str], None] = print,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    content: str | None = None,
    index: int | None = None,
) -> None:
    """Decode a data set into one HDF5 file that all runs read.

    `limit` keeps only about that many images, of every class and split (to try things out);
    `on_progress` takes (images done, images in all); `content` is the sha256 that the source must
    have (see `scratchbook.data.content`), and `index` its place in `sources`, if not the first that
    is there.
    The same content and declaration give the same arrays, whatever holds the images and in which
    order. The file appears whole or not at all, and memory stays below about 0.5 GB however large
    the source is.

    Raises ScratchbookError where the source is missing, cannot be used as it is or has another
    content, or where the disk is full; the message names the file, and what would do.
    """
    began = time.monotonic()
    found = locate(dataset, data_dir, index)
    number = preparing_number(dataset, found.index, limit)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")  # of one name: a killed run's is overwritten
    try:
        with open_source(found) as source:
            try:
                rows = _chosen(source, dataset, limit)
                counts = _write(
                    part, name, dataset, source, rows, say, on_progress, content, number
                )
            except ScratchbookError as error:
                raise ScratchbookError(f"{name}, {source.text}: {error}") from error
        part.replace(output)
    except OSError as error:
        raise _disk_error(output, error) from error
    finally:
        part.unlink(missing_ok=True)
    say(
        f"{', '.join(f'{count:,} {split}' for split, count in counts.items())} images of "
        f"{len(source.class_names)} classes prepared in {time.monotonic() - began:.1f} s"
    )


def _chosen(source: Source, dataset: Dataset, limit: int | None) -> np.ndarray:
    """Rows of the source to be prepared, rising: the sample, and of it what `limit` leaves."""
    division.check(source.labels, source.splits, source.class_names)
    rows = np.arange(len(source.labels))
    for count, what in ((dataset.sample, "sample"), (limit, "smoke test")):
        if count is not None and count < len(rows):
            splits = None if source.splits is None else source.splits[rows]
            of = len(rows)
            rows = rows[division.choose(source.labels[rows], splits, count, dataset.split.seed)]
            source.notes.append(f"{what}: {len(rows):,} of {of:,} images, drawn by class")
    return rows


def _write(
    part: Path,
    name: str,
    dataset: Dataset,
    source: Source,
    rows: np.ndarray,
    say: Callable[[str], None],
    on_progress: Callable[[int, int], None],
    content: str | None,
    preparing: int,
) -> dict[str, int]:
    """Write the whole prepared file and return the images of each split."""
    height, width = dataset.size
    shape = (len(rows), height, width, 3)
    needed, free = int(np.prod(shape)), shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed >> 20:,} MiB are needed and {free >> 20:,} are free")
    labels = source.labels[rows]
    given = None if source.splits is None else source.splits[rows]
    with h5py.File(part, "w") as file:
        images = file.create_dataset("images", shape, np.uint8)  # contiguous: can be memory-mapped
        decoded = _decode(source, rows, dataset, images, on_progress)
        sha256 = source.sha256(decoded.files)
        if content not in (None, sha256):
            raise ScratchbookError(
                f"its images or labels are not those that were ordered (content {sha256[:12]}, not "
                f"{str(content)[:12]}): they were changed meanwhile. Start the workflow again."
            )
        twins = division.first_twins(decoded.digests)
        split = division.divide(
            labels, given, twins, dataset.split.shares, dataset.split.seed, source.class_names
        )
        names = [_storable(source.names[row]) for row in rows]
        duplicates = [
            [names[a], SPLITS[split[a]], names[b], SPLITS[split[b]]]
            for a, b in division.twins_across(twins, split)
        ]
        if duplicates and dataset.duplicates == "refuse":
            pairs = [f"{a} ({in_a}) and {b} ({in_b})" for a, in_a, b, in_b in duplicates]
            raise ScratchbookError(
                f"identical images in different splits, {len(pairs):,} times:\n{listed(pairs)}\n"
                "Remove them, or set `duplicates: keep` to have them recorded."
            )
        notes = [
            *source.notes,
            *_conversion_notes(decoded.done, dataset),
            *_split_notes(given, dataset),
            *_duplicate_notes(labels, twins, duplicates),
        ]
        file["labels"] = labels.astype(np.int64)
        file["split"] = split
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
        file.attrs.update(
            dataset=name,
            source=source.text,
            sha256=sha256,
            preparing=preparing,
            class_names=json.dumps(source.class_names, ensure_ascii=False),
            notes=json.dumps(notes, ensure_ascii=False),
            duplicates=json.dumps(duplicates, ensure_ascii=False),
            arrays_sha256=hash_arrays(file),
        )
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    for note in notes:
        say(note)
    return {part_name: int(np.sum(split == code)) for code, part_name in enumerate(SPLITS)}


# --- decoding -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Images as they were read one after the other, and what was done to them."""

    rows: list[int]  # of the prepared file
    images: list[np.ndarray]  # uint8 [h, w, 3] each
    digests: list[bytes]  # of their pixels
    files: list[tuple[int, str]]  # row of the source, and sha256 of the bytes
    done: Counter[str]
    unreadable: list[str]


@dataclass(frozen=True)
class _Decoded:
    digests: list[bytes]  # of each image's pixels, in the order of the prepared file
    files: list[str]  # sha256 of the bytes of each image of the source
    done: Counter[str]


def _decode(
    source: Source,
    rows: np.ndarray,
    dataset: Dataset,
    images: h5py.Dataset,
    on_progress: Callable[[int, int], None],
) -> _Decoded:
    """Write the images of these rows to their places, and say what was read and done.

    What is read and what is hashed are the same bytes. Of a source of files all are read, also
    those that a sample leaves out: they belong to its content.
    """
    (height, width), resize = dataset.size, dataset.resize
    place = {row: i for i, row in enumerate(rows.tolist())}  # in the prepared file
    digests = [b""] * len(rows)
    files = [""] * len(source.names)
    all_done: Counter[str] = Counter()
    unreadable: list[str] = []

    def decode(block: _Raw) -> _Block:
        result = _Block([], [], [], [], Counter(), [])
        for row, raw in block:
            try:
                if isinstance(raw, Exception):
                    raise raw
                if isinstance(raw, bytes):
                    result.files.append((row, hashlib.sha256(raw).hexdigest()))
                if row not in place:
                    continue
                image, done = to_rgb(raw, (height, width), resize.method, resize.fit)
            except MemoryError:
                raise
            except Exception as error:  # decoders raise almost anything on damaged files
                file = source.stored[row] if source.stored else source.names[row]
                result.unreadable.append(f"{file}: {error}")
                continue
            result.rows.append(place[row])
            result.images.append(image)
            result.digests.append(hashlib.sha256(image.data).digest()[:16])
            result.done.update(done)
        return result

    workers = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    seen = 0
    with ThreadPoolExecutor(workers) as pool:
        # Reading stays in one thread and in order: neither a tar nor HDF5 likes anything else.
        order = list(source.stored or rows.tolist())
        blocks = _blocks(source, order, int(np.prod(images.shape[1:])))
        for block in _in_order(pool, decode, blocks, ahead=2 * workers):
            unreadable.extend(block.unreadable)
            all_done.update(block.done)
            for row, sha256 in block.files:
                files[row] = sha256
            for at, digest in zip(block.rows, block.digests, strict=True):
                digests[at] = digest
            if block.images and not unreadable:
                _scatter(block, images)
            seen += len(block.images) + len(block.unreadable)
            on_progress(min(seen, len(rows)), len(rows))
    if unreadable:
        raise ScratchbookError(
            f"cannot read {counted(len(unreadable), 'image')}:\n{listed(sorted(unreadable))}\n"
            "Replace or remove them."
        )
    return _Decoded(digests, files, all_done)


def _scatter(block: _Block, images: h5py.Dataset) -> None:
    """Write the images of a block to their rows, at once those that follow each other."""
    order = np.argsort(block.rows)
    rows = np.array(block.rows)[order]
    for run in np.split(np.arange(len(rows)), 1 + np.flatnonzero(np.diff(rows) != 1)):
        start = rows[run[0]]
        images[start : start + len(run)] = np.stack([block.images[order[i]] for i in run])


def _blocks(source: Source, rows: list[int], row_bytes: int) -> Iterator[_Raw]:
    """The rows and their raw images, a few at a time, so that few are in memory at once."""
    block: _Raw = []
    held = 0
    for row in rows:
        raw: bytes | np.ndarray | Exception
        try:
            raw = source.read(row)
        except READ_ERRORS as error:
            raw = error
        block.append((row, raw))
        held += max(row_bytes, len(raw) if isinstance(raw, bytes) else 0)
        if len(block) == _BLOCK_IMAGES or held >= _BLOCK_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Raw], _Block], items: Iterable[_Raw], ahead: int
) -> Iterator[_Block]:
    """`pool.map` that takes no more than `ahead` items before their turn."""
    waiting: deque[Future[_Block]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


# --- what is said of it ---------------------------------------------------------------------------


def _conversion_notes(done: Counter[str], dataset: Dataset) -> list[str]:
    height, width = dataset.size
    how = f"{RESIZED} to {height} × {width} ({dataset.resize.method}, {dataset.resize.fit})"
    return [
        f"{counted(count, 'image')} {how if what == RESIZED else what}"
        for what, count in sorted(done.items())
    ]


def _split_notes(given: np.ndarray | None, dataset: Dataset) -> list[str]:
    carved = division.missing_splits(given)
    if not carved:
        return ["splits: the source's own"]
    shares = " and ".join(f"{part} {dataset.split.shares[part]:.0%}" for part in carved)
    of = "all images" if given is None else "the source's train images"
    return [f"splits: {shares} of {of}, drawn by class, seed {dataset.split.seed}"]


def _duplicate_notes(
    labels: np.ndarray, twins: np.ndarray, duplicates: list[list[str]]
) -> list[str]:
    notes = []
    repeated = int(np.sum(twins != np.arange(len(twins))))
    if repeated:
        notes.append(f"{counted(repeated, 'image')} with the same pixels as an earlier one")
    contradictory = int(np.sum(labels != labels[twins]))
    if contradictory:
        notes.append(f"{contradictory:,} of them with another label than that earlier one")
    if duplicates:
        a, in_a, b, in_b = duplicates[0]
        notes.append(
            f"warning: {counted(len(duplicates), 'image')} with a twin in another split, "
            f"e.g. {a} ({in_a}) = {b} ({in_b})"
        )
    return notes


def _storable(name: str) -> str:
    """A file name as UTF-8; bytes of it that are not become �."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _disk_error(output: Path, error: OSError) -> ScratchbookError:
    """What the system says of a file, in one readable message."""
    if error.filename and Path(error.filename).parent != output.parent:
        return ScratchbookError(f"{error.filename}: {error.strerror}")
    full = " Free some space and run it again." if error.errno == errno.ENOSPC else ""
    return ScratchbookError(f"{output}: could not be written: {error.strerror or error}.{full}")

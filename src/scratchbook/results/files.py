"""Files that are whole or absent, whenever a job is killed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object], sync: bool = True) -> None:
    """Calls `write` with a temporary path beside `path`, then puts the file in its place.

    Whoever looks sees the old file or the whole new one; with `sync` also after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")  # keeps the suffix
    try:
        write(partial)
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Writes text as UTF-8, atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"), sync)


def write_json(path: Path, values: Any) -> None:
    """Writes plain values as indented JSON, atomically. NaN is refused: it is no JSON."""
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def try_room(path: Path, size: int) -> None:
    """Takes `size` bytes beside `path` for a moment.

    HDF5 crashes the process, without a word, where a disk fills up while it closes a file.

    Raises:
        OSError: they are not free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-room")
    try:
        with partial.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                shutil.copyfileobj(io.BytesIO(bytes(size)), file)
    finally:
        partial.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_file(source: str | Path, target: str | Path) -> None:
    """The file under another name too; on a disk that knows no such names, a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

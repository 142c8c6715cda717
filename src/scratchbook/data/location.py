"""Find which source of a data set is there: its declaration and `data_dir` in, files or
fingerprint out.

Only the standard library is imported: a Snakefile asks for fingerprints whenever it is parsed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from scratchbook.errors import ScratchbookError

if TYPE_CHECKING:
    from scratchbook.config.datasets import Dataset, Source

_MIB = 1 << 20


@dataclass(frozen=True)
class Located:
    """The source that is used: its place in `sources`, itself, and its files by role."""

    index: int
    source: Source
    paths: dict[str, Path]


def fingerprint(dataset: Dataset, data_dir: Path) -> dict[str, object]:
    """A cheap JSON-able description of the source in use; another one means: prepare again.

    It knows nothing of times and places, so `touch`, a copy or another `data_dir` leave it as it
    is. A zip is known by its whole directory, which holds a checksum of every member; a folder by
    its files' paths and sizes; a CSV table by its content; any other file by its size and 32
    samples of it. (What is written into the prepared file is the sha256 of everything.)

    Raises ScratchbookError where none of the sources is there.
    """
    found = locate(dataset, data_dir)
    source = found.source
    marks: dict[str, object] = {
        role: _folder_mark(path) if path.is_dir() else _file_mark(path)
        for role, path in found.paths.items()
    }
    for role, table in source.tables(found.paths).items():
        marks[role] = hashlib.sha256(table.read_bytes()).hexdigest()
    return {"source": found.index, "kind": source.kind, "files": marks}


def locate(dataset: Dataset, data_dir: Path) -> Located:
    """The first source whose files are all there.

    Raises ScratchbookError with a line for each source that was tried, where none is.
    """
    tried = []
    for index, source in enumerate(dataset.sources):
        paths = source.paths(data_dir.expanduser())
        wrong = [reason for path in paths.values() if (reason := _wrong(source, path))]
        if not wrong:
            return Located(index, source, paths)
        hint = f" (get it: {source.download})" if source.download else ""
        tried.append(f"  {source.kind}: {'; '.join(wrong)}{hint}")
    raise ScratchbookError(
        f"{dataset.title}: none of its sources is there.\n"
        + "\n".join(tried)
        + "\nPut the data there, or say where they are: --config data_dir=/path/to/data"
    )


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file and folder below a folder, sorted, links followed but no folder entered twice."""
    entered: set[tuple[int, int]] = set()

    def below(path: str) -> Iterator[os.DirEntry[str]]:
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
        for entry in inside:
            yield entry
            if entry.is_dir():
                yield from below(entry.path)

    return below(str(folder))


def _folder_mark(folder: Path) -> str:
    """sha256 of the relative path and size of every file below a folder."""
    mark = hashlib.sha256()
    for entry in walk(folder):
        if entry.is_file():
            line = f"{os.path.relpath(entry.path, folder)}\0{entry.stat().st_size}\n"
            mark.update(line.encode("utf-8", "surrogateescape"))
    return mark.hexdigest()


def _file_mark(path: Path) -> dict[str, object]:
    """Size of a file and sha256 of its first and last MiB and what tells most about the rest."""
    size = path.stat().st_size
    mark = hashlib.sha256()
    with path.open("rb") as file:
        mark.update(file.read(_MIB))
        tail = max(_MIB, _zip_directory(file, size))
        if tail == _MIB:  # no large directory to go by: look into the middle too
            for part in range(1, 31):
                file.seek(part * size // 31)
                mark.update(file.read(1 << 14))
        file.seek(max(0, size - tail))
        mark.update(file.read())
    return {"size": size, "sha256": mark.hexdigest()}


def _zip_directory(file: BinaryIO, size: int) -> int:
    """Bytes from the start of a zip's central directory to its end; 0 for any other file.

    PKWARE's APPNOTE, 4.3.16: the end record holds the directory's size at byte 12, and may be
    followed by a comment of at most 64 KiB; zip64 puts 76 bytes more between the two.
    """
    file.seek(max(0, size - (1 << 16) - 22))
    end = file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        return 0
    directory: int = struct.unpack_from("<L", end, at + 12)[0]
    return min(size, directory + 76 + len(end) - at)


def _wrong(source: Source, path: Path) -> str | None:
    """Why a path is no use to a source; None where it is."""
    if not path.exists():
        return f"nothing at {path.absolute()}"
    found = "folder" if path.is_dir() else "file"
    if source.takes in (found, "either"):
        return None
    return f"{path.absolute()} is a {found}, not a {source.takes}{source.instead}"

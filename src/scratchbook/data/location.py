"""Find which source of a data set is there: spec and `data_dir` in, its files or fingerprint out.

Only the standard library is imported: a Snakefile asks for fingerprints whenever it is parsed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from scratchbook.errors import ScratchbookError

if TYPE_CHECKING:
    from scratchbook import specs

_MIB = 1 << 20


@dataclass(frozen=True)
class Located:
    """The source that is used: its place in `sources`, its spec, and its files by role."""

    index: int
    source: specs.Source
    paths: dict[str, Path]


def fingerprint(spec: specs.DatasetSpec, data_dir: Path) -> dict[str, object]:
    """A cheap JSON-able description of the source in use; another one means: prepare again.

    It knows nothing of times and places, so `touch`, a copy or another `data_dir` leave it as it
    is. A zip is known by its whole directory, which holds a checksum of every member; a folder by
    its files' paths and sizes; a CSV table by its content; any other file by its size and 32
    samples of it. (What is written into the prepared file is the sha256 of everything.)

    Raises ScratchbookError where none of the sources is there.
    """
    found = locate(spec, data_dir)
    kind = found.source["kind"]
    marks = {
        role: _folder_mark(path) if path.is_dir() else _file_mark(path)
        for role, path in found.paths.items()
    }
    marks |= KINDS[kind].marks(found.source, found.paths)
    return {"source": found.index, "kind": kind, "files": marks}


def locate(spec: specs.DatasetSpec, data_dir: Path) -> Located:
    """The first source whose files are all there.

    Raises ScratchbookError with a line for each source that was tried, where none is.
    """
    tried = []
    for index, source in enumerate(spec["sources"]):
        kind = KINDS[source["kind"]]
        paths = kind.paths(source, Path(data_dir).expanduser())
        wrong = [reason for path in paths.values() if (reason := kind.wrong(path))]
        if not wrong:
            return Located(index, source, paths)
        hint = f" (get it: {source['download']})" if source["download"] else ""
        tried.append(f"  {source['kind']}: {'; '.join(wrong)}{hint}")
    raise ScratchbookError(
        f"{spec['title']}: none of its sources is there.\n"
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


# --- the kinds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Where a kind of source has its files; `spec` is of the kind's own type."""

    paths: Callable[[Any, Path], dict[str, Path]]  # (spec, data_dir): by role
    must_be: Literal["file", "folder", "either"] = "file"
    instead: str = ""  # what to do with the other
    # (spec, paths): what marks it beside these
    marks: Callable[[Any, dict[str, Path]], dict[str, str]] = lambda spec, paths: {}

    def wrong(self, path: Path) -> str | None:
        """Why a path is no use to such a source; None where it is."""
        if not path.exists():
            return f"nothing at {path.absolute()}"
        found = "folder" if path.is_dir() else "file"
        if self.must_be in (found, "either"):
            return None
        return f"{path.absolute()} is a {found}, not a {self.must_be}{self.instead}"


def _one(
    spec: specs.FolderSource | specs.ArchiveSource | specs.CsvSource, data_dir: Path
) -> dict[str, Path]:
    return {"path": data_dir / spec["path"]}  # one that is absolute stays so


def _labels(spec: specs.CsvSource, paths: dict[str, Path]) -> dict[str, str]:
    table = paths["path"] / spec["labels"]  # there is none where `path` is an archive
    return {"labels": hashlib.sha256(table.read_bytes()).hexdigest()} if table.is_file() else {}


def _pairs(spec: specs.Hdf5Source, data_dir: Path) -> dict[str, Path]:
    paths = {}
    for split, pair in spec["splits"].items():
        paths[f"{split} images"] = data_dir / pair["images"]
        paths[f"{split} labels"] = data_dir / pair["labels"]
    return paths


def _in_package(spec: specs.BundledSource, _: Path) -> dict[str, Path]:
    package = importlib.util.find_spec(spec["package"])  # finds it without importing it
    places = package.submodule_search_locations if package else None
    return {"path": Path(next(iter(places or [spec["package"]]))) / spec["file"]}


KINDS = {
    "folder": Kind(_one, "folder", " (for a zip or tar use `kind: archive`)"),
    "archive": Kind(_one, "file", " (use `kind: folder`)"),
    "csv": Kind(_one, "either", marks=_labels),
    "hdf5": Kind(_pairs),
    "keras": Kind(lambda spec, data_dir: {}),
    "bundled": Kind(_in_package),
}

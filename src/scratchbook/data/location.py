"""Find which source of a data set is there: its declaration and `data_dir` in, files out.

Only the standard library is imported: a Snakefile asks for it whenever it is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scratchbook.errors import ScratchbookError

if TYPE_CHECKING:
    from scratchbook.config.datasets import Dataset, Source


@dataclass(frozen=True)
class Located:
    """The source that is used: its place in `sources`, itself, and its files by role."""

    index: int
    source: Source
    paths: dict[str, Path]


def locate(dataset: Dataset, data_dir: Path, index: int | None = None) -> Located:
    """The first source whose files are all there, or the one of this index.

    Raises ScratchbookError with a line for each source that was tried, where none is.
    """
    found = all_there(dataset, data_dir)
    wanted = [each for each in found if index is None or each.index == index]
    if wanted:
        return wanted[0]
    tried = []
    for number, source in enumerate(dataset.sources):
        if index is None or number == index:
            wrong = _all_wrong(source, source.paths(data_dir.expanduser()))
            hint = f" (get it: {source.download})" if source.download else ""
            tried.append(f"  {source.kind}: {'; '.join(wrong)}{hint}")
    what = "none of its sources is there" if index is None else "the source it needs is not there"
    raise ScratchbookError(
        f"{dataset.title}: {what}.\n"
        + "\n".join(tried)
        + "\nPut the data there, or say where they are: --config data_dir=/path/to/data"
    )


def all_there(dataset: Dataset, data_dir: Path) -> list[Located]:
    """Every source whose files are all there, best first."""
    found = []
    for index, source in enumerate(dataset.sources):
        paths = source.paths(data_dir.expanduser())
        if not _all_wrong(source, paths):
            found.append(Located(index, source, paths))
    return found


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


def _all_wrong(source: Source, paths: dict[str, Path]) -> list[str]:
    return [reason for path in paths.values() if (reason := _wrong(source, path))]


def _wrong(source: Source, path: Path) -> str | None:
    """Why a path is no use to a source; None where it is."""
    if not path.exists():
        return f"nothing at {path.absolute()}"
    found = "folder" if path.is_dir() else "file"
    if source.takes in (found, "either"):
        return None
    return f"{path.absolute()} is a {found}, not a {source.takes}{source.instead}"

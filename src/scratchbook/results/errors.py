"""What can be wrong with a file of results: the errors that every reader raises, and who may pass
them over."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from scratchbook.errors import ScratchbookError

from .paths import seed_of

P = ParamSpec("P")
T = TypeVar("T")
_ABSENT = {  # what it means that a file of a run is not there
    "run.json": "was not trained",
    "history.csv": "is not whole",
    "predictions.h5": "is not whole",
    "metrics.json": "was not evaluated",
    "checksums.json": "is not whole",
}

_TRAINED = ("run.json", "history.csv", "predictions.h5", "checksums.json")
_UNREADABLE = (  # what readers of JSON, CSV and HDF5 raise on what they did not expect
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, csv.Error,
)  # fmt: skip


class ResultError(ScratchbookError):
    """A file of results that cannot be used: which one, and `brief`, in a few words, what of it, to
    follow the name of a run."""

    def __init__(self, file: Path, brief: str, whole: str) -> None:
        folder = _run_folder(file) if file.name in _ABSENT else None
        who = f"{folder.parent.name} seed {seed_of(folder.name)}" if folder else file.stem
        super().__init__(f"{who} {whole}")
        self.file, self.brief = file, brief


class MissingError(ResultError):
    """It is not there."""

    def __init__(self, file: Path) -> None:
        what = _ABSENT[file.name] if _is_of_run(file) else "is missing"
        super().__init__(file, f"{what} (no {file.name})", f"{what}: there is no {file}")


class DamagedError(ResultError):
    """It is there, and holds something else than was written; or, with an `errno`, cannot be read
    though it may be sound."""

    def __init__(self, file: Path, why: object, errno: int | None = None) -> None:
        told = " ".join(str(why).split())
        trained = _is_of_run(file) and file.name in _TRAINED
        cure = (
            "put back what was written, or have the run trained again by `scratchbook retrain`"
            if trained
            else "remove it, and it is made again"
        )
        self.why = told if errno else f"{told}; {cure}"
        brief = f"has an unreadable {file.name} ({told})"
        super().__init__(file, brief, f"has an unreadable {file}: {self.why}")


class LeftOutError(ResultError):
    """It was left out for a reason that it names."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(file, f"has no Grad-CAM: {why}", f"has no Grad-CAM: {why}")
        self.why = why


class DivergedError(ScratchbookError):
    """A net answers with NaN or infinity: its figures do not exist, which is a result too."""


def readable(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What a reader reads; None where the file is missing or damaged."""
    try:
        return read(*args, **kwargs)
    except ResultError:
        return None


@contextmanager
def usable(file: Path) -> Iterator[None]:
    """Whatever a reader of this file runs into, as one of the two errors."""
    try:
        yield
    except ScratchbookError:
        raise
    except FileNotFoundError:
        raise MissingError(file) from None
    except OSError as error:
        raise DamagedError(file, error.strerror or error, error.errno) from None
    except KeyError as error:
        raise DamagedError(file, error.args[0] if error.args else error) from None
    except _UNREADABLE as error:
        raise DamagedError(file, error) from None


def _is_of_run(file: Path) -> bool:
    return file.name in _ABSENT and _run_folder(file) is not None


def _run_folder(file: Path) -> Path | None:
    """The folder of the run that a file is of: its own, or the one above `derived`."""
    folder = file.parent.parent if file.parent.name == "derived" else file.parent
    return folder if seed_of(folder.name) is not None else None

"""Read what is under results/: a file in, its typed record out, or one error that says what is
wrong with it.

A reader raises `MissingError` or `DamagedError`; who can do without calls it through `readable`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np

from .errors import DivergedError, usable
from .paths import RunFiles
from .records import SPLITS, CamMaps, Epoch, History, Metrics, RunRecord, SplitPredictions

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
LOG_LINES = 3
_WORDS = {"experiment", "id", "parent", "changes", "group", "point", "status", "interval_covers",
          "recorded_metric", "precision", "first", "second", "split", "covers", "better",
          "verdict"}  # fmt: skip


def read_record(run: RunFiles) -> RunRecord:
    """run.json."""
    return _read_json(run.record, RunRecord)


def read_metrics(run: RunFiles) -> Metrics:
    """metrics.json."""
    return _read_json(run.metrics, Metrics)


def read_epochs(run: RunFiles) -> list[Epoch]:
    """The rows of history.csv, one at least; a cell that is empty or no number is NaN."""
    with usable(run.history), run.history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
        missing = [name for name in Epoch.__annotations__ if not rows or name not in rows[0]]
        if missing:
            raise ValueError(f"no column or row of {', '.join(missing)}")
        return [{name: _number(row[name]) for name in row} for row in rows]  # type: ignore[misc]


def read_history(run: RunFiles) -> History:
    """The columns of history.csv."""
    import numpy as np

    rows: list[Any] = list(read_epochs(run))
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]})


class Predictions:
    """An open predictions.h5: what a run's net says of every split, at its best epoch and its last
    (`best`, `last`)."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file
        self.class_names = [str(name) for name in json.loads(file.attrs["class_names"])]
        self.validation = str(file.attrs.get("validation", "validation"))

    def epoch(self, when: str) -> int:
        with usable(self._path):
            return int(self._group(when).attrs["epoch"])

    def splits(self, when: str) -> list[str]:
        """Those that there are, in the order of SPLITS."""
        with usable(self._path):
            return [split for split in SPLITS if split in self._group(when)]

    def read(self, when: str, split: str) -> SplitPredictions:
        """One split, checked.

        Raises:
            DivergedError: its logits are not finite.
            DamagedError: it is missing, holds no image, or arrays that do not fit each other.
        """
        what, classes = f"{when}/{split}", len(self.class_names)
        with usable(self._path):
            if split not in (group := self._group(when)):
                raise ValueError(f"no {what}")
            logits = np.asarray(group[f"{split}/logits"], dtype=np.float64)  # (n, classes)
            labels = np.asarray(group[f"{split}/labels"], dtype=np.int64)  # (n,)
            index = np.asarray(group[f"{split}/index"], dtype=np.int64)  # (n,)
            if len(labels) == 0:
                raise ValueError(f"{what} holds no image: a figure needs one image at least")
            if logits.shape != (len(labels), classes) or len(index) != len(labels):
                raise ValueError(
                    f"{what} does not fit together: logits {logits.shape}, labels {labels.shape}, "
                    f"index {index.shape}, {classes} class names"
                )
            unusable = ~np.isfinite(logits).all(axis=1)
            if unusable.any():
                raise DivergedError(
                    f"{what}: the logits of {unusable.sum()} of {len(labels)} images are NaN or "
                    f"infinite (first: image {index[unusable][0]}); the run diverged, try a lower "
                    "learning rate"
                )
            if labels.min() < 0 or labels.max() >= classes:
                wrong = labels.min() if labels.min() < 0 else labels.max()
                raise ValueError(f"{what}: label {wrong} has no class name, {classes} are named")
            return SplitPredictions(logits, labels, index)

    def arrays(self) -> dict[str, np.ndarray]:
        """{`best/test/logits`: its values} of all there is."""
        found: dict[str, np.ndarray] = {}

        def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = np.asarray(item[()])

        with usable(self._path):
            self._file.visititems(collect)
        return found

    def _group(self, when: str) -> h5py.Group:
        if when not in self._file:
            raise ValueError(f"no group {when!r}, found {sorted(self._file)}")
        return self._file[when]


@contextmanager
def open_predictions(file: Path) -> Iterator[Predictions]:
    """A run's predictions.h5, for as long as the `with` block lasts."""
    with ExitStack() as stack:
        with usable(file):
            predictions = Predictions(file, stack.enter_context(h5py.File(file, "r")))
        yield predictions


def read_cam(run: RunFiles) -> CamMaps:
    """cam.h5."""
    with usable(run.cam), h5py.File(run.cam, "r") as file:
        told = {name: _text(value) for name, value in file.attrs.items()}
        return CamMaps(
            maps=file["maps"][()],
            epochs=file["epochs"][()],
            images=file["images"][()],
            labels=file["labels"][()],
            probability=file["probability"][()],
            names=[str(name) for name in file["names"].asstr()[()]],
            random_head=file["random_head"][()] if "random_head" in file else None,
            layer=told["layer"],
            method=told["method"],  # type: ignore[arg-type] # as it was declared
            target=told["target"],  # type: ignore[arg-type]
            grid=tuple(json.loads(told["grid"])),
            input_size=tuple(json.loads(told["input_size"])),
            class_names=json.loads(told["class_names"]),
            flags=json.loads(told["flags"]),
        )


def read_drift(run: RunFiles) -> pd.DataFrame:
    """drift.csv, a row an epoch."""
    import pandas as pd

    with usable(run.drift):
        table = pd.read_csv(run.drift)
        if "epoch" not in table or not len(table):
            raise ValueError("no epoch")
        return table


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """compare.csv or comparisons.csv with just these columns; a text that is missing is empty."""
    import pandas as pd

    words = {name: str for name in columns if name in _WORDS or name.endswith("_values")}
    # An experiment may be called `nan`: only a number can be missing.
    numbers = {name: ["", "nan"] for name in columns if name not in words}
    with usable(file):
        table = pd.read_csv(file, dtype=words, keep_default_na=False, na_values=numbers)
        table = table.reindex(columns=list(columns))
        return table.assign(**{name: table[name].fillna("") for name in words})


def end_of_log(log: Path) -> str:
    """The last lines that a job said; nothing where there is no log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join([line.strip() for line in lines if line.strip()][-LOG_LINES:])


def _read_json(file: Path, kind: Callable[..., T]) -> T:
    with usable(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        mistake = _mistake(kind, found)
        if mistake:
            raise ValueError(mistake)
        return found  # type: ignore[no-any-return] # checked just now


def _mistake(kind: Any, found: Any) -> str:
    """Where a value is not of a TypedDict's form, and why; nothing where it is."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return ""


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

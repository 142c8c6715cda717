"""Read the texts under results/: a file in, its typed record out; and write history.csv. NumPy and
pandas are imported where they are needed, since `scratchbook status` is not to wait for them.

A reader raises `MissingError` or `DamagedError`; who can do without calls it through `readable`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import usable
from .files import write_atomically
from .paths import RunFiles
from .records import Epoch, History, Metrics, RunRecord, RunRow

if TYPE_CHECKING:
    import pandas as pd

LOG_LINES = 3
_WORDS = {"experiment", "id", "parent", "changes", "group", "point", "status", "interval_covers",
          "recorded_metric", "precision", "first", "second", "split", "covers", "better",
          "verdict"}  # fmt: skip


def read_record(run: RunFiles) -> RunRecord:
    """run.json."""
    return read_json(run.record, RunRecord)


def read_runs(file: Path) -> list[RunRow]:
    """runs.csv: which run is whose."""
    with usable(file), file.open(encoding="utf-8", newline="") as opened:
        return [
            RunRow(experiment=row["experiment"], seed=int(row["seed"]), run=row["run"],
                   fold=row["fold"])
            for row in csv.DictReader(opened)
        ]  # fmt: skip


def read_metrics(run: RunFiles) -> Metrics:
    """metrics.json."""
    return read_json(run.metrics, Metrics)


def read_epochs(run: RunFiles) -> list[Epoch]:
    """The rows of history.csv, one at least; an empty cell is NaN."""
    with usable(run.history), run.history.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
        missing = [name for name in Epoch.__annotations__ if not rows or name not in rows[0]]
        if missing:
            raise ValueError(f"no column or row of {', '.join(missing)}")
        epochs = [{name: _number(row[name]) for name in row} for row in rows]
        if [row["epoch"] for row in epochs] != list(range(1, len(rows) + 1)):
            raise ValueError(f"its epochs are not 1 to {len(rows)}")
        return epochs  # type: ignore[return-value]


def read_history(run: RunFiles) -> History:
    """The columns of history.csv."""
    import numpy as np

    rows: list[Any] = list(read_epochs(run))
    return History({name: np.array([row[name] for row in rows]) for name in rows[0]})


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """history.csv."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(Epoch.__annotations__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    write_atomically(path, write)


def read_drift(file: Path) -> pd.DataFrame:
    """How a run's maps move, a row an epoch."""
    import pandas as pd

    with usable(file):
        table = pd.read_csv(file)
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


def read_json(file: Path, kind: Any) -> Any:
    """A JSON file that is of a TypedDict's form."""
    from pydantic import ValidationError

    with usable(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        try:
            _adapter(kind).validate_python(found, strict=True)
        except ValidationError as error:
            # A spec of another version is no damage: it differs from the one that is declared.
            mistakes = [one for one in error.errors() if one["loc"][:-1][:1] != ("spec",)]
            for first in mistakes[:1]:
                place = ".".join(map(str, first["loc"])) or "the whole"
                raise ValueError(f"{place}: {first['msg']}") from None
        return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _number(text: str | None) -> float:
    return float(text) if text else math.nan

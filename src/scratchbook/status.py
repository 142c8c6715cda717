"""How far each run is: the files of results/ in, rows and their table out; no run is disturbed."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from scratchbook.specs import declared_otherwise

State = Literal["waiting", "training", "failed", "stale", "done"]

HEADER = ("notebook", "experiment", "seed", "state", "epoch", "val accuracy", "images/s", "left")
FIRST_EPOCH_SECONDS = 900  # a log may be silent this long before its first epoch is told
QUIET_SECONDS = 120  # and this long later, or for some epochs where epochs take longer
QUIET_EPOCHS = 4

_EPOCH = re.compile(
    r"epoch (?P<epoch>\d+)/\d+  .*  val_accuracy (?P<val_accuracy>\S+)  "
    r"(?P<rate>[\d,]+) images/s  (?P<left>(?P<amount>[\d.]+) (?P<unit>s|min|h)) left"
)
_RESUMED = re.compile(r"going on after epoch (\d+)")
_ERROR = "error: "
_INTERRUPTED = "interrupted; "
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class RunStatus:
    """One row; None where there is nothing to say yet."""

    notebook: str
    experiment: str
    seed: int
    state: State
    epochs: int
    """How many there are to be at most."""
    epoch: int | None = None
    """The last one trained."""
    val_accuracy: float | None = None
    """Of the last epoch trained; of the best once the run is done."""
    images_per_second: float | None = None
    left: str = ""
    detail: str = ""
    """Why it failed or is stale, or which epoch was best."""


def run_statuses(results: Path, trials: Iterable[dict[str, Any]], now: float) -> list[RunStatus]:
    """The state of every run, in the order in which they are declared.

    Seeds that have left files count too: they may have been asked for on the command line.

    Args:
        results: the folder of results, or that of the smoke runs.
        trials: of each notebook its `name`, `seeds` and `experiments` (`name` and `spec`).
        now: seconds since the epoch, to tell how long a log has not moved.
    """
    return [
        _run_status(results, trial["name"], experiment["name"], seed, experiment["spec"], now)
        for trial in trials
        for experiment in trial["experiments"]
        for seed in sorted(
            {*trial["seeds"], *_seeds_found(results, trial["name"], experiment["name"])}
        )
    ]


def status_table(rows: list[RunStatus]) -> str:
    """The rows as aligned text, and below them how many runs are in which state."""
    cells = [HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    details = ["", *(row.detail for row in rows)]
    lines = []
    for line, detail in zip(cells, details, strict=True):
        aligned = [
            cell.rjust(width) if name in HEADER[4:] else cell.ljust(width)
            for name, cell, width in zip(HEADER, line, widths, strict=True)
        ]
        lines.append("  ".join([*aligned, detail]).rstrip())
    counts = Counter(row.state for row in rows)
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return "\n".join([*lines, f"{len(rows)} run{'s' * (len(rows) != 1)}: {told or 'none'}"])


def _seeds_found(results: Path, notebook: str, experiment: str) -> set[int]:
    folders = (results / part / notebook / experiment for part in (".", "logs", "state"))
    names = (found.name.removeprefix("seed") for path in folders for found in path.glob("seed*"))
    return {int(name) for name in names if name.isdecimal()}


def _run_status(
    results: Path, notebook: str, experiment: str, seed: int, spec: dict[str, Any], now: float
) -> RunStatus:
    name = Path(notebook, experiment, f"seed{seed}")
    waiting = RunStatus(notebook, experiment, seed, "waiting", spec["epochs"])
    unfinished = (results / "state" / name).is_dir()
    if not unfinished and (results / name / "run.json").is_file():
        return _finished(waiting, results / name, spec)
    log = results / "logs" / name / "train.log"
    try:
        lines, quiet = log.read_text("utf-8", "replace").splitlines(), now - log.stat().st_mtime
    except OSError:
        lines, quiet = None, 0.0
    if lines is None:  # a state without a log: of a job that is only starting, or long gone
        return waiting
    return _unfinished(waiting, lines, quiet, unfinished)


def _finished(row: RunStatus, folder: Path, spec: dict[str, Any]) -> RunStatus:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        row = replace(
            row,
            state="done",
            epoch=run["epochs"],
            images_per_second=run["images_per_second"],
            detail=f"best in epoch {run['best_epoch']}",
        )
        trained, best = run["spec"], run["best_epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return _damaged(row, folder / "run.json")
    row = replace(row, val_accuracy=_accuracy_of(folder / "history.csv", best))
    if row.val_accuracy is None:
        return _damaged(row, folder / "history.csv")
    if changed := declared_otherwise(spec, trained):
        return replace(row, state="stale", detail=f"declared otherwise now: {', '.join(changed)}")
    return row


def _damaged(row: RunStatus, file: Path) -> RunStatus:
    cure = "remove it, and Snakemake trains the run again"
    return replace(row, state="failed", detail=f"{file} cannot be read; {cure}")


def _accuracy_of(history: Path, epoch: int) -> float | None:
    try:
        with history.open(newline="", encoding="utf-8") as file:
            rows = {row["epoch"]: row["val_accuracy"] for row in csv.DictReader(file)}
        return float(rows[str(epoch)])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unfinished(row: RunStatus, lines: list[str], quiet: float, has_state: bool) -> RunStatus:
    """A run by what its log says; `quiet` seconds have passed since it last said something."""
    allowed: float = FIRST_EPOCH_SECONDS
    row = replace(row, state="training", epoch=0)
    for line in lines:
        if told := _EPOCH.match(line):
            row = replace(
                row,
                epoch=int(told["epoch"]),
                val_accuracy=float(told["val_accuracy"]),
                images_per_second=float(told["rate"].replace(",", "")),
                left=told["left"],
            )
            seconds = float(told["amount"]) * _SECONDS[told["unit"]]  # of the epochs to come
            each = seconds / max(row.epochs - int(told["epoch"]), 1)
            allowed = max(QUIET_SECONDS, QUIET_EPOCHS * each)
        elif resumed := _RESUMED.match(line):
            row = replace(row, epoch=int(resumed[1]))
        elif line.startswith(_ERROR):
            row = replace(row, state="failed", left="", detail=line.removeprefix(_ERROR))
        elif line.startswith(_INTERRUPTED):
            row = replace(row, state="stale", left="", detail=line)
    if row.state in ("failed", "stale"):
        return row
    if row.epoch and not has_state:  # the log is of results that were removed since
        return RunStatus(row.notebook, row.experiment, row.seed, "waiting", row.epochs)
    if quiet > allowed:
        silence = f"{quiet / 60:.0f} min" if quiet < 5400 else f"{quiet / 3600:.0f} h"
        return replace(row, state="stale", left="", detail=f"its log has not moved for {silence}")
    return row


def _cells(row: RunStatus) -> tuple[str, ...]:
    return (
        row.notebook,
        row.experiment,
        str(row.seed),
        row.state,
        "–" if row.epoch is None else f"{row.epoch}/{row.epochs}",
        "–" if row.val_accuracy is None else f"{row.val_accuracy:.3f}",
        "–" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
        row.left or "–",
    )

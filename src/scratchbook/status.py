"""How far each run is: the files of results/ in, rows and their table out; no run is disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from scratchbook.console import aligned, cell, duration
from scratchbook.plan import Plan
from scratchbook.provenance import mixtures
from scratchbook.results.errors import ResultError, readable
from scratchbook.results.paths import RunFiles
from scratchbook.results.progress import Progress, is_gone, read_progress
from scratchbook.results.reading import read_epochs, read_record

State = Literal["waiting", "training", "failed", "stale", "done", "diverged"]

HEADER = ("notebook", "experiment", "seed", "state", "epoch", "val accuracy", "images/s", "left")
FIRST_EPOCH_SECONDS = 900  # a job may tell nothing this long before its first epoch is over
QUIET_SECONDS = 120  # and this long later, or for some epochs where epochs take longer
QUIET_EPOCHS = 4


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


def run_statuses(plan: Plan, notebooks: Iterable[str], now: float) -> list[RunStatus]:
    """The state of every run, in the order in which they are declared.

    Args:
        plan: what is wanted and what is there.
        notebooks: whose runs.
        now: seconds since 1970, to tell how long a job has told nothing.
    """
    rows = []
    for notebook in notebooks:
        lacking = plan.lacks_data(notebook)
        for experiment in plan.project.notebooks[notebook].experiments:
            epochs = plan.spec(notebook, experiment)["epochs"]
            for seed in plan.seeds(notebook, experiment):
                row = RunStatus(notebook, experiment, seed, "waiting", epochs)
                if lacking:
                    rows.append(replace(row, detail="its data are not there"))
                else:
                    run = plan.run(notebook, experiment, seed)
                    rows.append(_run_status(plan, run, row, now))
    return rows


def mixed_answers(plan: Plan, notebooks: Iterable[str]) -> list[str]:
    """A line for each thing that a notebook's finished runs differ in and nobody asked for."""
    lines = []
    for notebook in notebooks:
        if plan.lacks_data(notebook):
            continue
        records = {
            f"{experiment} seed {seed}": record
            for experiment, runs in plan.runs(notebook).items()
            for seed, run in runs.items()
            if (record := readable(read_record, plan.results.run(run)))
        }
        lines += [f"{notebook}: mixed {text}" for text in mixtures(records)]
    return lines


def status_table(rows: list[RunStatus]) -> str:
    """The rows as aligned text, and below them how many runs are in which state."""
    lines = aligned([(*HEADER, ""), *map(_cells, rows)], "<<<<>>>><")
    counts = Counter(row.state for row in rows)
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return "\n".join([*lines, f"{len(rows)} run{'s' * (len(rows) != 1)}: {told or 'none'}"])


def _run_status(plan: Plan, run: str, row: RunStatus, now: float) -> RunStatus:
    results = plan.results
    try:
        kept = plan.store.kept(run)
    except ResultError as error:
        return replace(row, state="failed", detail=f"{error.file}: {error.brief}")
    again = results.request(run).exists()
    if kept and not again:
        return _finished(row, results.run(run))
    told = read_progress(results.progress(run))
    unfinished = results.state(run).is_dir()
    if told is None or told["stage"] != "training" or (again and not unfinished):
        return replace(row, detail="to be trained again") if again else row
    return _unfinished(row, told, now - told["updated"], unfinished)


def _finished(row: RunStatus, files: RunFiles) -> RunStatus:
    try:
        run = read_record(files)
        row = replace(row, epoch=run["epochs"], images_per_second=run["images_per_second"])
        if (epoch := run.get("diverged")) is not None:
            return replace(row, state="diverged", detail=f"in epoch {epoch}" if epoch else "")
        best = {row["epoch"]: row for row in read_epochs(files)}[run["best_epoch"]]
    except (ResultError, KeyError) as error:
        told = error.brief if isinstance(error, ResultError) else "has no best epoch"
        return replace(row, state="failed", detail=f"{files.folder} {told}")
    return replace(
        row,
        state="done",
        val_accuracy=best["val_accuracy"],
        detail=f"best in epoch {run['best_epoch']}",
    )


def _unfinished(row: RunStatus, told: Progress, quiet: float, has_state: bool) -> RunStatus:
    """A run by what its job told; `quiet` seconds have passed since."""
    trained = replace(
        row,
        state="training",
        epoch=told.get("epoch", 0),
        val_accuracy=told.get("figures", {}).get("val_accuracy"),
        images_per_second=told.get("images_per_second"),
    )
    if told["state"] == "failed":
        return replace(trained, state="failed", detail=" ".join(told.get("message", "").split()))
    if told["state"] == "interrupted":
        return replace(trained, state="stale", detail="interrupted; start Snakemake again to go on")
    if told["state"] == "done" or (trained.epoch and not has_state):
        return row  # its results were removed since
    if is_gone(told):
        return replace(trained, state="stale", detail="its process is gone")
    each = told.get("epoch_seconds")
    allowed = FIRST_EPOCH_SECONDS if each is None else max(QUIET_SECONDS, QUIET_EPOCHS * each)
    if quiet > allowed:
        silence = f"{quiet / 60:.0f} min" if quiet < 5400 else f"{quiet / 3600:.0f} h"
        return replace(trained, state="stale", detail=f"has told nothing for {silence}")
    left = told.get("seconds_left")
    return trained if left is None else replace(trained, left=duration(left))


def _cells(row: RunStatus) -> tuple[str, ...]:
    return (
        row.notebook,
        row.experiment,
        str(row.seed),
        row.state,
        "–" if row.epoch is None else f"{row.epoch}/{row.epochs}",
        cell(row.val_accuracy, ".3f"),
        cell(row.images_per_second, ",.0f"),
        row.left or "–",
        row.detail,
    )

"""Where everything under results/ lies: names in, paths out. Nothing is read here.

A run belongs to its settings, so it is called by its key and seed, `digits-3f9a0c61d2e8/seed0`; who
asked for it, which notebook and which experiment, is no part of its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import RunRecord

RESERVED = {
    "benchmarks", "data", "logs", "maps", "open", "partial", "progress", "runs", "smoke", "state",
}  # fmt: skip
"""Folders of results/ that are no notebook's."""


class _Inside:
    """A file or folder of this name in the folder that an object stands for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, place: _Folder, owner: type[_Folder]) -> Path:
        return place.folder / self.name


@dataclass(frozen=True)
class _Folder:
    folder: Path


class RunFiles(_Folder):
    """The files of one run. What training makes is never changed again; what is derived from it
    may be made anew at any time."""

    record = _Inside("run.json")
    history = _Inside("history.csv")
    predictions = _Inside("predictions.h5")
    checkpoints = _Inside("checkpoints")
    checksums = _Inside("checksums.json")  # of those before, which make a run whole
    derived = _Inside("derived")
    metrics = _Inside("derived/metrics.json")

    def cam(self, choices: str) -> Path:
        """The maps by what Grad-CAM was to look at, `scratchbook.keys.cam_key`."""
        return self.derived / f"cam-{choices}.h5"

    def weights(self, record: RunRecord) -> dict[int, Path]:
        """The files of the epochs whose weights were kept."""
        return {each["epoch"]: self.checkpoint(each["file"]) for each in record["checkpoints"]}

    def checkpoint(self, file: str) -> Path:
        return self.checkpoints / file

    @property
    def seed(self) -> int:
        seed = seed_of(self.folder.name)
        if seed is None:
            raise ValueError(f"{self.folder} is no run's")
        return seed

    @property
    def name(self) -> str:
        """`digits-3f9a0c61d2e8/seed1`."""
        return f"{self.folder.parent.name}/{self.folder.name}"


class StateFiles(_Folder):
    """What a killed training goes on from."""

    key = _Inside("key.json")  # what its numbers hang on
    lock = _Inside("lock")
    checkpoints = _Inside("checkpoints")

    def epoch(self, number: int) -> Path:
        """All that there was after an epoch."""
        return self.folder / f"epoch-{number:06d}.npz"

    def epochs(self) -> list[Path]:
        """Those that there are, newest first."""
        return sorted(self.folder.glob("epoch-*.npz"), reverse=True)

    def checkpoint(self, epoch: int) -> Path:
        return self.checkpoints / f"{epoch:06d}.weights.h5"

    def kept(self) -> dict[int, Path]:
        """The weights that there are, by epoch."""
        found = self.checkpoints.glob("*.weights.h5")
        return {int(file.name.partition(".")[0]): file for file in found}


class NotebookFiles(_Folder):
    """What is made of all runs of a notebook."""

    runs = _Inside("runs.csv")  # which run is whose
    compare = _Inside("compare.csv")
    comparisons = _Inside("comparisons.csv")
    compare_markdown = _Inside("compare.md")
    compare_latex = _Inside("compare.tex")
    page = _Inside("notebook.md")
    figures = _Inside("figures")

    def figure(self, name: str) -> Path:
        return self.figures / f"{name}.svg"

    def drift(self, experiment: str, seed: int | str) -> Path:
        """How a run's maps move, against those of the experiment's other seeds."""
        return self.folder / "drift" / experiment / f"seed{seed}.csv"


class Results(_Folder):
    """A folder of results: results/ itself, that of its smoke runs or of a partial page.

    A name may also be a wildcard of Snakemake's: `run("{run}")`.
    """

    report = _Inside("report.html")  # of smoke runs; that of real ones lies in the project's folder
    networks_checked = _Inside("networks-checked")  # which were built without a mistake before
    sources = _Inside("sources.json")  # what is known of the data's files
    store = _Inside("runs")  # the store: every run that was finished
    being_made = _Inside("open")
    layout = _Inside("runs/layout.json")  # by which the store is written
    states = _Inside("state")

    @property
    def partial(self) -> Results:
        """Where tables and figures of a page with missing runs go."""
        return Results(self.folder / "partial")

    def run(self, run: str) -> RunFiles:
        """A finished run in the store, `digits-3f9a0c61d2e8/seed0`; an earlier one by its own
        place, `digits-3f9a0c61d2e8/earlier/20261128T120000Z-seed0`."""
        return RunFiles(self.store / run)

    def trained(self, run: str) -> RunFiles:
        """A run that was trained and is not in the store yet; Snakemake may delete it."""
        return RunFiles(self.being_made / run)

    def order(self, run: str) -> Path:
        """All that a training is told."""
        return self.being_made / f"{run}.order.json"

    def request(self, run: str) -> Path:
        """Is there where a run that is finished is to be trained again."""
        return self.being_made / f"{run}.retrain"

    def notebook(self, name: str) -> NotebookFiles:
        return NotebookFiles(self.folder / name)

    def data(self, name: str) -> Path:
        """The prepared data, `digits-41c09be01f5a-p1`."""
        return self.folder / "data" / f"{name}.h5"

    def maps(self, choices: str) -> Path:
        """What Grad-CAM is to look at, for its jobs to read."""
        return self.folder / "maps" / f"{choices}.json"

    def state(self, run: str) -> Path:
        """The folder that a killed training goes on from; undeclared, since Snakemake deletes
        declared outputs before a job starts."""
        return self.states / run

    def progress(self, run: str) -> Path:
        """How far a run's job is; see `scratchbook.results.progress`."""
        return self.folder / "progress" / f"{run}.json"

    def log(self, *names: str) -> Path:
        """What a job said: `log("data", dataset)`, `log(run, "train")`, `log("report")`."""
        return self.folder / "logs" / f"{'/'.join(names)}.log"

    def benchmark(self, log: Path) -> Path:
        """Time and memory of the job with that log."""
        return (
            self.folder / "benchmarks" / log.relative_to(self.folder / "logs").with_suffix(".tsv")
        )


class Records(_Folder):
    """Small copies of runs' texts that are kept for good, by who asked for them."""

    def run(self, notebook: str, experiment: str, seed: int | str) -> RunFiles:
        return RunFiles(self.folder / notebook / experiment / f"seed{seed}")

    def runs(self, notebook: str = "*", experiment: str = "*") -> list[RunFiles]:
        """Those that there are, by experiment and seed."""
        folders = self.folder.glob(f"{notebook}/{experiment}/seed*")
        found = (RunFiles(folder) for folder in folders if seed_of(folder.name) is not None)
        return sorted(found, key=lambda run: (run.folder.parent, run.seed))

    def notebook(self, name: str) -> NotebookFiles:
        return NotebookFiles(self.folder / name)


def run_name(key: str, seed: int | str) -> str:
    """`digits-3f9a0c61d2e8/seed0`."""
    return f"{key}/seed{seed}"


def seed_of(name: str) -> int | None:
    """The seed of the run whose folder has this name, `seed0` or, of an earlier one,
    `20261128T120000Z-seed0`; None where it is no run's."""
    before, seed, digits = name.rpartition("seed")
    is_one = seed and digits.isdecimal() and (not before or before.endswith("-"))
    return int(digits) if is_one else None

"""Where everything under results/ lies: names in, paths out. Nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import RunRecord

RESERVED = {"data", "smoke", "logs", "benchmarks", "state", "progress", "partial"}
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
    """The files of one run. Training makes the first four, later stages the others."""

    record = _Inside("run.json")
    history = _Inside("history.csv")
    predictions = _Inside("predictions.h5")
    checkpoints = _Inside("checkpoints")
    metrics = _Inside("metrics.json")
    cam = _Inside("cam.h5")
    drift = _Inside("drift.csv")

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
        """`few/seed1`: how a message calls the run within its notebook."""
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

    compare = _Inside("compare.csv")
    comparisons = _Inside("comparisons.csv")
    compare_markdown = _Inside("compare.md")
    compare_latex = _Inside("compare.tex")
    page = _Inside("notebook.md")
    figures = _Inside("figures")

    def figure(self, name: str) -> Path:
        return self.figures / f"{name}.svg"


class Results(_Folder):
    """A folder of results: results/ itself, that of its smoke runs or of a partial page, records/.

    A name may also be a wildcard of Snakemake's: `run("{notebook}", "{experiment}", "{seed}")`.
    """

    report = _Inside("report.html")  # of smoke runs; that of real ones lies in the project's folder
    records = _Inside("records.tar.gz")  # in a bucket, a copy of Snakemake's
    networks_checked = _Inside("networks-checked")  # which were built without a mistake before

    @property
    def partial(self) -> Results:
        """Where tables and figures of a page with missing runs go."""
        return Results(self.folder / "partial")

    def run(self, notebook: str, experiment: str, seed: int | str) -> RunFiles:
        return RunFiles(self.folder / _place(notebook, experiment, seed))

    def runs(self, notebook: str = "*", experiment: str = "*") -> list[RunFiles]:
        """The runs that have left a folder, by experiment and seed."""
        folders = self.folder.glob(f"{notebook}/{experiment}/seed*")
        found = (RunFiles(folder) for folder in folders if seed_of(folder.name) is not None)
        return sorted(found, key=lambda run: (run.folder.parent, run.seed))

    def notebook(self, name: str) -> NotebookFiles:
        return NotebookFiles(self.folder / name)

    def data(self, dataset: str) -> Path:
        """The prepared data."""
        return self.folder / "data" / f"{dataset}.h5"

    def state(self, notebook: str, experiment: str, seed: int | str) -> Path:
        """The folder that a killed training goes on from; undeclared, since Snakemake deletes
        declared outputs before a job starts."""
        return self.folder / "state" / _place(notebook, experiment, seed)

    def progress(self, notebook: str, experiment: str, seed: int | str) -> Path:
        """How far a run's job is; see `scratchbook.results.progress`."""
        return self.folder / "progress" / f"{_place(notebook, experiment, seed)}.json"

    def log(self, *names: str) -> Path:
        """What a job said: `log("data", dataset)`, `log("report")`."""
        return self.folder / "logs" / f"{'/'.join(names)}.log"

    def run_log(self, job: str, notebook: str, experiment: str, seed: int | str) -> Path:
        """What a job of a run said; `job` is `train`, `evaluate`, `cam` or `drift`."""
        return self.log(_place(notebook, experiment, seed), job)

    def benchmark(self, log: Path) -> Path:
        """Time and memory of the job with that log."""
        return (
            self.folder / "benchmarks" / log.relative_to(self.folder / "logs").with_suffix(".tsv")
        )

    def begun(self, notebook: str) -> bool:
        """Whether a job of any of its runs has said something."""
        return (self.folder / "logs" / notebook).is_dir()

    def seeds_begun(self, notebook: str, experiment: str) -> set[int]:
        """Of the runs that have left anything: results, a log, a state, their progress."""
        places = (
            self.folder / part / notebook / experiment for part in ("", "logs", "state", "progress")
        )
        seeds = {seed_of(found.stem) for place in places for found in place.glob("seed*")}
        return {seed for seed in seeds if seed is not None}


def _place(notebook: str, experiment: str, seed: int | str) -> str:
    return f"{notebook}/{experiment}/seed{seed}"


def seed_of(name: str) -> int | None:
    """The seed of the run whose folder has this name; None where it is no run's."""
    digits = name.removeprefix("seed")
    return int(digits) if name.startswith("seed") and digits.isdecimal() else None

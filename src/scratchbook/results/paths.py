"""Where everything under results/ lies: names in, paths out. Nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import RunRecord

RESERVED = {"data", "smoke", "logs", "benchmarks", "state", "progress", "partial"}
"""Folders of results/ that are no notebook's."""


@dataclass(frozen=True)
class RunFiles:
    """The files of one run. Training writes the first four, later stages the others."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "run.json"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.h5"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def weights(self, record: RunRecord) -> dict[int, Path]:
        """The files of the epochs whose weights were kept."""
        return {each["epoch"]: self.checkpoints / each["file"] for each in record["checkpoints"]}

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def cam(self) -> Path:
        return self.folder / "cam.h5"

    @property
    def drift(self) -> Path:
        return self.folder / "drift.csv"

    @property
    def seed(self) -> int:
        return int(self.folder.name.removeprefix("seed"))

    @property
    def name(self) -> str:
        """`few/seed1`: how a message calls the run within its notebook."""
        return f"{self.folder.parent.name}/{self.folder.name}"


@dataclass(frozen=True)
class NotebookFiles:
    """What is made of all runs of a notebook."""

    folder: Path

    @property
    def compare(self) -> Path:
        return self.folder / "compare.csv"

    @property
    def comparisons(self) -> Path:
        return self.folder / "comparisons.csv"

    @property
    def compare_markdown(self) -> Path:
        return self.folder / "compare.md"

    @property
    def compare_latex(self) -> Path:
        return self.folder / "compare.tex"

    @property
    def page(self) -> Path:
        return self.folder / "notebook.md"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    def figure(self, name: str) -> Path:
        return self.figures / f"{name}.svg"


@dataclass(frozen=True)
class Results:
    """A folder of results: results/ itself, that of its smoke runs or of a partial page, records/.

    A name may also be a wildcard of Snakemake's: `run("{notebook}", "{experiment}", "{seed}")`.
    """

    root: Path

    def run(self, notebook: str, experiment: str, seed: int | str) -> RunFiles:
        return RunFiles(self.root / self._place(notebook, experiment, seed))

    def runs(self, notebook: str = "*", experiment: str = "*") -> list[RunFiles]:
        """The runs that have left a folder, by experiment and seed."""
        folders = self.root.glob(f"{notebook}/{experiment}/seed*")
        found = (RunFiles(folder) for folder in folders if folder.name[4:].isdecimal())
        return sorted(found, key=lambda run: (run.folder.parent, run.seed))

    @property
    def report(self) -> Path:
        """The page of smoke runs; that of real ones lies in the project's folder."""
        return self.root / "report.html"

    @property
    def records(self) -> Path:
        """In a bucket, a copy of Snakemake's records."""
        return self.root / "records.tar.gz"

    @property
    def networks_checked(self) -> Path:
        """Which networks were built without a mistake before."""
        return self.root / "networks-checked"

    @property
    def partial(self) -> Results:
        """Where tables and figures of a page with missing runs go."""
        return Results(self.root / "partial")

    def notebook(self, name: str) -> NotebookFiles:
        return NotebookFiles(self.root / name)

    def data(self, dataset: str) -> Path:
        """The prepared data."""
        return self.root / "data" / f"{dataset}.h5"

    def state(self, notebook: str, experiment: str, seed: int | str) -> Path:
        """The folder that a killed training goes on from; undeclared, since Snakemake deletes
        declared outputs before a job starts."""
        return self.root / "state" / self._place(notebook, experiment, seed)

    def progress(self, notebook: str, experiment: str, seed: int | str) -> Path:
        """How far a run's job is; see `scratchbook.results.progress`."""
        return self.root / "progress" / f"{self._place(notebook, experiment, seed)}.json"

    def log(self, *names: str) -> Path:
        """What a job said: `log("data", dataset)`, `log("report")`."""
        return self.root / "logs" / f"{'/'.join(names)}.log"

    def run_log(self, job: str, notebook: str, experiment: str, seed: int | str) -> Path:
        """What a job of a run said; `job` is `train`, `evaluate`, `cam` or `drift`."""
        return self.log(self._place(notebook, experiment, seed), job)

    def benchmark(self, log: Path) -> Path:
        """Time and memory of the job with that log."""
        return self.root / "benchmarks" / log.relative_to(self.root / "logs").with_suffix(".tsv")

    def begun(self, notebook: str) -> bool:
        """Whether a job of any of its runs has said something."""
        return (self.root / "logs" / notebook).is_dir()

    def seeds_begun(self, notebook: str, experiment: str) -> set[int]:
        """Of the runs that have left anything: results, a log, a state, their progress."""
        places = (
            self.root / part / notebook / experiment for part in (".", "logs", "state", "progress")
        )
        names = (found.name for place in places for found in place.glob("seed*"))
        numbers = (name.removeprefix("seed").removesuffix(".json") for name in names)
        return {int(number) for number in numbers if number.isdecimal()}

    @staticmethod
    def _place(notebook: str, experiment: str, seed: int | str) -> str:
        return f"{notebook}/{experiment}/seed{seed}"

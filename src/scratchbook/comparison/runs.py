"""Read what the runs of one experiment left behind: their figures, and their right answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scratchbook.errors import ScratchbookError
from scratchbook.figures import COMPARED, Measured
from scratchbook.results.errors import ResultError
from scratchbook.results.hdf5 import open_predictions
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_history, read_metrics, read_record
from scratchbook.specs import DeclaredExperiment, Spec, declared_otherwise


@dataclass
class Run:
    """One run that finished: its files, and what its figures are read from."""

    files: RunFiles
    measured: Measured

    @property
    def seed(self) -> int:
        return self.measured.record["seed"]


@dataclass
class Experiment:
    """An experiment of the page with the runs that finished, and why the others did not."""

    name: str
    declared: DeclaredExperiment
    runs: list[Run] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """`complete`, or what is missing in a few words."""
        if not self.trouble:
            return "complete"
        return ("incomplete: " if self.runs else "failed: ") + "; ".join(self.trouble)

    def miss(self, seed: int, error: ScratchbookError) -> None:
        """Notes why a seed's run is left out."""
        told = error.brief if isinstance(error, ResultError) else str(error)
        self.trouble.append(f"seed {seed} {told}")

    def values(self, figure: str) -> list[float]:
        """Each finished run's figure, in the order of the seeds; runs without it left out."""
        found = [COMPARED[figure].of(run.measured) for run in self.runs]
        return [value for value in found if value is not None]


def read_experiment(
    declared: DeclaredExperiment,
    seeds: list[int],
    results: Results,
    notebook: str,
    reach: float | None = None,
) -> Experiment:
    """Every seed of one experiment of a page."""
    experiment = Experiment(declared["name"], declared)
    for seed in seeds:
        try:
            files = results.run(notebook, declared["name"], seed)
            experiment.runs.append(read_run(files, declared["spec"], reach))
        except ScratchbookError as error:
            experiment.miss(seed, error)
    return experiment


def read_run(files: RunFiles, spec: Spec, reach: float | None = None) -> Run:
    """One run's figures, and what it took to reach a validation accuracy of `reach`.

    Raises:
        ScratchbookError: it is not trained or not evaluated, its files are damaged, it diverged, or
            it was not trained by `spec`, what its experiment declares now.
    """
    record, metrics = read_record(files), read_metrics(files)
    if "trouble" in metrics:
        raise ScratchbookError("; ".join(metrics["trouble"]))
    if changed := declared_otherwise(spec, record["spec"]):
        raise ScratchbookError(f"was trained before this was changed: {', '.join(changed)}")
    history = None if reach is None else read_history(files)
    return Run(files, Measured(record, metrics, history, reach))


@dataclass
class Images:
    """The images that all runs answered: who held them first, and which they are."""

    run: str
    split: str
    index: np.ndarray
    labels: np.ndarray


def read_answers(run: Run, split: str) -> tuple[np.ndarray, Images]:
    """Which images of `split` the run got right at its best epoch, bool (n,), by their index.

    Raises ScratchbookError where the predictions are missing or unusable.
    """
    with open_predictions(run.files.predictions) as said:
        found = said.read("best", split)
    order = found.index.argsort(kind="stable")
    right = (found.logits.argmax(axis=1) == found.labels)[order]  # (n,)
    return right, Images(run.files.name, split, found.index[order], found.labels[order])


def check_same(one: Images, other: Images) -> None:
    """Raise ScratchbookError, naming both runs, unless they answered the same images."""
    if one.split != other.split:
        trouble = f"one is measured on the {one.split} split, the other on {other.split}"
    elif len(one.index) != len(other.index):
        trouble = f"their {one.split} splits have {len(one.index)} and {len(other.index)} images"
    elif not (np.array_equal(one.index, other.index) and np.array_equal(one.labels, other.labels)):
        trouble = f"their {one.split} splits hold different images"
    else:
        return
    raise ScratchbookError(
        f"{one.run} and {other.run} cannot be compared: {trouble}; "
        "run both again on the same prepared data"
    )

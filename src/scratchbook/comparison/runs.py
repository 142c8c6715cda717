"""Read what the runs of one experiment left behind: their figures, and their right answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scratchbook.errors import ScratchbookError
from scratchbook.figures import COMPARED, Measured
from scratchbook.language import tr
from scratchbook.results.errors import DivergedError, ResultError
from scratchbook.results.hdf5 import open_predictions
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_history, read_metrics, read_record
from scratchbook.specs import DeclaredExperiment, Trial


@dataclass
class Run:
    """One run that finished: its files, and what its figures are read from."""

    name: str
    """`few/seed1`, within its notebook."""
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
    diverged: int = 0
    """How many of those runs did, and so are results like any."""
    same_as: str | None = None
    """An experiment before it whose runs these are, and which alone is compared."""

    @property
    def status(self) -> str:
        """`complete`, or what is missing or was left out in a few words."""
        left_out = [f"seed {seed} left out" for seed in self.declared["left_out"]]
        same = [f"the same run as {self.same_as}"] if self.same_as else []
        if not self.trouble:
            return "; ".join(["complete", *same, *left_out])
        told = "; ".join([*self.trouble, *same, *left_out])
        if self.runs:
            return f"incomplete: {told}"
        return f"{'diverged' if self.diverged == len(self.trouble) else 'failed'}: {told}"

    def miss(self, seed: int, error: ScratchbookError) -> None:
        """Notes why a seed's run is left out."""
        self.diverged += isinstance(error, DivergedError)
        told = error.brief if isinstance(error, ResultError) else str(error)
        self.trouble.append(f"seed {seed} {told}")

    def values(self, figure: str) -> list[float]:
        """Each finished run's figure, in the order of the seeds; runs without it left out."""
        found = [COMPARED[figure].of(run.measured) for run in self.runs]
        return [value for value in found if value is not None]


def same_runs(page: Trial) -> dict[str, str]:
    """Experiments that have the runs of another one, the baseline or else one before them, which
    alone is compared: {experiment: that one}."""
    baseline_first = sorted(page["experiments"], key=lambda one: one["name"] != page["baseline"])
    first: dict[str, str] = {}
    found = {}
    for experiment in baseline_first:
        for run in list(experiment["runs"].values())[:1]:
            same = first.setdefault(run.rsplit("/", 1)[0], experiment["name"])
            if same != experiment["name"]:
                found[experiment["name"]] = same
    return found


def read_experiment(
    declared: DeclaredExperiment, results: Results, reach: float | None = None
) -> Experiment:
    """Every seed of one experiment of a page."""
    experiment = Experiment(declared["name"], declared)
    for seed, place in declared["runs"].items():
        name = f"{declared['name']}/seed{seed}"
        try:
            experiment.runs.append(read_run(name, results.run(place), reach))
        except ScratchbookError as error:
            experiment.miss(seed, error)
    return experiment


def read_run(name: str, files: RunFiles, reach: float | None = None) -> Run:
    """One run's figures, and what it took to reach a validation accuracy of `reach`.

    Raises:
        ScratchbookError: it is not trained or not evaluated, its files are damaged, or (a
            `DivergedError`) it diverged.
    """
    record, metrics = read_record(files), read_metrics(files)
    if (epoch := record.get("diverged")) is not None:
        raise DivergedError(diverged(epoch))
    if "trouble" in metrics:
        raise ScratchbookError("; ".join(metrics["trouble"]))
    history = None if reach is None else read_history(files)
    return Run(name, files, Measured(record, metrics, history, reach))


def diverged(epoch: int) -> str:
    """What is said of a run that did, after its seed."""
    return tr("diverged in epoch {epoch}", epoch=epoch) if epoch else tr(
        "diverged, as the run that it starts from did"
    )  # fmt: skip


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
    return right, Images(run.name, split, found.index[order], found.labels[order])


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

"""List every experiment with its parameters and its accuracies, recorded and reproduced."""

from __future__ import annotations

import argparse
from statistics import fmean

from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import DamagedError, MissingError, readable
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_metrics, read_record
from scratchbook.specs import Spec, declared_otherwise

from .chosen import CONFIG, add_notebooks, chosen_project

HEADER = (
    "notebook",
    "experiment",
    "display id",
    "total",
    "trainable",
    "recorded",
    "recorded accuracy",
    "reproduced",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "all in config/notebooks")


def run(given: argparse.Namespace) -> None:
    project = chosen_project(given.notebooks)
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.models import survey_networks

    rows, wrong = [HEADER], []
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        networks, mistakes = survey_networks(specs, project.datasets[notebook.dataset].size)
        wrong += [f"{CONFIG / 'notebooks' / name}.yaml: {mistake}" for mistake in mistakes]
        for experiment, declared in notebook.experiments.items():
            network = networks.get(experiment)
            counts = network["parameters"] if network else None
            seeds = (project.results.run(name, experiment, seed) for seed in project.seeds(name))
            runs = [run for run in seeds if _is_of(specs[experiment], run)]
            rows.append(
                (
                    name,
                    experiment,
                    network["id"] if network else "–",
                    _count(counts and counts["total"]),
                    _count(counts and counts["trainable"]),
                    _count(declared.recorded.parameters),
                    _share(declared.recorded.val_accuracy),
                    _share(reproduced(runs, wrong)),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if position > 2 else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    if wrong:
        raise ScratchbookError("\n".join(wrong))


def reproduced(runs: list[RunFiles], wrong: list[str]) -> float | None:
    """The accuracy here on the split that the recorded one is of, the mean over the runs that have
    been evaluated; None before one has. Files that cannot be read are added to `wrong`."""
    measured = []
    for run in runs:
        try:
            metrics = read_metrics(run)
        except MissingError:
            continue
        except DamagedError as error:
            wrong.append(f"{error}; evaluate the run again")
            continue
        if split := metrics["splits"].get(metrics["validation"]):
            measured.append(split["accuracy"]["value"])
    return fmean(measured) if measured else None


def _is_of(spec: Spec, run: RunFiles) -> bool:
    """Whether nothing says that the run was trained by another spec than is declared now."""
    record = readable(read_record, run)
    return record is None or not declared_otherwise(spec, record["spec"])


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.4f}"

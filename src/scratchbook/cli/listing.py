"""List every experiment with its parameters and its accuracies, recorded and reproduced."""

from __future__ import annotations

import argparse
from statistics import fmean

from scratchbook.console import aligned, cell
from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import DamagedError, MissingError
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_metrics

from .chosen import CONFIG, add_notebooks, chosen_plan

HEADER = ("notebook", "experiment", "display id", "total", "trainable", "recorded",
          "recorded accuracy", "reproduced")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "all in config/notebooks")


def run(given: argparse.Namespace) -> None:
    plan = chosen_plan(given.notebooks)
    project = plan.project
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.models import survey_networks

    rows, wrong = [HEADER], []
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        networks, mistakes = survey_networks(specs, project.datasets[notebook.dataset].size)
        wrong += [f"{CONFIG / 'notebooks' / name}.yaml: {mistake}" for mistake in mistakes]
        for experiment, declared in notebook.experiments.items():
            network, recorded = networks.get(experiment), declared.recorded
            known = {} if plan.lacks_data(name) else plan.runs(name)[experiment]
            runs = [plan.results.run(run) for run in known.values()]
            rows.append((
                name, experiment, network["id"] if network else "–",
                cell(network and network["parameters"]["total"], ","),
                cell(network and network["parameters"]["trainable"], ","),
                cell(recorded.parameters, ","), cell(recorded.val_accuracy, ".4f"),
                cell(reproduced(runs, wrong), ".4f"),
            ))  # fmt: skip
    print("\n".join(aligned(rows, "<<<>>>>>")))
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
            wrong.append(str(error))
            continue
        if split := metrics["splits"].get(metrics["validation"]):
            measured.append(split["accuracy"]["value"])
    return fmean(measured) if measured else None

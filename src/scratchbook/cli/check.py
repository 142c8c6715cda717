"""Check config, data sets and notebooks, and build every network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial

from scratchbook.config.claims import settings_of, typed_numbers
from scratchbook.config.project import Project
from scratchbook.config.reading import line_of
from scratchbook.errors import ScratchbookError
from scratchbook.plan import twins

from .chosen import CONFIG, add_notebooks, chosen_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "all in config/notebooks")


def run(given: argparse.Namespace) -> None:
    project = chosen_project(given.notebooks)
    for remark in [*_unbound(project), *_twins(project)]:
        print(f"warning: {remark}", file=sys.stderr)
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.cam.maps import choose_layer
    from scratchbook.models import Built, survey_networks

    wrong: list[str] = []
    known: dict[tuple[object, ...], dict[str, Built]] = {}  # most notebooks share networks
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        cam = project.cam(name)
        suits = partial(choose_layer, name=cam["layer"]) if cam else None
        size = project.datasets[notebook.dataset].size
        built = known.setdefault((notebook.dataset, cam["layer"] if cam else False), {})
        networks, mistakes = survey_networks(specs, size, suits, built)
        file = CONFIG / "notebooks" / f"{name}.yaml"
        wrong += [f"{file}: {line}" for mistake in mistakes for line in mistake.split("\n")]
        if not mistakes:
            print(f"{name}: {len(networks)} experiments, every network builds")
    if wrong:
        raise ScratchbookError("\n".join(wrong))


def _unbound(project: Project) -> Iterator[str]:
    """A line for each key result with numbers that no run stands behind."""
    for name, notebook in project.notebooks.items():
        file = CONFIG / "notebooks" / f"{name}.yaml"
        settings = settings_of([project.spec(name, one) for one in notebook.experiments])
        for position, result in enumerate(notebook.key_results):
            if typed := typed_numbers(result.text, settings):
                line = line_of(file, ("key_results", position, "text"))
                yield (
                    f"{file}:{line}: key_results[{position}].text: {', '.join(typed)} bound to no "
                    "run; write {experiment.figure:.2f} for what a run measured"
                )


def _twins(project: Project) -> Iterator[str]:
    """A line for each experiment that is the same run as another one of its notebook."""
    for name in project.notebooks:
        file = CONFIG / "notebooks" / f"{name}.yaml"
        for experiment, first in twins(project, name).items():
            line = line_of(file, ("experiments", experiment))
            yield (
                f"{file}:{line}: experiments.{experiment}: is the same run as {first}, and counted "
                "once; change a setting, or leave one of them out"
            )

"""Check config, data sets and notebooks, and build every network."""

from __future__ import annotations

import argparse

from scratchbook.config.errors import ScratchbookError

from .chosen import CONFIG, add_notebooks, chosen_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "all in config/notebooks")


def run(given: argparse.Namespace) -> None:
    project = chosen_project(given.notebooks)
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.models import check_networks

    mistakes = []
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        try:
            networks = check_networks(specs, project.dataset(notebook.dataset)["size"])
        except ScratchbookError as error:
            mistakes += [f"{CONFIG / 'notebooks' / name}.yaml: {e}" for e in str(error).split("\n")]
            continue
        print(f"{name}: {len(networks)} experiments, every network builds")
    if mistakes:
        raise ScratchbookError("\n".join(mistakes))

"""Show how far each run is; reads only files, also while Snakemake runs."""

from __future__ import annotations

import argparse
import shutil
import time

from scratchbook.config.project import Project, load_project, notebook_names
from scratchbook.status import run_statuses, status_table

from .chosen import CONFIG, add_notebooks, add_smoke, chosen_project

WATCH_SECONDS = 2.0
CLEAR = "\033[H\033[J"  # the cursor to the top left, and nothing below it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "config.yaml's and all that were begun")
    add_smoke(parser)
    parser.add_argument("--watch", action="store_true", help="show it anew every 2 s until Ctrl-C")


def run(given: argparse.Namespace) -> None:
    declared = chosen_project(given.notebooks or list(load_project().notebooks), given.smoke)
    project = declared if given.notebooks else chosen_project(_begun(declared), given.smoke)
    trials = [project.trial(name) for name in project.notebooks]

    def table() -> str:
        return status_table(run_statuses(project.results, trials, time.time()))

    if not given.watch:
        print(table())
        return
    try:
        while True:
            width = shutil.get_terminal_size().columns
            lines = [line[:width] for line in table().splitlines()]
            print(CLEAR + "\n".join(lines), flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        print()


def _begun(project: Project) -> list[str]:
    """The notebooks that config.yaml chooses, and those that another command has begun."""
    return [
        name
        for name in notebook_names(CONFIG / "notebooks")
        if name in project.notebooks or project.results.begun(name)
    ]

"""Show how far each run is; reads only files, also while Snakemake runs."""

from __future__ import annotations

import argparse
import shutil
import time

from scratchbook.config.project import load_project, notebook_names
from scratchbook.plan import Plan
from scratchbook.status import mixed_answers, run_statuses, status_table

from .chosen import CONFIG, add_notebooks, add_smoke, chosen_plan

WATCH_SECONDS = 2.0
CLEAR = "\033[H\033[J"  # the cursor to the top left, and nothing below it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "config.yaml's and all that were begun")
    add_smoke(parser)
    parser.add_argument("--watch", action="store_true", help="show it anew every 2 s until Ctrl-C")


def run(given: argparse.Namespace) -> None:
    declared = chosen_plan(given.notebooks or list(load_project().notebooks), given.smoke)
    known = given.notebooks or _begun(declared)

    def table() -> str:
        plan = chosen_plan(known, given.smoke)  # what is there changes while it is looked at
        lines = status_table(run_statuses(plan, known, time.time())).splitlines()
        return "\n".join([*lines, *mixed_answers(plan, known)])

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


def _begun(plan: Plan) -> list[str]:
    """The notebooks that config.yaml chooses, and those whose pages were made before."""
    return [
        name
        for name in notebook_names(CONFIG / "notebooks")
        if name in plan.project.notebooks or plan.results.notebook(name).runs.exists()
    ]

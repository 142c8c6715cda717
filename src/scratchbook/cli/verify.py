"""Train a notebook's runs again, beside the results, and compare bit for bit."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from scratchbook.errors import ScratchbookError

from .chosen import add_smoke, check_experiment, chosen_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook")
    only = "only these; all otherwise"
    parser.add_argument("--experiments", type=_names, metavar="A,B", help=only)
    parser.add_argument("--seeds", type=_numbers, metavar="0,1", help=only)
    add_smoke(parser)


def run(given: argparse.Namespace) -> int:
    plan = chosen_plan([given.notebook], given.smoke)
    project = plan.project
    for name in given.experiments or ():
        check_experiment(project, given.notebook, name, "--experiments: ")
    from scratchbook.verification import verify_run

    wrong, pretrained = 0, Path(project.settings.data_dir)
    for experiment in given.experiments or project.notebooks[given.notebook].experiments:
        for seed in given.seeds or plan.seeds(given.notebook, experiment):
            run = plan.results.run(plan.run(given.notebook, experiment, seed))
            with tempfile.TemporaryDirectory(prefix="scratchbook-verify-") as scratch:
                try:
                    difference = verify_run(project.results, run, Path(scratch), pretrained)
                    verdict = f"differs first in {difference}" if difference else "identical"
                except ScratchbookError as error:
                    difference = verdict = f"not verified: {error}"
            wrong += bool(difference)
            print(f"{given.notebook}/{experiment}/seed{seed}: {verdict}", flush=True)
    return min(wrong, 1)


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]

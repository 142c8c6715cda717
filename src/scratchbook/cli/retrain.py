"""Have finished runs trained again by today's code; the old ones stay until the new are whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime

from scratchbook.errors import ScratchbookError
from scratchbook.plan import Plan
from scratchbook.results.errors import ResultError

from .chosen import add_smoke, check_experiment, chosen_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", help="also its data are prepared by today's code")
    parser.add_argument("experiment", nargs="?", help="only this one, on the data as they are")
    parser.add_argument("--seed", type=int, metavar="N", help="only this seed")
    parser.add_argument(
        "--undo", action="store_true",
        help="take that back, or put the run in its place again that was there before",
    )  # fmt: skip
    add_smoke(parser)


def run(given: argparse.Namespace) -> None:
    plan = chosen_plan([given.notebook], given.smoke)
    lines = [
        f"{experiment} seed {seed}: {told}"
        for experiment, seed, run in _chosen(plan, given)
        if (told := plan.store.undo(run) if given.undo else _asked(plan, run, given))
    ]
    if not lines:
        what = "nothing to take back" if given.undo else "no run of it is finished: `snakemake`"
        raise ScratchbookError(f"{given.notebook}: {what}")
    print("\n".join(lines))
    if not given.undo:
        print("Start snakemake to train them; the page shows the old runs until the new are whole.")
    elif plan.results.notebook(given.notebook).compare.exists():
        print("Start snakemake to render the page.")


def _chosen(plan: Plan, given: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Experiment, seed and place of each run that is meant."""
    runs = plan.runs(given.notebook)
    if given.experiment is not None:
        check_experiment(plan.project, given.notebook, given.experiment)
    seeds = {seed for of_experiment in runs.values() for seed in of_experiment}
    if given.seed is not None and given.seed not in seeds:
        raise ScratchbookError(
            f"--seed {given.seed}: {given.notebook} has seeds {', '.join(map(str, sorted(seeds)))}"
        )
    for experiment, of_experiment in runs.items():
        for seed, run in of_experiment.items():
            if given.experiment in (None, experiment) and given.seed in (None, seed):
                yield experiment, seed, run


def _asked(plan: Plan, run: str, given: argparse.Namespace) -> str | None:
    """What became of asking for a run again; None where it is open anyway."""
    try:
        if plan.store.kept(run) is None:
            return None
    except ResultError:
        pass  # a damaged one is asked for like any other
    again = plan.store.ask_again(run, given.experiment is None, datetime.now(UTC))
    return "is trained again" if again else "was asked for already"

"""The project in the current folder: names of notebooks in, their checked declarations out."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.config.project import Project, load_project, notebook_names
from scratchbook.config.reading import read_yaml
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.plan import Plan

CONFIG = Path("config")


def add_notebooks(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """The argument that most commands share."""
    parser.add_argument("notebooks", nargs="*", help=f"only these; otherwise {otherwise}")


def add_smoke(parser: argparse.ArgumentParser) -> None:
    """The switch of commands that read results."""
    parser.add_argument(
        "--smoke", action="store_true", help="those of `snakemake --config smoke=true`"
    )


def chosen_project(names: list[str], smoke: bool = False) -> Project:
    """The project here with these notebooks, or with all it has.

    Raises:
        ScratchbookError: something in it cannot be used.
    """
    written = read_yaml(CONFIG / "config.yaml") or {}
    if isinstance(written, dict):
        written["notebooks"] = names or notebook_names(CONFIG / "notebooks")
        if smoke:
            written["smoke"] = True
    return load_project(written)


def chosen_plan(names: list[str], smoke: bool = False) -> Plan:
    """The same, beside its results.

    Raises:
        ScratchbookError: something in it cannot be used, or the results are of another layout.
    """
    plan = Plan(chosen_project(names, smoke), gpu=False)
    plan.store.check()
    return plan


def check_experiment(project: Project, notebook: str, experiment: str, option: str = "") -> None:
    """Refuses an experiment that a notebook does not have.

    Args:
        option: by which it was given, if not by its place, `--experiments: `.

    Raises:
        ScratchbookError: it names the nearest one that there is.
    """
    known = project.notebooks[notebook].experiments
    if experiment not in known:
        told = f"{option}{notebook} has no {experiment!r}; {nearest(experiment, known)}"
        raise ScratchbookError(told)

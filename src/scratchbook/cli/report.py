"""Render the page of the results that are there, without the workflow; trains and changes none."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.config.project import load_project
from scratchbook.errors import ScratchbookError

from .chosen import CONFIG, add_notebooks, add_smoke, chosen_plan

TOLD = 5  # missing runs that a refusal names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_notebooks(parser, "those of config.yaml")
    add_smoke(parser)
    parser.add_argument(
        "--partial", action="store_true", help="also where runs are missing; the page says which"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="otherwise NOTEBOOK.html, or notebooks.html for several",
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    names = given.notebooks or list(load_project().notebooks)
    plan = chosen_plan(names, given.smoke)
    from scratchbook.report.partial import missing_runs, write_partial_page

    pages = [plan.page(name) for name in names]
    lacking = [why for name in names if (why := plan.lacks_data(name))]
    missing = [*lacking, *missing_runs(pages, plan.results)]
    if missing and not given.partial:
        more = len(missing) - TOLD
        told = [*missing[:TOLD], f"and {more} more"] if more > 0 else missing
        cure = "run `snakemake` to make what is missing, or add --partial to render what is there"
        raise ScratchbookError("\n".join([*told, cure]))
    output = given.output or Path(f"{names[0]}.html" if len(names) == 1 else "notebooks.html")
    output.parent.mkdir(parents=True, exist_ok=True)
    declared = ["config.yaml", "datasets.yaml", *(f"notebooks/{name}.yaml" for name in names)]
    requirements = Path("requirements.txt")
    write_partial_page(
        pages,
        plan.results,
        Path("report"),
        output,
        plan.project.command(),
        config={str(CONFIG / file): (CONFIG / file).read_text("utf-8") for file in declared},
        requirements=requirements.read_text("utf-8") if requirements.exists() else "",
    )
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB; open it in a browser")

"""Keep the records of finished runs in records/ and write docs/reproduction.md from them."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.config.reading import read_yaml
from scratchbook.results.paths import Records, Results

from .chosen import chosen_plan

RECORDS, PAGE = Path("records"), Path("docs/reproduction.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="FOLDER",
        help="whose runs' records are kept; results/ unless given",
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    from scratchbook.reproduction import collect_records, reproduction_page
    from scratchbook.results.files import write_text

    plan = chosen_plan([])
    pages = [plan.page(name) for name in plan.project.notebooks]
    for folder in collect_records(Results(given.results), pages, Records(RECORDS)):
        print(f"kept {folder}")
    remarks = read_yaml(RECORDS / "remarks.yaml") or {}
    write_text(PAGE, reproduction_page(pages, Records(RECORDS), remarks))
    print(f"wrote {PAGE}")

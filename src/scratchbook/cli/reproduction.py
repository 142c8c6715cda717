"""Keep the records of finished runs in records/ and write docs/reproduction.md from them."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.config.reading import read_yaml
from scratchbook.results.paths import Results

from .chosen import chosen_project

RECORDS, PAGE = Path("records"), Path("docs/reproduction.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="FOLDER",
        help="whose runs' records are kept; results/ unless given",
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    from scratchbook.reproduction import collect_records, reproduction_page
    from scratchbook.results.files import write_text

    project = chosen_project([])
    pages = [project.page(name) for name in project.notebooks]
    for folder in collect_records(Results(given.results), pages, Results(RECORDS)):
        print(f"kept {folder}")
    remarks = read_yaml(RECORDS / "remarks.yaml") or {}
    write_text(PAGE, reproduction_page(pages, Results(RECORDS), remarks))
    print(f"wrote {PAGE}")

"""Keep the records of finished runs in docs/reproduction and write docs/reproduction.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.config.reading import read_yaml

from .chosen import chosen_project

RECORDS = Path("docs/reproduction")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="whose runs' records are kept; results/ unless given",
    )


def run(given: argparse.Namespace) -> None:
    from scratchbook.files import write_text
    from scratchbook.reproduction import collect_records, reproduction_page

    project = chosen_project([])
    pages = [project.page(name) for name in project.notebooks]
    for folder in collect_records(given.results, pages, RECORDS):
        print(f"kept {folder}")
    remarks = read_yaml(RECORDS / "remarks.yaml") or {}
    page = RECORDS.with_suffix(".md")
    write_text(page, reproduction_page(pages, RECORDS, remarks))
    print(f"wrote {page}")

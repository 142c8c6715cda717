"""The page of the runs that are there, made outside the workflow or after it failed half-way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from scratchbook.comparison import compare, write_comparison
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page
from scratchbook.report.loading import load_notebook
from scratchbook.results.paths import Results
from scratchbook.specs import Page


def write_partial_page(
    pages: Sequence[Page],
    results: Results,
    templates: Path,
    output: Path,
    command: str,
    *,
    config: Mapping[str, str] | None = None,
    requirements: str = "",
) -> None:
    """Compares and renders the runs that are there; the page begins with those that are not.

    Its tables and figures go to a place of their own, so that no later stage takes them for whole.

    Args:
        pages: the notebooks' text and resolved specs.
        results: of the runs.
        templates: the folder of page.html.j2.
        output: where the page is written.
        command: what the user types to go on.
        config, requirements: as `write_page` shows them.
    """
    made = results.partial
    for page in pages:
        write_comparison(compare(page, results, partial=True), made.notebook(page["name"]))
        write_chapter(page, results, made, processes=os.cpu_count() or 1)
    write_page(
        pages,
        results,
        templates,
        output,
        command,
        made=made,
        config=config,
        requirements=requirements,
    )


def missing_runs(pages: Sequence[Page], results: Results) -> list[str]:
    """The runs of some notebooks that are missing or broken, and what of them."""
    return [
        f"{page['name']}/{experiment.name}: {text}"
        for page in pages
        for experiment in load_notebook(page, results).experiments
        for text in experiment.missing
    ]

"""The page of the runs that are there, made outside the workflow or after it failed half-way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scratchbook.comparison import compare, write_comparison
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page
from scratchbook.report.loading import load_notebook


def write_partial_page(
    pages: Sequence[dict[str, Any]],
    results: Path,
    templates: Path,
    output: Path,
    command: str,
    *,
    config: Mapping[str, str] | None = None,
    requirements: str = "",
) -> None:
    """Compares and renders the runs that are there; the page begins with those that are not.

    Its tables and figures go to `results`/partial, so that no later stage takes them for whole.

    Args:
        pages: the notebooks' text and resolved specs.
        results: the folder that holds {notebook}/ and data/.
        templates: the folder of page.html.j2.
        output: where the page is written.
        command: what the user types to go on.
        config, requirements: as `write_page` shows them.
    """
    partial = results / "partial"
    for page in pages:
        folder = partial / page["name"]
        folder.mkdir(parents=True, exist_ok=True)
        write_comparison(compare(page, results, partial=True), folder)
        write_chapter(page, results, folder, tables=partial, processes=os.cpu_count() or 1)
    write_page(
        pages,
        results,
        templates,
        output,
        command,
        chapters=partial,
        tables=partial,
        config=config,
        requirements=requirements,
    )


def missing_runs(pages: Sequence[dict[str, Any]], results: Path) -> list[str]:
    """The runs of some notebooks that are missing or broken, and what of them."""
    return [
        f"{page['name']}/{experiment.name}: {text}"
        for page in pages
        for experiment in load_notebook(page, results).experiments
        for text in experiment.missing
    ]

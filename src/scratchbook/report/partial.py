"""The page of a workflow that failed half-way: the runs there are in, a page that says so out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scratchbook.comparison import compare, write_comparison
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page


def write_partial_page(
    pages: Sequence[dict[str, Any]], results: Path, templates: Path, output: Path, command: str
) -> None:
    """Compares and renders the runs that are there; the page begins with those that are not.

    Its tables and figures go to `results`/partial, so that no later stage takes them for whole.

    Args:
        pages: the notebooks' text and resolved specs.
        results: the folder that holds {notebook}/ and data/.
        templates: the folder of page.html.j2.
        output: where the page is written.
        command: what the user types to go on.
    """
    partial = results / "partial"
    for page in pages:
        folder = partial / page["name"]
        folder.mkdir(parents=True, exist_ok=True)
        write_comparison(compare(page, results), folder)
        write_chapter(page, results, folder, tables=partial)
    write_page(pages, results, templates, output, command, chapters=partial, tables=partial)

"""The page that the user opens: results in; figures, notebook.md, report.html out."""

from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page

__all__ = ["write_chapter", "write_page"]

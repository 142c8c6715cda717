"""From the runs of a notebook to its tables: one row an experiment, one row a pair."""

from scratchbook.changes import changes
from scratchbook.comparison.claims import Bound, Claim, resolve_claim
from scratchbook.comparison.tables import Comparison, compare
from scratchbook.comparison.writing import latex, markdown, write_comparison

__all__ = [
    "Bound",
    "Claim",
    "Comparison",
    "changes",
    "compare",
    "latex",
    "markdown",
    "resolve_claim",
    "write_comparison",
]

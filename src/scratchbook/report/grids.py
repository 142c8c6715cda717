"""A notebook's grids: the experiments that vary the same keys, and how the metric answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scratchbook.comparison.tables import Row
from scratchbook.report.loading import Notebook


@dataclass(frozen=True)
class Grid:
    """One grid: what was declared of it, its experiments in that order, its rows best first."""

    name: str
    title: str
    notes: list[str]
    points: dict[str, dict[str, Any]]  # experiment -> {path: value}
    rows: list[Row]

    @property
    def paths(self) -> list[str]:
        """The keys that it varies."""
        return list(next(iter(self.points.values())))

    @property
    def figure(self) -> str:
        """The name of its figure; no experiment's figure has a dot in its name."""
        return f"{self.name}.response"


def grids_of(notebook: Notebook) -> list[Grid]:
    """The grids of a notebook in the order in which they are declared."""
    return [
        Grid(
            declared["name"],
            declared["title"],
            declared["notes"],
            {
                one["name"]: one["point"]
                for one in notebook.page["experiments"]
                if one.get("group") == declared["name"]
            },
            [row for row in notebook.rows if row["group"] == declared["name"]],
        )
        for declared in notebook.page["grids"]
    ]


def rows_outside(notebook: Notebook) -> list[Row]:
    """The rows of experiments that no grid made, best first."""
    return [row for row in notebook.rows if not row["group"]]

"""The figures of an experiment, each declared once: what it is, how it is read from a run, how seeds
are put together, how it is shown. Tables, templates, key results and README walk this list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scratchbook.language import mark

if TYPE_CHECKING:
    from scratchbook.results.records import History, Metrics, RunRecord, SplitMetrics

Table = Literal["page", "seeds", "notebook", "export"]
"""`page` and `notebook` compare experiments in report.html and notebook.md, `seeds` is the page's of
one experiment's runs, `export` compare.md and compare.tex."""
TABLES: tuple[Table, ...] = ("page", "seeds", "notebook", "export")
PREFIXES = {"train": "train", "val": "validation", "test": "test"}
"""How a figure's name begins that is measured on a split; `val_` is of the split on which the best
epoch was chosen."""


@dataclass(frozen=True)
class Measured:
    """One run that is trained and evaluated: what its figures are read from.

    `history` is read only where a notebook declares an accuracy to `reach`.
    """

    record: RunRecord
    metrics: Metrics
    history: History | None = None
    reach: float | None = None

    def split(self, prefix: str) -> SplitMetrics | None:
        """The figures of the split that a prefix stands for; None where there is no such split."""
        split = self.metrics["validation"] if prefix == "val" else PREFIXES[prefix]
        return self.metrics["splits"].get(split)


@dataclass(frozen=True)
class Column:
    """A figure's place in a table: its head, and a form as `Figure.form`."""

    head: str
    form: str


@dataclass(frozen=True)
class Figure:
    """One figure of an experiment."""

    name: str
    """In key results and, over the seeds, in compare.csv."""
    label: str
    """In sentences, on axes and, where `columns` says nothing else, at the head of a column."""
    of: Callable[[Measured], float | None]
    """Reads it from a run; None where the run has none."""
    form: str = ".4g"
    """How it is shown: a format of Python's, or `percent`, `points`, `count`, `duration`,
    `operations`, the functions of `scratchbook.report.wording`."""
    unit: str = ""
    seeds: Literal["mean", "mean of all", "first"] = "mean"
    """Put together: the mean over the seeds that have it, or only if all have it, or the first
    seed's, where all are alike."""
    higher_is_better: bool | None = None
    """None for what is neither."""
    interval: bool = False
    """A share of images: compare.csv holds its 95 % interval, and each seed's value."""
    each_seed: bool = False
    """compare.csv holds each seed's value."""
    group: str = "more"
    """Those of a group stand together in compare.csv, `more` at its end."""
    columns: Mapping[Table, Column] | None = None
    """The tables that show it; every one, by its label, unless given."""

    @property
    def whole(self) -> bool:
        """Whether it is a whole number, which alone has the format `d`."""
        return self.form == ",.0f"

    def column(self, table: Table) -> Column | None:
        """Its place in a table."""
        if self.columns is None:
            return Column(self.label, self.form)
        return self.columns.get(table)

    @property
    def fields(self) -> list[str]:
        """Its columns in compare.csv."""
        parts = ["", *(["_low", "_high"] if self.interval else [])]
        parts += ["_values"] if self.interval or self.each_seed else []
        return [self.name + part for part in parts]


def shown(table: Table, *groups: str) -> list[tuple[Figure, Column]]:
    """The figures that a table shows, in order; of these groups, or of all."""
    return [
        (figure, column)
        for figure in FIGURES.values()
        if (column := figure.column(table)) and (not groups or figure.group in groups)
    ]


def fields(group: str) -> list[str]:
    """The columns of compare.csv that a group of figures has."""
    return [name for figure in FIGURES.values() if figure.group == group for name in figure.fields]

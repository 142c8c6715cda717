"""The figures of an experiment, each declared once: how it is read from a run, how seeds are put
together, how it is shown. Tables, templates, key results, Markdown and README walk this list."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scratchbook.language import mark

if TYPE_CHECKING:
    from scratchbook.results.records import History, Metrics, Proportion, RunRecord, SplitMetrics

Table = Literal["page", "seeds", "notebook", "export"]
"""`page` and `notebook` compare experiments in report.html and notebook.md; `seeds` is the page's
table of one experiment's runs; `export` is compare.md and compare.tex."""
Group = Literal["size", "course", "accuracy", "gap", "loss", "cost", "more"]
"""Those of a group stand together, in tables and in compare.csv."""
PREFIXES = {"train": "train", "val": "validation", "test": "test"}
"""How a figure's name begins that is measured on a split; `val_` is of the split on which the best
epoch was chosen."""


@dataclass(frozen=True)
class Measured:
    """One trained run: what its figures are read from.

    `metrics` is None before it is evaluated; `history` is read only where a notebook declares an
    accuracy to `reach`.
    """

    record: RunRecord
    metrics: Metrics | None
    history: History | None = None
    reach: float | None = None

    def split_name(self, prefix: str) -> str:
        """The split that a prefix stands for."""
        return self.record["validation"] if prefix == "val" else PREFIXES[prefix]

    def split(self, prefix: str) -> SplitMetrics | None:
        """That split's figures; None where there is no such split."""
        return self.metrics["splits"].get(self.split_name(prefix)) if self.metrics else None

    def images(self, figure: str) -> int:
        """How many images a figure of a split is measured on."""
        split = self.split(figure.partition("_")[0])
        return split["n"] if split else 0


@dataclass(frozen=True)
class Column:
    """A figure's place in a table: its head, and a form, which is a format of Python's or one of
    `percent`, `points`, `count`, `duration`, `operations` (`scratchbook.report.wording`).

    Without a head it stands below the figure before it.
    """

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
    """How it is shown where nothing else is said: a format of Python's."""
    unit: str = ""
    seeds: Literal["mean", "mean of all", "first"] = "mean"
    """Put together: the mean over the seeds that have it, or only if all have it, or the first
    seed's, where all are alike."""
    higher_is_better: bool | None = None
    """None for what is neither."""
    proportion: Callable[[SplitMetrics], Proportion] | None = None
    """Of a split, where it is a share of its images: compare.csv holds its 95 % interval, and each
    seed's value."""
    each_seed: bool = False
    """compare.csv holds each seed's value."""
    compared: bool = True
    """Whether compare.csv has it, and so key results may hold it."""
    group: Group = "more"
    """`more` stands at the end of compare.csv, which only grows there."""
    columns: Mapping[Table, Column] | None = None
    """The tables that show it; every one, by its label, unless given."""

    @property
    def interval(self) -> bool:
        """Whether it has one."""
        return self.proportion is not None

    @property
    def whole(self) -> bool:
        """Whether it is a whole number, which alone has the format `d`."""
        return self.form == ",.0f"

    def over_seeds(self, values: Sequence[float], runs: int) -> float:
        """The one figure of `runs` runs, of which some may have none; NaN for none."""
        if not values or (self.seeds == "mean of all" and len(values) < runs):
            return math.nan
        import numpy as np  # the configuration, which checks key results, does without

        return values[0] if self.seeds == "first" else float(np.mean(values))

    def column(self, table: Table) -> Column | None:
        """Its place in a table."""
        every = {table: Column(self.label, self.form)} if self.compared else {}
        return (every if self.columns is None else self.columns).get(table)

    @property
    def fields(self) -> list[str]:
        """Its columns in compare.csv."""
        interval = ["_low", "_high"] if self.interval else []
        values = ["_values"] if self.interval or self.each_seed else []
        return [self.name + part for part in ("", *interval, *values) if self.compared]


def shown(table: Table, *groups: Group) -> list[tuple[Figure, Column]]:
    """The figures that a table shows, in order; of these groups, or of all."""
    return [
        (figure, column)
        for figure in FIGURES.values()
        if (column := figure.column(table)) and (not groups or figure.group in groups)
    ]


def fields(group: Group) -> list[str]:
    """The columns of compare.csv that a group of figures has."""
    return [name for figure in FIGURES.values() if figure.group == group for name in figure.fields]


# --- how the figures are read from a run ----------------------------------------------------------


def _of_split(prefix: str, read: Callable[[SplitMetrics], float]) -> Callable[..., float | None]:
    """Reads a figure of one split."""
    return lambda run: None if (split := run.split(prefix)) is None else read(split)


def _accuracy(split: SplitMetrics) -> Proportion:
    return split["accuracy"]


def _gap(run: Measured) -> float | None:
    trained, validated = run.split("train"), run.split("val")
    if trained is None or validated is None:
        return None
    return trained["accuracy"]["value"] - validated["accuracy"]["value"]


def _multiply_adds(run: Measured) -> int | None:
    found = [layer.get("multiply_adds") for layer in run.record["layers"]]
    known = [number for number in found if number is not None]
    return sum(known) if len(known) == len(found) else None


def _training_flops(run: Measured) -> float | None:
    """A multiply-add is two operations, and the way back costs twice the way forward (Amodei and
    Hernandez, AI and Compute, 2018): six an image. Augmentation and evaluation are left out, and
    frozen layers are counted like the others."""
    if (multiply_adds := _multiply_adds(run)) is None:
        return None
    return 6.0 * multiply_adds * run.record["data"]["counts"]["train"] * run.record["epochs"]


def _reached_epoch(run: Measured) -> int | None:
    if run.reach is None or run.history is None:
        return None
    reached = run.history["epoch"][run.history["val_accuracy"] >= run.reach]
    return int(reached[0]) if len(reached) else None


def _reached_flops(run: Measured) -> float | None:
    epoch, flops = _reached_epoch(run), _training_flops(run)
    return None if epoch is None or flops is None else flops * epoch / run.record["epochs"]


# --- the list -------------------------------------------------------------------------------------


def _share(prefix: str, label: str, head: str, each: str) -> Figure:
    """The accuracy on a split, under its heads in the tables of experiments and of seeds."""
    return Figure(
        f"{prefix}_accuracy", label, _of_split(prefix, lambda split: _accuracy(split)["value"]),
        higher_is_better=True, proportion=_accuracy, group="accuracy",
        columns={"page": Column(head, "percent"), "seeds": Column(each, "percent"),
                 "notebook": Column(head.lower(), ".4f"), "export": Column(head.lower(), ".1%")},
    )  # fmt: skip


def _loss(prefix: str, label: str, columns: Mapping[Table, Column]) -> Figure:
    return Figure(
        f"{prefix}_loss", label, _of_split(prefix, lambda split: split["log_loss"]), unit="nats",
        each_seed=True, higher_is_better=False, group="loss", columns=columns,
    )  # fmt: skip


_LIST = (
    Figure("parameters", mark("parameters"), lambda run: run.record["parameters"]["total"],
           ",.0f", seeds="first", group="size",
           columns={"page": Column(mark("Parameters"), "count"),
                    "notebook": Column(mark("parameters"), ",.0f"),
                    "export": Column("parameters", ",.0f")}),
    Figure("trainable", mark("trainable"), lambda run: run.record["parameters"]["trainable"],
           ",.0f", seeds="first", group="size", columns={}),
    Figure("best_epoch", mark("best epoch"), lambda run: run.record["best_epoch"],
           ",.0f", group="course",
           columns={"page": Column(mark("Best epoch"), "count"),
                    "notebook": Column(mark("best epoch"), ".4g"),
                    "export": Column("best epoch", ",.0f")}),
    Figure("epochs", mark("epochs"), lambda run: run.record["epochs"],
           ",.0f", group="course", columns={}),
    _share("train", mark("train accuracy"), mark("Train"), mark("Train, %")),
    _share("val", mark("val accuracy"), mark("Validation"), mark("Validation, %")),
    _share("test", mark("test accuracy"), mark("Test"), mark("Test, %")),
    Figure("gap", mark("train − validation accuracy"), _gap, higher_is_better=False, group="gap",
           columns={"page": Column(mark("Gap"), "points")}),
    _loss("train", mark("train loss"), {}),
    _loss("val", mark("val loss"), {}),
    _loss("test", mark("test loss"), {"seeds": Column(mark("Test log loss"), ".3f")}),
    Figure("test_macro_f1", mark("macro F1"), _of_split("test", lambda split: split["macro_f1"]),
           higher_is_better=True, compared=False,
           columns={"seeds": Column(mark("Macro F1"), ".3f")}),
    Figure("seconds", mark("seconds of training"), lambda run: run.record["training_seconds"],
           ",.0f", "s", higher_is_better=False, group="cost",
           columns={"page": Column(mark("Time"), "duration"),
                    "seeds": Column(mark("Training"), "duration"),
                    "export": Column("seconds", ",.0f")}),
    Figure("images_per_second", mark("images a second"),
           lambda run: run.record["images_per_second"],
           ",.0f", "images/s", higher_is_better=True, group="cost",
           columns={"seeds": Column(mark("Images/s"), ",.0f")}),
    Figure("multiply_adds", mark("multiply-adds an image"), _multiply_adds,
           ",.0f", higher_is_better=False, group="cost", columns={}),
    Figure("training_flops", mark("operations of the training"), _training_flops,
           unit="FLOP", higher_is_better=False, group="cost",
           columns={"page": Column("", "operations")}),
    Figure("reached_epoch", mark("first epoch of the accuracy to reach"), _reached_epoch,
           ",.0f", seeds="mean of all", higher_is_better=False, group="cost",
           columns={"export": Column("reached in epoch", ".3g")}),
    Figure("reached_flops", mark("operations until the accuracy to reach"), _reached_flops,
           unit="FLOP", seeds="mean of all", higher_is_better=False, group="cost",
           columns={"export": Column("reached after FLOP", ".2g")}),
)  # fmt: skip
FIGURES = {figure.name: figure for figure in _LIST}
COMPARED = {name: figure for name, figure in FIGURES.items() if figure.compared}
"""Those that compare.csv has and key results may hold."""

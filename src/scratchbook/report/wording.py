"""Sentences that the page and notebook.md share: figures in, words out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime

import pandas as pd

from scratchbook import language
from scratchbook.figures import FIGURES
from scratchbook.language import mark, tr
from scratchbook.report.loading import Experiment, Notebook

ACCURACIES = {
    "train": mark("train accu"), "validation": mark("val accu"), "test": mark("test accu")
}  # fmt: skip
CURVES = (mark("accuracy"), mark("loss"), mark("epoch"))
SPLITS = (mark("train"), mark("validation"), mark("test"))
# As compare.csv begins them.
STATES = (mark("complete"), mark("incomplete"), mark("diverged"), mark("failed"))
PREFIXES = (mark("train"), mark("val"), mark("test"))  # of recorded_metric


def metric_name(key: str) -> str:
    """`val accuracy` of `val_accuracy`; a key that is not known keeps its words."""
    return tr(FIGURES[key].label if key in FIGURES else key.replace("_", " "))


def heading(name: str, title: str, dash: str = "-") -> str:
    """`train 2 - better arch`, as the seeds head their experiments.

    An experiment that is named otherwise keeps its name: `dropout - 300 images and dropout`.
    """
    numbered = re.fullmatch(r"train[-_ ]?(\d+)", name)
    label = f"train {numbered.group(1)}" if numbered else name
    title = " ".join(title.split())
    # A title that begins with the name would say it twice.
    title = re.sub(rf"^{re.escape(label)}\s*[-–:]\s*|^{re.escape(name)}\s*[-–:]\s*", "", title)
    return f"{label} {dash} {title}" if title and title != label else label


def best_figures(experiment: Experiment) -> list[str]:
    """`train accu: 0.79, val accu: 0.82, test accu: 0.81, epoch = 50 (seed 0)`, a line a seed."""
    lines = []
    for run in experiment.runs:
        if not run.metrics or not run.metrics["splits"]:
            continue
        parts = [
            f"{tr(ACCURACIES[split])}: {found['accuracy']['value']:.4f}"
            for split, found in run.metrics["splits"].items()
        ]
        lines.append(tr(
            "{figures}, epoch = {epoch} (seed {seed})",
            figures=", ".join(parts), epoch=run.metrics["epoch"], seed=run.seed,
        ))  # fmt: skip
    if recorded := experiment.declared["recorded"]:
        told = ", ".join(f"{key} {value}" for key, value in recorded.items())
        lines.append(tr("recorded before: {figures}", figures=told))
    return lines


def settling(drift: pd.DataFrame | None) -> str:
    """When a run's maps settle, in one sentence; nothing where no drift was measured."""
    if drift is None or "settled_epoch" not in drift or "settled" not in drift:
        return ""
    last = drift.iloc[-1]
    before = drift.iloc[-2] if len(drift) > 1 else last  # the last epoch is its own final one
    if pd.isna(last["settled_epoch"]):
        return tr("No image's map has settled: none keeps ρ ≥ 0.8 to the last epoch's map.")
    return tr(
        "Half of the maps that settle have done so by epoch {settled:g} (from there on ρ to the "
        "last epoch's map stays at or above 0.8); by epoch {epoch:g}, {n:.0f} of {images:.0f} "
        "images have.",
        settled=last["settled_epoch"], epoch=before["epoch"],
        n=before["settled"] * last["images"], images=last["images"],
    )  # fmt: skip


def weights_lines(experiment: Experiment) -> list[str]:
    """The file that holds each run's best weights, in the folder of results."""
    return [
        f"runs/{run.files.name}/{run.files.checkpoints.name}/{checkpoint['file']}"
        for run in experiment.runs
        for checkpoint in run.record["checkpoints"]
        if "best" in checkpoint["kept_for"]
    ]


def percent(fraction: float) -> str:
    """`81.2`, the per cent sign left to the head of the column."""
    return f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """`+4.1`: percentage points with their sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def count(value: float) -> str:
    """`1,602,058`; a mean over seeds keeps one decimal."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def sentence(text: str) -> str:
    """A verdict with a capital, unless it begins with an experiment's name."""
    return text.replace("no difference", "No difference", 1) if text.startswith("no ") else text


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return tr("{seconds} s", seconds=whole)
    if whole < 3600:
        return tr("{minutes} min {seconds:02d} s", minutes=whole // 60, seconds=whole % 60)
    return tr("{hours} h {minutes:02d} min", hours=whole // 3600, minutes=whole % 3600 // 60)


def operations(number: float) -> str:
    """Floating point operations: `1.23 PFLOP`."""
    power = min(max(int(math.log10(max(number, 1))) // 3, 2), 6)
    return f"{number / 1000**power:.3g} {' kMGTPE'[power]}FLOP"


def date(stamp: str) -> str:
    """`21 November 2026, 05:00 UTC` of an ISO time."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    zone = moment.strftime("%Z") or tr("local time")
    return f"{language.date(moment)}, {moment:%H:%M} {zone}"


def cautions(notebook: Notebook) -> list[str]:
    """What a reader must know before he believes a figure of the page."""
    told = []
    if notebook.page["smoke"]:
        told.append(tr(
            "This is a smoke run: one epoch on a sliver of the data, to see that all works. "
            "Its figures mean nothing."
        ))  # fmt: skip
    told += [f"{one.code}: {one.message} {one.advice}" for one in notebook.diagnosed.get("", [])]
    commits = {run.record["git"]["commit"] for run in notebook.runs}
    if len(commits) > 1:
        told.append(tr("Its runs were made by different commits of the code."))
    if len({run.record["data"]["sha256"] for run in notebook.runs}) > 1:
        told.append(tr("Its runs were made on different versions of the data."))
    return told + notebook.remarks


def cell(value: float | None, form: str) -> str:
    """A value of a table by its column's form; a dash for nothing."""
    if value is None or math.isnan(value):
        return "–"
    return FORMS[form](value) if form in FORMS else format(value, form)


FORMS: dict[str, Callable[[float], str]] = {
    one.__name__: one for one in (percent, points, count, duration, operations)
}

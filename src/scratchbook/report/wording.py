"""Sentences that the page and notebook.md share: figures in, words out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pandas as pd

from scratchbook import language
from scratchbook.figures import FIGURES
from scratchbook.language import mark, tr
from scratchbook.report.loading import Experiment, Notebook

ACCURACIES = {
    "train": mark("train accu"),
    "validation": mark("val accu"),
    "test": mark("test accu"),
}
CURVES = {"accuracy": mark("accuracy"), "loss": mark("loss"), "epoch": mark("epoch")}
SPLITS = {
    "train": mark("train"),
    "validation": mark("validation"),
    "test": mark("test"),
}
STATES = (mark("complete"), mark("incomplete"), mark("failed"))  # as compare.csv begins them
PREFIXES = (mark("train"), mark("val"), mark("test"))  # of recorded_metric


def metric_name(key: str) -> str:
    """`val accuracy` of `val_accuracy`; a key that is not known keeps its words."""
    if key in FIGURES:
        return tr(FIGURES[key].label)
    return tr(CURVES[key]) if key in CURVES else key.replace("_", " ")


def split_name(split: str) -> str:
    """`validation`, in the reader's language."""
    return tr(SPLITS[split]) if split in SPLITS else split


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
        lines.append(
            tr(
                "{figures}, epoch = {epoch} (seed {seed})",
                figures=", ".join(parts),
                epoch=run.metrics["epoch"],
                seed=run.seed,
            )
        )
    recorded = experiment.declared["recorded"]
    if recorded:
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
        settled=last["settled_epoch"],
        epoch=before["epoch"],
        n=before["settled"] * last["images"],
        images=last["images"],
    )


def weights_lines(experiment: Experiment) -> list[str]:
    """The file that holds each run's best weights, from the experiment's folder."""
    return [
        f"{run.files.folder.name}/{run.files.checkpoints.name}/{checkpoint['file']}"
        for run in experiment.runs
        for checkpoint in run.record["checkpoints"]
        if "best" in checkpoint["kept_for"]
    ]


def percent(fraction: Any, digits: int = 1) -> str:
    """`81.2`, the per cent sign left to the head of the column; a dash for nothing."""
    return "–" if not _known(fraction) else f"{100 * float(fraction):.{digits}f}"


def points(difference: Any) -> str:
    """`+4.1`: percentage points with their sign."""
    return "–" if not _known(difference) else f"{100 * float(difference):+.1f}".replace("-", "−")


def count(value: Any) -> str:
    """`1,602,058`; a mean over seeds keeps one decimal."""
    if not _known(value):
        return "–"
    return f"{float(value):,.0f}" if float(value).is_integer() else f"{float(value):,.1f}"


def sentence(text: str) -> str:
    """A verdict with a capital, unless it begins with an experiment's name."""
    return text.replace("no difference", "No difference", 1) if text.startswith("no ") else text


def duration(seconds: Any) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    if not _known(seconds):
        return "–"
    whole = round(float(seconds))
    if whole < 60:
        return tr("{seconds} s", seconds=whole)
    if whole < 3600:
        return tr("{minutes} min {seconds:02d} s", minutes=whole // 60, seconds=whole % 60)
    return tr("{hours} h {minutes:02d} min", hours=whole // 3600, minutes=whole % 3600 // 60)


def operations(number: Any) -> str:
    """Floating point operations: `1.23 PFLOP`."""
    if not _known(number):
        return "–"
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
        told.append(
            tr(
                "This is a smoke run: one epoch on a sliver of the data, to see that all works. "
                "Its figures mean nothing."
            )
        )
    told += [f"{one.code}: {one.message} {one.advice}" for one in notebook.diagnoses
             if not one.experiment]  # fmt: skip
    commits = {run.record["git"]["commit"] for run in notebook.runs}
    if len(commits) > 1:
        told.append(tr("Its runs were made by different commits of the code."))
    if len({run.record["data"]["sha256"] for run in notebook.runs}) > 1:
        told.append(tr("Its runs were made on different versions of the data."))
    return told


def cell(value: Any, form: str) -> str:
    """A value of a table by its column's form; a dash for nothing."""
    if form in FORMS:
        return FORMS[form](value)
    return format(value, form) if _known(value) else "–"


FORMS: dict[str, Callable[[Any], str]] = {
    "percent": percent,
    "points": points,
    "count": count,
    "duration": duration,
    "operations": operations,
}


def _known(value: Any) -> bool:
    return value is not None and not math.isnan(float(value))

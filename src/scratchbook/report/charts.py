"""Line and dot figures of a chapter: plain numbers in, SVG text out, the same bytes every time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context as style_context
from matplotlib.ticker import MaxNLocator

from scratchbook.comparison.tables import Row
from scratchbook.language import mark, tr
from scratchbook.report.svg import ACCENT, INK, finish_svg
from scratchbook.report.wording import metric_name
from scratchbook.results.records import History, ReliabilityBin

STYLE = {  # on top of matplotlib's own defaults, whatever the user's matplotlibrc says
    "svg.hashsalt": "scratchbook", "svg.fonttype": "none", "path.simplify_threshold": 0.5,
    "figure.facecolor": "none", "font.size": 9.0, "text.color": INK,
    "axes.facecolor": "none", "axes.edgecolor": INK, "axes.labelcolor": INK,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": INK, "xtick.major.width": 0.6, "xtick.major.size": 3,
    "ytick.color": INK, "ytick.major.width": 0.6, "ytick.major.size": 0,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip


@style_context(["default", STYLE])
def curves(histories: dict[int, History], best: dict[int, int], key: str, split: str) -> str:
    """Accuracy or loss by epoch, train dashed and `split` solid, the best epoch ringed.

    Args:
        histories: history.csv of each seed.
        best: the best epoch of each seed.
        key: `accuracy` or `loss`.
        split: what val_* was measured on, for the label: `validation` or `test`.
    """
    figure, axes = _panel(4.3, 2.6)
    ends: list[tuple[float, float, str, str]] = []
    for i, (seed, history) in enumerate(histories.items()):
        x, train, held = history["epoch"], history[key], history[f"val_{key}"]
        weight = 1.7 if i == 0 else 0.9
        axes.plot(x, train, color=INK, alpha=0.75, lw=weight * 0.7, ls=(0, (4, 2)))
        axes.plot(x, held, color=ACCENT, lw=weight, alpha=1 if i == 0 else 0.75)
        at = np.flatnonzero(x == best[seed])
        if len(at):
            axes.plot(x[at], held[at], "o", ms=6, mfc="none", mec=ACCENT, mew=1.2)
        if i == 0:
            ends = [(x[-1], train[-1], tr("train"), INK), (x[-1], held[-1], tr(split), ACCENT)]
    _finish(axes, tr("epoch"), metric_name(key))
    ticks = MaxNLocator(nbins=9, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(ticks)
    axes.margins(x=0.02, y=0.08)
    _label_ends(axes, ends)
    return _svg(figure, _curves_alt(histories, best, key, split))


@style_context(["default", STYLE])
def forest(rows: Sequence[Row], metric: str, baseline: str) -> str:
    """Each experiment's mean, its interval and every seed's own value, in the order of `rows`.

    Args:
        rows: of compare.csv, an experiment each; the ends of an interval may be None.
        metric: the share that is drawn.
        baseline: the experiment that the vertical line goes through.
    """
    names = [row["experiment"] for row in rows]
    left = min(0.34, 0.03 + 0.0095 * max(map(len, names)))
    height = 0.62 + 0.26 * len(rows)
    figure = Figure(figsize=(7.2, height))
    axes = figure.add_axes((left, 0.45 / height, 0.97 - left, 1 - 0.52 / height))
    said = []
    for y, (name, row) in enumerate(zip(names, rows, strict=True)):
        ends = [row[f"{metric}{part}"] for part in ("", "_low", "_high")]
        value, low, high = np.array(ends, dtype=float)
        marker, size = ("D", 5.0) if name == baseline else ("o", 5.5)
        if name == baseline:
            axes.axvline(100 * value, color=INK, alpha=0.5, lw=0.8, ls=(0, (2, 2)))
        axes.plot([100 * low, 100 * high], [y, y], color=ACCENT, lw=1.6)
        values = 100 * np.array(list(filter(None, row[f"{metric}_values"].split(";"))), dtype=float)
        axes.plot(values, np.full(len(values), y), "|", color=INK, alpha=0.6, ms=7, mew=0.8)
        axes.plot(100 * value, y, marker, color=ACCENT, ms=size)
        said.append(f"{name} {_percent(value)} [{_percent(low)}, {_percent(high)}]")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    _finish(axes, f"{metric_name(metric)}, %", "", grid="x")
    return _svg(figure, tr(
        "{metric} with intervals of 95 %: {rows}", metric=metric_name(metric), rows="; ".join(said)
    ))  # fmt: skip


Point = tuple[tuple[Any, ...], float, float | None, float | None]
"""One experiment of a grid: the values it tried, its mean, and the ends of its interval."""


@style_context(["default", STYLE])
def response(points: Sequence[Point], path: str, metric: str) -> str:
    """How the metric answers the values of one key, with 95 % intervals.

    Numbers stand where they are, on a logarithmic axis where they span a decade; words side by
    side. Means and ends are fractions.
    """
    numeric = _numeric([at[0] for at, *_ in points])
    points = sorted(points, key=lambda point: point[0][0]) if numeric else list(points)
    values = [at[0] for at, *_ in points]
    figure, axes = _panel(4.3, 2.6, left=0.15, right=0.97, bottom=0.19)
    x = np.array(values if numeric else range(len(values)), dtype=float)
    if numeric and x[0] > 0 and x[-1] / x[0] >= 10:
        axes.set_xscale("log")
    if not numeric:
        axes.set_xticks(x, values)
        axes.set_xlim(-0.5, len(x) - 0.5)
    for at, (_, _, low, high) in zip(x, points, strict=True):
        if low is not None and high is not None:
            axes.plot([at, at], [100 * low, 100 * high], color=ACCENT, lw=1.6)
    means = [100 * mean for _, mean, _, _ in points]
    axes.plot(x, means, "o", color=ACCENT, ms=5, ls="-" if numeric else "none", lw=0.8)
    _finish(axes, path, f"{metric_name(metric)}, %")
    return _svg(figure, _response_alt(points, [path], metric))


@style_context(["default", STYLE])
def response_map(points: Sequence[Point], paths: Sequence[str], metric: str) -> str:
    """How the metric answers two keys: a cell a combination, in per cent; empty where none ran."""
    down, across = (_in_order([at[axis] for at, *_ in points]) for axis in (0, 1))
    share = np.full((len(down), len(across)), np.nan)
    for (first, second), mean, _, _ in points:
        share[down.index(first), across.index(second)] = mean
    width, height = min(7.2, 1.5 + 0.6 * len(across)), min(7.2, 0.9 + 0.32 * len(down))
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((1.3 / width, 0.55 / height, 1 - 1.4 / width, 1 - 0.65 / height))
    axes.pcolormesh(share, cmap="cividis")
    low, high = np.nanmin(share), np.nanmax(share)
    for (row, column), value in np.ndenumerate(share):
        if np.isnan(value) or len(across) > MAP_NUMBERS:
            continue
        light = value - low > (high - low) / 2
        axes.text(column + 0.5, row + 0.5, f"{100 * value:.1f}", ha="center", va="center",
                  color="#000000" if light else "#ffffff")  # fmt: skip
    axes.set_xticks(np.arange(len(across)) + 0.5, map(_told, across))
    axes.set_yticks(np.arange(len(down)) + 0.5, map(_told, down))
    axes.invert_yaxis()
    _finish(axes, paths[1], paths[0], grid="")
    return _svg(figure, _response_alt(points, paths, metric))


MAP_NUMBERS = 12  # columns of a map whose cells are wide enough for a number


@style_context(["default", STYLE])
def reliability(bins: Sequence[ReliabilityBin], ece: float) -> str:
    """Accuracy by stated confidence: a dot a bin, its area by the number of images in it."""
    filled = [b for b in bins if b["n"]]
    figure, axes = _panel(3.0, 2.8)
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.45, lw=0.8, ls=(0, (2, 2)))
    bars = [(b["confidence"], b["accuracy"], b["n"]) for b in filled]
    x, y, n = np.array(bars, dtype=float).T
    axes.plot(x, y, color=ACCENT, lw=1.0, alpha=0.3)
    axes.scatter(x, y, s=14 + 60 * n / n.max(), color=ACCENT, lw=0)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    _finish(axes, tr("confidence"), tr("accuracy"))
    said = [
        tr("{stated:.2f} stated, {right:.2f} right, {images} images",
           stated=b["confidence"], right=b["accuracy"], images=b["n"])
        for b in filled
    ]  # fmt: skip
    return _svg(figure, tr(
        "Reliability, expected calibration error {ece:.3f}: {bins}", ece=ece, bins="; ".join(said)
    ))  # fmt: skip


DRIFT_LINES = {  # what maps are compared with → the line's label and dashes
    "previous": (mark("epoch before"), "-"),
    "other_seed": (mark("another seed"), (0, (5, 2))),
    "untrained": (mark("before training"), (0, (2, 2))),
    "random_head": (mark("random head"), (0, (5, 2, 1, 2))),
    "other_images": (mark("other images"), (0, (1, 2))),
}


@style_context(["default", STYLE])
def drift(table: pd.DataFrame) -> str:
    """How alike an epoch's maps and the epoch before's are (Spearman's ρ with its quartiles), above
    its baselines.

    `table` is drift.csv; lines whose columns are missing or empty are left out.
    """
    figure, axes = _panel(6.4, 2.8, right=0.80)
    x = table["epoch"].to_numpy(float)
    ends, said = [], []
    for against, (label, dashes) in DRIFT_LINES.items():
        column = f"spearman_{against}"
        if f"{column}_median" not in table or not table[f"{column}_median"].notna().any():
            continue
        y = table[f"{column}_median"].to_numpy(float)
        shown = np.isfinite(y)
        ours = against == "previous"
        color = ACCENT if ours else INK
        if ours and f"{column}_q25" in table:
            low, high = (table[f"{column}_{end}"].to_numpy(float) for end in ("q25", "q75"))
            axes.fill_between(x, low, high, where=shown, color=ACCENT, alpha=0.16, lw=0)
        axes.plot(
            x[shown], y[shown], color=color, ls=dashes, lw=1.8 if ours else 1.0,
            marker="o" if ours else None, ms=3.5, alpha=1 if ours else 0.8,
        )  # fmt: skip
        ends.append((x[shown][-1], y[shown][-1], tr(label), color))
        numbers = ", ".join(
            tr("{value:.2f} at epoch {epoch:.0f}", value=value, epoch=epoch)
            for epoch, value in zip(x[shown], y[shown], strict=True)
        )
        said.append(f"{tr(label)}: {numbers}")
    axes.axhline(0, color=INK, alpha=0.35, lw=0.6)
    _finish(axes, tr("epoch"), "Spearman ρ")
    axes.set_xticks(x)
    _label_ends(axes, ends)
    return _svg(figure, tr(
        "{measure} correlation of the maps with those of: {lines}",
        measure="Spearman", lines="; ".join(said),
    ))  # fmt: skip


@style_context(["default", STYLE])
def heatmap(confusion: Sequence[Sequence[int]], order: Sequence[int]) -> str:
    """A large confusion matrix as shares of each true class, rows and columns in `order`."""
    matrix = np.asarray(confusion, dtype=float)[np.ix_(order, order)]  # (class, class)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = _panel(5.2, 5.2, left=0.09, bottom=0.09)
    # A square root lets the few mistakes be seen beside a full diagonal.
    axes.imshow(np.sqrt(share), cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    predicted, true = tr("predicted class (clustered order)"), tr("true class (clustered order)")
    _finish(axes, predicted, true, grid="")
    return _svg(figure, tr(
        "Confusion matrix of {classes} classes, clustered: {right} are right",
        classes=len(order), right=_percent(float(np.trace(matrix) / max(matrix.sum(), 1))),
    ))  # fmt: skip


def _panel(
    width: float, height: float, *, left: float = 0.13, right: float = 0.84, bottom: float = 0.16
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((left, bottom, right - left, 0.95 - bottom))


def _finish(axes: Axes, x: str, y: str, grid: str = "y") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid:
        axes.grid(axis=grid, color=INK, alpha=0.14, lw=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Writes each line's name at its end, apart where lines end close together."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    if not ends:
        return
    low, high = axes.get_ylim()
    gap = 11 / 72 / (figure.get_figheight() * axes.get_position().height) * (high - low)
    right = max(end[0] for end in ends)
    ends = sorted(ends, key=lambda end: end[1])
    heights: list[float] = []
    for _, y, _, _ in ends:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    overshoot = max(0.0, heights[-1] - high)
    for height, (_, _, label, color) in zip(heights, ends, strict=True):
        axes.annotate(
            label, (right, height - overshoot), xytext=(6, 0), textcoords="offset points",
            va="center", color=color, annotation_clip=False,
        )  # fmt: skip


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if np.isfinite(fraction) else tr("unknown")


def _in_order(values: list[Any]) -> list[Any]:
    """The different values: numbers ascending, words as they come."""
    different = list(dict.fromkeys(values))
    return sorted(different) if _numeric(different) else different


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _response_alt(points: Sequence[Point], paths: Sequence[str], metric: str) -> str:
    said = []
    for at, mean, low, high in points:
        where = ", ".join(_told(value) for value in at)
        ends = "" if low is None or high is None else f" [{_percent(low)}, {_percent(high)}]"
        said.append(f"{where}: {_percent(mean)}{ends}")
    return tr(
        "{metric} by {keys}, with intervals of 95 %: {points}",
        metric=metric_name(metric), keys=", ".join(paths), points="; ".join(said),
    )  # fmt: skip


def _curves_alt(histories: dict[int, History], best: dict[int, int], key: str, split: str) -> str:
    said = []
    for seed, history in histories.items():
        text = tr(
            "seed {seed}: after epoch {epoch:.0f} train {train:.3f}, {split} {held:.3f}",
            seed=seed, epoch=history["epoch"][-1], train=history[key][-1],
            split=tr(split), held=history[f"val_{key}"][-1],
        )  # fmt: skip
        if at := history.at(best[seed]):
            text += tr(
                "; at the best epoch {epoch} {split} {held:.3f}",
                epoch=best[seed], split=tr(split), held=at[f"val_{key}"],
            )  # fmt: skip
        said.append(text)
    return tr("{metric} by epoch; {seeds}", metric=metric_name(key), seeds="; ".join(said))


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an SVG file's text."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Names in any script are left to the reader's fonts: the text is text, not outlines.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    root = ElementTree.fromstring(buffer.getvalue())
    return finish_svg(root, alt, scale=96 / 72)

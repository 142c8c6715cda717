"""One notebook's chapter on disk: its page and results in, figures and notebook.md out."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from scratchbook.language import speaking
from scratchbook.report import charts, pictures
from scratchbook.report.grids import grids_of
from scratchbook.report.loading import (
    TABLE_CLASSES,
    Experiment,
    Notebook,
    Run,
    load_notebook,
    read_mistakes,
    read_pictures,
)
from scratchbook.report.markdown import notebook_markdown
from scratchbook.results.errors import readable
from scratchbook.results.files import write_text
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.paths import Results
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_drift
from scratchbook.results.records import Metrics
from scratchbook.specs import Page

FOREST_ROWS = 60  # the best, beside the baseline; more do not fit a sheet of paper


def write_chapter(
    page: Page, results: Results, made: Results | None = None, *, processes: int = 1
) -> None:
    """Writes the figures and notebook.md of a notebook.

    Args:
        page: the notebook's text and resolved specs; `language` is that of all that is said.
        results: of its runs.
        made: where its comparison is and its chapter goes; `results` unless given.
        processes: how many draw experiments side by side; the files are the same.
    """
    made = made or results
    with speaking(page["language"]):
        notebook = load_notebook(page, results, made)
        files = made.notebook(notebook.name)
        files.figures.mkdir(parents=True, exist_ok=True)
        drawn = draw_figures(notebook, results.data(page["data"]), processes)
        for old in files.figures.glob("*.svg"):
            if old.stem not in drawn:
                old.unlink()
        for name, svg in drawn.items():
            write_text(files.figure(name), svg, sync=False)
        write_text(files.page, notebook_markdown(notebook, drawn))


def draw_figures(notebook: Notebook, data: Path, processes: int = 1) -> dict[str, str]:
    """Every figure of a notebook as SVG text by its name: `compare`, `{grid}.response`,
    `{experiment}-{figure}`."""
    metric, baseline = notebook.page["metric"], notebook.page["baseline"]
    drawn = _responses(notebook)
    rows = [row for row in notebook.rows if row[metric] is not None]
    if len(rows) > 1:
        rest = [row for row in rows[FOREST_ROWS:] if row["experiment"] == baseline]
        drawn["compare"] = charts.forest(rows[:FOREST_ROWS] + rest, metric, baseline)
    draw = partial(_experiment_figures, data=data)
    processes = min(processes, len(notebook.illustrated))
    if processes < 2:
        figures_of = list(map(draw, notebook.illustrated))
    else:
        # Forked, a process has at once what is imported here and the language that is spoken.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            figures_of = list(pool.map(draw, notebook.illustrated))
    for experiment, named in zip(notebook.illustrated, figures_of, strict=True):
        drawn |= {f"{experiment.name}-{name}": svg for name, svg in named.items()}
    return drawn


def _responses(notebook: Notebook) -> dict[str, str]:
    """A figure (SVG text) of each grid that varies one key or two and has something measured."""
    metric = notebook.page["metric"]
    drawn = {}
    for grid in grids_of(notebook):
        rows = {row["experiment"]: row for row in grid.rows if row[metric] is not None}
        measured = [
            (tuple(point.values()), row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
            for name, point in grid.points.items()
            if (row := rows.get(name))
        ]
        if measured and len(grid.paths) == 1:
            drawn[grid.figure] = charts.response(measured, grid.paths[0], metric)
        elif measured and len(grid.paths) == 2:
            drawn[grid.figure] = charts.response_map(measured, grid.paths, metric)
    return drawn


def _experiment_figures(experiment: Experiment, data: Path) -> dict[str, str]:
    prepared = readable(Prepared, data)
    drawn: dict[str, str] = {}
    if experiment.runs:
        histories = {run.seed: run.history for run in experiment.runs}
        best = {run.seed: run.record["best_epoch"] for run in experiment.runs}
        split = experiment.runs[0].record["validation"]
        for key in ("accuracy", "loss"):
            drawn[key] = charts.curves(histories, best, key, split)
    for run in experiment.runs:
        drawn |= _attention_figures(run, prepared)
    if experiment.evaluated:
        drawn |= _error_figures(*experiment.evaluated, prepared)
    return drawn


def _attention_figures(run: Run, data: Prepared | None) -> dict[str, str]:
    drawn: dict[str, str] = {}
    cam = readable(read_cam, run.maps) if run.maps else None
    if cam is not None and len(cam.images):
        drawn[f"seed{run.seed}-cam"] = pictures.cam_sheet(cam, read_pictures(data, cam.images))
    drift = readable(read_drift, run.drift)
    if drift is not None and len(drift) > 1:
        drawn[f"seed{run.seed}-drift"] = charts.drift(drift)
    return drawn


def _error_figures(run: Run, metrics: Metrics, data: Prepared | None) -> dict[str, str]:
    test = metrics["splits"]["test"]
    drawn = {"reliability": charts.reliability(test["reliability"], test["ece"])}
    mistakes = read_mistakes(run, data)
    if mistakes:
        drawn["mistakes"] = pictures.mistake_sheet(mistakes)
    if len(test["confusion"]) > TABLE_CLASSES:
        drawn["confusion"] = charts.heatmap(test["confusion"], _clustered(test["confusion"]))
    return drawn


def _clustered(confusion: list[list[int]]) -> list[int]:
    """Classes in an order that puts together those that are taken for each other."""
    matrix = np.asarray(confusion, dtype=float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    apart = 1 - (share + share.T) / 2  # (class, class)
    condensed = apart[np.triu_indices(len(apart), k=1)]
    return [int(i) for i in leaves_list(linkage(condensed, "average", optimal_ordering=True))]

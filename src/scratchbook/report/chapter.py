"""One notebook's chapter on disk: its page and results in, figures and notebook.md out."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from scratchbook.language import speaking
from scratchbook.report import figures, pictures
from scratchbook.report.grids import grids_of
from scratchbook.report.loading import (
    TABLE_CLASSES,
    Experiment,
    Notebook,
    Run,
    load_notebook,
    read_cam,
    read_drift,
    read_mistakes,
    read_pictures,
)
from scratchbook.report.markdown import notebook_markdown

FOREST_ROWS = 60  # more do not fit a sheet of paper


def write_chapter(
    page: dict[str, Any],
    results: Path,
    output_dir: Path,
    *,
    tables: Path | None = None,
    processes: int = 1,
) -> None:
    """Writes `output_dir`/figures/*.svg and `output_dir`/notebook.md.

    Args:
        page: the notebook's text and resolved specs; `language` is that of all that is said.
        results: the folder that holds {notebook}/ and data/.
        output_dir: results/{notebook}, or any other folder.
        tables: the folder of {notebook}/compare.csv; `results` unless given.
        processes: how many draw experiments side by side; the files are the same.
    """
    with speaking(str(page.get("language", "en"))):
        notebook = load_notebook(page, results, tables)
        folder = Path(output_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        data = Path(results) / "data" / f"{page['dataset']}.h5"
        drawn = draw_figures(notebook, data, processes)
        for old in folder.glob("*.svg"):
            if old.stem not in drawn:
                old.unlink()
        for name, svg in drawn.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        text = notebook_markdown(notebook, drawn)
        (Path(output_dir) / "notebook.md").write_text(text, encoding="utf-8")


def draw_figures(notebook: Notebook, data: Path, processes: int = 1) -> dict[str, str]:
    """Every figure of a notebook as SVG text by its name: `compare`, `{grid}.response`,
    `{experiment}-{figure}`."""
    drawn: dict[str, str] = {}
    metric = notebook.page["metric"]
    rows = [_forest_row(row, metric) for row in notebook.rows if row.get(metric) is not None]
    if len(rows) > 1:
        drawn["compare"] = figures.forest(
            _forest_choice(rows, notebook.page.get("baseline")), metric, notebook.page["baseline"]
        )
    drawn |= _responses(notebook)
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
        rows = {row["experiment"]: row for row in grid.rows}
        measured = [
            (
                tuple(point.values()),
                float(row[metric]),
                row.get(f"{metric}_low"),
                row.get(f"{metric}_high"),
            )
            for name, point in grid.points.items()
            if (row := rows.get(name)) and row.get(metric) is not None
        ]
        if measured and len(grid.paths) == 1:
            drawn[grid.figure] = figures.response(measured, grid.paths[0], metric)
        elif measured and len(grid.paths) == 2:
            drawn[grid.figure] = figures.response_map(measured, grid.paths, metric)
    return drawn


def _experiment_figures(experiment: Experiment, data: Path) -> dict[str, str]:
    drawn: dict[str, str] = {}
    trained = [run for run in experiment.runs if len(run.history)]
    if trained:
        histories = {run.seed: run.history for run in trained}
        best = {run.seed: int(run.record["best_epoch"]) for run in trained}
        split = str(trained[0].record["validation"])
        for key in ("accuracy", "loss"):
            drawn[key] = figures.curves(histories, best, key, split)
    for run in experiment.runs:
        drawn |= _attention_figures(run, data)
    evaluated = [run for run in experiment.runs if run.metrics and "test" in run.metrics["splits"]]
    if evaluated:
        drawn |= _error_figures(evaluated[0], data)
    return drawn


def _attention_figures(run: Run, data: Path) -> dict[str, str]:
    drawn: dict[str, str] = {}
    cam = read_cam(run)
    if cam is not None and len(cam["images"]):
        shown = read_pictures(data, cam["images"])
        drawn[f"seed{run.seed}-cam"] = pictures.cam_sheet(cam, shown)
    drift = read_drift(run)
    if drift is not None and len(drift) > 1:
        drawn[f"seed{run.seed}-drift"] = figures.drift(drift)
    return drawn


def _error_figures(run: Run, data: Path) -> dict[str, str]:
    assert run.metrics is not None
    test = run.metrics["splits"]["test"]
    drawn = {"reliability": figures.reliability(test["reliability"], test["ece"])}
    mistakes = read_mistakes(run, data)
    if mistakes:
        drawn["mistakes"] = pictures.mistake_sheet(mistakes)
    if len(test["confusion"]) > TABLE_CLASSES:
        drawn["confusion"] = figures.heatmap(test["confusion"], _clustered(test["confusion"]))
    return drawn


def _clustered(confusion: list[list[int]]) -> list[int]:
    """Classes in an order that puts together those that are taken for each other."""
    matrix = np.asarray(confusion, dtype=float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    apart = 1 - (share + share.T) / 2  # (class, class)
    condensed = apart[np.triu_indices(len(apart), k=1)]
    return [int(i) for i in leaves_list(linkage(condensed, "average", optimal_ordering=True))]


def _forest_row(row: dict[str, Any], metric: str) -> dict[str, Any]:
    values = [float(text) for text in str(row.get(f"{metric}_values") or "").split(";") if text]
    ends = {end: row.get(f"{metric}_{end}") for end in ("low", "high")}
    return {
        "experiment": row["experiment"],
        "value": float(row[metric]),
        **{end: float("nan") if value is None else float(value) for end, value in ends.items()},
        "values": values,
    }


def _forest_choice(rows: list[dict[str, Any]], baseline: str | None) -> list[dict[str, Any]]:
    """The best rows, and the baseline wherever it stands."""
    return rows[:FOREST_ROWS] + [r for r in rows[FOREST_ROWS:] if r["experiment"] == baseline]

"""A figure is declared once: what one declaration adds, and where it then stands."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from projects import run_of, scratchbook
from scratchbook.comparison.tables import COLUMNS
from scratchbook.figures import COMPARED, FIGURES, Figure, Measured, Table, shown
from scratchbook.results.hdf5 import open_predictions
from scratchbook.results.paths import Results

MEASURE = '''
def _specificity(split: SplitMetrics) -> float:
    """The mean over the classes of the share of other classes' images not taken for it."""
    confusion, n = split["confusion"], split["n"]
    taken = [sum(column) for column in zip(*confusion, strict=True)]
    shares = [
        1 - (taken[i] - row[i]) / (n - sum(row)) for i, row in enumerate(confusion)
    ]
    return sum(shares) / len(shares)


# --- the list'''
DECLARATION = """
    Figure("test_specificity", mark("specificity"), _of_split("test", _specificity), ".3f",
           higher_is_better=True),
    Figure("seconds","""


def test_a_figure_that_is_declared_stands_in_every_table(project: Path) -> None:
    registry = project / "src/scratchbook/figures.py"
    text = registry.read_text(encoding="utf-8")
    text = re.sub(r"\n# --- the list", lambda _: MEASURE, text, count=1)
    text = re.sub(r'\n +Figure\("seconds",', lambda _: DECLARATION, text, count=1)
    registry.write_text(text, encoding="utf-8")
    notebook = project / "config/notebooks/halves.yaml"
    bound = "{narrow.test_accuracy:.2f}, of others {narrow.test_specificity:.3f}"
    declared = notebook.read_text(encoding="utf-8")
    notebook.write_text(declared.replace("{narrow.test_accuracy:.2f}", bound), encoding="utf-8")

    answer = scratchbook(project, "report", "halves", "--partial", "--output", "page.html")
    assert answer.returncode == 0, answer.stderr
    made = Results(project / "results").partial.notebook("halves")
    with made.compare.open(encoding="utf-8", newline="") as file:
        table = {row["experiment"]: row for row in csv.DictReader(file)}
    expected = f"{specificity(project, 'narrow'):.3f}"
    assert f"{float(table['narrow']['test_specificity']):.3f}" == expected
    html = (project / "page.html").read_text(encoding="utf-8")
    assert html.count(">specificity</th>") == 1 + len(table)  # of experiments, and of each's seeds
    assert html.count(f">{expected}</td>") >= 2
    assert f"of others {expected}" in html
    assert "| specificity |" in made.page.read_text(encoding="utf-8")
    assert "specificity" in made.compare_markdown.read_text(encoding="utf-8")
    assert "specificity" in made.compare_latex.read_text(encoding="utf-8")


def specificity(project: Path, experiment: str) -> float:
    """The same from the answers themselves."""
    run = Results(project / "results").run(run_of(project, experiment))
    with open_predictions(run.predictions) as said:
        split, classes = said.read("best", "test"), range(len(said.class_names))
    answers = split.logits.argmax(axis=1)
    return float(np.mean([(answers[split.labels != k] != k).mean() for k in classes]))


def test_every_figure_of_the_comparison_has_its_columns_once() -> None:
    names = [name for figure in COMPARED.values() for name in figure.fields]
    assert set(COMPARED) <= set(names)
    assert {name: COLUMNS.count(name) for name in names} == dict.fromkeys(names, 1)


def test_a_figure_without_tables_of_its_own_stands_in_all() -> None:
    figure = Figure("depth", "depth", lambda run: len(run.record["layers"]))
    assert all(figure.column(table).head == "depth" for table in get_args(Table))
    assert not FIGURES["trainable"].column("page")
    assert [one.name for one, _ in shown("page", "gap")] == ["gap"]


@pytest.mark.parametrize(
    ("seeds", "values", "expected"),
    [
        ("mean", [1.0, 2.0], 1.5),
        ("mean", [], np.nan),
        ("mean of all", [4.0, 6.0], np.nan),
        ("mean of all", [4.0, 6.0, 8.0], 6.0),
        ("first", [7.0, 9.0], 7.0),
    ],
)
def test_seeds_are_put_together_as_the_figure_says(
    seeds: str, values: list[float], expected: float
) -> None:
    figure = Figure("depth", "depth", lambda run: None, seeds=seeds)
    np.testing.assert_equal(figure.over_seeds(values, runs=3), expected)


def test_a_run_that_is_not_evaluated_has_the_figures_of_its_record_alone(finished: Path) -> None:
    run = Results(finished / "results").run(run_of(finished, "wide"))
    record, metrics = (json.loads(file.read_text()) for file in (run.record, run.metrics))
    bare, whole = Measured(record, None), Measured(record, metrics)
    assert FIGURES["parameters"].of(bare) == record["parameters"]["total"]
    assert FIGURES["test_accuracy"].of(bare) is None
    assert FIGURES["test_accuracy"].of(whole) == metrics["splits"]["test"]["accuracy"]["value"]

"""A grid is short for experiments: one for each combination of its values, usual in every way."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from projects import REPOSITORY, make_project, planned, run_of, scratchbook
from result_trees import make_page, make_results, run_files
from scratchbook.comparison import compare, write_comparison
from scratchbook.config.notebooks import GridMember, Notebook
from scratchbook.config.project import load_project
from scratchbook.config.strict import NAME_PATTERN
from scratchbook.errors import ScratchbookError
from scratchbook.report.chapter import write_chapter
from scratchbook.report.charts import response
from scratchbook.report.html import write_page
from scratchbook.results.paths import Results

LAYERS = """
      - Conv2D: 2
      - Dropout: 0.1
      - Residual:
          layers: [Conv2D: 2, Dropout: {rate: 0.1, name: inner}]
      - Flatten
      - Dense: {units: 8, activation: relu}
      - Dense: {units: 3, activation: softmax, name: predictions}
"""
NOTEBOOK = f"""
goal: Which rate?
dataset: shapes
defaults:
  layers: {{Conv2D: {{kernel_size: 3, padding: same}}}}
  optimizer: {{Adam: {{learning_rate: 0.001, beta_1: 0.8}}}}
  batch_size: 8
  epochs: 1
experiments:
  one:
    layers: {LAYERS.strip().replace("- Conv2D: 2", chr(10) + "      - Conv2D: 2", 1)}
  sweep:
    parent: one
    grid: GRID
cam: null
"""


def notebook(grid: Any, **changes: Any) -> Notebook:
    """The notebook with this grid; `changes` go into the experiment that declares it."""
    page = yaml.safe_load(NOTEBOOK.replace("GRID", "{}"))
    page["experiments"]["sweep"] |= {"grid": grid, **changes}
    return Notebook.model_validate(page)


def members(grid: dict[str, Any], **changes: Any) -> dict[str, dict[str, Any]]:
    """The resolved spec of each experiment that a grid makes."""
    page = notebook(grid, **changes)
    return {name: page.spec(name) for name in page.experiments if name != "one"}


def test_every_combination_becomes_an_experiment_named_after_its_values() -> None:
    found = members({"optimizer.learning_rate": [1e-2, 1e-3], "batch_size": [8, 16]})
    assert list(found) == ["sweep-0_01-8", "sweep-0_01-16", "sweep-0_001-8", "sweep-0_001-16"]
    assert found["sweep-0_001-16"]["batch_size"] == 16
    assert found["sweep-0_001-16"]["optimizer"] == {
        "class_name": "Adam",
        "config": {"learning_rate": 1e-3, "beta_1": 0.8},
    }


def test_a_layer_is_reached_by_class_wherever_it_stands_but_never_the_one_that_answers() -> None:
    (spec,) = members({"layers.Dense.units": [5], "layers.Dropout.rate": [0.5]}).values()
    _, dropout, residual, _, hidden, head = spec["layers"]
    assert dropout["config"]["rate"] == 0.5
    assert residual["config"]["layers"][1]["config"] == {"rate": 0.5, "name": "inner"}
    assert (hidden["config"]["units"], head["config"]["units"]) == (5, 3)


def test_a_layer_is_reached_by_its_name_alone() -> None:
    (spec,) = members({"layers.inner.rate": [0.5], "layers.predictions.use_bias": [False]}).values()
    assert spec["layers"][1]["config"]["rate"] == 0.1
    assert spec["layers"][2]["config"]["layers"][1]["config"]["rate"] == 0.5
    assert spec["layers"][5]["config"]["use_bias"] is False


def test_long_values_have_names() -> None:
    found = members({"augment": {"plain": [], "flipped": [{"RandomFlip": "horizontal"}]}})
    assert list(found) == ["sweep-plain", "sweep-flipped"]
    assert found["sweep-flipped"]["augment"][0]["class_name"] == "RandomFlip"


def test_a_whole_key_is_set_before_what_is_inside_it() -> None:
    found = members({"optimizer.learning_rate": [0.1], "optimizer": ["SGD", "Adam"]})
    assert found["sweep-0_1-sgd"]["optimizer"] == {
        "class_name": "SGD",
        "config": {"learning_rate": 0.1},
    }


def test_other_experiments_can_start_from_a_member() -> None:
    page = yaml.safe_load(NOTEBOOK.replace("GRID", "{batch_size: [4, 8]}"))
    page["experiments"]["on"] = {
        "parent": "sweep-4",
        "initial_weights": {"experiment": "sweep-8"},
        "grid": {"epochs": [2, 3]},
    }
    page["baseline"] = "sweep-8"
    page["key_results"] = [{"text": "{on-2.test_accuracy}"}]
    spec = Notebook.model_validate(page).spec("on-3")
    assert (spec["batch_size"], spec["epochs"]) == (4, 3)
    assert spec["initial_weights"]["experiment"] == "sweep-8"


@given(
    rates=st.lists(st.floats(1e-9, 1, exclude_min=True), min_size=1, max_size=4),
    drops=st.lists(st.sampled_from([0, 0.1, 0.25, 0.5, 0.75]), min_size=1, max_size=3, unique=True),
    batches=st.lists(st.integers(1, 4096), min_size=1, max_size=4, unique=True),
)
def test_members_are_the_product_and_differ_from_their_parent_only_where_the_grid_says(
    rates: list[float], drops: list[float], batches: list[int]
) -> None:
    rates = list({f"{rate:.12g}": rate for rate in rates}.values())  # equal to twelve digits: one
    grid = {"optimizer.learning_rate": rates, "layers.Dropout.rate": drops, "batch_size": batches}
    page = notebook(grid)
    made = {name: one for name, one in page.experiments.items() if isinstance(one, GridMember)}
    assert len(made) == math.prod(map(len, grid.values()))
    base = page.spec("one")
    seen = set()
    for name, member in made.items():
        assert re.fullmatch(NAME_PATTERN, name)
        spec = page.spec(name)
        rate = spec["optimizer"]["config"]["learning_rate"]
        drop = spec["layers"][1]["config"]["rate"]
        assert list(member.point.values()) == [rate, drop, spec["batch_size"]]
        seen.add((rate, drop, spec["batch_size"]))
        spec["optimizer"]["config"]["learning_rate"] = 0.001
        spec["layers"][1]["config"]["rate"] = 0.1
        spec["layers"][2]["config"]["layers"][1]["config"]["rate"] = 0.1
        assert spec | {"batch_size": 8} == base
    assert len(seen) == len(made)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "has no values to try"),
        ({"batch_size": []}, "has no values to try"),
        ({"batch_size": 3}, "takes the list of values to try, or names"),
        ({"batch_size": [8, 8]}, "8 is listed twice"),
        ({"batch_size": [8, 0]}, "sweep-0: batch_size: input should be greater"),
        ({"train_samples": [None, "none"]}, "would both be called 'none'"),
        ({"augment": {"A B": []}}, "has no usable name ('A B')"),
        ({"batchsize": [8]}, "no key 'batchsize' to vary; did you mean 'batch_size'?"),
        ({"threads": [1, 2]}, "no key 'threads' to vary"),
        ({"batch_size.x": [8]}, "batch_size has nothing inside"),
        ({"layers.Dropot.rate": [0.1]}, "class or name 'Dropot'; did you mean 'Dropout'?"),
        ({"layers.Dropout.rat": [0.1]}, "Dropout takes no 'rat'; did you mean 'rate'?"),
        ({"layers.Dropout": [0.1]}, "name an argument too"),
        ({"augment.RandomFlip.mode": ["vertical"]}, "augment is empty"),
        ({"optimizer.learnig_rate": [0.1]}, "'learnig_rate'; did you mean 'learning_rate'?"),
        ({"schedule.warm_up": [1]}, "has no schedule to vary"),
        ({"epochs": list(range(1, 41)), "batch_size": list(range(1, 41))}, "makes 1,600 exp"),
        ({"layers.Dropout.rate": [0.1, 0.2], "layers.Conv2D.name": ["a" * 70]}, "at most 64"),
        ({"layers.Dense.name": {"a-b": "x", "a": "y"}, "loss": {"c": "categorical_crossentropy",
         "b-c": "categorical_crossentropy"}}, "would both be called 'sweep-a-b-c'"),
        ({"optimizer.epsilon": [1, 2], "optimizer": ["SGD"]}, "SGD takes no 'epsilon'"),
        ({"layers.inner.rate": [0.1, 0.2], "layers.Dropout.rate": [0.3]}, "same experiment"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused_in_words(grid: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        notebook(grid)


def test_a_grid_has_no_recorded_figures() -> None:
    with pytest.raises(ValidationError, match="figures beside it"):
        notebook({"batch_size": [8]}, recorded={"val_accuracy": 0.5})


def test_a_name_that_is_taken_is_refused_with_its_line(tmp_path: Path) -> None:
    text = NOTEBOOK.replace("GRID", "{batch_size: [4, 8]}")
    text = text.replace("cam: null", "  sweep-4: {parent: one}\ncam: null")
    project = make_project(tmp_path / "project", text)
    with pytest.raises(ScratchbookError) as caught:
        load_project(folder=project)
    line = text.splitlines().index("    grid: {batch_size: [4, 8]}") + 1
    assert f"halves.yaml:{line}: experiments.sweep.grid: makes an experiment 'sweep-4'" in str(
        caught.value
    )


def test_members_are_checked_listed_and_planned_like_any_experiment(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "project", NOTEBOOK.replace("GRID", "{optimizer.learning_rate: [0.1, 0.01]}")
    )
    assert "halves: 3 experiments, every network builds" in scratchbook(project, "check").stdout
    jobs = planned(project)
    assert {f"train_run {run_of(project, f'sweep-{rate}')}" for rate in ("0_1", "0_01")} <= jobs
    trial = load_project(folder=project).trial("halves")
    json.dumps(trial, allow_nan=False)
    assert trial["experiments"][1]["point"] == {"optimizer.learning_rate": 0.1}


def report(results: Path, points: dict[str, dict[str, Any]], gone: str = "") -> tuple[str, str]:
    """notebook.md and report.html of a page whose experiments, but the first, are of a grid."""
    page = make_page(experiments=("one", *points), seeds=(0,))
    for experiment in page["experiments"][1:]:
        experiment |= {"group": "sweep", "point": points[experiment["name"]], "parent": "one"}
    page["grids"] = [{"name": "sweep", "title": "many rates", "notes": ["A note on all."]}]
    make_results(results, page)
    if gone:
        run_files(results, gone).record.unlink()
    made = Results(results)
    files = made.notebook(page["name"])
    write_comparison(compare(page, made, resamples=20), files)
    write_chapter(page, made)
    write_page([page], made, REPOSITORY / "report", results / "report.html", "snakemake")
    return (
        files.page.read_text(encoding="utf-8"),
        (results / "report.html").read_text(encoding="utf-8"),
    )


RATES = {f"sweep-{label}": {"optimizer.learning_rate": rate}
         for label, rate in (("0_1", 0.1), ("0_01", 0.01), ("0_001", 0.001))}  # fmt: skip


def test_the_table_puts_a_grid_together_and_its_response_tells_every_number(tmp_path: Path) -> None:
    text, html = report(tmp_path, RATES)
    rows = pd.read_csv(tmp_path / "shapes/compare.csv").set_index("experiment")
    assert rows["group"].dropna().to_dict() == dict.fromkeys(RATES, "sweep")
    assert rows.loc["sweep-0_01", "point"] == "optimizer.learning_rate=0.01"
    assert html.count('<tr class="grid">') == 1
    for page in (text, html):
        assert "many rates" in page
        assert "A note on all." in page
    alternative = (tmp_path / "shapes/figures/sweep.response.svg").read_text(encoding="utf-8")
    for name, point in RATES.items():
        row = rows.loc[name]
        low, high = (f"{100 * row[f'test_accuracy_{end}']:.1f} %" for end in ("low", "high"))
        mean = f"{100 * row['test_accuracy']:.1f} %"
        said = f"{point['optimizer.learning_rate']:g}: {mean} [{low}, {high}]"
        assert said in alternative
        assert said in html
        assert said in text.replace("\\", "")
    assert text.index("## Compare") < text.index("### sweep - many rates") < text.index("## one")


@pytest.mark.parametrize("seconds", [["plain", "flipped"], [8, 16], ["only"]])
def test_two_keys_are_drawn_as_a_map_with_a_number_in_each_cell(
    tmp_path: Path, seconds: list[Any]
) -> None:
    points = {
        f"sweep-{i}-{j}": {"layers.Dropout.rate": rate, "augment": second}
        for i, rate in enumerate((0.5, 0.25))
        for j, second in enumerate(seconds)
    }
    report(tmp_path, points, gone="sweep-0-0")
    drawing = (tmp_path / "shapes/figures/sweep.response.svg").read_text(encoding="utf-8")
    rows = pd.read_csv(tmp_path / "shapes/compare.csv").set_index("experiment")
    assert pd.isna(rows.loc["sweep-0-0", "test_accuracy"])
    for name, point in points.items():
        if name != "sweep-0-0":
            value = f"{100 * rows.loc[name, 'test_accuracy']:.1f}"
            rate, second = point.values()
            assert f"{rate:g}, {second}: {value} %" in drawing
            assert f">{value}<" in drawing


def test_rates_that_span_decades_stand_evenly_on_a_logarithmic_axis() -> None:
    rates = [0.1, 0.001, 0.01]
    drawing = response([((rate,), 0.5, 0.4, 0.6) for rate in rates], "rate", "test_accuracy")
    uses = re.findall(r"<use [^>]*>", drawing)
    marks = [float(re.search(r' x="([\d.]+)"', use)[1]) for use in uses if "#3f7fd0" in use]
    left, middle, right = marks
    assert middle - left == pytest.approx(right - middle, rel=1e-3)


def test_three_keys_have_a_table_and_no_drawing(tmp_path: Path) -> None:
    points = {f"sweep-{i}": {"batch_size": i, "epochs": i, "loss": "x"} for i in (1, 2)}
    text, _ = report(tmp_path, points)
    assert "batch_size, epochs, loss over 2 experiments" in text.replace("\\", "")
    assert not (tmp_path / "shapes/figures/sweep.response.svg").exists()

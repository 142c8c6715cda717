"""A run that fails: the others finish, and the page says what is missing and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from projects import NOTEBOOK, REPOSITORY, make_project, planned, run_of, snakemake
from result_trees import make_page, make_results, run_files
from scratchbook.comparison import compare, write_comparison
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import write_metrics
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page
from scratchbook.results.paths import Results, RunFiles

WILD = NOTEBOOK.replace(
    "    title: a wide net\n",
    "    title: a wide net\n    optimizer: {SGD: {learning_rate: 1e30}}\n",
)


def test_a_failing_run_leaves_the_others_and_a_page_that_says_so(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    results = Results(project / "results")
    narrow, wide = (run_of(project, experiment) for experiment in ("narrow", "wide"))
    in_the_way = results.state(wide).parent
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder belongs")
    answer = snakemake(project)
    assert answer.returncode != 0
    assert "error: cannot write under results/state" in answer.stderr
    assert results.run(narrow).metrics.exists()
    assert not results.run(wide).record.exists()
    assert not (project / "report.html").exists()
    page = (project / "report.partial.html").read_text()
    assert "wide" in page
    assert "cannot write under results/state" in page
    assert "narrow" in page
    rows = pd.read_csv(project / "results/partial/halves/compare.csv").set_index("experiment")
    assert rows.loc["wide", "status"] == "failed: seed 0 was not trained (no run.json)"
    assert rows.loc["narrow", "test_accuracy"] > 0

    # A success that makes no page, even beside an older one, leaves it.
    (project / "report.html").touch()
    os.utime(project / "report.html", (0, 0))
    metrics = f"results/runs/{narrow}/derived/metrics.json"
    answer = snakemake(project, "--forcerun", "evaluate_run", "--", metrics)
    assert answer.returncode == 0, answer.stderr
    assert "rule evaluate_run" in answer.stderr
    assert (project / "report.partial.html").exists()

    in_the_way.unlink()
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stderr
    assert (project / "report.html").stat().st_size > 10_000
    assert not (project / "report.partial.html").exists()


def test_a_diverged_run_is_a_result_that_its_page_names_and_leaves_out(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", WILD)
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stderr
    place = Results(project / "results").run(run_of(project, "wide"))
    assert json.loads(place.record.read_text())["diverged"] == 1
    assert json.loads(place.metrics.read_text())["diverged"] == 1
    rows = pd.read_csv(project / "results/halves/compare.csv").set_index("experiment")
    assert "diverged" in rows.loc["wide", "status"]
    assert rows.loc["narrow", "status"] == "complete"
    for page in ("report.html", "results/halves/notebook.md"):
        assert "diverged" in (project / page).read_text()

    # It is not trained again: what it did, it would do again.
    assert planned(project) == set()


def rendered(page: dict[str, Any], results: Path) -> tuple[str, str]:
    """report.html and notebook.md of a page's results, compared."""
    folder = results / page["name"]
    made = Results(results)
    write_comparison(compare(page, made, resamples=20), made.notebook(page["name"]))
    write_chapter(page, made)
    write_page([page], made, REPOSITORY / "report", results / "report.html", "snakemake")
    return (results / "report.html").read_text("utf-8"), (folder / "notebook.md").read_text("utf-8")


def test_a_run_that_answers_with_nan_has_a_row_that_says_so_beside_the_others(
    tmp_path: Path,
) -> None:
    page = make_page()
    make_results(tmp_path, page)
    for seed in page["seeds"]:
        run = run_files(tmp_path, "train2", seed)
        with h5py.File(run.predictions, "r+") as file:
            for split in ("train", "validation", "test"):
                file[f"best/{split}/logits"][:] = np.nan
        write_metrics(run.predictions, run.metrics)
    html, text = rendered(page, tmp_path)
    folder = tmp_path / page["name"]
    rows = pd.read_csv(folder / "compare.csv").set_index("experiment")
    assert rows.loc["train2", "status"].startswith("failed: seed 0 best/train: the logits of 400")
    assert rows.loc[["train1", "train3"], "status"].eq("complete").all()
    assert len(pd.read_csv(folder / "comparisons.csv")) == 1
    for said in (html, text):
        assert "NAN" in said
        assert "The net no longer answers with numbers" in said
        assert "the logits of 200 of 200 images are NaN or infinite" in said


def test_a_history_of_no_bytes_is_named_and_the_other_runs_stand(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page)
    history = run_files(tmp_path, "train2").history
    history.write_text("")
    html, text = rendered(page, tmp_path)
    for said in (html, text):
        assert f"seed 0 cannot be read ({history}: no column or row of epoch, " in said


def test_results_that_cannot_be_written_are_one_readable_message(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "results").write_text("a file in its place")
    answer = snakemake(project)
    assert answer.returncode != 0
    assert "results is no folder, but results are to be written there" in answer.stderr
    assert "Traceback" not in answer.stderr

    (project / "results").unlink()
    (project / "results").mkdir()
    mount = "mount --bind results results && mount -o remount,ro,bind results"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], cwd=project).returncode:
        pytest.skip("no read-only mount can be made here")
    command = f'{mount} && exec "$@"'
    answer = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", sys.executable, "-m", "snakemake", "-c1"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode != 0
    assert "cannot write under results: Read-only file system" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_test_split_of_one_class_is_compared_and_shown(tmp_path: Path) -> None:
    page = make_page()
    store = make_results(tmp_path, page, classes=("dark", "light"))
    for run in map(RunFiles, store.glob("*/seed*")):
        with h5py.File(run.predictions, "r+") as file:
            file["best/test/labels"][:] = file["last/test/labels"][:] = 0
        write_metrics(run.predictions, run.metrics)
    html, _ = rendered(page, tmp_path)
    rows = pd.read_csv(tmp_path / page["name"] / "compare.csv")
    assert rows["status"].eq("complete").all()
    assert rows["test_accuracy"].between(0, 1).all()
    assert "PRIOR-COLLAPSE" not in html


def test_a_run_without_test_images_is_refused_and_its_row_says_so(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page)
    run = run_files(tmp_path, "train2")
    with h5py.File(run.predictions, "r+") as file:
        for when in ("best", "last"):
            for key in ("logits", "labels", "index"):
                none = file[f"{when}/test/{key}"][:0]
                del file[f"{when}/test/{key}"]
                file[f"{when}/test/{key}"] = none
    with pytest.raises(ScratchbookError, match="best/test holds no image"):
        write_metrics(run.predictions, run.metrics)
    rendered(page, tmp_path)
    status = pd.read_csv(tmp_path / page["name"] / "compare.csv").set_index("experiment")["status"]
    assert "best/test holds no image" in status["train2"]
    assert status["train1"] == status["train3"] == "complete"

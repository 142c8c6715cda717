"""What an edit runs again, seen by the real Snakemake on a finished project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from projects import planned, snakemake

CHAIN = {"train_run", "evaluate_run", "map_attention", "measure_drift"}
PAGE = {"write_notebook halves", "write_report", "describe_results"}


def edit(project: Path, file: str, before: str, after: str) -> None:
    path = project / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def rules(jobs: set[str]) -> set[str]:
    return {job.split()[0] for job in jobs}


def test_a_finished_project_runs_nothing(project: Path) -> None:
    assert planned(project) == set()


def test_touching_every_file_runs_nothing(project: Path) -> None:
    for file in [*project.glob("src/**/*.py"), *project.glob("workflow/**/*.py"),
                 *project.glob("rules/*"), *project.glob("config/**/*.yaml"),
                 *project.glob("data/**/*.png"), project / "Snakefile"]:  # fmt: skip
        file.touch()
    assert planned(project) == set()


def test_a_fresh_checkout_of_the_code_runs_nothing(project: Path, tmp_path: Path) -> None:
    for part in ("src", "workflow", "rules", "report", "config", "profiles"):
        shutil.copytree(project / part, tmp_path / part, copy_function=shutil.copyfile)
        shutil.rmtree(project / part)
        shutil.copytree(tmp_path / part, project / part, copy_function=shutil.copyfile)
    assert planned(project) == set()


def test_writing_down_a_recorded_figure_trains_nothing(project: Path) -> None:
    edit(
        project,
        "config/notebooks/halves.yaml",
        "    title: a wide net\n",
        "    title: a wide net\n    recorded: {parameters: 547, val_accuracy: 0.9}\n",
    )
    assert planned(project) == PAGE | {"compare_experiments halves"}


@pytest.mark.parametrize(
    ("before", "after"),
    [("it learns something", "it learns little"), ("a wide net", "a broad net")],
    ids=["note", "title"],
)
def test_editing_words_renders_the_page_and_nothing_else(
    project: Path, before: str, after: str
) -> None:
    edit(project, "config/notebooks/halves.yaml", before, after)
    assert planned(project) == PAGE


def test_another_language_renders_and_compares_nothing_anew(project: Path) -> None:
    assert planned(project, "--config", "language=zh") == PAGE


def test_editing_one_learning_rate_runs_that_experiment_and_what_follows(project: Path) -> None:
    edit(
        project, "config/notebooks/halves.yaml", "    title: a wide net\n",
        "    title: a wide net\n    optimizer: {Adam: {learning_rate: 0.01}}\n",
    )  # fmt: skip
    jobs = planned(project)
    assert {job for job in jobs if job.split()[0] in CHAIN} == {
        f"{rule} halves/wide/0" for rule in CHAIN
    }
    assert rules(jobs) - CHAIN == {
        "compare_experiments", "write_notebook", "write_report", "describe_results"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("src/scratchbook/training/losses.py", CHAIN),
        ("src/scratchbook/evaluation.py", {"evaluate_run"}),
        ("src/scratchbook/cam/maps.py", {"map_attention", "measure_drift"}),
        ("src/scratchbook/data/source.py", {"prepare_dataset"}),
        ("src/scratchbook/config/claims.py", {"compare_experiments", "write_notebook"}),
        ("report/page.html.j2", set()),
    ],
)
def test_editing_the_code_of_a_stage_runs_that_stage(
    project: Path, file: str, expected: set[str]
) -> None:
    path = project / file
    path.write_text(path.read_text() + "\n")
    jobs = rules(planned(project))
    of_runs = {"evaluate_run", *CHAIN}
    assert expected <= jobs
    assert "write_report" in jobs
    if "prepare_dataset" not in expected:  # all of a run may follow from its data
        assert jobs & {"prepare_dataset", *of_runs} == expected & of_runs


def test_other_data_under_the_same_name_are_noticed(project: Path) -> None:
    shutil.copy(project / "data/shapes/top/00.png", project / "data/shapes/top/99.png")
    assert "prepare_dataset shapes" in planned(project)


def test_another_seed_trains_only_that_seed(project: Path) -> None:
    jobs = planned(project, "--config", "seeds=[0,1]")
    assert {job for job in jobs if job.startswith("train_run")} == {
        "train_run halves/narrow/1", "train_run halves/wide/1"
    }  # fmt: skip


def test_a_note_edit_leaves_all_results_as_they_are(project: Path) -> None:
    before = {p: p.read_bytes() for p in project.glob("results/halves/**/*.json")}
    edit(project, "config/notebooks/halves.yaml", "it learns something", "a <b>new</b> note")
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stderr
    assert "a &lt;b&gt;new&lt;/b&gt; note" in (project / "report.html").read_text()
    assert {p: p.read_bytes() for p in before} == before

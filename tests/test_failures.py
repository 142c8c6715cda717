"""A run that fails: the others finish, and the page says what is missing and why."""

from __future__ import annotations

from pathlib import Path

from projects import NOTEBOOK, make_project, snakemake

WILD = NOTEBOOK.replace(
    "    title: a wide net\n",
    "    title: a wide net\n    optimizer: {SGD: {learning_rate: 1e30}}\n",
)


def test_a_diverging_run_leaves_the_others_and_a_page_that_says_so(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", WILD)
    answer = snakemake(project)
    assert answer.returncode != 0
    assert "error: the loss became" in answer.stderr
    assert "a lower learning rate is the usual cure" in answer.stderr
    assert (project / "results/halves/narrow/seed0/metrics.json").exists()
    assert not (project / "results/halves/wide/seed0/run.json").exists()
    assert not (project / "report.html").exists()
    page = (project / "report.partial.html").read_text()
    assert "wide" in page
    assert "the loss became" in page
    assert "narrow" in page

    (project / "config/notebooks/halves.yaml").write_text(NOTEBOOK)
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stderr
    assert (project / "report.html").exists()
    assert not (project / "report.partial.html").exists()

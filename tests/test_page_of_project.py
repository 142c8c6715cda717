"""The page and its records of a project that the real Snakemake has finished."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rocrate.rocrate import ROCrate

from projects import planned, run_of, scratchbook, snakemake
from scratchbook.results.paths import Results


def test_the_page_draws_the_rule_graph_that_snakemake_tells(finished: Path) -> None:
    dot = snakemake(finished, "--rulegraph", "dot").stdout
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)", dot, re.MULTILINE)
    told = {(names[source], names[target]) for source, target in edges}
    page = (finished / "report.html").read_text(encoding="utf-8")
    drawn = re.search(r'aria-label="Graph of (\d+) rules: ([^"]*)"', page)
    shown = {
        (source, target)
        for each in drawn[2].split("; ")
        for target, _, sources in [each.partition(" reads ")]
        for source in sources.split(", ")
    }
    assert int(drawn[1]) == len(names)
    assert shown == told


def test_the_crate_names_only_files_that_are_there(finished: Path) -> None:
    crate = ROCrate(finished)
    assert {part.id for part in crate.data_entities} >= {"Snakefile", "report.html"}
    for part in crate.data_entities:
        assert (finished / part.id).exists(), part.id


def test_the_command_renders_one_notebook_alone(project: Path) -> None:
    before = (project / "report.html").read_bytes()
    answer = scratchbook(project, "report", "halves")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("halves.html: ")
    page = (project / "halves.html").read_text(encoding="utf-8")
    assert "This page is incomplete" not in page
    assert 'id="halves.wide"' in page
    assert (project / "report.html").read_bytes() == before


def test_the_page_calls_the_data_as_they_are_declared_now_and_names_files_that_are_there(
    project: Path,
) -> None:
    datasets = project / "config/datasets.yaml"
    words = "  title: Light and shade\n  citation: A. Painter 1889\n"
    datasets.write_text(re.sub(r"  title: .*\n", words, datasets.read_text()))
    assert not [job for job in planned(project) if job.startswith(("prepare", "train"))]
    answer = scratchbook(project, "report", "halves")
    assert answer.returncode == 0, answer.stderr
    page = (project / "halves.html").read_text(encoding="utf-8")
    assert "Light and shade" in page
    assert "folder shapes — A. Painter 1889" in page
    assert "Bright and dark halves" not in re.sub(r"(?s)<pre.*?</pre>", "", page)
    weights = re.findall(r"<code>([^<]*\.weights\.h5)</code>", page)
    assert len(weights) == 2
    for file in weights:
        assert (project / "results" / file).is_file(), file


def test_what_is_declared_otherwise_has_no_run_and_as_it_was_its_own_again(project: Path) -> None:
    notebook = project / "config/notebooks/halves.yaml"
    text, before = notebook.read_text(), run_of(project, "wide")
    assert "epochs: 2" in text
    notebook.write_text(text.replace("epochs: 2", "epochs: 3"))
    assert run_of(project, "wide") != before
    refused = scratchbook(project, "report")
    assert refused.returncode == 1
    assert "halves/wide: seed 0 is missing (run.json is not there)" in refused.stderr
    assert f"train_run {run_of(project, 'wide')}" in planned(project)
    notebook.write_text(text)
    assert run_of(project, "wide") == before
    answer = scratchbook(project, "report")
    assert answer.returncode == 0, answer.stderr
    assert not [job for job in planned(project) if job.startswith("train_run")]


def test_the_command_refuses_a_page_with_gaps_unless_asked_for_one(project: Path) -> None:
    shutil.rmtree(Results(project / "results").run(run_of(project, "wide")).folder)
    refused = scratchbook(project, "report")
    assert refused.returncode == 1
    assert "halves/wide: seed 0 is missing" in refused.stderr
    assert "--partial" in refused.stderr
    assert not (project / "halves.html").exists()
    answer = scratchbook(project, "report", "--partial", "--output", "pages/gaps.html")
    assert answer.returncode == 0, answer.stderr
    page = (project / "pages/gaps.html").read_text(encoding="utf-8")
    assert page.index("This page is incomplete") < page.index('id="halves.narrow"')
    assert "No run of this experiment is here yet" in page

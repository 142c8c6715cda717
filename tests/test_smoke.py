"""`smoke=true`: the whole graph in little time, beside real results and never among them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from made_data import make_data
from projects import REPOSITORY, make_project, snakemake
from scratchbook.config.project import load_project, notebook_names
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_runs

SHARED = REPOSITORY.parent / "shared/data"
needs_cifar_10 = pytest.mark.skipif(
    not (SHARED / "cifar10.zip").exists(), reason="cifar10.zip is not here"
)


def test_a_rehearsal_runs_every_experiment_for_one_epoch_and_leaves_real_results_alone(
    project: Path,
) -> None:
    before = {p: p.read_bytes() for p in project.glob("results/runs/**/*.json")}
    assert before
    page = (project / "report.html").read_bytes()
    answer = snakemake(project, "--config", "smoke=true")
    assert answer.returncode == 0, answer.stderr
    runs = rehearsed(project, "halves")
    assert runs.keys() == {"narrow", "wide"}
    for run in runs.values():
        assert json.loads(run.record.read_text())["epochs"] == 1
        assert list(run.derived.glob("cam-*.h5"))
    assert (project / "results/smoke/report.html").exists()
    assert {p: p.read_bytes() for p in before} == before
    assert (project / "report.html").read_bytes() == page


def rehearsed(project: Path, notebook: str) -> dict[str, RunFiles]:
    """The smoke runs of a notebook, by experiment."""
    results = Results(project / "results/smoke")
    rows = read_runs(results.notebook(notebook).runs)
    return {row["experiment"]: results.run(row["run"]) for row in rows}


@needs_cifar_10
def test_cifar_10_is_prepared_whole_within_its_time_and_memory(tmp_path: Path) -> None:
    from scratchbook.results.prepared import Prepared

    project = make_project(tmp_path / "project")
    shutil.copytree(REPOSITORY / "config", project / "config", dirs_exist_ok=True)
    answer = snakemake(
        project, "--config", "notebooks=[cifar10]", f"data_dir={SHARED}",
        "--until", "prepare_dataset",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    [file] = (project / "results/data").glob("*.h5")
    prepared = Prepared(file)
    assert prepared.counts == {"train": 45_000, "validation": 5_000, "test": 10_000}
    assert prepared.images.shape == (60_000, 32, 32, 3)
    benchmark = project / f"results/benchmarks/data/{file.stem}.tsv"
    head, row = benchmark.read_text().splitlines()
    measured = dict(zip(head.split("\t"), row.split("\t"), strict=True))
    assert float(measured["s"]) <= 60
    assert float(measured["max_rss"]) < 1000


@pytest.mark.long
def test_every_notebook_rehearses_from_data_to_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most 15 minutes on two idle cores; the time that it took is printed."""
    project = make_project(tmp_path / "project")
    shutil.copytree(REPOSITORY / "config", project / "config", dirs_exist_ok=True)
    make_data(project / "made", REPOSITORY)
    names = notebook_names(REPOSITORY / "config/notebooks")
    clock = time.monotonic()
    answer = snakemake(
        project, "--resources", "gpu=0", "--config", f"notebooks=[{','.join(names)}]",
        "smoke=true", "seeds=[0]", "data_dir=made",
    )  # fmt: skip
    minutes = (time.monotonic() - clock) / 60
    with capsys.disabled():
        print(f"\n{len(names)} notebooks rehearsed in {minutes:.1f} minutes")
    assert answer.returncode == 0, answer.stderr[-5000:]

    page = (project / "results/smoke/report.html").read_text()
    declared = load_project({"notebooks": names}, REPOSITORY)
    results = Results(project / "results/smoke")
    for name, notebook in declared.notebooks.items():
        runs = rehearsed(project, name)
        assert f'id="{name}"' in page
        for experiment, written in notebook.experiments.items():
            run = json.loads(runs[experiment].record.read_text())
            assert run["epochs"] == 1
            assert written.recorded.parameters in (None, run["parameters"]["total"])
            assert written.recorded.trainable in (None, run["parameters"]["trainable"])
            assert list(runs[experiment].derived.glob("cam-*.h5"))
            assert results.notebook(name).drift(experiment, 0).exists()
            assert f'id="{name}.{experiment}"' in page

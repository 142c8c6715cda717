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

SHARED = REPOSITORY.parent / "shared/data"
needs_cifar_10 = pytest.mark.skipif(
    not (SHARED / "cifar10.zip").exists(), reason="cifar10.zip is not here"
)


def test_a_rehearsal_runs_every_experiment_for_one_epoch_and_leaves_real_results_alone(
    project: Path,
) -> None:
    before = {p: p.read_bytes() for p in project.glob("results/halves/**/*.json")}
    page = (project / "report.html").read_bytes()
    answer = snakemake(project, "--config", "smoke=true")
    assert answer.returncode == 0, answer.stderr
    for experiment in ("narrow", "wide"):
        folder = project / f"results/smoke/halves/{experiment}/seed0"
        run = json.loads((folder / "run.json").read_text())
        assert run["epochs"] == 1
        assert (folder / "cam.h5").exists()
    assert (project / "results/smoke/report.html").exists()
    assert {p: p.read_bytes() for p in before} == before
    assert (project / "report.html").read_bytes() == page


@needs_cifar_10
def test_cifar_10_is_prepared_whole_within_its_time_and_memory(tmp_path: Path) -> None:
    from scratchbook.results.prepared import Prepared

    project = make_project(tmp_path / "project")
    shutil.copytree(REPOSITORY / "config", project / "config", dirs_exist_ok=True)
    answer = snakemake(
        project, "--config", "notebooks=[cifar10]", f"data_dir={SHARED}",
        "--", "results/data/cifar10.h5",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    prepared = Prepared(project / "results/data/cifar10.h5")
    assert prepared.counts == {"train": 45_000, "validation": 5_000, "test": 10_000}
    assert prepared.images.shape == (60_000, 32, 32, 3)
    head, row = (project / "results/benchmarks/data/cifar10.tsv").read_text().splitlines()
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
    for name, notebook in declared.notebooks.items():
        assert f'id="{name}"' in page
        for experiment, written in notebook.experiments.items():
            folder = project / f"results/smoke/{name}/{experiment}/seed0"
            run = json.loads((folder / "run.json").read_text())
            assert run["epochs"] == 1
            assert written.recorded.parameters in (None, run["parameters"]["total"])
            assert written.recorded.trainable in (None, run["parameters"]["trainable"])
            assert (folder / "cam.h5").exists()
            assert (folder / "drift.csv").exists()
            assert f'id="{name}.{experiment}"' in page

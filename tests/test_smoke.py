"""`smoke=true`: the whole graph in little time, beside real results and never among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from projects import REPOSITORY, make_project, snakemake

SHARED = REPOSITORY.parent / "shared/data"
needs_cifar_10 = pytest.mark.skipif(
    not (SHARED / "cifar10.zip").exists(), reason="cifar10.zip is not here"
)


def cifar_10_project(folder: Path) -> Path:
    """A project with the repository's own cifar10 notebook."""
    project = make_project(folder)
    for part in ("config/datasets.yaml", "config/notebooks/cifar10.yaml"):
        (project / part).write_text((REPOSITORY / part).read_text())
    return project


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
    from scratchbook.data.prepared import Prepared

    project = cifar_10_project(tmp_path / "project")
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
@needs_cifar_10
def test_the_cifar_10_notebook_rehearses_on_real_images(tmp_path: Path) -> None:
    project = cifar_10_project(tmp_path / "project")
    answer = snakemake(
        project, "--resources", "gpu=0", "--config", "notebooks=[cifar10]",
        f"data_dir={SHARED}", "smoke=true",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    parameters = [
        json.loads(file.read_text())["parameters"]["total"]
        for file in sorted(project.glob("results/smoke/cifar10/*/seed0/run.json"))
    ]
    assert parameters == [1_602_058, 1_602_058, 11_018_058]

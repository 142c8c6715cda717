"""The quickstart on another backend than TensorFlow, from the data to the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from projects import REPOSITORY, make_project, snakemake


@pytest.mark.long
def test_the_quickstart_runs_on_jax_from_the_data_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    for folder in ("config", "data"):
        shutil.rmtree(project / folder)
    shutil.copytree(REPOSITORY / "config", project / "config")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    answer = snakemake(project, "--config", "smoke=true", "seeds=[0]")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    runs = list((project / "results/smoke").glob("*/*/seed*/run.json"))
    assert runs
    assert {json.loads(run.read_text())["backend"] for run in runs} == {"jax"}
    assert all((run.parent / "cam.h5").is_file() for run in runs)
    assert (project / "results/smoke/report.html").stat().st_size > 100_000

"""Two Snakemakes in one results folder: both finish rightly, or the second is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from projects import NOTEBOOK, planned, snakemake

OTHER = NOTEBOOK.replace("cam: {epochs: [1, last], images: 3}\n", "").replace(
    "epochs: 2", "epochs: 3"
)


@pytest.mark.long
def test_two_snakemakes_make_two_notebooks_but_not_one_page(project: Path) -> None:
    notebooks = project / "config/notebooks"
    (notebooks / "other.yaml").write_text(OTHER)
    changed = NOTEBOOK.replace("epochs: 2", "epochs: 50000")
    (notebooks / "halves.yaml").write_text(changed)
    with (project / "first.log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1"],
            cwd=project, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )  # fmt: skip
    try:
        state = project / "results/state"
        while first.poll() is None and not list(state.glob("*/seed0/epoch-*.npz")):
            time.sleep(0.05)

        # The page is one file: two that would write it do not both start.
        page = snakemake(project, "--config", "notebooks=[other]")
        assert page.returncode != 0
        assert "Directory cannot be locked" in page.stderr
        assert "--unlock" in page.stderr
        assert not (project / "results/other").exists()

        # Another notebook's own files are nobody else's, and its data are only read.
        alone = snakemake(
            project, "--config", "notebooks=[other]", "--", "results/other/notebook.md"
        )
        assert alone.returncode == 0, alone.stdout + alone.stderr
        assert "narrow" in (project / "results/other/notebook.md").read_text()
        assert list(state.glob("*/seed0/epoch-*.npz"))  # of the first one
        assert first.poll() is None, (project / "first.log").read_text()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

    # The first one's lock and state are as it left them: a page of both comes of both.
    assert snakemake(project, "--unlock").returncode == 0
    (notebooks / "halves.yaml").write_text(NOTEBOOK)
    both = ["--config", "notebooks=[halves,other]"]
    assert not [job for job in planned(project, *both) if job.startswith("train_run")]
    answer = snakemake(project, *both)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "other" in (project / "report.html").read_text()

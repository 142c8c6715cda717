"""Kill trainings under the real Snakemake at random moments: what comes out is what an
uninterrupted run gives, to the bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from projects import make_project

PATIENCE = 240  # seconds for one Snakemake on a busy machine
EXPERIMENTS = {
    "plain": "",
    "plateau": """
    optimizer: {SGD: {learning_rate: 0.01, momentum: 0.9, decay: 0.001}}
    callbacks: [ReduceLROnPlateau: {patience: 1, factor: 0.5, min_lr: 0.002, min_delta: 0.2}]""",
}


def notebook(experiments: list[str], epochs: int) -> str:
    """A page whose experiments train one small network in different ways."""
    head = (
        "goal: Is a killed run the same run?\n"
        "dataset: shapes\n"
        f"defaults: {{batch_size: 1, epochs: {epochs}}}\n"
        "experiments:\n"
    )
    layers = """
    layers:
      - Conv2D: {filters: 2, kernel_size: 3, activation: relu}
      - Dropout: 0.2
      - Flatten
      - Dense: {units: 3, activation: softmax}"""
    return head + "".join(
        f"  {name}:\n    title: {name}{layers}{EXPERIMENTS[name]}\n" for name in experiments
    )


class Kills:
    """A project whose Snakemake is killed, and the untouched copy it is compared with."""

    def __init__(self, folder: Path, experiments: list[str], epochs: int) -> None:
        self.whole, self.killed = folder / "whole", folder / "killed"
        self.runs = [f"results/halves/{name}/seed0" for name in experiments]
        self.random = random.Random(0)
        make_project(self.whole, notebook(experiments, epochs))
        self.finish(self.whole, "results/data/shapes.h5")
        shutil.copytree(self.whole, self.killed, symlinks=True)
        self.finish(self.whole)

    def start(self, project: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """The real Snakemake, in a process group of its own."""
        with (project / "snakemake.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
                cwd=project, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(project / "src")},
            )  # fmt: skip

    def finish(self, project: Path, *arguments: str) -> None:
        """Runs Snakemake to its end."""
        arguments = arguments or self.targets
        code = self.start(project, *arguments).wait(timeout=PATIENCE)
        assert code == 0, (project / "snakemake.log").read_text()[-5000:]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"{run}/run.json" for run in self.runs)

    def unfinished(self) -> list[str]:
        return [run for run in self.runs if not (self.killed / run / "run.json").exists()]

    def until_epochs(self, process: subprocess.Popen[bytes], epochs: int) -> bool:
        """Waits for that many epochs of one job of this Snakemake; False if it ended before."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            assert time.monotonic() < deadline, (self.killed / "snakemake.log").read_text()[-5000:]
            if max(self.epochs_told().values(), default=0) >= epochs:
                return True
            time.sleep(0.005)
        return False

    def epochs_told(self) -> dict[Path, int]:
        """The epochs that each job of the present Snakemake has told its log."""
        logs = (self.killed / "results/logs").rglob("train.log")
        told = {}
        for log in logs:
            with contextlib.suppress(FileNotFoundError):
                text = log.read_text(errors="replace")
                told[log] = sum(line.startswith("epoch ") for line in text.splitlines())
        return told

    def kill(self, end: Callable[[subprocess.Popen[bytes]], None], *arguments: str) -> int:
        """Starts Snakemake, ends it within the epochs that follow, and unlocks the folder.

        Returns:
            How many training jobs were among their epochs at that moment.
        """
        for log in self.epochs_told():
            log.unlink()
        process = self.start(self.killed, *arguments, *self.targets)
        busy = 0
        if self.until_epochs(process, self.random.randint(1, 2)):
            time.sleep(self.random.uniform(0, 0.15))
            before = len(self.unfinished())
            end(process)
            busy = min(before, sum(told > 0 for told in self.epochs_told().values()))
            process.wait(timeout=PATIENCE)
        else:
            assert process.returncode == 0, (self.killed / "snakemake.log").read_text()[-5000:]
        self.finish(self.killed, "--unlock")
        return busy

    def refuse_another(self, first: subprocess.Popen[bytes]) -> None:
        """Starts a second Snakemake while the first has the folder; it must not begin."""
        while first.poll() is None and not list(self.killed.glob(".snakemake/locks/*")):
            time.sleep(0.01)
        second = self.start(self.killed, *self.targets)
        assert second.wait(timeout=PATIENCE) != 0
        assert first.poll() is None
        assert "Directory cannot be locked" in (self.killed / "snakemake.log").read_text()

    def assert_equal(self) -> None:
        """Weights, history (but for seconds) and predictions are those of the untouched runs."""
        for run in self.runs:
            assert outcome(self.killed / run) == outcome(self.whole / run), run
        assert not list((self.killed / "results/state").rglob("*.npz"))


def outcome(run: Path) -> tuple:
    record = json.loads((run / "run.json").read_text())
    rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    assert [int(row[0]) for row in rows[1:]] == list(range(1, record["epochs"] + 1))
    arrays: dict[str, bytes] = {}
    with h5py.File(run / "predictions.h5") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: np.asarray(item).tobytes()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert arrays
    return record["weights_sha256"], [row[:-1] for row in rows], arrays, record["checkpoints"]


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to Snakemake and all its jobs at once, as a machine's death would have it."""
    jobs = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(jobs, timeout=30)


def kill_job(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the trainings alone, as when memory runs out; Snakemake tries them again."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline()[-1].endswith("train_run.py"):
                child.kill()


def test_a_training_killed_three_times_is_the_uninterrupted_one(tmp_path: Path) -> None:
    kills = Kills(tmp_path, ["plateau"], 30)
    assert sum(kills.kill(kill_group) for _ in range(3)) == 3
    first = kills.start(kills.killed, *kills.targets)
    kills.refuse_another(first)
    assert first.wait(timeout=PATIENCE) == 0
    kills.assert_equal()


@pytest.mark.long
def test_a_job_killed_alone_is_tried_again_and_goes_on(tmp_path: Path) -> None:
    kills = Kills(tmp_path, ["plain"], 30)
    process = kills.start(kills.killed, "--retries", "2", *kills.targets)
    assert kills.until_epochs(process, 3)
    kill_job(process)
    assert process.wait(timeout=PATIENCE) == 0
    log = (kills.killed / "snakemake.log").read_text()
    assert "Trying to restart job" in log
    assert "going on after epoch" in log
    kills.assert_equal()

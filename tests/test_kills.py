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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from projects import make_project, run_of, snakemake
from scratchbook.results.paths import Results, RunFiles
from scratchbook.verification import first_difference

PATIENCE = 600  # seconds for one Snakemake on a busy machine
EXPERIMENTS = {
    "plain": "",
    "augmented": """
    augment: [RandomFlip: horizontal, RandomRotation: 0.1]""",
    "plateau": """
    optimizer: {SGD: {learning_rate: 0.01, momentum: 0.9, decay: 0.001}}
    callbacks: [ReduceLROnPlateau: {patience: 1, factor: 0.5, min_lr: 0.002, min_delta: 0.2}]""",
    "stopped": """
    callbacks: [EarlyStopping: {patience: 20, min_delta: 0.9}]""",
    "warm": """
    initial_weights: {experiment: plain, checkpoint: best}""",
}
EPOCHS = 30
SIGNALS = {  # to Snakemake and its jobs, from a machine that dies, a person, a batch system
    "machine": signal.SIGKILL,
    "Ctrl-C": signal.SIGINT,
    "time limit": signal.SIGTERM,
}


def notebook(experiments: list[str]) -> str:
    """A page whose experiments train one small network in different ways."""
    head = (
        "goal: Is a killed run the same run?\n"
        "dataset: shapes\n"
        f"defaults: {{batch_size: 1, epochs: {EPOCHS}}}\n"
        "experiments:\n"
    )
    layers = """
    layers:
      - Conv2D: {filters: 2, kernel_size: 3, activation: relu}
      - BatchNormalization
      - Dropout: 0.2
      - Flatten
      - Dense: {units: 3, activation: softmax}"""
    return head + "".join(
        f"  {name}:\n    title: {name}{layers}{EXPERIMENTS[name]}\n" for name in experiments
    )


@dataclass
class Aim:
    """The moment at which one training process is to be killed."""

    training: psutil.Process
    kind: str
    epochs: int  # that it is to tell first
    delay: float  # seconds from then on
    log: Path
    state: Path
    since: float | None = None

    def reached(self) -> bool:
        """Whether that moment has come; from the first epoch on the training runs in steps of a
        millisecond, each looked at, lest a fast machine be done before it is killed."""
        told = epochs_told(self.log)
        with contextlib.suppress(psutil.NoSuchProcess):
            if told >= max(self.epochs, 1):
                self.training.resume()
                time.sleep(0.001)
                self.training.suspend()
        if self.since is None and told >= self.epochs:
            self.since = time.monotonic()
        if self.since is None:
            return False
        if self.kind == "saving":
            return any(self.state.glob(".partial-*"))
        return time.monotonic() - self.since >= self.delay or told > self.epochs + 1


class Kills:
    """A project whose trainings are killed, and the untouched copy it is compared with."""

    def __init__(
        self,
        folder: Path,
        experiments: list[str],
        precision: str = "float32",
        backend: str = "tensorflow",
    ) -> None:
        self.whole, self.killed = folder / "whole", folder / "killed"
        self.random = random.Random(f"{experiments} {precision} {backend}")
        self.environment = {**os.environ, "KERAS_BACKEND": backend}
        make_project(self.whole, notebook(experiments))
        config = self.whole / "config/config.yaml"
        config.write_text(config.read_text().replace("float32", precision))
        self.runs = {name: run_of(self.whole, name) for name in experiments}
        shutil.copytree(self.whole, self.killed, symlinks=True)
        (self.killed / "snakemake.log").touch()
        self.finish(self.whole)

    def start(self, project: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """The real Snakemake, in a process group of its own."""
        with (project / "snakemake.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
                cwd=project, stdout=log, stderr=log, start_new_session=True,
                env={**self.environment, "PYTHONPATH": str(project / "src")},
                # A shell that runs the tests in the background has Ctrl-C ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def finish(self, project: Path, *arguments: str) -> None:
        """Runs Snakemake to its end."""
        code = self.start(project, *(arguments or self.targets)).wait(timeout=PATIENCE)
        assert code == 0, (project / "snakemake.log").read_text()[-5000:]

    @property
    def targets(self) -> list[str]:
        """What is made of each run: its own files are nothing to ask for once they are there."""
        return [f"results/runs/{run}/derived/metrics.json" for run in self.runs.values()]

    def is_trained(self, name: str) -> bool:
        """Whether a run of the killed project is whole, be it in the store or not yet."""
        results, run = Results(self.killed / "results"), self.runs[name]
        return any(place.record.exists() for place in (results.run(run), results.trained(run)))

    @property
    def log(self) -> str:
        """All that the killed project's Snakemakes have said."""
        return (self.killed / "snakemake.log").read_text()

    def train(self, plan: dict[str, list[str]]) -> Counter[str]:
        """Runs Snakemake until all is trained, and kills each run's training as planned.

        Args:
            plan: for each experiment, what its trainings die of, one after the other: `starting`
                (killed before the first epoch, or soon after), `training` (among the epochs),
                `saving` (in the writing of a state), and of what ends Snakemake and all its jobs
                among the epochs: `machine` (SIGKILL), `Ctrl-C` (SIGINT), `time limit` (SIGTERM).

        Returns:
            How many trainings that were alive each of these has ended.
        """
        hits: Counter[str] = Counter()
        code = None
        while code != 0:
            restarts, before = self.restarts, hits.total()
            process = self.start(self.killed, "--retries", "50", *self.targets)
            ended_by = self._kill_as_planned(process, plan, hits)
            code = process.wait(timeout=PATIENCE)
            assert bool(code) == bool(ended_by), self.log[-5000:]
            # Those that were killed alone, Snakemake has seen die and started again. One that is
            # ended itself may not come to say so, or say so of those that die with it.
            if not ended_by:
                assert self.restarts - restarts == hits.total() - before, self.log[-5000:]
            if ended_by == "machine":
                self.finish(self.killed, "--unlock")
            assert not list(self.killed.glob(".snakemake/locks/*"))
        return hits

    @property
    def restarts(self) -> int:
        """How many jobs the killed project's Snakemakes have said to start again."""
        return self.log.count("Trying to restart job")

    def _kill_as_planned(
        self, process: subprocess.Popen[bytes], plan: dict[str, list[str]], hits: Counter[str]
    ) -> str:
        """Kills until Snakemake ends; what ended it, or "" if it came to its own end."""
        aims: dict[str, Aim] = {}
        deadline, looked = time.monotonic() + 4 * PATIENCE, 0.0
        while process.poll() is None:
            now = time.monotonic()
            assert now < deadline, self.log[-5000:]
            if now - looked > 0.05:
                looked = now
                for name, training in self._trainings(process).items():
                    if plan[name] and (name not in aims or aims[name].training != training):
                        aims[name] = self._aim(name, training, plan[name][0])
            for name, aim in list(aims.items()):
                if not aim.reached():
                    continue
                if aim.kind in SIGNALS:
                    hits[aim.kind] += self._end_all(process, aims, SIGNALS[aim.kind])
                    return plan[name].pop(0)
                del aims[name]
                if self._kill(aim.training, name):
                    hits[aim.kind] += 1
                    plan[name].pop(0)
            time.sleep(0.001)
        return ""

    def _trainings(self, process: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
        """The training processes of a Snakemake, by experiment."""
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            for child in psutil.Process(process.pid).children(recursive=True):
                script = Path(*child.cmdline()[-1:])
                if script.name.endswith("train_run.py") and script.is_file():
                    text = script.read_text()  # holds what Snakemake tells the script
                    name = next(n for n, run in self.runs.items() if f"logs/{run}/" in text)
                    found[name] = child
        return found

    def _aim(self, name: str, training: psutil.Process, kind: str) -> Aim:
        starting = kind == "starting"
        return Aim(
            training, kind,
            epochs=0 if starting else self.random.randint(1, 2),
            delay=self.random.uniform(0, 8 if starting else 0.3),
            log=self.killed / f"results/logs/{self.runs[name]}/train.log",
            state=self.killed / f"results/state/{self.runs[name]}",
        )  # fmt: skip

    def _kill(self, training: psutil.Process, name: str) -> bool:
        """SIGKILL to a training, as when memory runs out; whether it was alive and not done."""
        with contextlib.suppress(psutil.NoSuchProcess):
            alive = not self.is_trained(name) and training.status() != psutil.STATUS_ZOMBIE
            training.kill()
            training.wait(PATIENCE)
            return alive
        return False

    def _end_all(
        self, process: subprocess.Popen[bytes], aims: dict[str, Aim], by: signal.Signals
    ) -> int:
        """A signal to Snakemake and all its jobs at once; how many trainings were not done."""
        trainings = self._trainings(process)
        os.killpg(process.pid, by)
        for aim in aims.values():  # a suspended one gets the signal when it goes on, not before
            with contextlib.suppress(psutil.NoSuchProcess):
                aim.training.resume()
        process.wait(PATIENCE)
        _, alive = psutil.wait_procs(trainings.values(), timeout=PATIENCE)
        assert not alive
        return sum(not self.is_trained(name) for name in trainings)

    def assert_equal(self) -> None:
        """Weights, history (but for seconds) and predictions are those of the untouched runs."""
        for run in self.runs.values():
            kept, whole = (
                Results(project / "results").run(run) for project in (self.killed, self.whole)
            )
            assert first_difference(whole, kept) == "", run
            assert checkpoints(whole) == checkpoints(kept), run
        assert not list((self.killed / "results/state").rglob("*.npz"))


def epochs_told(log: Path) -> int:
    """The epochs that a job has told its log, which Snakemake removes before each attempt."""
    try:
        return log.read_text(errors="replace").count("\nepoch ")
    except FileNotFoundError:
        return 0


def checkpoints(run: RunFiles) -> list[dict]:
    """What a run says of the weights it kept, which lie there."""
    record = json.loads(run.record.read_text())
    told = record["checkpoints"]
    assert {file.name for file in run.checkpoints.glob("[!.]*")} == {each["file"] for each in told}
    return told


def test_a_training_killed_three_times_is_the_uninterrupted_one(tmp_path: Path) -> None:
    kills = Kills(tmp_path, ["plateau"])
    hits = kills.train({"plateau": ["machine", "Ctrl-C", "time limit"]})
    assert hits == {"machine": 1, "Ctrl-C": 1, "time limit": 1}
    kills.assert_equal()
    assert kills.log.count("interrupted; start Snakemake again to go on") >= 2
    assert "Traceback" not in kills.log


@pytest.mark.long
@pytest.mark.parametrize(
    ("experiments", "precision", "backend"),
    [
        (["plateau", "stopped"], "float32", "jax"),
        (["augmented", "plateau"], "mixed_bfloat16", "tensorflow"),
        (["plain", "augmented", "plateau", "stopped", "warm"], "float32", "tensorflow"),
    ],
    ids=["jax", "bf16", "float32"],
)
def test_however_often_trainings_are_killed_they_are_the_uninterrupted_ones(
    tmp_path: Path, experiments: list[str], precision: str, backend: str
) -> None:
    """36 in all, 8, 8 and 20; a machine that dies may end two at once."""
    kills = Kills(tmp_path, experiments, precision, backend)
    plan = {
        name: ["starting", "training", "saving", "training" if position % 3 else "machine"]
        for position, name in enumerate(experiments)
    }
    for deaths in plan.values():
        kills.random.shuffle(deaths)
    planned = Counter(kind for deaths in plan.values() for kind in deaths)
    hits = kills.train(plan)
    kills.assert_equal()
    print(f"killed: {dict(hits)}")
    assert hits.total() >= planned.total() == 4 * len(experiments)
    assert hits["saving"] == planned["saving"]
    assert "going on after epoch" in kills.log


def test_a_second_snakemake_is_refused_and_one_that_ignores_locks_too(project: Path) -> None:
    notebook = project / "config/notebooks/halves.yaml"
    notebook.write_text(notebook.read_text().replace("epochs: 2", "epochs: 5000"))
    run = run_of(project, "narrow")
    target = f"results/runs/{run}/run.json"
    with (project / "first.log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", target],
            cwd=project, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )  # fmt: skip
    try:
        state = project / f"results/state/{run}"
        while first.poll() is None and not list(state.glob("epoch-*.npz")):
            time.sleep(0.05)
        second = snakemake(project, target)
        assert second.returncode != 0
        assert "Directory cannot be locked" in second.stderr
        assert "--unlock" in second.stderr
        third = snakemake(project, "--nolock", target)
        assert third.returncode != 0
        assert "another process is training into" in third.stderr
        assert "Traceback" not in third.stderr
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

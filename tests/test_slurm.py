"""A real Slurm: through profiles/slurm a project runs on it, and what it stops goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from projects import NOTEBOOK, REPOSITORY, make_project, run, snakemake

PROFILE = ["--workflow-profile", "profiles/slurm"]
# A test need not wait for a queue, nor for a file system.
QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5"]
GPU_RULES = {"train_run", "map_attention"}
PATIENCE = 600  # seconds for any one thing on a busy machine


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Two nodes with a GPU each, on this machine."""
    scripts = REPOSITORY / "tests/slurm"
    # Not below pytest's folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        # Output goes to a file, since the daemons keep what they are given open.
        with Path(folder, "start.log").open("w+") as log:
            start = [str(scripts / "start"), folder]
            code = subprocess.run(
                start, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode
            log.seek(0)
            told = log.read()
        try:
            if code == 3:
                pytest.skip(told.strip().splitlines()[-1])
            assert code == 0, told
            yield
        finally:
            subprocess.run([str(scripts / "stop"), folder], check=False)


@dataclass
class Job:
    """What Slurm's accounting says of a job."""

    number: str
    comment: str  # "rule_train_run_wildcards_halves_wide_0"
    state: str
    asked: dict[str, str]
    minutes: int
    start: str
    end: str

    @property
    def rule(self) -> str:
        return self.comment.removeprefix("rule_").split("_wildcards_")[0]


def jobs_of(project: Path) -> list[Job]:
    """The jobs that were submitted in a project, in order."""
    columns = "JobID,Comment,State,ReqTRES,TimelimitRaw,Start,End,WorkDir"
    answer = subprocess.run(
        ["sacct", "-X", "-n", "-P", f"--format={columns}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    return [
        Job(
            number, comment, state.split()[0], dict(part.split("=") for part in asked.split(",")),
            int(minutes), start, end,
        )
        for number, comment, state, asked, minutes, start, end, folder in rows
        if folder == str(project)
    ]  # fmt: skip


def at_once(jobs: list[Job]) -> int:
    """How many of these jobs ran at the same time, at most; one that ends is gone when the next
    begins in the same second."""
    moments = sorted([(job.end, -1) for job in jobs] + [(job.start, 1) for job in jobs])
    running = highest = 0
    for _, change in moments:
        running += change
        highest = max(highest, running)
    return highest


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def training_of(project: Path, experiment: str) -> psutil.Process | None:
    """The process that trains an experiment."""
    for process in psutil.process_iter():
        try:
            script = Path(*process.cmdline()[-1:])
            here = script.name.endswith("train_run.py") and process.cwd() == str(project)
            # The script's head holds what Snakemake tells it.
            if here and f"logs/halves/{experiment}/seed0" in script.read_text():
                return process
        except (psutil.Error, OSError):
            continue
    return None


@pytest.mark.long
def test_a_project_runs_on_slurm_with_no_more_gpu_jobs_than_gpus(
    slurm: None, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    config = project / "config/config.yaml"
    config.write_text(config.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    answer = run(project, "-m", "snakemake", *PROFILE, *QUICK)
    told = answer.stdout + answer.stderr
    assert answer.returncode == 0, told
    assert (project / "report.html").stat().st_size > 100_000
    assert "Traceback" not in told

    jobs = jobs_of(project)
    assert {job.state for job in jobs} == {"COMPLETED"}
    # Submitted is what takes long: the rest runs where Snakemake does.
    submitted = sorted(job.rule for job in jobs)
    assert submitted == ["map_attention"] * 4 + ["prepare_dataset"] + ["train_run"] * 4
    for job in jobs:
        assert job.asked.get("gres/gpu") == ("1" if job.rule in GPU_RULES else None), job
    assert at_once([job for job in jobs if job.rule in GPU_RULES]) <= 2

    # The log of a job is where a local run's is, and nothing of Slurm's is left in the project.
    assert (project / "results/logs/halves/wide/seed1/train.log").stat().st_size > 0
    again = snakemake(project, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.long
def test_what_a_time_limit_and_an_scancel_stop_goes_on_and_ends_as_a_local_run(
    slurm: None, tmp_path: Path
) -> None:
    notebook = NOTEBOOK.replace("epochs: 2", "epochs: 40").replace("batch_size: 8", "batch_size: 1")
    targets = [f"results/halves/{name}/seed0/run.json" for name in ("narrow", "wide")]
    local = make_project(tmp_path / "local", notebook)
    answer = snakemake(local, *targets)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    project = make_project(tmp_path / "project", notebook)
    profile = project / "profiles/slurm/profile.yaml"
    assert "min(720 * attempt" in profile.read_text()
    profile.write_text(profile.read_text().replace("min(720 * attempt", "min(1 * attempt"))
    with (project / "snakemake.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *PROFILE, *QUICK, *targets],
            cwd=project, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )  # fmt: skip
    try:
        # Each training is held after an epoch or more, so that it is in the midst of things.
        held: dict[str, tuple[psutil.Process, str]] = {}

        def hold() -> bool:
            assert process.poll() is None, (project / "snakemake.log").read_text()
            for name in {"narrow", "wide"} - set(held):
                if list((project / "results/state/halves" / name / "seed0").glob("epoch-*.npz")):
                    training = training_of(project, name)
                    if training is not None:
                        training.suspend()
                        held[name] = (training, training.environ()["SLURM_JOB_ID"])
            return len(held) == 2

        wait_for(hold, "two trainings that have begun")
        limited, cancelled = held["narrow"], held["wide"]
        assert limited[0].environ()["CUDA_VISIBLE_DEVICES"] != ""
        subprocess.run(["scancel", cancelled[1]], check=True)
        cancelled[0].send_signal(signal.SIGCONT)

        def told_to_end() -> bool:
            state = ["squeue", "--noheader", "--format=%T", "--states=all", "--jobs", limited[1]]
            return "RUNNING" not in subprocess.run(state, capture_output=True, text=True).stdout

        wait_for(told_to_end, "the time limit")
        if limited[0].is_running():
            limited[0].send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE) == 0, (project / "snakemake.log").read_text()
    finally:
        process.kill()

    jobs = {job.number: job for job in jobs_of(project)}
    assert jobs[limited[1]].state == "TIMEOUT"
    assert jobs[cancelled[1]].state == "CANCELLED"
    for name in held:
        first, second = (job for job in jobs.values() if f"halves_{name}_" in job.comment)
        assert (first.minutes, second.minutes) == (1, 2)
        assert (first.asked["mem"], second.asked["mem"]) == ("6000M", "12000M")
        log = (project / f"results/logs/halves/{name}/seed0/train.log").read_text()
        assert re.search(r"going on after epoch \d+", log), log
        here, there = (
            json.loads((folder / f"results/halves/{name}/seed0/run.json").read_text())
            for folder in (project, local)
        )
        assert here["weights_sha256"] == there["weights_sha256"]
        assert here["epochs"] == there["epochs"] == 40


def test_every_profile_repeats_what_holds_for_all() -> None:
    profiles = {
        name: yaml.safe_load((REPOSITORY / f"profiles/{name}/profile.yaml").read_text())
        for name in ("default", "slurm", "local-gpu", "s3", "gcs")
    }
    for name, profile in profiles.items():
        for key in profiles["default"].keys() - {"cores"}:
            assert profile[key] == profiles["default"][key], f"{name}: {key}"


def test_the_slurm_profile_asks_for_gpus_where_the_rules_do() -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/profile.yaml").read_text())
    text = "".join(file.read_text() for file in (REPOSITORY / "rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, flags=re.M | re.S))
    assert {name for name, body in rules.items() if "gpu=1" in body} == GPU_RULES
    asked = profile["set-resources"]
    assert {name for name in asked if asked[name].get("gpu")} == GPU_RULES
    # What a rule asks for is what its first attempt gets.
    for name, values in asked.items():
        for key in ("mem_mb", "runtime"):
            (declared,) = re.findall(rf"{key}=(\d+),", rules[name])
            assert eval(values[key], {"attempt": 1, "min": min}) == int(declared), name
    # What is neither submitted by the profile nor local would go to the cluster by the hundred.
    local = set(re.findall(r"^    (\w+),$", (REPOSITORY / "Snakefile").read_text(), flags=re.M))
    assert rules.keys() == asked.keys() | (local - {"all"})

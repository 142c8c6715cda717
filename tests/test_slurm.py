"""A real Slurm: through profiles/slurm the quickstart runs on it, and what it stops goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from projects import (
    NOTEBOOK,
    REPOSITORY,
    copy_repository,
    make_project,
    planned,
    run_of,
    snakemake,
)

SCRIPTS = REPOSITORY / "tests/slurm"
# A test need not wait for a queue, nor for a file system.
QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5"]
GPU_RULES = {"train_run", "map_attention"}
NODES = {"node1", "node2"}
PATIENCE = 3600  # seconds for any one thing on a busy machine


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Two nodes with a GPU each, on this machine."""
    # Not below pytest's folder: the path of a socket is short.
    folder = tempfile.mkdtemp(prefix="slurm-")
    try:
        started = start(folder)
        if started.returncode == 3:
            pytest.skip(started.stdout.strip().splitlines()[-1])
        assert started.returncode == 0, started.stdout
        yield
    finally:
        daemons = [int(file.read_text()) for file in Path(folder, "run").glob("*.pid")]
        subprocess.run([SCRIPTS / "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    assert not [number for number in daemons if lives(number)]


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start(folder: str) -> subprocess.CompletedProcess[str]:
    """Starts a Slurm that ends with this process at the latest."""
    # Its words go to a file, since the daemons keep open what they are given.
    with tempfile.TemporaryFile("w+") as words:
        done = subprocess.run(
            [SCRIPTS / "start", folder, str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=words, stderr=words, check=False,
        )  # fmt: skip
        words.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, words.read())


@dataclass
class Job:
    """What Slurm's accounting says of a job."""

    number: str
    comment: str  # "rule_train_run_wildcards_shapes-3f9a0c61d2e8_seed0"
    state: str
    asked: dict[str, str]
    minutes: int
    node: str
    start: str
    end: str

    @property
    def name(self) -> str:
        """As in `planned`: "train_run shapes-3f9a0c61d2e8/seed0"."""
        rule, _, wildcards = self.comment.removeprefix("rule_").partition("_wildcards_")
        return f"{rule} {wildcards.replace('_', '/')}"

    @property
    def rule(self) -> str:
        return self.name.split()[0]


def jobs_of(project: Path) -> list[Job]:
    """The jobs that were submitted in a project, in order."""
    columns = "JobID,Comment,State,ReqTRES,TimelimitRaw,NodeList,Start,End,WorkDir"
    # Without a start time sacct forgets, at midnight, what ended before.
    answer = subprocess.run(
        ["sacct", "-X", "-n", "-P", "--starttime", "now-2days", f"--format={columns}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    return [
        Job(
            number, comment, state.split()[0], dict(part.split("=") for part in asked.split(",")),
            int(minutes), node, start, end,
        )
        for number, comment, state, asked, minutes, node, start, end, folder in rows
        if folder == str(project)
    ]  # fmt: skip


def ended_jobs_of(project: Path) -> list[Job]:
    """The same when accounting, which lags behind a little, has noticed the end of each."""
    wait_for(
        lambda: not {job.state for job in jobs_of(project)} & {"PENDING", "RUNNING"}, "accounting"
    )
    return jobs_of(project)


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
        time.sleep(0.2)


@contextmanager
def snakemake_on_slurm(project: Path, *targets: str) -> Iterator[subprocess.Popen[bytes]]:
    """Snakemake at work in a project with profiles/slurm; what it says is in snakemake.log."""
    with (project / "snakemake.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm",
             *QUICK, *targets],
            cwd=project, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )  # fmt: skip
    try:
        yield process
        assert process.wait(PATIENCE) == 0, (project / "snakemake.log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_the_quickstart_runs_on_slurm_and_on_jax_with_no_more_gpu_jobs_than_gpus(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The README's command runs the quickstart on TensorFlow; one more on JAX can be this one.
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    project = copy_repository(tmp_path / "project")
    expected = planned(project)
    with snakemake_on_slurm(project):
        pass
    assert "Traceback" not in (project / "snakemake.log").read_text()
    assert (project / "report.html").stat().st_size > 100_000

    jobs = ended_jobs_of(project)
    assert {job.state for job in jobs} == {"COMPLETED"}
    # Submitted is what takes long: the rest runs where Snakemake does.
    submitted = {name for name in expected if name.split()[0] in {*GPU_RULES, "prepare_dataset"}}
    assert len(submitted) == 2 * 2 * 4 + 1
    assert sorted(job.name for job in jobs) == sorted(submitted)
    for job in jobs:
        assert job.asked.get("gres/gpu") == ("1" if job.rule in GPU_RULES else None), job
    on_gpus = [job for job in jobs if job.rule in GPU_RULES]
    assert at_once(on_gpus) == 2
    assert {job.node for job in on_gpus} == NODES

    runs = list((project / "results/runs").glob("digits-*/seed*/run.json"))
    assert len(runs) == 8
    assert {json.loads(run.read_text())["backend"] for run in runs} == {"jax"}
    # The log of a job is where a local run's is, and a local run has nothing to add.
    few = run_of(project, "few", 1, "little-data")
    assert (project / f"results/logs/{few}/train.log").stat().st_size > 0
    again = snakemake(project, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


# In the midst of its third epoch, a first attempt tells where it is and waits for its end.
HELD = """
def wait_in_the_third_epoch(done, total):
    import os, time
    state = Path(snakemake.params.state)
    if snakemake.resources.mem_mb == 6000 and done > 1 and (state / "epoch-000002.npz").exists():
        told = Path(f"held-{order.experiment}")
        told.with_suffix(".part").write_text(
            f"{os.environ['SLURM_JOB_ID']} {os.environ['SLURMD_NODENAME']} "
            f"{os.environ['CUDA_VISIBLE_DEVICES']}"
        )
        told.with_suffix(".part").rename(told)
        while True:
            time.sleep(1)


with (
    job_log"""


@pytest.mark.long
def test_what_a_time_limit_and_an_scancel_stop_goes_on_elsewhere_and_ends_as_a_local_run(
    slurm: None, tmp_path: Path
) -> None:
    notebook = NOTEBOOK.replace("epochs: 2", "epochs: 5")
    project = make_project(tmp_path / "project", notebook)
    runs = {name: run_of(project, name) for name in ("narrow", "wide")}
    targets = [f"results/runs/{run}/run.json" for run in runs.values()]
    script = project / "workflow/scripts/train_run.py"
    text = script.read_text()
    for old, new in [
        ("with (\n    job_log", HELD.lstrip()),
        ("    train_run(", "    console.progress = wait_in_the_third_epoch\n    train_run("),
    ]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    script.write_text(text)

    def attempts(experiment: str) -> list[Job]:
        return [job for job in jobs_of(project) if job.name == f"train_run {runs[experiment]}"]

    with snakemake_on_slurm(project, *targets) as process:
        held = [project / "held-narrow", project / "held-wide"]
        wait_for(lambda: process.poll() or all(f.exists() for f in held), "two held trainings")
        assert process.poll() is None, (project / "snakemake.log").read_text()
        limited, cancelled = (file.read_text().split() for file in held)
        assert {limited[1], cancelled[1]} == NODES
        assert limited[2] != ""

        # The node of the one that is cancelled takes no more jobs, so it must go on on the other.
        # A limit that is lowered now strikes in the midst of training on a machine of any speed.
        scontrol("update", f"nodename={cancelled[1]}", "state=drain", "reason=test")
        try:
            subprocess.run(["scancel", cancelled[0]], check=True)
            scontrol("update", f"jobid={limited[0]}", "timelimit=1")
            local = make_project(tmp_path / "local", notebook)
            answer = snakemake(local, *targets)
            assert answer.returncode == 0, answer.stdout + answer.stderr
            wait_for(
                lambda: process.poll() or {job.node for job in attempts("wide")} == NODES,
                "the second attempt on the other node",
            )
        finally:
            scontrol("update", f"nodename={cancelled[1]}", "state=resume")

    ended_jobs_of(project)
    for name, state in [("narrow", "TIMEOUT"), ("wide", "CANCELLED")]:
        first, second = attempts(name)
        assert (first.state, second.state) == (state, "COMPLETED")
        assert (first.minutes, second.minutes) == (1 if name == "narrow" else 720, 1440)
        assert (first.asked["mem"], second.asked["mem"]) == ("6000M", "12000M")
        log = (project / f"results/logs/{runs[name]}/train.log").read_text()
        assert "going on after epoch 2" in log
        here, there = (
            json.loads((folder / f"results/runs/{runs[name]}/run.json").read_text())
            for folder in (project, local)
        )
        assert here["weights_sha256"] == there["weights_sha256"]
        assert here["epochs"] == there["epochs"] == 5
    first, second = attempts("wide")
    assert (first.node, second.node) == (cancelled[1], limited[1])


def scontrol(*arguments: str) -> None:
    subprocess.run(["scontrol", *arguments], check=True)


@pytest.mark.parametrize(
    ("commands", "conf", "told"),
    [
        ({"id": "echo 1000"}, "", "only root can start one"),
        ({"id": "echo 0"}, "ClusterName=theirs", "is of another cluster"),
        ({"id": "echo 0"}, "", "there is no apt-get to install slurmctld"),
        ({"id": "echo 0", "apt-get": "echo no network; exit 100"}, "", "no network"),
    ],
)
def test_where_slurm_cannot_be_started_a_reason_is_given_and_nothing_is_changed(
    commands: dict[str, str], conf: str, told: str, tmp_path: Path
) -> None:
    # A machine that has these commands only.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "grep", "mkdir", "sed", "tail", "uname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name, line in commands.items():
        (programs / name).write_text(f"#!{shutil.which('bash')}\n{line}\n")
        (programs / name).chmod(0o755)
    etc = tmp_path / "etc"
    etc.mkdir()
    if conf:
        (etc / "slurm.conf").write_text(conf)
    answer = subprocess.run(
        [shutil.which("bash"), SCRIPTS / "start", tmp_path / "slurm", str(os.getpid()), etc],
        env={"PATH": str(programs)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 3, answer.stderr
    assert told in answer.stderr
    assert [file.read_text() for file in etc.iterdir()] == ([conf] if conf else [])


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

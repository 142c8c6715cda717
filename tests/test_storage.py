"""Results in a bucket, by profile only: an S3 server and an emulator of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from projects import NOTEBOOK, make_project, planned, run_of, snakemake
from scratchbook.bucket import VARIABLE, describe_bucket, kept_state

PATIENCE = 600  # seconds for any one thing on a busy machine
# Long enough to be killed in the midst of it.
SLOW = NOTEBOOK.replace("narrow net", "narrow net\n    epochs: 40\n    batch_size: 1")
ONE = NOTEBOOK[: NOTEBOOK.index("  wide:")] + NOTEBOOK[NOTEBOOK.index("cam:") :]
ONE = ONE.replace(", wide {wide.test_accuracy:.2f}", "")
RUN = ["history.csv", "predictions.h5", "run.json", "checksums.json", "derived/metrics.json"]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket `lab`, as boto3 knows it, on an S3 server of this process."""
    for package in ("snakemake_storage_plugin_s3", "moto", "flask_cors"):
        pytest.importorskip(package, reason=f"{package} is missing: uv sync --extra storage")
    import boto3
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        # What servers of this process held before is still there.
        urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"", timeout=60).close()
        lab = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
        yield lab.create_bucket(Bucket="lab")
    finally:
        server.stop()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket `lab`, as google-cloud-storage knows it, on an emulator in this process."""
    for package in ("snakemake_storage_plugin_gcs", "gcp_storage_emulator"):
        pytest.importorskip(package, reason=f"{package} is missing: uv sync --extra storage")
    from gcp_storage_emulator.server import create_server
    from google.cloud import storage

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="lab")
    server.start()
    try:
        yield storage.Client(project="testing").bucket("lab")
    finally:
        server.stop()


def clone(project: Path, folder: Path) -> Path:
    """What another checkout of a project has: its files, as new as can be, and no results."""
    left_out = shutil.ignore_patterns("__pycache__", ".snakemake")
    shutil.copytree(project, folder, ignore=left_out, copy_function=shutil.copy)
    shutil.rmtree(folder / "results", ignore_errors=True)
    return folder


def checkout(folder: Path, profile: str, notebook: str, endpoint: str = "") -> Path:
    """A project whose owner has filled in a bucket's profile."""
    project = make_project(folder, notebook)
    file = project / f"profiles/{profile}/profile.yaml"
    text = file.read_text()
    assert text.count("//my-bucket/scratchbook") == 1
    text = text.replace("//my-bucket/scratchbook", "//lab/scratchbook")
    if endpoint:
        assert "# storage-s3-endpoint-url: https://s3.example.org" in text
        text = text.replace(
            "# storage-s3-endpoint-url: https://s3.example.org",
            f"storage-s3-endpoint-url: {endpoint}",
        )
    file.write_text(text)
    return project


def expected(run_json: dict[str, dict[str, Any]], notebook_md: str) -> set[str]:
    """The files that a finished project has, by the records of its experiments."""
    figures = re.findall(r"\]\((figures/[^)]+)\)", notebook_md)
    assert figures
    pages = ["notebook.md", "compare.csv", "comparisons.csv", "runs.csv", *figures]
    names = {"report.html", "ro-crate-metadata.json", "results/sources.json"}
    names |= {f"results/halves/{name}" for name in pages}
    for experiment, run in run_json.items():
        names.add(f"results/data/{run['data']['file']}.h5")
        names.add(f"results/halves/drift/{experiment}/seed0.csv")
        files = [*RUN, *(f"checkpoints/{each['file']}" for each in run["checkpoints"])]
        names |= {f"results/runs/{run['key']}/seed0/{name}" for name in files}
    return names


class S3:
    """What is in the bucket below scratchbook/."""

    def __init__(self, bucket: Any) -> None:
        self.bucket = bucket

    def names(self) -> set[str]:
        return {each.key.removeprefix("scratchbook/") for each in self.bucket.objects.all()}

    def read(self, name: str) -> str:
        return self.bucket.Object(f"scratchbook/{name}").get()["Body"].read().decode()

    def record(self, experiment: str) -> dict[str, Any]:
        """The run.json of an experiment's one run."""
        rows = csv.DictReader(self.read("results/halves/runs.csv").splitlines())
        (run,) = (row["run"] for row in rows if row["experiment"] == experiment)
        return json.loads(self.read(f"results/runs/{run}/run.json"))

    def etag(self, name: str) -> str:
        return self.bucket.Object(f"scratchbook/{name}").e_tag


class GCS(S3):
    def names(self) -> set[str]:
        return {each.name.removeprefix("scratchbook/") for each in self.bucket.list_blobs()}

    def read(self, name: str) -> str:
        return self.bucket.blob(f"scratchbook/{name}").download_as_bytes().decode()


def reach(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells this process of the bucket as Snakemake tells its jobs."""
    from snakemake_storage_plugin_s3 import StorageProviderSettings

    settings = StorageProviderSettings(endpoint_url=endpoint, retries=0)
    monkeypatch.setenv(VARIABLE, describe_bucket("s3", "s3://lab/scratchbook", settings))


def finish(project: Path, profile: str, *targets: str) -> str:
    answer = snakemake(project, "--workflow-profile", f"profiles/{profile}", *targets)
    told = answer.stdout + answer.stderr
    assert answer.returncode == 0, told
    assert "not copied to the bucket" not in told
    assert "without a copy" not in told
    return told


def kill_in_training(project: Path, profile: str, kept: S3) -> None:
    """Starts a training and kills it and its Snakemake once the bucket has a state of it."""
    run = run_of(project, "narrow")
    state = f"results/state/{run}"
    with (project / "snakemake.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "snakemake", "--cores", "1",
                "--workflow-profile", f"profiles/{profile}",
                f"results/runs/{run}/run.json",
            ],
            cwd=project, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )  # fmt: skip
    training = None
    deadline = time.monotonic() + PATIENCE
    try:
        while f"{state}.tar.gz" not in kept.names():
            told = (project / "snakemake.log").read_text()
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            if training is None and list((project / state).glob("epoch-*.npz")):
                (training,) = (
                    each
                    for each in psutil.Process(process.pid).children(recursive=True)
                    if each.cmdline()[-1].endswith("train_run.py")
                )
            if training is None:
                time.sleep(0.02)
            else:  # step by step, lest a fast machine be done before it is killed
                training.resume()
                time.sleep(0.02)
                training.suspend()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
def test_through_a_bucket_of_s3_a_killed_training_goes_on_in_another_checkout(
    s3: Any, tmp_path: Path
) -> None:
    kept = S3(s3)
    first = checkout(tmp_path / "first", "s3", SLOW, s3.meta.client.meta.endpoint_url)
    kill_in_training(first, "s3", kept)
    narrow = run_of(first, "narrow")
    assert f"results/runs/{narrow}/run.json" not in kept.names()

    second = clone(first, tmp_path / "second")
    told = finish(second, "s3")
    assert told.count("the state of this run is taken from s3://lab/scratchbook/") == 1
    log = kept.read(f"results/logs/{narrow}/train.log")
    assert re.search(r"going on after epoch \d+", log), log
    records = {name: kept.record(name) for name in ("narrow", "wide")}
    assert expected(records, kept.read("results/halves/notebook.md")) <= kept.names()
    assert not any("state" in name for name in kept.names())
    assert ".snakemake" not in kept.read("report.html")
    wide = f"results/runs/{records['wide']['key']}/seed0"
    assert f"{wide}/run.json" in kept.read("ro-crate-metadata.json")

    # The weights are those of an uninterrupted run on a disk.
    local = clone(first, tmp_path / "local")
    answer = snakemake(local, f"results/runs/{narrow}/run.json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    run = json.loads((local / f"results/runs/{narrow}/run.json").read_text())
    assert records["narrow"]["weights_sha256"] == run["weights_sha256"]
    assert records["narrow"]["epochs"] == 40

    # A third clone finds all done, and trains what it changes beside what there is.
    third = clone(first, tmp_path / "third")
    profile = ["--workflow-profile", "profiles/s3"]
    assert planned(third, *profile) == set()
    before = {name: kept.etag(name) for name in kept.names() if name.startswith("results/runs/")}
    page = third / "config/notebooks/halves.yaml"
    page.write_text(page.read_text().replace("title: a wide net", "title: wide\n    epochs: 1"))
    other = run_of(third, "wide")
    jobs = planned(third, *profile)
    assert {job for job in jobs if job.startswith(("train", "prepare"))} == {f"train_run {other}"}
    finish(third, "s3", f"results/runs/{other}/run.json")
    assert {name: kept.etag(name) for name in before} == before
    folder = f"results/runs/{other}/checkpoints/"
    files = {name.removeprefix(folder) for name in kept.names() if name.startswith(folder)}
    assert len(files - {".snakemake_timestamp"}) == 1
    # The first clone finds what is as it declares, and so does one without the data.
    assert planned(first, *profile) == set()
    shutil.rmtree(first / "data")
    shutil.rmtree(first / "results", ignore_errors=True)
    assert planned(first, *profile) == set()


@pytest.mark.long
def test_of_two_snakemakes_with_one_bucket_the_second_finds_what_the_first_has_kept(
    s3: Any, tmp_path: Path
) -> None:
    kept = S3(s3)
    first = checkout(tmp_path / "first", "s3", ONE, s3.meta.client.meta.endpoint_url)
    second = clone(first, tmp_path / "second")
    run = run_of(first, "narrow")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", "--workflow-profile",
             "profiles/s3", f"results/runs/{run}/derived/metrics.json"],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
        )
        for project in (first, second)
    ]  # fmt: skip
    told = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(told)
    sums = json.loads(kept.read(f"results/runs/{run}/checksums.json"))
    for name, of_file in sums["files"].items():
        content = s3.Object(f"scratchbook/results/runs/{run}/{name}").get()["Body"].read()
        assert hashlib.sha256(content).hexdigest() == of_file["sha256"], name


@pytest.mark.long
def test_in_a_bucket_too_a_run_that_is_trained_again_goes_to_the_earlier_ones(
    s3: Any, tmp_path: Path
) -> None:
    kept = S3(s3)
    project = checkout(tmp_path / "project", "s3", ONE, s3.meta.client.meta.endpoint_url)
    finish(project, "s3")
    run = run_of(project, "narrow")
    before = kept.read(f"results/runs/{run}/run.json")
    request = project / f"results/open/{run}.retrain"
    request.parent.mkdir(parents=True, exist_ok=True)
    request.write_text(json.dumps({"asked": "2026-11-28T00:00:00+00:00", "prepare": False}))
    finish(project, "s3")
    key = run.split("/")[0]
    (earlier,) = (
        name
        for name in kept.names()
        if re.fullmatch(rf"results/runs/{key}/earlier/.*/run.json", name)
    )
    assert kept.read(earlier) == before
    assert kept.read(f"results/runs/{run}/run.json") != before
    assert not request.exists()
    assert planned(project, "--workflow-profile", "profiles/s3") == set()


@pytest.mark.long
def test_through_a_bucket_of_google_cloud_another_checkout_finds_all_done(
    gcs: Any, tmp_path: Path
) -> None:
    kept = GCS(gcs)
    first = checkout(tmp_path / "first", "gcs", ONE)
    finish(first, "gcs")
    record = kept.record("narrow")
    assert expected({"narrow": record}, kept.read("results/halves/notebook.md")) <= kept.names()
    assert not any("state" in name for name in kept.names())
    second = clone(first, tmp_path / "second")
    assert planned(second, "--workflow-profile", "profiles/gcs") == set()


@pytest.mark.long
def test_of_two_states_of_a_run_the_newer_is_gone_on_with(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(s3.meta.client.meta.endpoint_url, monkeypatch)
    monkeypatch.chdir(tmp_path)
    s3.put_object(Key="scratchbook/report.html", Body=b"")  # the plugin removes an empty bucket
    folder, said = Path("results/state/shapes-0123456789ab/seed0"), []

    def state(epoch: int, written: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "key.json").write_text("{}")
        file = folder / f"epoch-{epoch:06d}.npz"
        file.write_text("")
        os.utime(file, (written, written))

    def names() -> set[str]:
        return {file.name for file in folder.iterdir()}

    with contextlib.suppress(KeyboardInterrupt), kept_state(folder, said.append):
        state(5, written=2000)
        raise KeyboardInterrupt
    for _ in range(2):
        state(9, written=1000)
        with contextlib.suppress(RuntimeError), kept_state(folder, said.append):
            assert names() == {"key.json", "epoch-000005.npz"}
            raise RuntimeError
        shutil.rmtree(folder)
    assert len(said) == 2
    state(7, written=3000)
    with kept_state(folder, said.append):
        assert names() == {"key.json", "epoch-000007.npz"}
    assert len(said) == 2
    # Until the run is in the store: the next Snakemake clears it away.
    assert S3(s3).names() == {"report.html", f"{folder}.tar.gz"}


@pytest.mark.long
def test_a_bucket_that_is_not_reached_ends_no_training(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach("http://127.0.0.1:1", monkeypatch)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with kept_state(Path("results/state/shapes-0123456789ab/seed0"), said.append):
        trained = True
    assert trained
    (line,) = said
    assert "without a copy of the state in the bucket: Could not connect" in line


@pytest.mark.long
def test_missing_keys_are_one_readable_message(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = checkout(tmp_path / "project", "s3", ONE, s3.meta.client.meta.endpoint_url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    answer = snakemake(project, "--workflow-profile", "profiles/s3", "--dry-run")
    told = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert "cannot read from s3://lab/scratchbook: Unable to locate credentials" in told
    assert "Traceback" not in told

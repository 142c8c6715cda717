"""What a machine is taken for, and that concurrent jobs get GPUs of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from projects import REPOSITORY
from scratchbook import hardware

HOLD = """
import sys, time
from pathlib import Path
from scratchbook.hardware import leased_gpu
with leased_gpu(Path(sys.argv[1]), print, wait=0.05) as device:
    print(device, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder: Path, seconds: float = 60, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_concurrent_jobs_get_distinct_gpus_and_a_killed_jobs_gpu_is_free(tmp_path: Path) -> None:
    jobs = [hold(tmp_path, CUDA_VISIBLE_DEVICES="0,1") for _ in range(2)]
    try:
        assert sorted(line(job) for job in jobs) == ["0", "1"]
        third = hold(tmp_path, 0, CUDA_VISIBLE_DEVICES="0,1")
        jobs.append(third)
        assert line(third) == "waiting for one of 2 GPUs to be free"
        jobs[0].send_signal(signal.SIGKILL)
        assert line(third) in ("0", "1")
        assert third.wait(timeout=20) == 0
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_slurms_choice_of_devices_is_left_alone(tmp_path: Path) -> None:
    job = hold(tmp_path, 0, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")
    assert line(job) == "None"
    assert job.wait(timeout=20) == 0
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_nothing_is_leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with hardware.leased_gpu(tmp_path, print) as device:
        assert device is None


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx2", "avx512f"}, "float32"),
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
    ],
)
def test_auto_precision_follows_what_the_cpu_multiplies(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str
) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    assert hardware.resolve_precision("auto", on_gpu=False) == precision
    assert hardware.resolve_precision("float32", on_gpu=False) == "float32"


@pytest.mark.parametrize(
    ("gpus", "precision"),
    [
        ([("T4", 7.5)], "float32"),
        ([("A100", 8.0)], "mixed_bfloat16"),
        ([("A100", 8.0), ("T4", 7.5)], "float32"),
        ([], "float32"),
    ],
)
def test_auto_precision_follows_the_weakest_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: list, precision: str
) -> None:
    monkeypatch.setattr(hardware, "list_gpus", lambda: gpus)
    assert hardware.resolve_precision("auto", on_gpu=True) == precision


def test_the_machine_is_described_from_what_it_says_of_itself() -> None:
    described = hardware.describe_hardware(threads=3, on_gpu=False)
    assert described["threads"] == 3
    assert described["cores"] >= 1
    assert described["memory_gb"] > 0
    assert described["cpu"]


def test_xla_computes_in_as_many_threads_as_a_run_declares() -> None:
    """Whose number else is the machine's, and with it the last digits of a training under JAX."""
    count = (
        "from pathlib import Path\nfrom scratchbook.hardware import prepare_keras\n"
        "prepare_keras(threads=3, gpu=False)\nimport jax\njax.numpy.ones(2).block_until_ready()\n"
        "names = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]\n"
        "print(sum('XLAEigen' in name for name in names))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    answer = subprocess.run(
        [sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[-1] == "3"


@pytest.mark.parametrize("backend", ["openvino", "tensorfow"])
def test_a_keras_backend_that_cannot_be_used_is_one_readable_message(backend: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "scratchbook.cli", "check"],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 1
    assert backend in answer.stderr
    assert "tensorflow, jax and torch will do" in answer.stderr
    assert "Traceback" not in answer.stderr

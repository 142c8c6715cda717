"""What a machine is taken for, and that concurrent jobs get GPUs of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
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
        env={**os.environ, "SLURM_JOB_ID": "", **environment}, stdout=subprocess.PIPE, text=True,
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


def test_jobs_in_one_allocation_of_slurm_get_distinct_gpus_and_other_allocations_are_apart(
    tmp_path: Path,
) -> None:
    jobs = [hold(tmp_path, CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="7") for _ in range(2)]
    try:
        assert sorted(line(job) for job in jobs) == ["0", "1"]
        # Slurm's choice for a job of its own stays: its first GPU may be called 0 as well.
        other = hold(tmp_path, 0, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="8")
        jobs.append(other)
        assert line(other) == "0"
        assert other.wait(timeout=20) == 0
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_another_user_of_the_machine_waits_for_the_same_locks() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    as_nobody = (
        "import os, sys\nfrom pathlib import Path\n"
        "from scratchbook.errors import ScratchbookError\n"
        "from scratchbook.hardware import leased_gpu\nos.setuid(65534)\n"
        "try:\n    with leased_gpu(Path(sys.argv[1]), print, wait=0.05) as device:\n"
        "        print(device)\n"
        "except ScratchbookError as error:\n    print(error)"
    )
    # Not below pytest's folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "locks")
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": ""}
        command = [sys.executable, "-c", as_nobody, str(folder)]
        mine = hold(folder, CUDA_VISIBLE_DEVICES="0")
        try:
            assert line(mine) == "0"
            theirs = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            assert line(theirs) == "waiting for one of 1 GPUs to be free"
        finally:
            mine.kill()
            mine.wait()
        assert line(theirs) == "0"
        assert theirs.wait(timeout=20) == 0

        folder.chmod(0o755)
        (folder / "gpu-0.lock").chmod(0o644)
        answer = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "no GPU can be leased" in answer.stdout
        assert f"have the owner of {folder} remove it" in answer.stdout


def test_locks_are_for_all_users_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    before = os.umask(0o077)
    try:
        with hardware.leased_gpu(tmp_path / "locks", print):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes == {"locks": 0o1777, "7": 0o1777, "gpu-0.lock": 0o666}


KERAS_ON_GPU = """
import sys
from scratchbook.hardware import keras_device
with keras_device(1, True, print) as on_gpu:
    print(on_gpu, *({"sklearn", "pandas", "matplotlib"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_build_for_cpus_waits_for_no_gpu_and_says_so(tmp_path: Path, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if hardware._is_for_cuda(backend):
        pytest.skip(f"{backend} is a build for GPUs here")
    holder = hold(tmp_path / "scratchbook-gpus", CUDA_VISIBLE_DEVICES="0")
    try:
        assert line(holder) == "0"
        answer = subprocess.run(
            [sys.executable, "-c", KERAS_ON_GPU], capture_output=True, text=True, timeout=120,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "0", "TMPDIR": str(tmp_path),
                 "KERAS_BACKEND": backend},
        )  # fmt: skip
    finally:
        holder.kill()
        holder.wait()
    assert answer.returncode == 0, answer.stderr
    said, found = answer.stdout.splitlines()
    assert said.startswith(f"there is a GPU, but {backend} does not use it")
    # Nor does finding out import what Keras does without.
    assert found == "False"


def test_a_build_for_gpus_has_its_gpu_before_keras_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setattr(hardware.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(hardware, "_is_for_cuda", lambda backend: True)
    seen: list[str] = []

    def prepare_keras(threads: int, gpu: bool) -> bool:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return True

    monkeypatch.setattr(hardware, "prepare_keras", prepare_keras)
    lines: list[str] = []
    with hardware.keras_device(1, True, lines.append) as on_gpu:
        assert on_gpu
    assert seen == ["3"]
    assert lines == []


def test_a_plugin_for_cuda_makes_jax_a_build_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax_plugins/xla_cuda12").mkdir(parents=True)
    (tmp_path / "jax_plugins/xla_cuda12/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert hardware._is_for_cuda("jax")


@pytest.mark.parametrize(
    ("named", "file", "backend"),
    [
        ("torch", '{"backend": "jax"}', "torch"),
        ("", '{"backend": "jax"}', "jax"),
        ("", "{}", "tensorflow"),
        ("", "no JSON", "tensorflow"),
        ("", None, "tensorflow"),
    ],
)
def test_the_backend_is_the_one_that_keras_would_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, file: str | None, backend: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", named)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    assert hardware.default_backend() == backend


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),
        ("", []),
        ("1, 0", ["1", "0"]),
        ("GPU-8932f937,MIG-f1f4", ["GPU-8932f937", "MIG-f1f4"]),
    ],
)
def test_ids_are_read_as_cuda_reads_them(
    monkeypatch: pytest.MonkeyPatch, visible: str, ids: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.gpu_ids() == ids


# As nvidia-smi answers on a machine with two GPUs, where MIG's ids are not known to it.
NVIDIA_SMI = """#!/bin/sh
old="Tesla T4, 7.5"; new="NVIDIA A100, 8.0"
case "$*" in
  *--query-gpu=uuid*) printf 'GPU-old\nGPU-new\n' ;;
  *--id=0,1*|*--id=GPU-old,GPU-new*) printf '%s\n' "$old" "$new" ;;
  *--id=1*|*--id=GPU-new*) echo "$new" ;;
  *--id=*) echo "No devices were found"; exit 6 ;;
  *) printf '%s\n' "$old" "$new" ;;
esac
"""


@pytest.mark.parametrize(
    ("visible", "names", "precision"),
    [
        ("1", ["NVIDIA A100"], "mixed_bfloat16"),
        ("GPU-new", ["NVIDIA A100"], "mixed_bfloat16"),
        ("0,1", ["Tesla T4", "NVIDIA A100"], "float32"),
        ("MIG-f1f4", ["Tesla T4", "NVIDIA A100"], "float32"),
        (None, ["Tesla T4", "NVIDIA A100"], "float32"),
        ("-1", [], "float32"),
    ],
)
def test_only_gpus_that_may_be_used_are_described_and_count_for_precision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    names: list[str],
    precision: str,
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.describe_hardware(threads=1, on_gpu=True)["gpus"] == names
    assert hardware.resolve_precision("auto", on_gpu=True) == precision


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

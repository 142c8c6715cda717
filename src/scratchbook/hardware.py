"""What this machine is and what it computes well: nothing in, plain values out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scratchbook.config.errors import ScratchbookError

BACKENDS = "tensorflow, jax and torch will do"
_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
_BF16_COMPUTE_CAPABILITY = 8.0  # Ampere, the first with bf16 tensor cores


def describe_hardware(threads: int, on_gpu: bool) -> dict[str, Any]:
    """CPU, cores, memory, the GPUs if one is used, and threads, for `run.json`."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": [name for name, _ in list_gpus()] if on_gpu else [],
        "threads": threads,
        "platform": platform.platform(),
    }


def resolve_precision(precision: str, on_gpu: bool) -> str:
    """`auto` as the precision that this hardware multiplies natively; others as they are."""
    if precision != "auto":
        return precision
    native = _gpu_has_bf16() if on_gpu else bool(_BF16_FLAGS & _cpu_flags())
    return "mixed_bfloat16" if native else "float32"


def list_gpus() -> list[tuple[str, float]]:
    """(name, compute capability) of each NVIDIA GPU, by nvidia-smi; [] where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.rsplit(",", 1) for line in answer.stdout.splitlines() if "," in line)
    return [(name.strip(), float(capability)) for name, capability in rows]


def gpu_ids() -> list[str]:
    """The GPUs this process may use, by id or UUID, honouring CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


@contextmanager
def leased_gpu(folder: Path, say: Callable[[str], None], wait: float = 1.0) -> Iterator[str | None]:
    """One GPU for this process alone among all that lease from the same folder.

    Snakemake counts GPUs but names none, so two jobs would both take the first. The lease is a file
    lock: it ends with the block, or with the process however that ends. Under Slurm the devices in
    CUDA_VISIBLE_DEVICES are this job's own already and nothing is leased. Where all GPUs are taken,
    it waits.

    Args:
        folder: holds the locks, one a GPU; the machine's own temporary folder, not a shared disk.
        say: takes a line for the log.
        wait: seconds between two looks.

    Yields:
        The GPU's id, which CUDA_VISIBLE_DEVICES now names; None where nothing is leased.
    """
    devices = gpu_ids()
    if not devices or "SLURM_JOB_ID" in os.environ:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        for device in devices:
            lock = FileLock(folder / f"gpu-{device}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            with lock:
                os.environ["CUDA_VISIBLE_DEVICES"] = device
                yield device
            return
        if not told:
            say(f"waiting for one of {len(devices)} GPUs to be free")
            told = True
        time.sleep(wait)


def _gpu_has_bf16() -> bool:
    gpus = list_gpus()
    return bool(gpus) and min(capability for _, capability in gpus) >= _BF16_COMPUTE_CAPABILITY


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu_flags() -> set[str]:
    for line in _cpu_info().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def _cpu_name() -> str:
    for line in _cpu_info().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


@contextmanager
def keras_device(threads: int, gpu: bool, say: Callable[[str], None]) -> Iterator[bool]:
    """Keras's backend set up for this process, with a GPU of its own if one may be used.

    Args:
        threads: CPU threads for the backend's pools.
        gpu: whether a GPU may be used.
        say: takes a line for the log.

    Yields:
        Whether the backend has a GPU.
    """
    folder = Path(tempfile.gettempdir()) / "scratchbook-gpus"
    with leased_gpu(folder, say) if gpu else nullcontext():
        yield prepare_keras(threads, gpu)


def prepare_keras(threads: int, gpu: bool) -> bool:
    """Sets up Keras's backend for this process; call it before anything else imports Keras.

    Args:
        threads: CPU threads for the backend's pools.
        gpu: whether a GPU may be used.

    Returns:
        Whether the backend has a GPU.

    Raises:
        ScratchbookError: the backend is not installed, or none that can train.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["NPROC"] = str(threads)  # XLA's only way to be told, under JAX
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        with _as_if_missing("sklearn", "pandas", "matplotlib"):
            import keras
    except (ImportError, ValueError) as error:
        raise ScratchbookError(
            f"Keras cannot start: {error}. Its backend is what KERAS_BACKEND says "
            f"({os.environ.get('KERAS_BACKEND', 'not set')}), else what ~/.keras/keras.json says; "
            f"{BACKENDS}, where they are installed"
        ) from error
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        devices = tf.config.list_physical_devices("GPU")
        for device in devices:
            tf.config.experimental.set_memory_growth(device, True)
        return bool(devices)
    if backend == "jax":
        import jax

        return any(device.platform == "gpu" for device in jax.devices())
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        return bool(torch.cuda.is_available())
    raise ScratchbookError(f"KERAS_BACKEND is {backend}, which trains nothing; {BACKENDS}")


@contextmanager
def _as_if_missing(*packages: str) -> Iterator[None]:
    """Keras imports these where they are installed, for wrappers, tables and pictures that nothing
    here uses, and spends a third of its own import on them. They can be imported afterwards."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]

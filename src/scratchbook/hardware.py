"""What this machine is and what it computes well: nothing in, plain values out."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
_BF16_COMPUTE_CAPABILITY = 8.0  # Ampere, the first with bf16 tensor cores


def describe_hardware(threads: int) -> dict[str, Any]:
    """CPU, cores, memory, GPUs and threads, for `run.json`."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": [name for name, _ in list_gpus()],
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


def prepare_keras(threads: int, gpu: bool) -> bool:
    """Sets up Keras's backend for this process; call it before anything else imports Keras.

    Args:
        threads: CPU threads for the backend's pools.
        gpu: whether a GPU may be used.

    Returns:
        Whether the backend has a GPU.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import keras

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
    import torch

    torch.set_num_threads(threads)
    return bool(torch.cuda.is_available())

"""What this machine is and what it computes well: nothing in, plain values out."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from pkgutil import iter_modules

from filelock import FileLock, Timeout

from scratchbook.errors import ScratchbookError
from scratchbook.results.records import Hardware

BACKENDS = "tensorflow, jax and torch will do"
_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
_BF16_COMPUTE_CAPABILITY = 8.0  # Ampere, the first with bf16 tensor cores
_DEVICE = re.compile(r"\d|GPU-|MIG-")  # how an id in CUDA_VISIBLE_DEVICES begins
_UNUSED = ("sklearn", "pandas", "matplotlib")  # by what is used of Keras


def describe_hardware(threads: int, on_gpu: bool) -> Hardware:
    """CPU, cores, memory, the GPUs if one is used, and threads, for `run.json`."""
    return {
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
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
    if on_gpu:
        weakest = min((capability for _, capability in list_gpus()), default=0.0)
        native = weakest >= _BF16_COMPUTE_CAPABILITY
    else:
        native = bool(_BF16_FLAGS & _cpu_flags())
    return "mixed_bfloat16" if native else "float32"


def list_gpus() -> list[tuple[str, float]]:
    """(name, compute capability) of each NVIDIA GPU that this process may use, by nvidia-smi; of
    all where it does not know the ids, as those of MIG; [] where there is none."""
    if not (ids := gpu_ids()):
        return []
    what = "name,compute_cap"
    rows = (row.rsplit(",", 1) for row in _ask_nvidia_smi(what, ids) or _ask_nvidia_smi(what))
    return [(name.strip(), float(capability)) for name, capability in rows]


def gpu_ids() -> list[str]:
    """The GPUs this process may use, by id or UUID, honouring CUDA_VISIBLE_DEVICES: as for CUDA,
    what is no id, such as -1, hides all that follow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _ask_nvidia_smi("uuid")
    return list(takewhile(_DEVICE.match, (device.strip() for device in visible.split(","))))


def _ask_nvidia_smi(what: str, ids: list[str] | None = None) -> list[str]:
    """Its line for each GPU of these ids, or for all; [] where it cannot be asked."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    if ids:
        command.append(f"--id={','.join(ids)}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


@contextmanager
def leased_gpu(folder: Path, say: Callable[[str], None], wait: float = 1.0) -> Iterator[str | None]:
    """One GPU for this process alone among all that lease from the same folder.

    Snakemake counts GPUs but names none, so two jobs would both take the first. The lease is a file
    lock: it ends with the block, or with the process however that ends. Where all GPUs are taken,
    it waits. Under Slurm an allocation's GPUs are its own, and may be called 0 in each, so leases
    count within it.

    Args:
        folder: holds the locks, one a GPU, for all users; the machine's own temporary folder, not a
            shared disk.
        say: takes a line for the log.
        wait: seconds between two looks.

    Yields:
        The GPU's id, which CUDA_VISIBLE_DEVICES now names; None where there is none.

    Raises:
        ScratchbookError: the locks cannot be made.
    """
    devices = gpu_ids()
    if not devices:
        yield None
        return
    told = False
    while (leased := _first_free(devices, folder)) is None:
        if not told:
            say(f"waiting for one of {len(devices)} GPUs to be free")
            told = True
        time.sleep(wait)
    device, lock = leased
    # Numbers are nvidia-smi's, not those of an order by speed.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    try:
        yield device
    finally:
        lock.release()


def _first_free(devices: list[str], folder: Path) -> tuple[str, FileLock] | None:
    """The first GPU that nobody has, now locked."""
    allocation = folder / os.environ.get("SLURM_JOB_ID", "")
    try:
        for each in dict.fromkeys([folder, allocation]):
            with suppress(FileExistsError):  # what is there already stays as it is
                each.mkdir(parents=True)
                each.chmod(0o1777)  # for all users, whatever the umask
        for device in devices:
            lock = FileLock(allocation / f"gpu-{device.replace('/', '-')}.lock", mode=0o666)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return device, lock
    except OSError as error:
        raise ScratchbookError(
            f"no GPU can be leased: {error}; have the owner of {folder} remove it"
        ) from error
    return None


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags", "Features").split())


def _cpu_info(*names: str) -> str:
    """What Linux says of the first core under one of these names; "" where it says nothing."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(names):
                return line.partition(":")[2].strip()
    return ""


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


@contextmanager
def keras_device(threads: int, gpu: bool, say: Callable[[str], None]) -> Iterator[bool]:
    """Keras's backend set up for this process, with a GPU of its own if one may be used.

    Args:
        threads, gpu: as `prepare_keras` takes them.
        say: takes a line for the log.

    Yields:
        Whether the backend has a GPU.
    """
    folder = Path(tempfile.gettempdir()) / "scratchbook-gpus"
    devices = gpu_ids() if gpu else []
    backend = default_backend()
    # A build for CPUs must not wait for a GPU.
    with leased_gpu(folder, say) if devices and _is_for_cuda(backend) else nullcontext():
        on_gpu = prepare_keras(threads, gpu)
        if devices and not on_gpu:
            say(
                f"there is a GPU, but {backend} does not use it: it is a build for CPUs, or CUDA "
                "is missing (docs/cluster.md has the commands for the other)"
            )
        yield on_gpu


def default_backend() -> str:
    """The backend that Keras will choose. Asking Keras would import it, and on torch it looks for
    GPUs then, after which CUDA_VISIBLE_DEVICES counts no more."""
    if named := os.environ.get("KERAS_BACKEND"):
        return named
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")
    folder = Path(os.environ.get("KERAS_HOME", home / ".keras")).expanduser()
    try:
        config = json.loads((folder / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    return str(config.get("backend", "tensorflow"))


def _is_for_cuda(backend: str) -> bool:
    """Whether a backend is installed as a build for NVIDIA GPUs; found without looking for one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "jax":
        plugins = find_spec("jax_plugins")
        paths = plugins.submodule_search_locations if plugins else []
        return any("cuda" in module.name for module in iter_modules(paths))
    with suppress(ImportError, ValueError), _as_if_missing(*_UNUSED):  # Keras's import tells why
        if backend == "tensorflow":
            import tensorflow as tf

            return bool(tf.test.is_built_with_cuda())
        if backend == "torch":
            import torch

            return bool(torch.backends.cuda.is_built())
    return False


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
        with _as_if_missing(*_UNUSED):
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

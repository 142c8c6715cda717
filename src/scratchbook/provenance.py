"""Where a figure comes from: code, packages, machine, data. NumPy is imported where it is needed,
since `scratchbook status` is not to wait for it."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from scratchbook.language import tr
from scratchbook.results.records import Git, RunRecord

if TYPE_CHECKING:
    import numpy as np

MOST = 4  # runs that are named of each kind
NUMERIC_PACKAGES = {  # of each Keras backend: what the bits of a run can hang on
    "tensorflow": ["keras", "tensorflow", "tensorflow-cpu", "numpy", "h5py"],
    "jax": ["keras", "jax", "jaxlib", "numpy", "h5py"],
    "torch": ["keras", "torch", "numpy", "h5py"],
}


def hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The sha256 over arrays' dtypes, shapes and bytes, in order, whatever file held them."""
    import numpy as np

    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def describe_packages(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def mixtures(runs: Mapping[str, RunRecord]) -> list[str]:
    """What runs differ in that nobody asked for, with who has what: the numbers of our own code,
    Keras, the device, the resolved precision and backend.

    Args:
        runs: by what they are called.

    Returns:
        `precision: float32 (few seed 0), mixed_bfloat16 (few seed 1, many seed 0)`, one for each,
        in the language that is spoken.
    """
    aspects: dict[str, Callable[[RunRecord], object]] = {
        tr("precision"): lambda run: run["precision"],
        tr("backend"): lambda run: run["backend"],
        "Keras": lambda run: run["packages"].get("keras", tr("unknown")),
        tr("device"): lambda run: run["device"],
        tr("prepared data"): lambda run: run["data"]["arrays_sha256"][:7],
    }
    numbers = {name for run in runs.values() for name in run["training"]}
    for name in sorted(numbers):
        aspects[tr("our code for {feature}", feature=tr(name))] = lambda run, name=name: run[
            "training"
        ].get(name)  # type: ignore[misc]
    found = []
    for aspect, value_of in aspects.items():
        who: dict[str, list[str]] = {}
        for name, run in runs.items():
            if (value := value_of(run)) is not None:
                who.setdefault(str(value), []).append(name)
        if len(who) > 1:
            told = (
                tr("{value} ({runs})", value=value, runs=_listed(names))
                for value, names in who.items()
            )
            found.append(tr("{aspect}: {values}", aspect=aspect, values=", ".join(told)))
    return found


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:MOST])
    more = len(names) - MOST
    return tr("{runs} and {n} more", runs=listed, n=more) if more > 0 else listed


def describe_git(folder: Path) -> Git:
    """The commit of the code and whether tracked files differ from it; None outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def python_version() -> str:
    """`3.11.7`."""
    return platform.python_version()

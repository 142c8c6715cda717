"""Where a figure comes from: code, packages, machine, data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np

from scratchbook.results.records import Git

NUMERIC_PACKAGES = {  # of each Keras backend: what the bits of a run can hang on
    "tensorflow": ["keras", "tensorflow", "tensorflow-cpu", "numpy", "h5py"],
    "jax": ["keras", "jax", "jaxlib", "numpy", "h5py"],
    "torch": ["keras", "torch", "numpy", "h5py"],
}


def hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The sha256 over arrays' dtypes, shapes and bytes, in order, whatever file held them."""
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


def hash_code() -> str:
    """The sha256 over the sources of this package's modules that this process has imported."""
    modules = {name: sys.modules[name] for name in sys.modules if name.startswith("scratchbook.")}
    files = {name: module.__file__ for name, module in modules.items() if module.__file__}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + Path(files[name]).read_bytes())
    return digest.hexdigest()


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

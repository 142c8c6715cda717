"""The state a killed run goes on from: everything after epoch e in one checked file.

With each epoch a pure function of (seed, epoch), the weights, the optimizer's variables and the
history are all there is to restore; callbacks are brought up to date by replaying the history.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scratchbook.provenance import write_atomically

GENERATIONS = 2  # the newest state, and the one before it should the newest be damaged


@dataclass
class Progress:
    """How far a run has come: JSON beside the arrays."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    checkpoints: dict[int, str] = field(default_factory=dict)  # epoch: sha256 of the weights file
    training_seconds: float = 0.0
    stopped: bool = False


class RunState:
    """A folder that belongs to one run and survives the death of its job.

    Args:
        folder: undeclared to Snakemake, which deletes declared outputs before a job starts.
        key: what determines the run's numbers; a folder with another key is emptied.
        say: takes a line for the log.
    """

    def __init__(self, folder: Path, key: dict[str, Any], say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say
        self.checkpoints = folder / "checkpoints"
        text = json.dumps(key, sort_keys=True, indent=1)
        key_file = folder / "key.json"
        if folder.exists():
            held = key_file.read_text(encoding="utf-8") if key_file.is_file() else ""
            if held != text:
                say(f"starting anew: the state in {folder} is of {_difference(held, key)}")
                shutil.rmtree(folder)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for partial in folder.rglob(".partial-*"):
            partial.unlink()
        if not key_file.exists():
            write_atomically(key_file, lambda partial: _write_text(partial, text))

    def save(self, progress: Progress, arrays: list[np.ndarray]) -> None:
        """Writes the state after an epoch, whole or not at all, and drops what is too old."""
        # zip members carry a CRC-32 each: a flipped bit is found when the arrays are read.
        header = np.frombuffer(json.dumps(asdict(progress)).encode(), dtype=np.uint8)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, header, *arrays)

        write_atomically(self._file(progress.epoch), write)
        for old in self._files()[GENERATIONS:]:
            old.unlink()

    def load(self) -> tuple[Progress, list[np.ndarray]] | None:
        """The newest state that is whole, with all the checkpoints it speaks of; or None."""
        for file in self._files():
            try:
                with np.load(file) as stored:
                    header, *arrays = (stored[f"arr_{i}"] for i in range(len(stored.files)))
                values = json.loads(header.tobytes())
                values["checkpoints"] = {int(k): v for k, v in values["checkpoints"].items()}
                progress = Progress(**values)
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                EOFError,
                zipfile.BadZipFile,
            ) as error:
                self._say(f"{file.name} is damaged ({error}); trying the epoch before")
                file.unlink()
                continue
            damaged = [
                epoch
                for epoch, digest in progress.checkpoints.items()
                if hash_file(self.checkpoint(epoch)) != digest
            ]
            if damaged:
                self._say(f"{file.name}: its weights of epoch {damaged[0]} are damaged or missing")
                file.unlink()
                continue
            return progress, arrays
        return None

    def checkpoint(self, epoch: int) -> Path:
        """Where the weights of an epoch are kept while the run lasts."""
        return self.checkpoints / f"{epoch:06d}.weights.h5"

    def keep_only(self, epochs: set[int]) -> None:
        """Drops the weights of all other epochs."""
        for file in self.checkpoints.glob("*.weights.h5"):
            if int(file.name.split(".")[0]) not in epochs:
                file.unlink()

    def discard(self) -> None:
        """Removes the folder: the run is finished."""
        shutil.rmtree(self.folder)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:06d}.npz"

    def _files(self) -> list[Path]:
        """Newest first."""
        files = (f for f in self.folder.iterdir() if re.fullmatch(r"epoch-\d+\.npz", f.name))
        return sorted(files, reverse=True)


def hash_file(path: Path) -> str | None:
    """The sha256 of a file's bytes, or None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _difference(held: str, key: dict[str, Any]) -> str:
    """Which parts of the key are not what they were, for the log."""
    try:
        before = json.loads(held)
    except ValueError:
        return "an unknown run"
    changed = [name for name in sorted(key | before) if before.get(name) != key.get(name)]
    return "a run with another " + ", ".join(changed)

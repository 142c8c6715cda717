"""The state a killed run goes on from: everything after epoch e in one checked file.

With each epoch a pure function of (seed, epoch), the weights, the optimizer's variables and the
history are all there is to restore; callbacks are brought up to date by replaying the history.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock, Timeout

from scratchbook.errors import ScratchbookError
from scratchbook.results.files import sha256_file, write_atomically, write_text
from scratchbook.results.paths import StateFiles
from scratchbook.results.records import Epoch

MONITOR: Final = "val_accuracy"
GENERATIONS = 2  # the newest state, and the one before it should the newest be damaged


@dataclass
class Snapshot:
    """How far a run has come: JSON beside the arrays."""

    epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    checkpoints: dict[int, str] = field(default_factory=dict)  # epoch: sha256 of the weights file
    started: str = ""  # the first attempt, ISO 8601
    machine: str = ""  # that trained the newest epoch
    wall_seconds: float = 0.0  # of all attempts, until this epoch was saved
    training_seconds: float = 0.0
    stopped: bool = False
    diverged: int | None = None  # the epoch in which the loss became no number

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest validation accuracy; 0 where there is none."""
        if not self.history:
            return 0
        return max(self.history, key=lambda row: (row[MONITOR], -row["epoch"]))["epoch"]


class RunState:
    """A folder that belongs to one run and survives the death of its job.

    Args:
        folder: undeclared to Snakemake, which deletes declared outputs before a job starts.
        key: what determines the run's numbers; a folder with another key is emptied.
        say: takes a line for the log.

    Raises:
        ScratchbookError: another process trains this run.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], say: Callable[[str], None]) -> None:
        self.folder, self.files, self._say = folder, StateFiles(folder), say
        text, key_file = json.dumps(key, sort_keys=True, indent=1), self.files.key
        folder.mkdir(parents=True, exist_ok=True)
        # A Snakemake that was killed may have left its job running. The lock ends with its process.
        self._lock = FileLock(self.files.lock, timeout=0, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ScratchbookError(
                f"another process is training into {folder}, perhaps a job that outlived its "
                "Snakemake; let it finish, or end it, and start again"
            ) from None
        held = key_file.read_bytes().decode(errors="replace") if key_file.is_file() else ""
        if held != text and (found := [f for f in folder.iterdir() if f != self.files.lock]):
            say(f"starting anew: the state in {folder} is of {_difference(held, key)}")
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.files.checkpoints.mkdir(exist_ok=True)
        for partial in folder.rglob(".partial-*"):
            partial.unlink()
        if not key_file.exists():
            write_text(key_file, text)

    def save(self, snapshot: Snapshot, arrays: Sequence[np.ndarray]) -> None:
        """Writes the state after an epoch, whole or not at all, and drops what is too old."""
        # zip members carry a CRC-32 each, by which a flipped bit is found; their number finds one
        # in the file's table of members.
        told = asdict(snapshot) | {"arrays": len(arrays)}
        header = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, header, *arrays)

        write_atomically(self.files.epoch(snapshot.epoch), write)
        for old in self.files.epochs()[GENERATIONS:]:
            old.unlink()

    def load(self) -> tuple[Snapshot, list[np.ndarray]] | None:
        """The newest state that is whole, with all the checkpoints it speaks of; or None."""
        for file in self.files.epochs():
            try:
                # Reading the arrays would not do: one whose shape was damaged ends before its CRC.
                with zipfile.ZipFile(file) as members:
                    if (member := members.testzip()) is not None:
                        raise ValueError(f"{member} is not what was written")
                with np.load(file) as stored:
                    header, *arrays = (stored[f"arr_{i}"] for i in range(len(stored.files)))
                values = json.loads(header.tobytes())
                if (told := values.pop("arrays")) != len(arrays):
                    raise ValueError(f"{len(arrays)} arrays of {told}")
                values["checkpoints"] = {int(k): v for k, v in values["checkpoints"].items()}
                snapshot = Snapshot(**values)
            except Exception as error:  # a flipped bit can make a zip file's reader fail anyhow
                self._say(f"{file.name} is damaged ({error}); trying the epoch before")
                file.unlink()
                continue
            damaged = [
                epoch
                for epoch, digest in snapshot.checkpoints.items()
                if not (weights := self.files.checkpoint(epoch)).is_file()
                or sha256_file(weights) != digest
            ]
            if damaged:
                self._say(f"{file.name}: its weights of epoch {damaged[0]} are damaged or missing")
                file.unlink()
                continue
            return snapshot, arrays
        return None

    def keep_only(self, epochs: set[int]) -> None:
        """Drops the weights of all other epochs."""
        for epoch, file in self.files.kept().items():
            if epoch not in epochs:
                file.unlink()

    def release(self) -> None:
        """Lets others have it."""
        self._lock.release(force=True)


@contextmanager
def readable_write_errors(folder: Path) -> Iterator[None]:
    """Tells in one sentence why a file could not be written, and what becomes of the run.

    Raises:
        ScratchbookError: a full disk, a read-only folder, a quota, missing rights.
    """
    try:
        yield
    except OSError as error:
        raise ScratchbookError(
            f"cannot write under {folder}: {error.strerror or error}; free space there or make it "
            "writable, and start again: the run goes on from the last epoch that was saved"
        ) from error


def check_space(
    folder: Path, weights: int, state: int, epochs: int, kept_epochs: int,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Says how much disk a run takes at most, before it trains, and refuses where that is not free.

    At the end the kept weights are in the state and, by another name, among the results, twice on a
    disk that knows no such names; before, there may be those of a former best epoch, and a state
    more than `GENERATIONS` while it is written.

    Args:
        folder: of the state; what is in it already is the run's own.
        weights: bytes of one file of weights.
        state: bytes of weights and optimizer together.
        epochs: that the run may take.
        kept_epochs: number of epochs kept beside the best and the last.

    Raises:
        ScratchbookError: less is free.
    """
    kept = min(epochs, kept_epochs + 2)
    need = (2 * kept + 1) * weights + (GENERATIONS + 1) * state
    free = shutil.disk_usage(folder).free
    own = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    sizes = (
        f"{readable_bytes(need)} at most: up to {kept} checkpoints of {readable_bytes(weights)}, "
        f"and states of {readable_bytes(state)}"
    )
    if need > free + own:
        raise ScratchbookError(
            f"the disk of {folder} has {readable_bytes(free + own)} for a run that takes {sizes}; "
            "free some, ask Grad-CAM for fewer `cam.epochs`, or move the project to a larger disk"
        )
    say(f"disk: {sizes}; {readable_bytes(free)} free")


def readable_bytes(count: int) -> str:
    """`437.2 MB`."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if unit != "bytes" else f"{count} bytes"
        value /= 1000
    return f"{value:.1f} TB"


def _difference(held: str, key: Mapping[str, object]) -> str:
    """Which parts of the key are not what they were, for the log."""
    try:
        before = json.loads(held)
    except ValueError:
        return "an unknown run"
    changed = [name for name in sorted({*key, *before}) if before.get(name) != key.get(name)]
    return "a run with another " + ", ".join(changed)

"""How far a run's job is, for whoever looks on: a small file that the job replaces as it goes."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from typing import Literal

from typing_extensions import TypedDict

from .errors import readable
from .files import write_text
from .reading import read_json

Stage = Literal["training", "mapping"]
"""Of the jobs of a run that take long; the others tell nothing."""


class Progress(TypedDict, total=False):
    """What a job has told so far; keys that its stage knows nothing of are absent."""

    stage: Stage
    state: Literal["running", "done", "failed", "interrupted"]
    updated: float  # seconds since 1970
    host: str  # where the job runs, and as which process
    pid: int
    message: str  # why it failed
    epoch: int  # the last one trained
    epochs: int  # at most
    done: int  # batches of the next epoch, or epochs that were mapped, of so many
    total: int
    figures: dict[str, float]  # of the last epoch, by history.csv's columns
    images_per_second: float
    seconds_left: float
    epoch_seconds: float


class ProgressFile:
    """The file of one job. A disk that cannot be written on ends none: then nobody is told.

    Args:
        path: replaced as a whole, so that it can be read at any time.
        stage: what the job does.
    """

    def __init__(self, path: Path, stage: Stage) -> None:
        self._path = path
        self._told = Progress(stage=stage, host=gethostname(), pid=os.getpid())

    def tell(self, told: Progress) -> None:
        """Adds to what was told, or changes it."""
        self._told |= told | Progress(updated=time.time())
        with suppress(OSError):
            write_text(self._path, json.dumps(self._told), sync=False)


def is_gone(told: Progress) -> bool:
    """Whether the job's process was one of this machine's and is no more."""
    if told.get("host") != gethostname():
        return False
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def read_progress(path: Path) -> Progress | None:
    """What was told last; None where nothing can be read."""
    told: Progress | None = readable(read_json, path, Progress)
    return told if told and told.keys() >= {"stage", "state", "updated"} else None

"""What a training is told beside its data, resolved once, and whom it tells how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Unpack

from scratchbook.results.progress import Progress
from scratchbook.specs import Spec


@dataclass(frozen=True)
class Order:
    """One run that is to be trained."""

    notebook: str  # which it is trained for
    experiment: str
    spec: Spec
    seed: int  # of the weights, the order, dropout, augmentation and the training sample
    precision: str  # float32 or mixed_bfloat16
    keep_epochs: dict[int, list[str]]  # weights kept beside the best and the last, and for what


class Listener(Protocol):
    """Who is told how a training goes, as by `scratchbook.console.Console`."""

    def say(self, line: str) -> None:
        """A line for the log."""

    def progress(self, done: int, total: int) -> None:
        """How many batches of the epoch are done."""

    def tell(self, **told: Unpack[Progress]) -> None:
        """How far the training is."""


class Printer:
    """A listener that prints the lines, and keeps the rest to itself."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    def progress(self, done: int, total: int) -> None:
        return

    def tell(self, **told: Unpack[Progress]) -> None:
        return

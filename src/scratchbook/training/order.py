"""What a training is told beside its data, resolved once, and whom it tells how it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, Unpack

from scratchbook.results.files import write_json
from scratchbook.results.progress import Progress
from scratchbook.specs import Spec


@dataclass(frozen=True)
class Order:
    """One run that is to be trained. A job reads this and nothing else of what was declared."""

    key: str
    notebook: str  # which it is trained for
    experiment: str
    spec: Spec
    seed: int  # of the weights, the order, dropout, augmentation and the training sample
    precision: str  # float32 or mixed_bfloat16
    backend: str  # tensorflow, jax or torch
    threads: int  # of the CPU: sums are split between them
    keep_epochs: dict[int, list[str]]  # weights kept beside the best and the last, and for what
    data: str  # the name of the prepared file
    pretrained: dict[str, str] = field(default_factory=dict)  # what its backbones' weights are
    initial: str | None = None  # the run whose weights it starts from

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"keep_epochs": {str(e): n for e, n in self.keep_epochs.items()}}

    @classmethod
    def from_plain(cls, told: dict[str, Any]) -> Self:
        """The order that `plain` gave."""
        epochs = {int(epoch): needs for epoch, needs in told["keep_epochs"].items()}
        return cls(**told | {"keep_epochs": epochs})

    def write(self, path: Path) -> None:
        """Writes order.json."""
        write_json(path, self.plain())


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

"""The bindings in a key result: `{train2.val_accuracy:.2f}` is the figure of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

METRICS = [
    "train_accuracy",
    "val_accuracy",
    "test_accuracy",
    "train_loss",
    "val_loss",
    "test_loss",
    "gap",
    "best_epoch",
    "epochs",
    "parameters",
    "seconds",
]
"""The figures of an experiment that a key result can bind to."""

BINDING = re.compile(r"\{([^{}]*)\}")
_INSIDE = re.compile(r"([a-z0-9][a-z0-9_-]*)\.([a-z_]+)(?::([,.0-9]*[a-z%]?))?")


class Binding(NamedTuple):
    """One `{experiment.metric:format}` of a text."""

    text: str
    experiment: str
    metric: str
    format: str


def bindings(text: str) -> Iterator[Binding]:
    """The bindings in a text, in order.

    Raises:
        ValueError: braces hold something that is no binding; the message says what would do.
    """
    for match in BINDING.finditer(text):
        inside = _INSIDE.fullmatch(match.group(1))
        if not inside:
            raise ValueError(
                f"{match.group(0)!r} is no binding; write {{experiment.metric}} or "
                "{experiment.metric:.2f}"
            )
        yield Binding(match.group(0), inside.group(1), inside.group(2), inside.group(3) or "")

"""The figures in a key result: `{train2.val_accuracy:.2f}` is bound to a run, `0.83` to nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from scratchbook.figures import COMPARED

BINDING = re.compile(r"\{([^{}]*)\}")
_INSIDE = re.compile(r"([a-z0-9][a-z0-9_-]*)\.([a-z_]+)(?::([,.0-9]*[a-z%]?))?")

_TYPED = re.compile(
    r"(?<![A-Za-z0-9_.])(?<![A-Za-z]-)"  # the 2.5 of `v2.5` and of `net-2.5` is a name's
    r"((?:\d[\d,]*|(?=\.\d))(?:\.\d+)*)"
    r"(\s?(?:%|percent\b|per cent\b|(?:percentage )?points?\b|个?百分点))?"
    r"(?![A-Za-z0-9_])"
)


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
        binding = Binding(match.group(0), inside.group(1), inside.group(2), inside.group(3) or "")
        try:
            format(1 if _is_whole(binding.metric) else 1.5, binding.format)
        except ValueError:
            raise ValueError(
                f"{binding.text}: {binding.format!r} is no number format for {binding.metric}; "
                "write :.2f or :.1%"
            ) from None
        yield binding


def _is_whole(metric: str) -> bool:
    return metric in COMPARED and COMPARED[metric].whole


def typed_numbers(text: str, settings: Collection[float] = ()) -> list[str]:
    """The measured-looking numbers that are typed into a text instead of bound, in order.

    These are decimals and percentages (`0.83`, `83 %`, `4 points`, `８３％`). Whole numbers (`1,024
    units`, `train 2`, `3×3`), numbers within names, versions, dates and powers of ten (`1e-4`) are
    not, nor is a decimal that is a setting of an experiment.

    Args:
        text: a key result.
        settings: as `settings_of` finds them.
    """
    found = []
    for match in _TYPED.finditer(unicodedata.normalize("NFKC", BINDING.sub(" ", text))):
        number, unit = match[1].rstrip(","), match[2]
        decimal = number.count(".") == 1 or re.fullmatch(r"0,\d+", number)
        if unit or (decimal and float(number.replace(",", "")) not in settings):
            found.append(f"{number}{unit or ''}")
    return found


def settings_of(value: Any) -> set[float]:
    """The numbers anywhere in resolved specs: learning rates, dropout rates and the like."""
    if isinstance(value, dict):
        return settings_of(list(value.values()))
    if isinstance(value, list):
        return {number for part in value for number in settings_of(part)}
    return {value} if isinstance(value, float) else set()

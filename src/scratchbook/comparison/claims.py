"""Resolve the figures that a key result is bound to, and hold them against what was recorded."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd

from scratchbook.config.claims import Binding, bindings, typed_numbers
from scratchbook.errors import ScratchbookError, nearest
from scratchbook.figures import COMPARED
from scratchbook.language import mark, tr

STATUSES = (
    mark("measured"),
    mark("differs from recorded"),
    mark("not measured"),
    mark("unbound"),
    mark("words"),
)


@dataclass(frozen=True)
class Bound:
    """One `{experiment.metric:format}` with the figure it stands for, or why there is none."""

    binding: str
    experiment: str
    metric: str
    value: float | None
    shown: str
    trouble: str


@dataclass(frozen=True)
class Claim:
    """A key result with its figures filled in.

    `status` is `measured`, `differs from recorded`, `not measured` (a bound run has no such
    figure), `unbound` (a number is typed in that no run stands behind) or `words` (the text holds
    no figure); `message` is for the reader, empty where all is well.
    """

    text: str
    status: str
    message: str
    bound: tuple[Bound, ...]


def resolve_claim(
    text: str,
    rows: pd.DataFrame,
    recorded: float | None = None,
    settings: Collection[float] = (),
) -> Claim:
    """Fill `text`'s bindings from `rows` (compare.csv) and compare the first with `recorded`.

    A measured figure differs where it does not round to the recorded one at the digits that the
    recorded one, or the binding's format, shows. A typed number that is one of `settings` is a
    setting of an experiment, not a claim. Raises ScratchbookError for a binding that names no
    experiment or no figure.
    """
    try:
        found = list(bindings(text))
    except ValueError as error:
        raise ScratchbookError(f"key result {text!r}: {error}") from None
    table = {str(row["experiment"]): row for row in rows.to_dict("records")}
    bound = tuple(_bind(one, table, text) for one in found)
    shown = text
    for one in bound:
        shown = shown.replace(one.binding, one.shown, 1)
    absent = [one for one in bound if one.value is None]
    if absent:
        return Claim(shown, "not measured", "; ".join(one.trouble for one in absent), bound)
    first = bound[0] if bound else None
    if recorded is not None and first is not None and first.value is not None:
        digits = max(_digits(recorded), _format_digits(found[0].format))
        if not agrees(first.value, recorded, digits):
            here = f"{first.value:.{digits}f}"
            if float(here) == recorded:
                here = f"{first.value:.{digits + 2}f}"
            message = tr(
                "recorded {recorded}, measured {measured}",
                recorded=f"{recorded:.{digits}f}", measured=here,
            )  # fmt: skip
            return Claim(shown, "differs from recorded", message, bound)
    typed = typed_numbers(text, settings)
    if typed:
        return Claim(
            shown, "unbound", tr("{numbers} bound to no run", numbers=", ".join(typed)), bound
        )
    return Claim(shown, "measured" if bound else "words", "", bound)


def agrees(measured: float, recorded: float, digits: int | None = None) -> bool:
    """Whether `measured` rounds to `recorded` at `digits` (those `recorded` is written with)."""
    unit = 10.0 ** -(_digits(recorded) if digits is None else digits)
    return abs(measured - recorded) <= unit / 2 * (1 + 1e-9)


def _bind(binding: Binding, table: dict[str, dict[Hashable, Any]], text: str) -> Bound:
    where = f"key result {text!r}: {binding.text}"
    if binding.experiment not in table:
        known = nearest(binding.experiment, table)
        raise ScratchbookError(f"{where}: no experiment {binding.experiment!r}; {known}")
    if binding.metric not in COMPARED or binding.metric not in table[binding.experiment]:
        known = nearest(binding.metric, COMPARED)
        raise ScratchbookError(f"{where}: no figure {binding.metric!r}; {known}")
    value = float(table[binding.experiment][binding.metric])
    if math.isnan(value):
        # Only whether it failed or is incomplete: why, the page says at its top.
        status = tr(str(table[binding.experiment]["status"]).partition(":")[0])
        trouble = tr(
            "{experiment}.{metric} was not measured ({status})",
            experiment=binding.experiment, metric=binding.metric, status=status,
        )  # fmt: skip
        absent = tr("not measured")
        return Bound(binding.text, binding.experiment, binding.metric, None, absent, trouble)
    whole = round(value) if binding.format.endswith("d") else value
    shown = format(whole, binding.format or COMPARED[binding.metric].form)
    return Bound(binding.text, binding.experiment, binding.metric, value, shown, "")


def _digits(number: float) -> int:
    exponent = Decimal(repr(float(number))).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _format_digits(form: str) -> int:
    """The decimals that a format such as `.2f` or `.1%` shows."""
    if form[:1] != "." or form[-1:] not in ("f", "%"):
        return 0
    return int(form[1:-1]) + (2 if form.endswith("%") else 0)

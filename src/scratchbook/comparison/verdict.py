"""Say in one plain sentence what a paired comparison showed."""

from __future__ import annotations

import math

from scratchbook.evaluation import LEVEL


def verdict(
    first: str,
    second: str,
    difference: float,
    low: float,
    high: float,
    p: float,
    *,
    images: int,
    seeds: int,
    seeds_covered: bool,
    needed: float,
    comparisons: int = 1,
    level: float = LEVEL,
) -> str:
    """The verdict on `second` against `first`.

    `difference`, `low` and `high` are fractions (second less first), `p` is adjusted for
    `comparisons`, `seeds_covered` whether interval and `p` account for the seeds, `needed` the
    number of images that would show the difference (inf: only more
    seeds would). A difference is claimed where both the interval and the p-value leave out zero.
    """
    if not math.isfinite(difference):
        return f"{first} and {second} cannot be compared: one of them has no result"
    better = second if difference > 0 else first
    if difference < 0:
        difference, low, high = -difference, -high, -low
    shown = f"{difference * 100:+.1f} points [{low * 100:.1f}, {high * 100:.1f}]"
    clear = low > 0 or high < 0
    if clear and p < round(1 - level, 9):
        if not seeds_covered:
            return (
                f"{better}'s run is better: {shown}; with one seed it may be the seed, "
                "not the change"
            )
        return f"{better} is better: {shown}"
    sample = f"{images:,} images" + (f" and {seeds} seeds" if seeds > 1 else "")
    if difference == 0:
        return f"no difference: {first} and {second} got equally many of {images:,} images right"
    if clear and comparisons > 1:
        return (
            f"no difference that {sample} could show among {comparisons:,} comparisons "
            f"({better} {shown} taken alone)"
        )
    if math.isinf(needed):
        return f"no difference that {sample} could show; more seeds are needed, not more images"
    if needed <= images:
        return f"no difference that {sample} could show; it is at the edge of what they can"
    return f"no difference that {sample} could show; about {_rounded(needed)} would be needed"


def _rounded(images: float) -> str:
    """Two digits: 8,734 is said as 8,800 (up, so that it is enough)."""
    unit = 10 ** max(0, math.floor(math.log10(images)) - 1)
    return f"{math.ceil(images / unit) * unit:,}" + " images"

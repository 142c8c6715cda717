"""Say in one plain sentence what a paired comparison showed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scratchbook.evaluation import LEVEL
from scratchbook.language import mark, tr

COVERS_BOTH = mark("images and seeds")
COVERS_IMAGES = mark("images (one seed)")


def pair_verdict(pair: Mapping[Any, Any], comparisons: int, level: float = LEVEL) -> str:
    """The verdict on `second` against `first`, a row of comparisons.csv among `comparisons`.

    A difference is claimed where both the interval and the adjusted p-value leave out zero.
    """
    first, second, images, needed = (
        pair[key] for key in ("first", "second", "images", "images_needed")
    )
    difference, low, high = (pair[key] for key in ("difference", "low", "high"))
    if not math.isfinite(difference):
        return tr(
            "{first} and {second} cannot be compared: one of them has no result",
            first=first, second=second,
        )  # fmt: skip
    better = second if difference > 0 else first
    if difference < 0:
        difference, low, high = -difference, -high, -low
    shown = tr(
        "{difference:+.1f} points [{low:.1f}, {high:.1f}]",
        difference=difference * 100, low=low * 100, high=high * 100,
    )  # fmt: skip
    clear = low > 0 or high < 0
    if clear and pair["p_holm"] < round(1 - level, 9):
        if pair["covers"] != COVERS_BOTH:
            return tr(
                "{better}'s run is better: {shown}; with one seed it may be the seed, not the "
                "change",
                better=better, shown=shown,
            )  # fmt: skip
        return tr("{better} is better: {shown}", better=better, shown=shown)
    seeds = min(pair["first_seeds"], pair["second_seeds"])
    sample = tr("{images:,} images", images=images)
    if seeds > 1:
        sample = tr("{images:,} images and {seeds} seeds", images=images, seeds=seeds)
    if difference == 0:
        return tr(
            "no difference: {first} and {second} got equally many of {images:,} images right",
            first=first, second=second, images=images,
        )  # fmt: skip
    if clear and comparisons > 1:
        return tr(
            "no difference that {sample} could show among {comparisons:,} comparisons "
            "({better} {shown} taken alone)",
            sample=sample, comparisons=comparisons, better=better, shown=shown,
        )  # fmt: skip
    if math.isinf(needed):
        return tr(
            "no difference that {sample} could show; more seeds are needed, not more images",
            sample=sample,
        )
    if needed <= images:
        return tr(
            "no difference that {sample} could show; it is at the edge of what they can",
            sample=sample,
        )
    return tr(
        "no difference that {sample} could show; about {needed:,} images would be needed",
        sample=sample, needed=_rounded(needed),
    )  # fmt: skip


def _rounded(images: float) -> int:
    """Two digits: 8,734 is said as 8,800 (up, so that it is enough)."""
    unit = 10 ** max(0, math.floor(math.log10(images)) - 1)
    return math.ceil(images / unit) * unit

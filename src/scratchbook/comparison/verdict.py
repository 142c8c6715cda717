"""Say in one plain sentence what a paired comparison showed."""

from __future__ import annotations

import math
from typing import TypedDict

from scratchbook.evaluation import LEVEL
from scratchbook.language import mark, tr

COVERS_BOTH = mark("images and seeds")
COVERS_IMAGES = mark("images (one seed)")


class Pair(TypedDict):
    """A row of comparisons.csv, in the order of its columns."""

    first: str
    second: str
    split: str
    images: int
    first_seeds: int
    second_seeds: int
    first_accuracy: float
    second_accuracy: float
    difference: float
    low: float
    high: float
    covers: str
    only_first: float
    only_second: float
    mcnemar_p: float
    p: float
    p_holm: float  # adjusted for all pairs
    detectable: float  # the smallest difference that these images and seeds would show
    images_needed: float  # to show the difference; inf: only more seeds would
    better: str
    verdict: str


def pair_verdict(pair: Pair, comparisons: int, level: float = LEVEL) -> str:
    """The verdict on `second` against `first`, a row of comparisons.csv among `comparisons`.

    A difference is claimed where both the interval and the adjusted p-value leave out zero.
    """
    first, second, images, needed = (
        pair["first"], pair["second"], pair["images"], pair["images_needed"],
    )  # fmt: skip
    difference, low, high = pair["difference"], pair["low"], pair["high"]
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

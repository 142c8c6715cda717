"""Choose and divide images: labels, the source's splits and pixel digests in, rows and splits out.

All of it is drawn class by class, so that every class is in every split in its share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scratchbook.errors import ScratchbookError
from scratchbook.results.records import SPLITS

TRAIN = SPLITS.index("train")


def missing_splits(splits: np.ndarray | None) -> list[str]:
    """The splits that the source does not come with and that must be carved out of its images."""
    given = set() if splits is None else {SPLITS[code] for code in np.unique(splits)}
    return [name for name in ("validation", "test") if name not in given]


def check(labels: np.ndarray, splits: np.ndarray | None, class_names: list[str]) -> None:
    """Raise ScratchbookError unless every class can be in every split.

    `labels` int64 [n] and `splits` uint8 [n] or None are the source's own.
    """
    if len(class_names) < 2:
        raise ScratchbookError(
            f"there is one class only ({class_names[0]}); a classifier needs two or more"
        )
    if splits is not None and not np.any(splits == TRAIN):
        raise ScratchbookError("the source comes with splits, but without train images")
    pool = np.ones(len(labels), bool) if splits is None else splits == TRAIN
    parts = ["train", *missing_splits(splits)]
    for label, name in enumerate(class_names):
        mine = labels == label
        if not np.any(mine):
            raise ScratchbookError(f"class {name!r} has no images")
        if splits is not None:
            here = {SPLITS[code] for code in np.unique(splits[mine])}
            lacking = {SPLITS[code] for code in np.unique(splits)} - here
            if lacking:
                raise ScratchbookError(
                    f"class {name!r} has images in {_and(here)} but none in {_and(lacking)}"
                )
        _enough(name, int(np.sum(mine & pool)), parts, "")


def choose(labels: np.ndarray, splits: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    """Rows of a seeded sample of `count` images, every class and split in its share; int64, rising.

    A class keeps at least as many images as it takes to be in every split; where that alone is more
    than `count`, the sample is larger.
    """
    parts = 1 + len(missing_splits(splits))
    given = np.zeros_like(labels) if splits is None else splits.astype(np.int64)
    cells, cell = np.unique(given * (labels.max() + 1) + labels, return_inverse=True)
    sizes = np.bincount(cell)
    carved = given[np.unique(cell, return_index=True)[1]] == TRAIN
    keep = apportion(sizes, count, np.where(carved, parts, 1))
    rows = [
        np.random.default_rng([seed, i]).permutation(np.flatnonzero(cell == i))[: keep[i]]
        for i in range(len(cells))
    ]
    return np.sort(np.concatenate(rows))


def first_twins(digests: list[bytes]) -> np.ndarray:
    """For each image the first one with the same pixels (itself, as a rule); int64 [n]."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)], np.int64)


def divide(
    labels: np.ndarray,
    splits: np.ndarray | None,
    twins: np.ndarray,
    shares: Mapping[str, float],
    seed: int,
    class_names: list[str],
) -> np.ndarray:
    """The split of each image, uint8 [n]: the source's own, completed by the ones it lacks.

    A split that is lacking is carved out of all images, or of the source's train images where it
    comes with splits. Images with the same pixels (`twins`, see `first_twins`) stay together, in
    train where there is room. Raises ScratchbookError where a class has too few different images.
    """
    split = np.zeros(len(labels), np.uint8) if splits is None else splits.copy()
    carved = missing_splits(splits)
    pool = np.flatnonzero(split == TRAIN)
    # Groups of identical images; one that carries several labels goes with its first image's.
    _, first, group = np.unique(twins[pool], return_index=True, return_inverse=True)
    sizes = np.bincount(group)
    chosen = np.full(len(sizes), TRAIN, np.uint8)  # split of each group
    for label, name in enumerate(class_names):
        mine = np.flatnonzero(labels[pool[first]] == label)
        _enough(name, len(mine), ["train", *carved], "different ")
        order = np.random.default_rng([seed, label]).permutation(mine)
        order = order[np.argsort(sizes[order], kind="stable")]
        total = sizes[mine].sum()
        for left, part in enumerate(carved):
            wanted = max(1, round(shares[part] * total))
            take = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
            take = min(take, len(order) - (len(carved) - left))  # one group for each part to come
            chosen[order[:take]] = SPLITS.index(part)
            order = order[take:]
    split[pool] = chosen[group]
    for code, name in enumerate(SPLITS):
        absent = np.setdiff1d(np.arange(len(class_names)), labels[split == code])
        if len(absent):
            raise ScratchbookError(
                f"class {class_names[absent[0]]!r} has no image left for {name}: the same images "
                "carry other classes' labels too"
            )
    return split


def twins_across(twins: np.ndarray, split: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with the same pixels in different splits: each image with its group's first.

    The first of a group is that of the earliest split, so that pairs grow with the images only.
    """
    order = np.lexsort((split, twins))  # rows, by group and then split
    groups = twins[order]
    first = order[np.searchsorted(groups, groups)]
    crossing = split[order] != split[first]
    return list(zip(first[crossing].tolist(), order[crossing].tolist(), strict=True))


def apportion(sizes: np.ndarray, count: int, least: int | np.ndarray) -> np.ndarray:
    """How many of `count` images each cell of so many gives: its share, by largest remainders.

    A cell whose share is under `least` gives that many, or all that it has, and the others share
    what is left of `count`: only where every cell's least is more than `count` is the sum more.

    Args:
        sizes: int64 (cell,), images that are there.
        count: images wanted of all cells together; all where there are fewer.
        least: of every cell, or (cell,).
    """
    share: np.ndarray = np.minimum(least, sizes)
    sharing = np.ones(len(sizes), bool)
    while sharing.any():
        there = sizes[sharing]
        left = max(0, min(count, sizes.sum()) - share[~sharing].sum())
        exact = there * (left / there.sum())
        given = np.floor(exact).astype(np.int64)
        given[np.argsort(given - exact, kind="stable")[: left - given.sum()]] += 1
        short = given < share[sharing]
        if not short.any():
            share[sharing] = given
            break
        sharing[np.flatnonzero(sharing)[short]] = False
    return share


def _enough(name: str, count: int, parts: list[str], kind: str) -> None:
    if count < len(parts):
        images = "image" if count == 1 else "images"
        raise ScratchbookError(
            f"class {name!r} has {count} {kind}{images}, too few to be in {_and(parts)}: "
            f"it needs {len(parts)} at least"
        )


def _and(names: list[str] | set[str]) -> str:
    ordered = [name for name in SPLITS if name in names]
    return " and ".join(filter(None, [", ".join(ordered[:-1]), ordered[-1]]))

"""What to look at: labels and the page's wishes in, the images' rows and the epochs out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from scratchbook.errors import ScratchbookError, nearest


def choose_images(
    labels: np.ndarray,
    split: np.ndarray,
    wanted: int | Sequence[int | str],
    seed: int,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Rows of the images to explain, the same for every experiment and seed of a notebook.

    Taken from the test split, else from validation, else from train: one of each class in turn,
    so that the first k rows are balanced too. Classes and images are in an order drawn from
    `seed`; fewer are returned where the split has fewer.

    Args:
        labels: int (n,).
        split: uint8 (n,): 0 train, 1 validation, 2 test.
        wanted: how many images; or which: their rows, or their `names` (the end of a path will do).
        seed: of the notebook's choice, not of a run.
        names: str (n,), needed where an image is named.

    Returns:
        int64 (image,), without repetition.

    Raises:
        ScratchbookError: a row or name that is not there, or is ambiguous.
    """
    if not isinstance(wanted, int):
        rows = [_row(one, len(labels), names) for one in wanted]
        return np.array(list(dict.fromkeys(rows)), dtype=np.int64)
    chosen = split == split.max()
    queues = []
    for label in np.random.default_rng([seed, 0]).permutation(np.unique(labels)):
        rows_of = np.flatnonzero(chosen & (labels == label))
        queues.append(np.random.default_rng([seed, 1, int(label)]).permutation(rows_of))
    turns = [row for turn in zip_longest(*queues) for row in turn if row is not None]
    return np.array(turns[:wanted], dtype=np.int64)


def resolve_epochs(wanted: Sequence[int | str], best: int, last: int) -> list[int]:
    """Epoch numbers of a list such as `[1, 3, "5-9", "last", "best"]`, sorted, each once.

    Epochs after the last are left out: training may stop early, and a page lists what it hopes for.

    Args:
        wanted: numbers from 0 (0: before training), ranges `"5-9"`, `"last"`, `"best"`.
        best: the best epoch.
        last: the last epoch that was trained.

    Raises:
        ScratchbookError: an entry that is none of these.
    """
    epochs: set[int] = set()
    for entry in wanted:
        text = str(entry)
        first, dash, final = text.partition("-")
        if text in ("best", "last"):
            epochs.add(best if text == "best" else last)
        elif text.isdecimal() and not isinstance(entry, bool):
            epochs.add(int(text))
        elif dash and first.isdecimal() and final.isdecimal() and int(first) <= int(final):
            epochs.update(range(int(first), min(int(final), last) + 1))
        else:
            raise ScratchbookError(
                f"cam.epochs: {entry!r} is no epoch; write a number, a range such as '5-9', "
                "'best' or 'last'"
            )
    return sorted(epoch for epoch in epochs if epoch <= last)


def _row(wanted: int | str, count: int, names: Sequence[str]) -> int:
    if isinstance(wanted, int):
        if 0 <= wanted < count:
            return wanted
        raise ScratchbookError(f"cam.images: row {wanted} of {count} images (0 to {count - 1})")
    found = [row for row, name in enumerate(names) if name == wanted] or [
        row for row, name in enumerate(names) if name.endswith("/" + wanted)
    ]
    if len(found) != 1:
        problem = f"names {len(found)} images" if found else "is no image of this data set"
        raise ScratchbookError(f"cam.images: {wanted!r} {problem}; {nearest(wanted, names)}")
    return found[0]

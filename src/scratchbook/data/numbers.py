"""Which code prepared a data set: its declaration in, one number out, for the prepared file's name.

Only the standard library is imported: a Snakefile asks for it whenever it is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scratchbook.config.datasets import Dataset

# Raise a feature's number, by hand, when a change of the code changes what it makes of the same
# data: tests/test_content.py holds what each makes today. Never lower one or take one away.
PREPARING: dict[str, int] = {
    "decoding": 1,  # of files: formats, colours, depth, upright
    "resizing": 1,
    "splitting": 1,
    "sampling": 1,
    "class folders": 1,
    "csv": 1,
    "hdf5": 1,
    "keras": 1,
    "bundled": 1,
}
KINDS = {"folder": "class folders", "archive": "class folders"}  # the others are called as they are
_FILES = ("class folders", "csv")


def preparing_number(dataset: Dataset, source: int | None = None, limit: int | None = None) -> int:
    """1, and more with each raise of a feature that the data set uses.

    `source` is the place in `sources` of the one that is prepared; without it all of them count.
    `limit` is the one that it is prepared with.
    """
    used = set()
    for index, declared in enumerate(dataset.sources):
        if source in (None, index):
            kind = KINDS.get(declared.kind, declared.kind)
            used |= {kind, "resizing"} | ({"decoding"} if kind in _FILES else set())
            if len(getattr(declared, "splits", None) or ()) < 3:
                used.add("splitting")
    if dataset.sample is not None or limit is not None:
        used.add("sampling")
    return 1 + sum(PREPARING[feature] - 1 for feature in used)

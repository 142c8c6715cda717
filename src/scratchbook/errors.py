"""The one error a user is meant to read: a message that stands alone, with no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 60  # names that a message lists


class ScratchbookError(ValueError):
    """What the user gave cannot be used; the message names it and says what would do."""


def nearest(given: object, known: Iterable[str]) -> str:
    """`did you mean 'relu'?`, or the known names where nothing is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(str(given), names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f", … ({len(names):,} in all)" if len(names) > MOST else ""
    return "known: " + ", ".join(names[:MOST]) + more

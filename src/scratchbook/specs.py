"""What a resolved spec has to do with a run: is it the one that the run was trained by?"""

from __future__ import annotations

from typing import Any


def declared_otherwise(spec: dict[str, Any], trained: dict[str, Any]) -> list[str]:
    """The keys of a resolved spec as it is declared now that a run was not trained with.

    What was recorded elsewhere (`recorded_*`) is no part of a training.
    """
    return [
        key
        for key in sorted(spec | trained)
        if not key.startswith("recorded_") and spec.get(key) != trained.get(key)
    ]

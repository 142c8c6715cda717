"""What a resolved spec has to do with a run: is it the one that the run was trained by?"""

from __future__ import annotations

import json
from pathlib import Path
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


def is_outdated(run: Path, spec: dict[str, Any]) -> bool:
    """Whether the run in that folder was trained by another spec than is declared now; not where
    there is none to read."""
    try:
        trained = json.loads((run / "run.json").read_text(encoding="utf-8"))["spec"]
        return bool(declared_otherwise(spec, trained))
    except (OSError, ValueError, LookupError, TypeError):
        return False

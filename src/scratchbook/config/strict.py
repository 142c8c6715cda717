"""Pydantic models that refuse what they do not know, and their errors as one readable message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .errors import nearest

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""What a notebook, an experiment or a data set may be called: the name becomes a folder."""


class Strict(BaseModel):
    """A section of a YAML file; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise unusable(f"unknown key {key!r}; {nearest(key, cls.model_fields)}")
        return value


def unusable(message: str, *inside: str) -> PydanticCustomError:
    """An error for a validator to raise: pydantic adds where it happened, and `inside` are the keys
    that lead on from there."""
    return PydanticCustomError("unusable", "{message}", {"inside": inside, "message": message})


def explain(
    error: ValidationError, file: str, line_of: Callable[[tuple[str | int, ...]], int | None]
) -> str:
    """One line for each thing wrong: `file:line: key: what was given and what would do`.

    Args:
        error: what pydantic raised.
        file: the name that the user knows the file by.
        line_of: the line of a key's path in that file, or None.
    """
    lines = []
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"] if not _is_internal(part))
        location += item.get("ctx", {}).get("inside", ())
        line = line_of(location)
        given = item["input"]
        message = item["msg"]
        if item["type"] != "unusable":
            message = message[0].lower() + message[1:]
            if not isinstance(given, dict | list):
                message += f", but {given!r} was given"
        where = f"{file}:{line}" if line else file
        lines.append(f"{where}: {dotted(location)}{message}")
    return "\n".join(dict.fromkeys(lines))


def dotted(location: tuple[str | int, ...]) -> str:
    """`('layers', 3, 'Conv2D')` as `layers[3].Conv2D: `; nothing for the whole file."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return f"{text}: " if text else ""


def _is_internal(part: str | int) -> bool:
    """Pydantic names the branch of a union in the path; the file has no such key."""
    return isinstance(part, str) and ("function-" in part or part.startswith(("tag:", "[key]")))

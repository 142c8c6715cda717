"""Pydantic models that refuse what they do not know, and their errors as one readable message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from scratchbook.errors import nearest

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""What a notebook, an experiment or a data set may be called: the name becomes a folder."""
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]

_Place = tuple[str | int, ...]
_INTERNAL = re.compile(  # types and models, as pydantic names them in a path
    r"(constrained|function)-\w+|int|float|str|bool|none|[A-Z]\w*|[a-z-]*\[.*\]", re.DOTALL
)


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
    told: dict[tuple[int | _Place, _Place], list[tuple[str, str]]] = {}
    for number, item in enumerate(error.errors(include_url=False)):
        location, union = _keys(item["loc"], line_of)
        location += item.get("ctx", {}).get("inside", ())
        message, given = item["msg"], ""
        if item["type"] != "unusable":
            message = message[0].lower() + message[1:]
            if not isinstance(item["input"], dict | list):
                given = f", but {item['input']!r} was given"
        mistake = number if union is None else union  # a union has an error for each branch of it
        told.setdefault((mistake, location), []).append((message, given))
    entered = {mistake for mistake, location in told if mistake != location}
    lines = []
    for (mistake, location), messages in told.items():
        if mistake == location and mistake in entered:
            continue  # the branch that led further inside is the one that was meant
        places = (location[:end] for end in range(len(location), -1, -1))
        line = next((line for place in places if (line := line_of(place))), None)
        where = f"{file}:{line}" if line else file
        lines.append(f"{where}: {dotted(location)}{_either(messages)}")
    return "\n".join(dict.fromkeys(lines))


def dotted(location: tuple[str | int, ...]) -> str:
    """`('layers', 3, 'Conv2D')` as `layers[3].Conv2D: `; nothing for the whole file."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return f"{text}: " if text else ""


def _keys(parts: _Place, line_of: Callable[[_Place], int | None]) -> tuple[_Place, _Place | None]:
    """The keys of the file in a path of pydantic's, and those of the union that they go through:
    pydantic names each branch of a union in the path."""
    keys: _Place = ()
    union = None
    for part in parts:
        if isinstance(part, int) or not _INTERNAL.fullmatch(part) or line_of((*keys, part)):
            keys += (part,)
        elif union is None and part != "[key]":
            union = keys
    return keys, union


def _either(messages: list[tuple[str, str]]) -> str:
    """What each branch of a union would take, and what was given, as one message."""
    first, *more = dict.fromkeys(message for message, _ in messages)
    given = messages[-1][1]
    return ", or ".join([first, *(one.removeprefix("input should ") for one in more)]) + given

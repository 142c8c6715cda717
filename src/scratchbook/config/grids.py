"""Grids: the values that an experiment is to try in, each combination of them out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from scratchbook.errors import nearest

from .keras_api import keras_object
from .layers import COMPOSITES
from .strict import unusable


def _check_values(values: Any) -> Any:
    if not isinstance(values, list | dict):
        raise unusable(
            f"takes the list of values to try, or names with a value each, but {values!r} was given"
        )
    return values


Values = Annotated[list[Any] | dict[str, Any], BeforeValidator(_check_values)]
MOST = 1000
"""Experiments that one grid may make."""

NAME_THEM = "name its values yourself: `{plain: …, other: …}` in place of a list"

WHOLE = ("loss", "label_smoothing", "test_time_flip", "batch_size", "epochs", "train_samples")
LISTS = {"layers": "layer", "augment": "augmentation layer", "callbacks": "callback"}
SECTIONS = ("schedule", "initial_weights")
KEYS = ("optimizer", *LISTS, *WHOLE, *SECTIONS)
"""What a path may begin with; those of `WHOLE` have nothing inside."""


class Setting(NamedTuple):
    """One value of one path, and what it is called in the names of experiments."""

    path: str
    label: str
    value: Any

    @property
    def shown(self) -> Any:
        """A number as it is, to be put on an axis; everything else by its label."""
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.value if number else self.label


def combinations(grid: dict[str, Values]) -> Iterator[tuple[Setting, ...]]:
    """Every combination of a grid's values; the last path's values change fastest.

    Raises:
        PydanticCustomError: a path without values or with one twice, or too many combinations.
    """
    if not grid:
        raise unusable("has no values to try; write `optimizer.learning_rate: [1e-3, 1e-4]`")
    axes = [_settings(path, values) for path, values in grid.items()]
    count = math.prod(map(len, axes))
    if count > MOST:
        sizes = " × ".join(str(len(axis)) for axis in axes)
        raise unusable(f"{sizes} makes {count:,} experiments, and a grid at most {MOST:,}")
    yield from product(*axes)


def member_name(name: str, settings: Sequence[Setting]) -> str:
    """The name of one experiment of a grid: `rates-0_01-adam`."""
    return "-".join([name, *(setting.label for setting in settings)])


def place(path: str, current: Any, value: Any) -> Any:
    """What the path's first key becomes when `value` is put where the path leads.

    Args:
        path: `batch_size`, `optimizer.learning_rate`, `schedule.warm_up`, or
            `layers.Dropout.rate`: a layer's class or its `name`, and an argument. A class stands
            for all its layers but the network's last, which answers; a name reaches that too.
        current: the value that the key has so far, as written.
        value: as written.

    Raises:
        PydanticCustomError: the path leads nowhere.
    """
    key, _, inside = path.partition(".")
    if key not in KEYS:
        raise unusable(f"no key {key!r} to vary; {nearest(key, KEYS)}", path)
    if not inside:
        return value
    if key in WHOLE:
        raise unusable(f"{key} has nothing inside; write `{key}`", path)
    if key in LISTS:
        return _placed_in_list(path, current or [], value)
    if key == "optimizer":
        optimizer = keras_object(current, key)
        return {optimizer["class_name"]: optimizer["config"] | {inside: value}}
    if current is None:
        raise unusable(f"this experiment has no {key} to vary; write one, or vary `{key}`", path)
    return current.model_dump(exclude_unset=True) | {inside: value}


def _settings(path: str, values: Values) -> list[Setting]:
    named = isinstance(values, dict)
    pairs = values.items() if isinstance(values, dict) else [(_label(v), v) for v in values]
    found = [Setting(path, label, value) for label, value in pairs]
    if not found:
        raise unusable("has no values to try", path)
    first: dict[str, Any] = {}
    for setting in found:
        if not re.fullmatch(r"[a-z0-9_-]+", setting.label):
            advice = "use lower-case letters, digits, - and _" if named else NAME_THEM
            raise unusable(
                f"{setting.value!r} has no usable name ({setting.label!r}); {advice}", path
            )
        if setting.label in first:
            other = first[setting.label]
            raise unusable(
                f"{setting.value!r} is listed twice"
                if other == setting.value
                else f"{other!r} and {setting.value!r} would both be called {setting.label!r}; "
                f"{NAME_THEM}",
                path,
            )
        first[setting.label] = setting.value
    return found


def _label(value: Any) -> str:
    """A value in the characters of an experiment's name: 0.25 is `0_25`, [3, 3] is `3-3`."""
    if isinstance(value, dict):
        return "-".join(f"{_label(key)}-{_label(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "-".join(map(_label, value)) or "none"
    if isinstance(value, float):
        value = f"{value:.12g}"
    text = "none" if value is None else str(value).lower()
    return re.sub(r"[ .]", "_", text).replace("+", "")


def _placed_in_list(path: str, entries: list[Any], value: Any) -> list[Any]:
    key, _, inside = path.partition(".")
    where, _, argument = inside.rpartition(".")
    if not where:
        raise unusable(f"name an argument too: `{path}.…`", path)
    last = entries[-1] if key == "layers" and entries else None
    known: set[str] = set()

    def changed(entry: Any) -> Any:
        class_name, given = _written(entry, LISTS[key])
        names = {str(given["name"])} if "name" in given else set()
        if entry is not last:
            names.add(class_name)
        known.update(names)
        inner = {
            branch: [changed(one) for one in given[branch]]
            for branch in ("layers", "shortcut")
            if class_name == "Residual" and branch in given
        }
        given = given | inner
        if where in names:
            return {class_name: given | {argument: value}}
        return {class_name: given} if inner else entry

    placed = [changed(entry) for entry in entries]
    if where not in known:
        what = f"no {LISTS[key]} of class or name {where!r}"
        raise unusable(
            f"{what}; {nearest(where, known)}" if known else f"{what}: {key} is empty", path
        )
    return placed


def _written(entry: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """The class of an entry and the arguments written for it, by their names."""
    name = next(iter(entry)) if isinstance(entry, dict) else entry
    if name not in COMPOSITES:
        found = keras_object(entry, kind)
        return found["class_name"], found["config"]
    given = entry[name]
    return name, given if isinstance(given, dict) else {
        next(iter(COMPOSITES[name].model_fields)): given
    }

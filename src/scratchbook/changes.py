"""What an experiment changed against its parent: keys that differ, layers added and removed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from scratchbook.specs import KerasObject, Spec

Row = tuple[str, KerasObject | None, KerasObject | None]

_APART = {"layers", "augment", "callbacks", "recorded_parameters"}
"""Keys that are not told as `key: old → new`."""


def changes(parent: Spec, spec: Spec) -> list[str]:
    """Each difference between two resolved specs, as a short text in a fixed order.

    `+ Dropout(0.5)` and `− MaxPooling2D` for entries of `layers`, `augment` and `callbacks`,
    `Dense: units 64 → 1024` for an entry that only changed its arguments, and `key: old → new`
    for all else. Names of layers are not a change.
    """
    before, after = dict(parent), dict(spec)
    found = _entries_changed(parent["layers"], spec["layers"])
    for key, olds, news in (
        ("augment", parent["augment"], spec["augment"]),
        ("callbacks", parent["callbacks"], spec["callbacks"]),
    ):
        found += [f"{key}: {text}" for text in _entries_changed(olds, news)]
    for key in sorted((before.keys() | after.keys()) - _APART):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if _is_entry(old) and _is_entry(new):
            found.append(f"{key}: {_entry_changed(old, new)}")
        else:
            found.append(f"{key}: {value_text(old)} → {value_text(new)}")
    return found


def layer_diff(before: list[KerasObject], after: list[KerasObject]) -> list[Row]:
    """Two lists of layers side by side, aligned by their longest match.

    A row is a mark, the layer before (or None) and the one after. The mark is `=` (same), `~`
    (changed), `+` (added) or `−` (removed). Where a stretch differs, layers of one class face each
    other. Names are no difference.
    """
    rows: list[Row] = []
    for same, old, new in _stretches(before, after, entry_text):
        if same:
            rows += [("=", a, b) for a, b in zip(old, new, strict=True)]
            continue
        for alike, olds, news in _stretches(old, new, lambda entry: entry["class_name"]):
            if alike:
                pairs = zip(olds, news, strict=True)
                rows += [("=" if entry_text(a) == entry_text(b) else "~", a, b) for a, b in pairs]
            else:
                rows += [("−", a, None) for a in olds] + [("+", None, b) for b in news]
    return rows


def entry_text(entry: KerasObject) -> str:
    """`Conv2D(filters=32, kernel_size=3)`: a layer, or any Keras object, as it was declared but for
    its name."""
    config = {k: v for k, v in entry.get("config", {}).items() if k != "name"}
    inside = ", ".join(f"{key}={value_text(value)}" for key, value in config.items())
    return f"{entry['class_name']}({inside})" if inside else str(entry["class_name"])


def value_text(value: Any) -> str:
    """Any value of a resolved spec on one line."""
    if _is_entry(value):
        return entry_text(value)
    if isinstance(value, dict):  # of `schedule` or `initial_weights`
        given = {key: part for key, part in value.items() if part is not None}
        return ", ".join(f"{key}={value_text(part)}" for key, part in given.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def _stretches(
    old: list[KerasObject], new: list[KerasObject], key: Callable[[KerasObject], str]
) -> Iterator[tuple[bool, list[KerasObject], list[KerasObject]]]:
    """Stretches of two lists in order, each with whether both are the same by `key`."""
    matcher = difflib.SequenceMatcher(
        a=[key(entry) for entry in old], b=[key(entry) for entry in new], autojunk=False
    )
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        yield kind == "equal", old[i:i_end], new[j:j_end]


def _entries_changed(before: list[KerasObject], after: list[KerasObject]) -> list[str]:
    found = []
    for mark, old, new in layer_diff(before, after):
        if mark == "~" and old and new:
            found.append(_entry_changed(old, new))
        elif mark != "=" and (only := old or new):
            found.append(f"{mark} {entry_text(only)}")
    return _counted(found)


def _entry_changed(old: KerasObject, new: KerasObject) -> str:
    """`Adam → SGD(learning_rate=0.01)`, or `Dense: units 64 → 1024` for one class."""
    if old["class_name"] != new["class_name"]:
        return f"{entry_text(old)} → {entry_text(new)}"
    a, b = old.get("config", {}), new.get("config", {})
    keys = [key for key in {**a, **b} if key != "name"]
    parts = (_part_changed(key, a.get(key), b.get(key)) for key in keys)
    return f"{new['class_name']}: " + ", ".join(part for part in parts if part)


def _part_changed(key: str, old: Any, new: Any) -> str:
    """One argument's change, `units 64 → 1024`; nothing where there is none."""
    if value_text(old) == value_text(new):
        return ""
    if old and new and all(isinstance(part, list) and _is_entry(part[0]) for part in (old, new)):
        return f"{key} ({'; '.join(_entries_changed(old, new))})"  # inside a Residual
    return f"{key} {value_text(old)} → {value_text(new)}"


def _counted(texts: list[str]) -> list[str]:
    """`+ Dropout(rate=0.5) ×2` for a text met twice, at its first place."""
    return [
        text if texts.count(text) == 1 else f"{text} ×{texts.count(text)}"
        for text in dict.fromkeys(texts)
    ]


def _is_entry(value: Any) -> TypeGuard[KerasObject]:
    return isinstance(value, dict) and "class_name" in value

"""What an experiment changed against its parent: keys that differ, layers added and removed."""

from __future__ import annotations

import difflib
from typing import Any, TypeGuard

IDENTITY = {"notebook", "experiment", "recorded_parameters", "cam_epochs"}
LISTS = ("augment", "callbacks")


def changes(parent: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """Each difference between two resolved specs, as a short text in a fixed order.

    `+ Dropout(0.5)` and `− MaxPooling2D` for entries of `layers`, `augment` and `callbacks`,
    `Dense: units 64 → 1024` for an entry that only changed its arguments, and `key: old → new`
    for all else. Names of layers are not a change.
    """
    found = _entries_changed(parent.get("layers", []), spec.get("layers", []))
    for key in LISTS:
        for text in _entries_changed(parent.get(key, []), spec.get(key, [])):
            found.append(f"{key}: {text}")
    for key in sorted((parent.keys() | spec.keys()) - IDENTITY - {"layers", *LISTS}):
        old, new = parent.get(key), spec.get(key)
        if old == new:
            continue
        if _is_entry(old) and _is_entry(new):
            found.append(f"{key}: {_entry_changed(old, new)}")
        else:
            found.append(f"{key}: {_text(old)} → {_text(new)}")
    return found


def _entries_changed(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    before, after = [_shown(entry) for entry in old], [_shown(entry) for entry in new]
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    found = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        same_kinds = [e["class_name"] for e in old[i:j]] == [e["class_name"] for e in new[k:m]]
        if kind == "replace" and same_kinds:
            pairs = zip(old[i:j], new[k:m], strict=True)
            found += [_entry_changed(a, b) for a, b in pairs]
        else:
            found += [f"− {text}" for text in before[i:j]] + [f"+ {text}" for text in after[k:m]]
    return _counted(found)


def _entry_changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    """`Adam → SGD(learning_rate=0.01)`, or `Dense: units 64 → 1024` for one class."""
    if old["class_name"] != new["class_name"]:
        return f"{_shown(old)} → {_shown(new)}"
    a, b = old.get("config", {}), new.get("config", {})
    keys = [key for key in {**a, **b} if key != "name" and a.get(key) != b.get(key)]
    different = ", ".join(f"{key} {_text(a.get(key))} → {_text(b.get(key))}" for key in keys)
    return f"{new['class_name']}: {different}"


def _counted(texts: list[str]) -> list[str]:
    """`+ Dropout(rate=0.5) ×2` for a text met twice, at its first place."""
    return [
        text if texts.count(text) == 1 else f"{text} ×{texts.count(text)}"
        for text in dict.fromkeys(texts)
    ]


def _shown(entry: dict[str, Any]) -> str:
    config = {k: v for k, v in entry.get("config", {}).items() if k != "name"}
    inside = ", ".join(f"{key}={_text(value)}" for key, value in config.items())
    return f"{entry['class_name']}({inside})" if inside else str(entry["class_name"])


def _is_entry(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and "class_name" in value


def _text(value: Any) -> str:
    if _is_entry(value):
        return _shown(value)
    if isinstance(value, dict):  # of `schedule` or `initial_weights`
        given = {key: part for key, part in value.items() if part is not None}
        return ", ".join(f"{key}={_text(part)}" for key, part in given.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)

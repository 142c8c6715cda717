"""What a run is called: all that was asked for in, its key out.

A key says what was asked, never who answered: no version, no machine, no word of a title. It is
found by its twelve hexadecimal digits; the data set's name before them is for people.

A setting is dropped from what is hashed at the value that it had when it was introduced, so that
giving a default, or adding a setting to the project, changes no key. These values are in
`config/frozen.json`, which only grows, and training passes each of them to Keras in so many words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scratchbook.specs import Cam, KerasObject, Spec

DIGITS = 12
FROZEN_FILE = Path(__file__).with_name("config") / "frozen.json"
KEY_PATTERN = rf"[a-z0-9][a-z0-9_-]*-[0-9a-f]{{{DIGITS}}}"
RUN_PATTERN = rf"{KEY_PATTERN}/seed\d+"

_SETTINGS: dict[str, Any] = {
    "augment": [],
    "batch_size": 32,
    "callbacks": [],
    "epochs": 10,
    "label_smoothing": 0.0,
    "loss": "categorical_crossentropy",
    "optimizer": {"class_name": "Adam", "config": {}},
    "schedule": None,
    "test_time_flip": None,
    "train_samples": None,
    "validation": "validation",
}
"""Of a spec, as each was when it was introduced."""
_SCHEDULE: dict[str, Any] = {"warm_up": 0, "decay": "none", "every": None, "factor": None}
_SIDES = ("kernel_size", "pool_size", "strides", "dilation_rate")
"""Arguments for which a number means the same as a pair of it."""
_RUN: dict[str, Any] = {"precision": "auto", "backend": "auto", "threads": 1, "pretrained": {}}
"""Of what is asked beside the spec."""


def run_key(
    spec: Spec,
    *,
    data: str,
    precision: str,
    backend: str,
    threads: int,
    pretrained: Mapping[str, str],
    initial: str | None,
) -> str:
    """The key's digits.

    Args:
        spec: with every default filled in; names, and what was recorded, are no part of the key.
        data: what was asked for of the data, `scratchbook.data.content.data_identity`.
        precision, backend, threads: as declared, `auto` included.
        pretrained: what each backbone's weights are, by their name in the spec.
        initial: the digits of the run that `initial_weights` names.
    """
    asked: dict[str, Any] = {
        name: _objects(value)
        for name, value in spec.items()
        if name not in ("dataset", "initial_weights") and not name.startswith("recorded_")
    }
    asked = {name: value for name, value in asked.items() if not _same(value, _SETTINGS, name)}
    if schedule := asked.get("schedule"):
        asked["schedule"] = {
            name: value for name, value in schedule.items() if not _same(value, _SCHEDULE, name)
        }
    beside = {
        "precision": precision, "backend": backend, "threads": threads,
        "pretrained": dict(pretrained),
    }  # fmt: skip
    asked |= {name: value for name, value in beside.items() if not _same(value, _RUN, name)}
    if start := spec.get("initial_weights"):
        asked["initial"] = {"run": initial, "checkpoint": start["checkpoint"]}
    return digits_of({**asked, "data": data})


def cam_key(choices: Cam) -> str:
    """What the maps of these choices are called."""
    return digits_of(dict(choices))


def digits_of(value: Any) -> str:
    """The first digits of the sha256 of plain values, whatever the order of their keys."""
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def digits_in(key: str) -> str:
    """`3f9a0c61d2e8` of `digits-3f9a0c61d2e8`."""
    return key.rpartition("-")[2]


@cache
def frozen() -> dict[str, dict[str, Any]]:
    """The arguments of each class that may be left out, and their values: {class: {argument: …}}.

    They are handed to Keras wherever a spec gives no others, so that a release of Keras with other
    defaults trains what was asked for.
    """
    return json.loads(FROZEN_FILE.read_text(encoding="utf-8"))


def with_frozen(entry: KerasObject) -> dict[str, Any]:
    """All arguments of a serialized Keras object."""
    return {**frozen().get(entry["class_name"], {}), **entry["config"]}


def _objects(value: Any) -> Any:
    """Serialized objects among the values, without the arguments that are as they were frozen."""
    if isinstance(value, list):
        return [_objects(one) for one in value]
    if isinstance(value, dict) and value.keys() == {"class_name", "config"}:
        return _object(value)
    return value


def _object(entry: Mapping[str, Any]) -> dict[str, Any]:
    defaults = frozen().get(entry["class_name"], {})
    config = {
        name: _side(value) if name in _SIDES else _objects(value)
        for name, value in entry["config"].items()
        if not _same(value, defaults, name)
    }
    return {"class_name": entry["class_name"], "config": config}


def _side(value: Any) -> Any:
    """2 for [2, 2]."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]
    return value[0] if pair else value


def _same(value: Any, defaults: Mapping[str, Any], name: str) -> bool:
    """Whether a value is the default, also where a pair is written as one number."""
    if name not in defaults:
        return False
    default, value = _plain(defaults[name]), _plain(value)
    pair = isinstance(default, list) and bool(default) and not isinstance(value, list)
    same = all(value == part for part in default) if pair else value == default
    return same and not isinstance(value, bool) ^ isinstance(default, bool)


def _plain(value: Any) -> Any:
    """As JSON would give it back; 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value

"""The files that follow from the models: JSON schemas for editors, the tables of config/README.md
and the list of what Keras's classes take. `scratchbook generate` writes them, a test compares them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from scratchbook.figures import COMPARED
from scratchbook.keys import FROZEN_FILE, frozen

from . import datasets, diagnoses, experiments, layers, notebooks
from .keras_api import API_FILE, describe_defaults, describe_keras
from .settings import Settings

SCHEMAS: dict[str, type[BaseModel]] = {
    "config": Settings,
    "datasets": datasets.Datasets,
    "notebook": notebooks.Notebook,
}
TABLES: dict[str, type[BaseModel]] = {
    "config.yaml": Settings,
    "datasets.yaml": datasets.Dataset,
    "resize": datasets.Resize,
    "split": datasets.Split,
    "source keras": datasets.KerasSource,
    "source folder": datasets.FolderSource,
    "source archive": datasets.ArchiveSource,
    "source csv": datasets.CsvSource,
    "source hdf5": datasets.Hdf5Source,
    "source bundled": datasets.BundledSource,
    "notebook": notebooks.Notebook,
    "experiment": experiments.Experiment,
    "schedule": experiments.Schedule,
    "initial_weights": experiments.InitialWeights,
    "backbone": layers.Backbone,
    "residual": layers.Residual,
    "whitening": layers.Whitening,
    "defaults": experiments.Defaults,
    "recorded": experiments.Recorded,
    "key_results": notebooks.KeyResult,
    "cam": notebooks.Cam,
    "diagnoses": diagnoses.Diagnoses,
    "thresholds": diagnoses.Thresholds,
}
"""The tables of config/README.md by the name in their marker."""

_BLOCK = r"(<!-- table: {} -->\n).*?(<!-- end -->)"


def generate(config: Path) -> dict[Path, str]:
    """What the generated files should hold: {path: text}.

    Args:
        config: the folder `config/`; its README.md is filled in between `<!-- table: … -->` marks.
    """
    files = {
        config / "schemas" / f"{name}.schema.json": json.dumps(
            model.model_json_schema(), indent=1, ensure_ascii=False
        )
        + "\n"
        for name, model in SCHEMAS.items()
    }
    readme = (config / "README.md").read_text(encoding="utf-8")
    tables = {name: table(model) for name, model in TABLES.items()} | {"figures": figures_table()}
    for name, text in tables.items():
        match = re.search(_BLOCK.format(re.escape(name)), readme, re.DOTALL)
        if not match:
            raise ValueError(f"{config / 'README.md'}: has no block `<!-- table: {name} -->`")
        readme = readme[: match.end(1)] + text + readme[match.start(2) :]
    files[config / "README.md"] = readme
    files[API_FILE] = json.dumps(describe_keras(), indent=1) + "\n"
    files[FROZEN_FILE] = json.dumps(describe_defaults(frozen()), indent=1) + "\n"
    return files


def table(model: type[BaseModel]) -> str:
    """A Markdown table of a model's keys: key, what it takes, default, meaning."""
    schema = model.model_json_schema()
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        default = "required" if key in schema.get("required", []) else _default(value)
        meaning = value.get("description", "").replace("\n", " ")
        lines.append(f"| `{key}` | {_takes(value, schema)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def figures_table() -> str:
    """A Markdown table of the figures that a key result can hold."""
    seeds = {"mean": "their mean", "mean of all": "their mean, if all have it", "first": "alike"}
    better = {True: "higher", False: "lower", None: "–"}
    lines = ["| figure | meaning | unit | of several seeds | better is |", "|---|---|---|---|---|"]
    lines += [
        f"| `{figure.name}` | {figure.label} | {figure.unit or '–'} | {seeds[figure.seeds]} "
        f"| {better[figure.higher_is_better]} |"
        for figure in COMPARED.values()
    ]
    return "\n".join(lines) + "\n"


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", [], {}):
        return "–"
    return f"`{json.dumps(default)}`" if not isinstance(default, dict) else "see below"


def _takes(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """A type in words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        inner = schema["$defs"][name]
        return f"section `{name.lower()}`" if "properties" in inner else _takes(inner, schema)
    if "title" in value and value.get("x-kind"):
        return value["title"]
    if "enum" in value or "const" in value:
        return " \\| ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in value:
            words = [_takes(v, schema) for v in value[union] if v.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
    kind = value.get("type")
    if kind == "array":
        return f"list of {_takes(value.get('items', {}), schema)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"names with {_takes(inner if isinstance(inner, dict) else {}, schema)}"
    if kind in ("integer", "number"):
        return _number(value, "whole number" if kind == "integer" else "number")
    return {"string": "text", "boolean": "`true` \\| `false`"}.get(str(kind), "any value")


def _number(value: dict[str, Any], word: str) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if low is not None and high is not None:
        return f"{word}, {low:g} to {high:g}"
    return f"{word} ≥ {low:g}" if low is not None else word

"""The pydantic model of config/config.yaml: what to run and where the data lies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from .strict import Name, Strict, unusable

Precision = Literal["float32", "mixed_bfloat16", "auto"]
Backend = Literal["tensorflow", "jax", "torch", "auto"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _no_repeats(values: list[Any]) -> list[Any]:
    repeated = {value for value in values if values.count(value) > 1}
    if repeated:
        raise unusable(f"{min(repeated)!r} is listed more than once")
    return values


_SET = {"uniqueItems": True}
Names = Annotated[
    list[Name], Field(min_length=1, json_schema_extra=_SET), AfterValidator(_no_repeats)
]
Seeds = Annotated[
    list[Seed], Field(min_length=1, json_schema_extra=_SET), AfterValidator(_no_repeats)
]
"""The same seed twice would be one run that counts as two."""


class Settings(Strict):
    """Every key can be given as `--config key=value` too, which wins over the file."""

    notebooks: Names
    """The notebooks to run: the names of files in `config/notebooks/` without `.yaml`."""
    data_dir: str = "data"
    """The folder in which local copies of data sets are looked for."""
    seeds: Seeds = Field(default=[0])
    """The random seeds with which each experiment is run, unless its notebook names others."""
    smoke: bool = False
    """Run every experiment for one epoch on a sliver of its data, with its first seed alone: the
    whole graph in minutes. Results go to `results/smoke/`, so they never mix with real ones."""
    precision: Precision = "auto"
    """`auto` is what the experiment's finished runs have, else the notebook's, else
    `mixed_bfloat16` where this machine multiplies bf16 natively, else `float32`."""
    backend: Backend = "auto"
    """What Keras computes with; `auto` likewise, else as `KERAS_BACKEND` or Keras's own
    configuration says."""
    language: Literal["en", "zh"] = "en"
    """The language of all that the page and notebook.md say beside your own words."""

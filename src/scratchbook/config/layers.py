"""The entries of `layers:`: Keras layers, and three more, `Residual`, `Backbone` and `Whitening`.
YAML entries in, serialized layers out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from scratchbook.errors import nearest
from scratchbook.specs import KerasObject

from .keras_api import ACTIVATIONS, keras_api, keras_object, keras_schema
from .strict import Strict, explain, unusable


class UpTo(Strict):
    """Freeze a backbone's layers from the input to this one."""

    up_to: str
    """The last layer that is frozen."""


class LastTrainable(Strict):
    """Freeze a backbone's layers but for the last few."""

    last_trainable: int = Field(ge=0)
    """How many layers at the end, pooling and activations counted, are trained."""


class Backbone(Strict):
    """A network of `keras.applications` without its top, as one layer. It takes the images as they
    are and applies its own preprocessing, so it stands first."""

    application: str
    """Its name in `keras.applications`, `VGG16`."""
    weights: str = "imagenet"
    """What it starts from: `imagenet` (a file under `data_dir`, or downloaded by Keras where there
    is internet), `none` (random), or a weights file, relative to `data_dir` unless absolute."""
    freeze: Literal["all", "none"] | UpTo | LastTrainable = "none"
    """What is not trained: `all`, `none`, `{up_to: block3_pool}` or `{last_trainable: 8}`."""
    output_layer: str | None = None
    """The layer to cut it after; its last unless given."""
    name: str | None = None
    """The name in the layer table; the application's in lower case unless given."""

    @field_validator("application")
    @classmethod
    def _known(cls, value: str) -> str:
        known = keras_api()["application"]
        if value not in known:
            raise unusable(f"unknown application {value!r}; {nearest(value, known)}")
        return value


class Residual(Strict):
    """A residual block: what reaches it is added to what `layers` make of it."""

    layers: list[Any] = Field(min_length=1)
    """The layers in the block, in order."""
    shortcut: list[Any] = Field(default_factory=list)
    """Layers on the way around, needed where the block changes the shape:
    `[Conv2D: {filters: 64, kernel_size: 1, strides: 2}]`."""
    activation: str | None = None
    """Applied to the sum."""
    name: str | None = None
    """The name of the sum."""

    @field_validator("activation")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in ACTIVATIONS:
            raise unusable(f"unknown activation {value!r}; {nearest(value, ACTIVATIONS)}")
        return value


class Whitening(Strict):
    """A convolution that is not trained: its filters are the principal components of patches of
    the training images, scaled to variance 1, each in both signs. It stands first."""

    kernel_size: int = Field(2, ge=1, le=5)
    """The side of the patches; 2 make 24 filters, 3 make 54."""
    name: str = "whitening"
    """The name in the layer table."""


COMPOSITES: dict[str, type[Strict]] = {
    "Backbone": Backbone,
    "Residual": Residual,
    "Whitening": Whitening,
}
"""What may stand in `layers:` beside Keras's own layers."""
FIRST = {"Backbone": "a Backbone", "Whitening": "Whitening"}
"""Those that take the images themselves."""


def layer_object(entry: Any, defaults: dict[str, dict[str, Any]] | None = None) -> KerasObject:
    """One entry of `layers:`, serialized as `keras_object` does.

    A Residual's config holds its `layers` and `shortcut` serialized too.

    Raises:
        PydanticCustomError: no such layer, or not these arguments.
    """
    if isinstance(entry, str) and entry in COMPOSITES:
        entry = {entry: {}}
    if not (isinstance(entry, dict) and len(entry) == 1 and next(iter(entry)) in COMPOSITES):
        return keras_object(entry, "layer", defaults)
    class_name, arguments = next(iter(entry.items()))
    model = COMPOSITES[class_name]
    if not isinstance(arguments, dict):
        arguments = {next(iter(model.model_fields)): arguments}
    try:
        config = model.model_validate(arguments).model_dump(exclude_none=True)
    except ValidationError as error:
        raise unusable(explain(error, class_name, lambda _: None).replace("\n", "; ")) from None
    for branch in ("layers", "shortcut"):
        if branch in config:
            config[branch] = [
                _inner(inner, f"{class_name}.{branch}[{position}]", defaults)
                for position, inner in enumerate(config[branch])
            ]
    return {"class_name": class_name, "config": config}


def _inner(entry: Any, where: str, defaults: dict[str, dict[str, Any]] | None) -> KerasObject:
    try:
        layer = layer_object(entry, defaults)
    except PydanticCustomError as error:
        raise unusable(f"{where}: {error.message()}") from None
    check_place(layer, where)
    return layer


def check_place(layer: KerasObject, where: str) -> None:
    """Refuses a serialized layer that stands elsewhere than first and has to stand there."""
    if called := FIRST.get(layer["class_name"]):
        raise unusable(f"{where}: {called} takes images, so it stands first in `layers`")


def backbones(layers: list[KerasObject]) -> Iterator[dict[str, Any]]:
    """The configs of the backbones among serialized layers."""
    return (entry["config"] for entry in layers if entry["class_name"] == "Backbone")


def layer_schema() -> dict[str, Any]:
    """The JSON schema of one entry of `layers:`."""
    schema = keras_schema("layer")
    composites = {
        name: {
            "type": "object",
            "description": (model.__doc__ or "").replace("\n", " "),
            "properties": {
                key: {"description": (field.description or "").replace("\n", " ")}
                for key, field in model.model_fields.items()
            },
            "additionalProperties": False,
        }
        for name, model in COMPOSITES.items()
    }
    schema["anyOf"].append(
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
            "properties": composites,
        }
    )
    return schema

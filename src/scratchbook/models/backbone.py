"""Networks of keras.applications as one layer: a backbone's config and images in, features out."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchbook.errors import ScratchbookError, nearest

from .weights import first_line, load_pretrained

if TYPE_CHECKING:
    import keras


def make_backbone(
    config: dict[str, Any], name: str, precision: str, pixels: Any, pretrained: Path | None
) -> Any:
    """Applies a network of keras.applications, without its top, to a batch of images.

    Args:
        config: `application`, `weights`, `freeze` and perhaps `output_layer`.
        name: of the nested model.
        precision: `float32` or `mixed_bfloat16`.
        pixels: symbolic float32 (batch, height, width, 3), 0..255; the application's own
            `preprocess_input` is applied to them.
        pretrained: where weights files lie; None leaves the weights random.

    Returns:
        The output layer's features, symbolic (batch, h, w, channels).

    Raises:
        ScratchbookError: images too small for it, no such layer, or weights that do not fit.
    """
    import keras

    make = getattr(keras.applications, config["application"])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)  # applications take no dtype
    try:
        whole = make(weights=None, include_top=False, input_shape=pixels.shape[1:])
    except ValueError as error:
        raise ScratchbookError(first_line(error)) from None
    finally:
        keras.config.set_dtype_policy(before)
    output = config.get("output_layer")
    features = _layer(whole, output, "output_layer", name).output if output else whole.output
    network = keras.Model(whole.input, features, name=name)
    if pretrained is not None and config["weights"] != "none":
        load_pretrained(network, whole, config, pretrained)
    _freeze(network, config["freeze"])
    return network(inspect.getmodule(make).preprocess_input(pixels))  # type: ignore[union-attr]


def _freeze(network: keras.Model, freeze: str | dict[str, Any]) -> None:
    layers, frozen = network.layers, 0
    if freeze == "all":
        network.trainable = False
    elif isinstance(freeze, dict) and "up_to" in freeze:
        frozen = 1 + layers.index(_layer(network, freeze["up_to"], "freeze.up_to", network.name))
    elif isinstance(freeze, dict):
        frozen = len(layers) - (count := freeze["last_trainable"])
        if frozen < 0:
            raise ScratchbookError(
                f"freeze.last_trainable is {count}, but {network.name} has only {len(layers)} "
                "layers; write a smaller number, or `freeze: none`"
            )
    for layer in layers[:frozen]:
        layer.trainable = False


def _layer(network: keras.Model, name: str, key: str, called: str) -> keras.Layer:
    known = [layer.name for layer in network.layers]
    if name not in known:
        raise ScratchbookError(f"{key}: {called} has no layer {name!r}; {nearest(name, known)}")
    return network.get_layer(name)

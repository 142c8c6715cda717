"""Build the declared network: a resolved spec and an image shape in, a Keras model out.

Every network takes uint8 images and returns float32 logits, whatever the spec's last activation:
the softmax belongs to the loss (`scratchbook.training.losses`), so Grad-CAM and the predictions see
raw logits and no backend can guess differently what lies behind a softmax.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from scratchbook.config.errors import ScratchbookError

if TYPE_CHECKING:
    import keras

OUTPUT_ACTIVATIONS = ("softmax", "sigmoid")


def output_activation(layers: list[dict[str, Any]]) -> str:
    """`softmax` or `sigmoid`: what the spec's last layer applies to the logits.

    Args:
        layers: serialized Keras layers, `[{"class_name": …, "config": …}, …]`.

    Raises:
        ScratchbookError: the last layer is no classifier's head.
    """
    last = layers[-1]
    activation = last["config"].get("activation")
    if last["class_name"] not in ("Dense", "Activation") or activation not in OUTPUT_ACTIVATIONS:
        raise ScratchbookError(
            f"the last layer must end in a softmax (or one sigmoid unit), but it is "
            f"{last['class_name']} with activation {activation!r}; "
            "write `Dense: {units: <classes>, activation: softmax, name: predictions}`"
        )
    return activation


def build(
    spec: dict[str, Any],
    input_shape: tuple[int, int, int],
    precision: str = "float32",
    seed: int = 0,
) -> keras.Model:
    """The network of a spec, its weights drawn from `seed`.

    Args:
        spec: a resolved experiment; `layers` and `augment` are read.
        input_shape: (height, width, channels) of the images.
        precision: `float32` or `mixed_bfloat16`; the last layer computes in float32 either way.
        seed: of the initial weights.

    Returns:
        A model from images, uint8 (batch, height, width, channels), to logits, float32
        (batch, units).

    Raises:
        ScratchbookError: a layer refuses its arguments or the shape that reaches it.
    """
    import keras

    keras.utils.set_random_seed(seed)
    output_activation(spec["layers"])
    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(images)  # (b, h, w, c)
    counts: Counter[str] = Counter()
    for entry in spec["augment"]:
        x = _apply(entry, _name(entry, counts), "float32", x, "augment")
    for position, entry in enumerate(spec["layers"]):
        last = position == len(spec["layers"]) - 1
        if last:
            entry = {**entry, "config": {**entry["config"], "activation": "linear"}}
        dtype = "float32" if last else precision
        x = _apply(entry, _name(entry, counts), dtype, x, f"layers[{position}]")
    if len(x.shape) != 2:
        raise ScratchbookError(
            f"layers: the network ends in the shape {_shape(x)}, one map a class instead of one "
            "number; put Flatten or GlobalAveragePooling2D before the last Dense"
        )
    return keras.Model(images, x)


def _name(entry: dict[str, Any], counts: Counter[str]) -> str:
    """The given name, or the class's with a number, as Keras would: `conv2d_1`."""
    if "name" in entry["config"]:
        return entry["config"]["name"]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])(?!D\b)", "_", entry["class_name"]).lower()
    counts[words] += 1
    return f"{words}_{counts[words]}"


def _apply(entry: dict[str, Any], name: str, dtype: str, x: Any, key: str) -> Any:
    import keras

    class_name = entry["class_name"]
    where = f"{key}: {class_name} {name!r}"
    try:
        layer_class = getattr(keras.layers, class_name)
        layer = layer_class(**{**entry["config"], "name": name}, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ScratchbookError(
            f"{where}: Keras refuses its arguments: {_first_line(error)}"
        ) from None
    try:
        y = layer(x)
    except (TypeError, ValueError) as error:
        raise ScratchbookError(
            f"{where} cannot take what reaches it, of shape {_shape(x)}: {_first_line(error)}"
        ) from None
    if any(size is not None and size < 1 for size in y.shape[1:]):
        raise ScratchbookError(
            f"{where} cannot take what reaches it: the shape there is {_shape(x)}, too small for "
            "it; use larger images, fewer pooling layers or `padding: same`"
        )
    return y


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _shape(x: Any) -> str:
    return " × ".join(str(size) for size in x.shape[1:])


def layer_table(spec: dict[str, Any], model: keras.Model) -> list[dict[str, Any]]:
    """One row a declared layer: name, class, output shape (with None for the batch), parameters."""
    declared = model.layers[-len(spec["layers"]) :]
    return [
        {
            "name": layer.name,
            "class_name": entry["class_name"],
            "output_shape": list(layer.output.shape),
            "parameters": layer.count_params(),
            "config": entry["config"],
        }
        for entry, layer in zip(spec["layers"], declared, strict=True)
    ]


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Total, trainable and non-trainable weights, as Keras's `summary` counts them.

    The states of random generators (dropout, augmentation) are no parameters.
    """
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    total = sum(math.prod(weight.shape) for weight in model.weights)
    return {"total": total, "trainable": trainable, "non_trainable": total - trainable}


def check_recorded(spec: dict[str, Any], parameters: dict[str, int]) -> None:
    """Refuses a network whose size is not the one that was written down for it."""
    for key, what in (("recorded_parameters", "total"), ("recorded_trainable", "trainable")):
        recorded = spec.get(key)
        if recorded is not None and recorded != parameters[what]:
            field = key.replace("recorded_", "")
            raise ScratchbookError(
                f"recorded.{field} is {recorded:,}, but this network has {parameters[what]:,} "
                f"{what} parameters; correct the layers, or the recorded number"
            )


def survey_networks(
    specs: dict[str, dict[str, Any]], size: tuple[int, int]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Builds each experiment's network, without pretrained weights, and counts it.

    Args:
        specs: {experiment: resolved spec}.
        size: (height, width) of the images.

    Returns:
        {experiment: {"id", "parameters", "layers"}} of those that can be built, and a line for each
        that cannot or that is not of the recorded size.
    """
    import keras

    networks, mistakes = {}, []
    for name, spec in specs.items():
        keras.utils.clear_session(free_memory=True)
        try:
            model = build(spec, (*size, 3))
            parameters = count_parameters(model)
            networks[name] = {
                "id": display_id(spec["dataset"], parameters),
                "parameters": parameters,
                "layers": layer_table(spec, model),
            }
            check_recorded(spec, parameters)
        except ScratchbookError as error:
            mistakes.append(f"experiments.{name}.{error}")
    return networks, mistakes


def check_networks(
    specs: dict[str, dict[str, Any]], size: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """The networks of `survey_networks`.

    Raises:
        ScratchbookError: some cannot be built or are not of the recorded size; one line for each.
    """
    networks, mistakes = survey_networks(specs, size)
    if mistakes:
        raise ScratchbookError("\n".join(mistakes))
    return networks


def check_classes(model: keras.Model, classes: int) -> None:
    """Refuses a head that does not fit the data's classes; one (sigmoid) unit fits two."""
    units = model.output.shape[-1]
    if units != classes and not (units == 1 and classes == 2):
        raise ScratchbookError(
            f"layers[-1]: the last layer has {units} units, but the data set has {classes} "
            f"classes; write `units: {classes}`"
        )


def display_id(dataset: str, parameters: dict[str, int]) -> str:
    """`cifar10-11018058`: how notebooks call a network. Two networks can share it."""
    return f"{dataset}-{parameters['total']}"

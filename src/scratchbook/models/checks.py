"""Hold networks against what was declared: specs and models in, counts or a refusal out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scratchbook.config.errors import ScratchbookError

from .network import build, layer_table

if TYPE_CHECKING:
    import keras


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

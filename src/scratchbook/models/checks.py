"""Hold networks against what was declared: specs and models in, counts or a refusal out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, TypedDict

from scratchbook.errors import ScratchbookError
from scratchbook.results.records import LayerRow, Parameters
from scratchbook.specs import Spec

from .network import build, layer_table
from .weights import shape_text

if TYPE_CHECKING:
    import keras

Weights = tuple[str, list[tuple[int, ...]]]  # a layer's name, and its weights' shapes


class Network(TypedDict):
    """What can be said of a network before it is trained."""

    id: str
    parameters: Parameters
    layers: list[LayerRow]


Built = tuple[Network, list[Weights], str] | ScratchbookError
"""A network, its layers' weights and what does not suit it; or why there is none."""


def count_parameters(model: keras.Model) -> Parameters:
    """Total, trainable and non-trainable weights, as Keras's `summary` counts them.

    The states of random generators (dropout, augmentation) are no parameters.
    """
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    total = sum(math.prod(weight.shape) for weight in model.weights)
    return Parameters(total=total, trainable=trainable, non_trainable=total - trainable)


def check_recorded(spec: Spec, parameters: Parameters) -> None:
    """Refuses a network whose size is not the one that was written down for it."""
    for field, recorded, count, what in (
        ("parameters", spec.get("recorded_parameters"), parameters["total"], "total"),
        ("trainable", spec.get("recorded_trainable"), parameters["trainable"], "trainable"),
    ):
        if recorded is not None and recorded != count:
            raise ScratchbookError(
                f"recorded.{field} is {recorded:,}, but this network has {count:,} "
                f"{what} parameters; correct the layers, or the recorded number"
            )


def layer_weights(model: keras.Model) -> list[Weights]:
    """(layer's name, its weights' shapes) of each layer with weights, in order; a nested network's
    layers as `mobilenet/conv1`."""
    return [
        (name, [tuple(weight.shape) for weight in layer.weights])
        for name, layer in _leaves(model)
        if layer.weights
    ]


def _leaves(model: keras.Model, above: str = "") -> Iterator[tuple[str, keras.Layer]]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, f"{above}{layer.name}/")
        else:
            yield f"{above}{layer.name}", layer


def check_warm_start(ours: list[Weights], theirs: list[Weights], source: str) -> None:
    """Refuses to start a network from the weights of one of other shapes.

    Args:
        ours: `layer_weights` of the network to be trained.
        theirs: those of the network whose weights it is to take over.
        source: the experiment that trains that network.
    """
    nothing: Weights = ("", [])
    for our, their in zip_longest(ours, theirs, fillvalue=nothing):
        if our[1] != their[1]:
            raise ScratchbookError(
                f"initial_weights: this network has {_described(our)} where {source!r}, whose "
                f"weights it is to take over, has {_described(their)}; make the layers equal"
            )


def _described(weights: Weights) -> str:
    name, shapes = weights
    return f"layer {name!r} of shape {shape_text(shapes)}" if name else "no layer"


def survey_networks(
    specs: Mapping[str, Spec],
    size: Sequence[int],
    suits: Callable[[keras.Model], object] | None = None,
    built: dict[str, Built] | None = None,
) -> tuple[dict[str, Network], list[str]]:
    """Builds each experiment's network, without pretrained weights, and counts it. Experiments
    that differ in how they train, as most of a grid do, share one.

    Args:
        specs: {experiment: resolved spec}.
        size: (height, width) of the images.
        suits: what else is asked of each network; raises ScratchbookError where it does not suit.
        built: what other notebooks' networks of the same data, size and `suits` came to; is added
            to.

    Returns:
        The networks that can be built, by experiment, and a line for each that cannot, that is not
        of the recorded size, or whose warm start is of another network; and one for each way in
        which networks do not suit.
    """
    built = {} if built is None else built
    networks: dict[str, Network] = {}
    mistakes: list[str] = []
    weights: dict[str, list[Weights]] = {}
    unsuited: dict[str, str] = {}  # {what does not suit: the first experiment it is wrong with}
    for name, spec in specs.items():
        drawn = json.dumps([spec["layers"], spec["augment"]])
        if drawn not in built:
            built[drawn] = _built(spec, size, suits)
        try:
            answer = built[drawn]
            if isinstance(answer, ScratchbookError):
                raise answer
            networks[name], weights[name], wrong = answer
            if wrong:
                unsuited.setdefault(wrong, name)
            check_recorded(spec, networks[name]["parameters"])
        except ScratchbookError as error:
            mistakes.append(f"experiments.{name}.{error}")
    mistakes += [f"{error} (experiments.{name})" for error, name in unsuited.items()]
    for name, spec in specs.items():
        start = spec.get("initial_weights")
        if start and name in weights and (source := start["experiment"]) in weights:
            try:
                check_warm_start(weights[name], weights[source], source)
            except ScratchbookError as error:
                mistakes.append(f"experiments.{name}.{error}")
    return networks, mistakes


def _built(spec: Spec, size: Sequence[int], suits: Callable[[keras.Model], object] | None) -> Built:
    import keras

    keras.utils.clear_session(free_memory=True)
    try:
        model = build(spec, (size[0], size[1], 3))
        parameters = count_parameters(model)
        called, table = display_id(spec["dataset"], parameters), layer_table(spec, model)
    except ScratchbookError as error:
        return error
    wrong = ""
    try:
        if suits is not None:
            suits(model)
    except ScratchbookError as error:
        wrong = str(error)
    network = Network(id=called, parameters=parameters, layers=table)
    return network, layer_weights(model), wrong


def check_classes(model: keras.Model, classes: int) -> None:
    """Refuses a head that does not fit the data's classes; one (sigmoid) unit fits two."""
    units = model.output.shape[-1]
    if units != classes and not (units == 1 and classes == 2):
        raise ScratchbookError(
            f"layers[-1]: the last layer has {units} units, but the data set has {classes} "
            f"classes; write `units: {classes}`"
        )


def display_id(dataset: str, parameters: Parameters) -> str:
    """`cifar10-11018058`: how notebooks call a network. Two networks can share it."""
    return f"{dataset}-{parameters['total']}"

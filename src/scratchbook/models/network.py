"""Build the declared network: a resolved spec and an image shape in, a Keras model out.

Every network takes uint8 images and returns float32 logits, whatever the spec's last activation:
the softmax belongs to the loss (`scratchbook.training.losses`), so Grad-CAM and the predictions see
raw logits and no backend can guess differently what lies behind a softmax.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchbook.errors import ScratchbookError
from scratchbook.keys import with_frozen
from scratchbook.results.records import LayerRow
from scratchbook.specs import KerasObject, Spec

from .backbone import make_backbone
from .kernels import layer_class
from .weights import first_line

if TYPE_CHECKING:
    import keras

OUTPUT_ACTIVATIONS = ("softmax", "sigmoid")


def output_activation(layers: list[KerasObject]) -> str:
    """`softmax` or `sigmoid`: what the spec's last layer applies to the logits.

    Args:
        layers: serialized Keras layers.

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
    return str(activation)


def build(
    spec: Spec,
    input_shape: tuple[int, int, int],
    precision: str = "float32",
    seed: int = 0,
    pretrained: Path | None = None,
) -> keras.Model:
    """The network of a spec, its weights drawn from `seed`, or pretrained where it says so.

    Plain networks see pixels scaled to 0..1; a backbone applies its own preprocessing.

    Args:
        spec: a resolved experiment; `layers` and `augment` are read.
        input_shape: (height, width, channels) of the images.
        precision: `float32` or `mixed_bfloat16`; the last layer computes in float32 either way.
        seed: of the initial weights.
        pretrained: the folder of backbones' weights; None leaves them random, which is enough
            to count parameters or to load a checkpoint.

    Returns:
        A model from images, uint8 (batch, height, width, channels), to logits, float32
        (batch, units).

    Raises:
        ScratchbookError: a layer refuses its arguments or the shape that reaches it, or pretrained
            weights cannot be read.
    """
    import keras

    keras.utils.set_random_seed(seed)
    output_activation(spec["layers"])
    images = keras.Input(input_shape, dtype="uint8", name="images")
    x = images  # (b, h, w, c)
    augment, (*hidden, last) = _declared(spec)
    has_backbone = spec["layers"][0]["class_name"] == "Backbone"
    if augment or has_backbone:
        # Augmentation and preprocessing by their own defaults, which are for pixels of 0..255.
        x = keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(x)
    for position, node in enumerate(augment):
        x = _apply(node, "float32", x, f"augment[{position}]")
    if not has_backbone:
        x = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(x)
    for position, node in enumerate(hidden):
        x = _apply(node, precision, x, f"layers[{position}]", pretrained)
    logits = _Node(last.name, last.class_name, {**last.config, "activation": "linear"})
    x = _apply(logits, "float32", x, f"layers[{len(hidden)}]")
    if len(x.shape) != 2:
        raise ScratchbookError(
            f"layers: the network ends in the shape {_shape(x)}, one map a class instead of one "
            "number; put Flatten or GlobalAveragePooling2D before the last Dense"
        )
    try:
        return keras.Model(images, x)
    except ValueError as error:  # a name given twice
        raise ScratchbookError(f"layers: {first_line(error)}") from None


@dataclass(frozen=True)
class _Node:
    """A declared layer with its name; a residual block with those of its branches."""

    name: str
    class_name: str
    config: dict[str, Any]
    layers: list[_Node] = field(default_factory=list)
    shortcut: list[_Node] = field(default_factory=list)


def _declared(spec: Spec) -> tuple[list[_Node], list[_Node]]:
    """`augment` and `layers`, each with its name."""
    counts: Counter[str] = Counter()
    return _nodes(spec["augment"], counts), _nodes(spec["layers"], counts)


def _nodes(entries: list[KerasObject], counts: Counter[str]) -> list[_Node]:
    nodes = []
    for entry in entries:
        branches = {
            branch: _nodes(entry["config"].get(branch, []), counts)
            for branch in ("layers", "shortcut")
            if entry["class_name"] == "Residual"
        }
        nodes.append(_Node(_name(entry, counts), entry["class_name"], entry["config"], **branches))
    return nodes


def _name(entry: KerasObject, counts: Counter[str]) -> str:
    """The given name, or the class's with a number, as Keras would: `conv2d_1`."""
    if "name" in entry["config"]:
        return str(entry["config"]["name"])
    if entry["class_name"] == "Backbone":
        return str(entry["config"]["application"]).lower()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])(?!D\b)", "_", entry["class_name"]).lower()
    counts[words] += 1
    return f"{words}_{counts[words]}"


def _apply(node: _Node, dtype: str, x: Any, key: str, pretrained: Path | None = None) -> Any:
    """What a node makes of x; `key` is where it stands, for messages."""
    if node.class_name == "Residual":
        return _apply_residual(node, dtype, x, key)
    where = f"{key}: {node.class_name} {node.name!r}"
    if node.class_name == "Backbone":
        try:
            return make_backbone(node.config, node.name, dtype, x, pretrained)
        except ScratchbookError as error:
            raise ScratchbookError(f"{where}: {error}") from None
    if node.class_name == "Whitening":
        return _whiten(node, x)
    try:
        declared = with_frozen({"class_name": node.class_name, "config": node.config})
        layer = layer_class(node.class_name)(**{**declared, "name": node.name}, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ScratchbookError(
            f"{where}: Keras refuses its arguments: {first_line(error)}"
        ) from None
    try:
        y = layer(x)
    except (TypeError, ValueError) as error:
        raise ScratchbookError(
            f"{where} cannot take what reaches it, of shape {_shape(x)}: {first_line(error)}"
        ) from None
    if any(size is not None and size < 1 for size in y.shape[1:]):
        raise ScratchbookError(
            f"{where} cannot take what reaches it: the shape there is {_shape(x)}, too small for "
            "it; use larger images, fewer pooling layers or `padding: same`"
        )
    return y


def _whiten(node: _Node, x: Any) -> Any:
    """In float32: the difference of two pixels, made as large as their sum, has few bits left in
    bfloat16. Its weights come from the training images (`start`)."""
    import keras

    side = node.config["kernel_size"]
    filters = 2 * side**2 * x.shape[-1]
    return keras.layers.Conv2D(
        filters, side, padding="same", name=node.name, dtype="float32", trainable=False
    )(x)


def _apply_residual(node: _Node, dtype: str, x: Any, key: str) -> Any:
    import keras

    y = around = x
    for position, inner in enumerate(node.layers):
        y = _apply(inner, dtype, y, f"{key}.layers[{position}]")
    for position, inner in enumerate(node.shortcut):
        around = _apply(inner, dtype, around, f"{key}.shortcut[{position}]")
    if y.shape != around.shape:
        raise ScratchbookError(
            f"{key}: Residual {node.name!r}: its layers give the shape {_shape(y)}, but "
            f"{_shape(around)} comes around them; make them equal, with a `shortcut:` such as "
            "[Conv2D: {filters: …, kernel_size: 1, strides: …}]"
        )
    y = keras.layers.Add(name=node.name, dtype=dtype)([y, around])
    activation = node.config.get("activation")
    if activation is None:
        return y
    return keras.layers.Activation(activation, name=f"{node.name}_activation", dtype=dtype)(y)


def _shape(x: Any) -> str:
    return " × ".join(str(size) for size in x.shape[1:])


def seen_size(model: keras.Model) -> tuple[int, int]:
    """(height, width) of what a network sees of an image: its middle, where it trains on crops."""
    from .cropping import RandomCrop

    crops = [layer.output for layer in model.layers if isinstance(layer, RandomCrop)]
    height, width = [model.inputs[0], *crops][-1].shape[1:3]
    return height, width


def layer_table(spec: Spec, model: keras.Model) -> list[LayerRow]:
    """One row a layer: name, class, output shape (with None for the batch), parameters, and the
    `multiply_adds` of one image on its way forward.

    A backbone is one row; a residual block has a row for each of its layers and one for the sum.
    """
    rows = []
    for name, class_name, config in _rows(_declared(spec)[1]):
        layer = model.get_layer(name)
        rows.append(LayerRow(
            name=name, class_name=class_name, output_shape=list(layer.output.shape),
            parameters=layer.count_params(), multiply_adds=_multiply_adds(layer), config=config,
        ))  # fmt: skip
    return rows


def _multiply_adds(layer: keras.Layer) -> int:
    """Of convolutions and dense layers: every weight of a kernel is used once for each position of
    the output. What has no kernel (pooling, normalisation, activations) costs little and counts 0.
    """
    if hasattr(layer, "layers"):  # a backbone
        return sum(_multiply_adds(inner) for inner in layer.layers)
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
    if not kernels:
        return 0
    positions: int = math.prod(layer.output.shape[1:-1])  # of (batch, h, w, channels)
    return sum(positions * math.prod(kernel.shape) for kernel in kernels)


def _rows(nodes: list[_Node]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, class, declared arguments) of each Keras layer that a node became."""
    for node in nodes:
        if node.class_name == "Residual":
            yield from _rows(node.layers)
            yield from _rows(node.shortcut)
            yield node.name, "Add", {}
            if activation := node.config.get("activation"):
                yield f"{node.name}_activation", "Activation", {"activation": activation}
        else:
            class_name = "Functional" if node.class_name == "Backbone" else node.class_name
            yield node.name, class_name, node.config

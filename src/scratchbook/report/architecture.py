"""Architectures as text: from a run's layers to the shorthand, the legacy table and the diff."""

from __future__ import annotations

from itertools import groupby

from scratchbook.changes import entry_text, layer_diff, value_text
from scratchbook.language import tr
from scratchbook.results.records import LayerRow, Parameters
from scratchbook.specs import KerasObject, Spec

WIDTH = 65  # of keras 2's `model.summary()`, which the seeds' tables were printed with
COLUMNS = (29, 55, 65)  # its column ends: 45 %, 85 % and all of the width


def shorthand(layers: list[LayerRow]) -> str:
    """`conv32×2 + conv16 + fc1024 + softmax`: the weighted layers by the size that names them.

    As the seeds write it, a convolution is named by the height of its output map, one entry for
    all convolutions between two poolings (named by the first); a dense layer by its units; the
    last by its activation; a nested model by its own name.
    """
    entries: list[tuple[int, str, str]] = []  # (stage, kind, text)
    stage = 0
    for layer in layers:
        kind, shape = layer["class_name"], layer["output_shape"]
        if kind in POOLED:
            entries.append((stage, kind, POOLED[kind]))
        elif "Pooling" in kind:
            stage += 1
        elif kind in CONVOLUTIONS:
            same = [text for at, known, text in entries if (at, known) == (stage, kind)]
            size = shape[1] if len(shape) == 4 else layer["config"].get("filters", "")
            entries.append((stage, kind, same[0] if same else f"{CONVOLUTIONS[kind]}{size}"))
        elif kind == "Dense":
            units = layer["config"].get("units", shape[-1] if shape else "")
            entries.append((stage, kind, f"fc{units}"))
        elif layer["parameters"] and kind not in NORMALISATIONS:
            entries.append((stage, kind, layer["name"]))
    words = [text for _, _, text in entries]
    if entries and entries[-1][1] == "Dense":
        words[-1] = _last_activation(layers) or words[-1]
    counted = ((text, len(list(same))) for text, same in groupby(words))
    return " + ".join(f"{text}×{n}" if n > 1 else text for text, n in counted)


POOLED = {"GlobalAveragePooling2D": "gap", "GlobalMaxPooling2D": "gmp"}
CONVOLUTIONS = {"Conv2D": "conv", "SeparableConv2D": "sepconv", "DepthwiseConv2D": "dwconv",
                "Conv2DTranspose": "deconv"}  # fmt: skip
NORMALISATIONS = {"BatchNormalization", "LayerNormalization", "GroupNormalization", "PReLU"}


def summary_table(layers: list[LayerRow], parameters: Parameters) -> str:
    """The 65-column table of keras 2's `model.summary()`, without its first and last rule."""
    lines = [_row("Layer (type)", "Output Shape", "Param #"), "=" * WIDTH]
    for i, layer in enumerate(layers):
        shape = "(" + ", ".join(str(n) for n in layer["output_shape"]) + ")"
        lines.append(_row(f"{layer['name']} ({layer['class_name']})", shape, layer["parameters"]))
        lines.append(("=" if i == len(layers) - 1 else "_") * WIDTH)
    lines += [
        f"Total params: {parameters['total']:,}",
        f"Trainable params: {parameters['trainable']:,}",
        f"Non-trainable params: {parameters['non_trainable']:,}",
    ]
    return "\n".join(lines)


def side_by_side(before: list[KerasObject], after: list[KerasObject]) -> list[tuple[str, str, str]]:
    """The rows of `layer_diff` as text: (mark, before, after)."""
    return [
        (mark, entry_text(old) if old else "", entry_text(new) if new else "")
        for mark, old, new in layer_diff(before, after)
    ]


def settings(spec: Spec) -> dict[str, str]:
    """A resolved spec's hyper-parameters, as a flat table of key to text, layers left out."""
    flat: dict[str, str] = {}
    for key in SETTINGS:
        value = dict(spec).get(key)
        if isinstance(value, list):
            flat[key] = ", ".join(map(value_text, value)) or tr("none")
        elif value is not None or key == "train_samples":
            flat[key] = tr("all") if value is None else value_text(value)
    return flat


SETTINGS = (
    "initial_weights", "optimizer", "schedule", "loss", "label_smoothing", "test_time_flip",
    "batch_size", "epochs", "train_samples", "augment", "callbacks", "monitor", "validation",
    "precision",
)  # fmt: skip


def setting_diff(before: Spec, after: Spec) -> list[tuple[str, str, str]]:
    """The hyper-parameters that two resolved specs do not share: (key, before, after)."""
    old, new = settings(before), settings(after)
    keys = [key for key in SETTINGS if old.get(key) != new.get(key)]
    absent = tr("not set")
    return [(key, old.get(key, absent), new.get(key, absent)) for key in keys]


def _row(*cells: object) -> str:
    line = ""
    for cell, end in zip(cells, COLUMNS, strict=True):
        line = ((line[:-1] + " " if line else "") + str(cell))[:end].ljust(end)
    return line


def _last_activation(layers: list[LayerRow]) -> str:
    for layer in reversed(layers):
        if layer["class_name"] in ("Dense", "Activation"):
            activation = layer["config"].get("activation")
            return str(activation) if activation in ("softmax", "sigmoid") else ""
        if layer["class_name"] == "Softmax":
            return "softmax"
    return ""

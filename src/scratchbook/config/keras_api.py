"""Which Keras classes a notebook may name, and how it writes them: YAML entries in, Keras's own
`{"class_name": …, "config": …}` out.

What each class takes is read from `keras_api.json`, which `scratchbook generate` writes from the
installed Keras: so a misspelt argument is found without the seconds that importing Keras takes.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

from scratchbook.errors import nearest
from scratchbook.specs import KerasObject

from .strict import unusable

API_FILE = Path(__file__).with_name("keras_api.json")

ALLOWED: dict[str, tuple[str, list[str]]] = {
    "layer": ("layers", [
        "Activation", "AveragePooling2D", "BatchNormalization", "Conv2D", "Dense",
        "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GaussianNoise", "GlobalAveragePooling2D",
        "GlobalMaxPooling2D", "GroupNormalization", "LayerNormalization", "LeakyReLU",
        "MaxPooling2D", "Normalization", "PReLU", "ReLU", "Rescaling", "SeparableConv2D",
        "SpatialDropout2D", "ZeroPadding2D",
    ]),
    "augmentation layer": ("layers", [
        "RandomBrightness", "RandomColorJitter", "RandomContrast", "RandomCrop", "RandomErasing",
        "RandomFlip", "RandomGrayscale", "RandomHue", "RandomRotation", "RandomSaturation",
        "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
    ]),
    "optimizer": ("optimizers", ["SGD", "Adam", "AdamW", "RMSprop"]),
    "callback": ("callbacks", ["ReduceLROnPlateau", "EarlyStopping"]),
}  # fmt: skip
"""What may be named, by kind: the Keras module and its classes."""

ACTIVATIONS = [
    "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh",
]  # fmt: skip
LOSSES = ["categorical_crossentropy", "binary_crossentropy"]

# Ours to decide: data order and dropout follow the run's seed, numbers follow `precision`.
_NOT_ARGUMENTS = {"self", "args", "kwargs", "seed", "data_format", "dtype", "verbose"}
_NOT_OF_CALLBACKS = {"restore_best_weights"}  # both checkpoints, best and last, are kept anyway
# Keras puts averaged weights in place where `fit` ends, and this loop is not `fit`.
_NOT_OF_OPTIMIZERS = {"use_ema", "ema_momentum", "ema_overwrite_frequency"}
# The validation loss is that of the logits, with what regularizers of weights add (see `penalty` in
# scratchbook.training.loop); what a layer gave out on the way to them is known no more.
_NOT_OF_LAYERS = {
    "activity_regularizer": "which would count in the training loss and not in the validation "
    "loss; what is asked of the weights, as by `kernel_regularizer`, counts in both"
}
_LEFT_OUT = {
    "callback": _NOT_OF_CALLBACKS, "optimizer": _NOT_OF_OPTIMIZERS, "layer": _NOT_OF_LAYERS.keys(),
}  # fmt: skip

WORDS = {
    "monitor": ["loss", "accuracy", "val_loss", "val_accuracy"],
    "mode": ["auto", "min", "max"],
}
"""What a callback's arguments may say; Keras finds a wrong word only after an epoch, or never."""


def describe_keras() -> dict[str, dict[str, list[str]]]:
    """What each allowed class of the installed Keras takes: {kind: {class: [argument, …]}}."""
    import keras

    description = {}
    for kind, (module, names) in ALLOWED.items():
        description[kind] = {
            name: _arguments_of(getattr(getattr(keras, module), name), kind) for name in names
        }
    description["application"] = {
        name: []
        for name, value in inspect.getmembers(keras.applications, inspect.isfunction)
        if name[0].isupper()
    }
    return description


def describe_defaults(frozen: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was frozen of the arguments' defaults, and those of the installed Keras that are new.

    A value that is there stays as it is, whatever Keras says today: it was part of runs' keys.
    """
    import keras

    found = {name: dict(arguments) for name, arguments in frozen.items()}
    for kind, (module, names) in ALLOWED.items():
        for name in names:
            known = set(_arguments_of(getattr(getattr(keras, module), name), kind))
            signature = inspect.signature(getattr(getattr(keras, module), name))
            defaults = {
                argument.name: argument.default
                for argument in signature.parameters.values()
                if argument.name in known - {"name"} and argument.default is not argument.empty
            }
            if kind == "layer" and "trainable" in known:
                defaults["trainable"] = True
            if kind == "optimizer":
                defaults["decay"] = 0.0
            there = found.setdefault(name, {})
            there |= {key: value for key, value in defaults.items() if key not in there}
    return dict(sorted(found.items()))


def _arguments_of(keras_class: type, kind: str) -> list[str]:
    parameters = inspect.signature(keras_class).parameters
    arguments = list(parameters)
    if kind == "layer":
        arguments += ["name"]
        # SpatialDropout2D takes what it names and nothing else.
        takes_more = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        arguments += ["trainable"] if takes_more else []
    if kind == "optimizer":
        arguments += ["decay"]  # the rule of Keras 2, see scratchbook.training.optimizers
    left_out = _NOT_ARGUMENTS | _LEFT_OUT.get(kind, set())
    return [name for name in dict.fromkeys(arguments) if name not in left_out]


@cache
def keras_api() -> dict[str, dict[str, list[str]]]:
    """The committed description of what each allowed class takes."""
    return json.loads(API_FILE.read_text(encoding="utf-8"))


def keras_object(
    entry: Any, kind: str, defaults: dict[str, dict[str, Any]] | None = None
) -> KerasObject:
    """One entry of a notebook in Keras's serialized form.

    `MaxPooling2D`, `Conv2D: 32` (a scalar is the first argument) and
    `Conv2D: {filters: 32, strides: 2}` are the ways to write one.

    Args:
        entry: what stands in the YAML file.
        kind: a key of `ALLOWED`.
        defaults: {class: {argument: value}} for arguments that the entry leaves out.

    Raises:
        PydanticCustomError: it is no class of that kind or takes no such argument.
    """
    name, given = _name_and_arguments(entry, kind)
    known = keras_api()[kind]
    if name not in known:
        raise unusable(f"unknown {kind} {name!r}; {nearest(name, known)}")
    arguments = known[name]
    if not isinstance(given, dict):
        given = {} if given is None else {arguments[0]: given}
    for argument, value in given.items():
        if kind == "layer" and (reason := _NOT_OF_LAYERS.get(argument)):
            raise unusable(f"{name} takes no {argument!r}, {reason}")
        if argument not in arguments:
            raise unusable(
                f"{name} takes no {argument!r}; {nearest(argument, arguments)}"
                f" ({name} takes: {', '.join(arguments)})"
            )
        if isinstance(value, dict):  # Keras would make an object of whatever class it names
            raise unusable(f"{name}: {argument!r} takes a number, a word or a list, not {value!r}")
        if argument == "activation" and value is not None and value not in ACTIVATIONS:
            raise unusable(f"{name}: unknown activation {value!r}; {nearest(value, ACTIVATIONS)}")
        if kind == "callback" and value not in WORDS.get(argument, [value]):
            raise unusable(
                f"{name}: unknown {argument} {value!r}; {nearest(value, WORDS[argument])}"
            )
    if name == "Normalization" and not {"mean", "variance"} <= given.keys():
        raise unusable(
            "Normalization computes no mean and no variance from the images; give it both, or use "
            "BatchNormalization or Whitening"
        )
    return {"class_name": name, "config": {**(defaults or {}).get(name, {}), **given}}


def _name_and_arguments(entry: Any, kind: str) -> tuple[str, Any]:
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, dict) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if isinstance(name, str):
            return name, arguments
    raise unusable(
        f"a {kind} is written as a name or as `Name: arguments`, but {entry!r} was given"
    )


def keras_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of one entry, so that editors complete classes and arguments."""
    classes = keras_api()[kind]
    return {
        "title": f"Keras {kind}",
        "x-kind": kind,
        "anyOf": [
            {"enum": sorted(classes)},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {
                    name: {
                        "anyOf": [
                            {"type": ["string", "number", "boolean", "array", "null"]},
                            {
                                "type": "object",
                                "properties": {argument: {} for argument in arguments},
                                "additionalProperties": False,
                            },
                        ]
                    }
                    for name, arguments in classes.items()
                },
            },
        ],
    }

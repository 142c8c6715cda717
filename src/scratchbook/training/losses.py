"""Losses and accuracy on raw logits, by their definitions on every Keras backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from scratchbook.errors import ScratchbookError


def loss_function(name: str, activation: str, label_smoothing: float = 0.0) -> Any:
    """The Keras loss of a network that returns logits.

    `categorical_crossentropy` on a softmax is −log softmax(z)[y], computed from the logits.
    `binary_crossentropy` on a softmax is the mean over units of the binary cross-entropy of
    softmax(z), clipped to [1e-7, 1 − 1e-7] as Keras defines it. (Handed a softmax's output, Keras
    on TensorFlow reaches for the logits behind it and applies a sigmoid to them: another figure.)
    `binary_crossentropy` on one sigmoid unit is computed from its logit.

    Label smoothing ε takes (1 − ε) · label + ε / classes for the label (Szegedy et al. 2016,
    section 7), with two classes for one sigmoid unit and for each of a softmax's units under
    `binary_crossentropy`, as Keras does.

    Args:
        name: `categorical_crossentropy` or `binary_crossentropy`.
        activation: what the spec's last layer applies, `softmax` or `sigmoid`.
        label_smoothing: ε, 0 to 1.

    Returns:
        A loss of integer labels (batch,) and logits (batch, units).
    """
    if activation == "sigmoid":
        if name != "binary_crossentropy":
            raise ScratchbookError(
                f"loss: {name} needs a softmax with a unit a class; with one sigmoid unit, "
                "write `loss: binary_crossentropy`"
            )
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    if name == "categorical_crossentropy" and not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def smoothed(labels: Any, units: int, classes: int) -> Any:
        """Targets (batch, units), float32."""
        classes_of = ops.cast(ops.reshape(labels, (-1,)), "int32")  # Keras made floats of them
        targets = ops.one_hot(classes_of, units, dtype="float32")
        return targets * (1.0 - label_smoothing) + label_smoothing / classes

    def categorical_crossentropy(labels: Any, logits: Any) -> Any:
        targets = smoothed(labels, logits.shape[-1], logits.shape[-1])
        return ops.categorical_crossentropy(targets, logits, from_logits=True)

    def binary_crossentropy(labels: Any, logits: Any) -> Any:
        # The product hides the softmax from TensorFlow.
        probabilities = ops.softmax(ops.cast(logits, "float32")) * 1.0
        targets = smoothed(labels, logits.shape[-1], 2)
        return ops.mean(ops.binary_crossentropy(targets, probabilities), axis=-1)

    return binary_crossentropy if name == "binary_crossentropy" else categorical_crossentropy


def accuracy_metric(activation: str) -> Any:
    """The share of images whose largest logit (or whose sigmoid's side) is their label's."""
    if activation == "sigmoid":
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")

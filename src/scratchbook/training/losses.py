"""Losses and accuracy on raw logits, by their definitions on every Keras backend."""

from __future__ import annotations

from typing import Any

from scratchbook.config.errors import ScratchbookError


def loss_function(name: str, activation: str) -> Any:
    """The Keras loss of a network that returns logits.

    `categorical_crossentropy` on a softmax is −log softmax(z)[y], computed from the logits.
    `binary_crossentropy` on a softmax is the mean over units of the binary cross-entropy of
    softmax(z), clipped to [1e-7, 1 − 1e-7] as Keras defines it. (Handed a softmax's output, Keras
    on TensorFlow reaches for the logits behind it and applies a sigmoid to them: another figure.)
    `binary_crossentropy` on one sigmoid unit is computed from its logit.

    Args:
        name: `categorical_crossentropy` or `binary_crossentropy`.
        activation: what the spec's last layer applies, `softmax` or `sigmoid`.

    Returns:
        A loss of integer labels (batch,) and logits (batch, units).
    """
    import keras
    from keras import ops

    if activation == "sigmoid":
        if name != "binary_crossentropy":
            raise ScratchbookError(
                f"loss: {name} needs a softmax with a unit a class; with one sigmoid unit, "
                "write `loss: binary_crossentropy`"
            )
        return keras.losses.BinaryCrossentropy(from_logits=True)
    if name == "categorical_crossentropy":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def binary_crossentropy(labels: Any, logits: Any) -> Any:
        probabilities = (
            ops.softmax(ops.cast(logits, "float32")) * 1.0
        )  # the product hides the softmax from TensorFlow
        targets = ops.one_hot(ops.reshape(labels, (-1,)), logits.shape[-1], dtype="float32")
        return ops.mean(ops.binary_crossentropy(targets, probabilities), axis=-1)

    return binary_crossentropy


def accuracy_metric(activation: str) -> Any:
    """The share of images whose largest logit (or whose sigmoid's side) is their label's."""
    import keras

    if activation == "sigmoid":
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")

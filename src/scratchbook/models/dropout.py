"""Keras's Dropout with cheaper and finer random numbers on TensorFlow."""

from __future__ import annotations

from typing import Any

LEVELS = 2**16


def dropout_class() -> Any:
    """The class that stands for `Dropout` in a network.

    Keras draws a number of 32 bits for each unit and makes it one of the computation's type: in
    bfloat16 there are but 128 of them in 0..1, so that a rate of 0.3 drops 0.305. On TensorFlow 16
    bits a unit take less than half the time and drop `rate` to 1/65536.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.layers.Dropout
    import tensorflow as tf

    class Dropout(keras.layers.Dropout):
        def call(self, inputs: Any, training: bool = False) -> Any:
            threshold = round(self.rate * LEVELS)
            if not training or threshold in (0, LEVELS) or self.noise_shape is not None:
                return super().call(inputs, training=training)
            units = tf.size(inputs)
            pairs = tf.random.stateless_uniform(
                [(units + 1) // 2], tf.cast(self.seed_generator.next(), tf.int32),
                minval=None, maxval=None, dtype=tf.int32,
            )  # fmt: skip
            drawn = tf.reshape(tf.bitcast(pairs, tf.int16), [-1])[:units]  # −32768 … 32767, evenly
            kept = tf.reshape(drawn, tf.shape(inputs)) >= threshold - LEVELS // 2
            scaled = inputs * tf.cast(1 / (1 - self.rate), inputs.dtype)
            return tf.where(kept, scaled, tf.zeros([], inputs.dtype))

    return Dropout

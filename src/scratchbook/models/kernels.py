"""The classes that stand for Keras layers' names: Keras's own, or ours where those are wrong, or
where TensorFlow computes them faster by operations of its own, with Keras's variables."""

from __future__ import annotations

import math
from typing import Any

LEVELS = 2**16  # of a random number that decides whether a unit is dropped
FEW_PIXELS = 16  # a map of 4 × 4: on 8 × 8 the forward pass would be slower


def layer_class(name: str) -> Any:
    """The class that stands for a Keras layer's name in a network, on the backend in use."""
    import keras

    if name == "RandomCrop":
        from .cropping import RandomCrop

        return RandomCrop
    faster = {"Dropout": _dropout, "Conv2D": _conv2d, "BatchNormalization": _batch_normalization}
    if name in faster and keras.backend.backend() == "tensorflow":
        return faster[name]()
    return getattr(keras.layers, name)


def _dropout() -> Any:
    """Keras draws a number of 32 bits for each unit and makes it one of the computation's type: in
    bfloat16 there are but 128 of them in 0..1, so that a rate of 0.3 drops 0.305. 16 bits a unit
    take less than half the time and drop `rate` to 1/65536."""
    import keras
    import tensorflow as tf

    class Dropout(keras.layers.Dropout):  # type: ignore[misc] # Keras has no types
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


def _conv2d() -> Any:
    """On maps of a few pixels and on a CPU, the gradient of a kernel in bfloat16 takes TensorFlow's
    convolution twice as long as the same sums take as a product of matrices, or longer."""
    import keras
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        return keras.layers.Conv2D

    def patches(inputs: Any, height: int, width: int) -> Any:
        """What each output of a `same` convolution sees: (n · rows · columns, kernel inputs)."""
        _, rows, columns, channels = inputs.shape
        top, left = (height - 1) // 2, (width - 1) // 2
        padded = tf.pad(inputs, [[0, 0], [top, height - 1 - top], [left, width - 1 - left], [0, 0]])
        seen = [
            padded[:, row : row + rows, column : column + columns]
            for row in range(height)
            for column in range(width)
        ]
        return tf.reshape(tf.concat(seen, -1), [-1, height * width * channels])

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolution(inputs: Any, kernel: Any) -> Any:
        height, width, _, filters = kernel.shape
        seen = patches(inputs, height, width)
        outputs = tf.matmul(seen, tf.reshape(kernel, [-1, filters]))

        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream,
                strides=[1, 1, 1, 1], padding="SAME",
            )  # fmt: skip
            of_kernel = tf.matmul(seen, tf.reshape(upstream, [-1, filters]), transpose_a=True)
            return of_inputs, tf.reshape(of_kernel, kernel.shape)

        return tf.reshape(outputs, [-1, *inputs.shape[1:3], filters]), gradient

    class Conv2D(keras.layers.Conv2D):  # type: ignore[misc] # Keras has no types
        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            plain = (
                self.padding == "same"
                and self.data_format == "channels_last"
                and (self.strides, self.dilation_rate, self.groups) == ((1, 1), (1, 1), 1)
            )
            if not plain or inputs.dtype != "bfloat16" or math.prod(inputs.shape[1:3]) > FEW_PIXELS:
                return super().convolution_op(inputs, kernel)
            return convolution(inputs, tf.convert_to_tensor(kernel))

    return Conv2D


def _batch_normalization() -> Any:
    """Keras makes float32 of all that it normalises, and passes over it a dozen times; TensorFlow's
    operation reads bfloat16 and sums in float32, in a fifth of the time on a CPU."""
    import keras
    import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        return keras.layers.BatchNormalization

    class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc] # Keras has no types
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            maps = len(inputs.shape) == 4 and self.axis in (3, -1)
            special = mask is not None or self.renorm or self.synchronized
            if not (training and self.trainable and maps) or special:
                return super().call(inputs, training=training, mask=mask)
            channels = inputs.shape[-1]
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
                offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
                mean=[],
                variance=[],
                epsilon=self.epsilon,
                is_training=True,
            )
            # TensorFlow divides by n − 1 for the moving variance, Keras by n.
            n = tf.cast(tf.size(inputs) // channels, tf.float32)
            variance *= (n - 1) / n
            for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + of_batch * (1.0 - self.momentum))
            return outputs

    return BatchNormalization

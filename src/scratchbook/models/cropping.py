"""`RandomCrop` of a network: images in, a window of each out. Imported where a network is built,
since Keras is imported with it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="scratchbook")
class RandomCrop(keras.layers.RandomCrop):  # type: ignore[misc] # Keras has no types
    """Keras's own draws one place for all images of a batch and leaves them whole in inference, so
    that the network is given another size there than it was trained on (Keras 3.15). This one draws
    a place for each image, and takes the middle of it in inference.

    Raises:
        ValueError: a size that is none, or images smaller than it.
    """

    def __init__(self, height: int, width: int, **more: Any) -> None:
        for name, value in (("height", height), ("width", width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number of pixels, 1 or more, not {value!r}")
        super().__init__(height, width, **more)
        self.supports_jit = True  # as Keras's own does not

    def build(self, input_shape: Any) -> None:
        rows, columns = input_shape[1:3]
        if rows < self.height or columns < self.width:
            raise ValueError(
                f"the images are smaller than {self.height} × {self.width}; give a smaller height "
                "and width, or larger images"
            )
        super().build(input_shape)

    def call(self, images: Any, training: bool = False) -> Any:
        images = ops.cast(images, self.compute_dtype)  # (b, rows, columns, channels)
        _, rows, columns, channels = images.shape
        over, beside = rows - self.height, columns - self.width
        if not training:
            top, left = over // 2, beside // 2
            return images[:, top : top + self.height, left : left + self.width]
        count = ops.shape(images)[0]
        tops = keras.random.randint((count, 1, 1), 0, over + 1, seed=self.generator)
        lefts = keras.random.randint((count, 1, 1), 0, beside + 1, seed=self.generator)
        # Where each pixel of the windows lies among all pixels of the batch, (b, height, width).
        row = ops.arange(count)[:, None, None] * rows + tops + ops.arange(self.height)[:, None]
        pixel = row * columns + lefts + ops.arange(self.width)
        return ops.take(ops.reshape(images, (-1, channels)), pixel, axis=0)

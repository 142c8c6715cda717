"""Keras optimizers with Keras 2's `decay`: a serialized optimizer in, an optimizer out."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from scratchbook.errors import ScratchbookError
from scratchbook.keys import with_frozen
from scratchbook.specs import KerasObject, Schedule


def make_optimizer(entry: KerasObject) -> Any:
    """The optimizer of a spec.

    With `decay`, step t uses learning_rate / (1 + decay · t), t from 0, as Keras 2 did; the
    `learning_rate` itself stays a plain number, so that ReduceLROnPlateau can lower it.

    Raises:
        ScratchbookError: Keras refuses an argument.
    """
    config = with_frozen(entry)
    decay = config.pop("decay", 0.0)
    base = getattr(keras.optimizers, entry["class_name"])
    if base is keras.optimizers.Adam and keras.backend.backend() == "tensorflow":
        base = _adam_in_one_kernel()

    class Decayed(base):  # type: ignore[misc, valid-type]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            steps = ops.cast(self.iterations, learning_rate.dtype)
            super().update_step(gradient, variable, learning_rate / (1.0 + decay * steps))

    try:
        return (Decayed if decay else base)(**config)
    except (TypeError, ValueError) as error:
        raise ScratchbookError(
            f"optimizer: Keras refuses the arguments of {entry['class_name']}: {error}"
        ) from None


def _adam_in_one_kernel() -> Any:
    """Keras's Adam, its step computed by one operation of TensorFlow instead of a dozen that each
    read and write all of a network's weights. Formula and variables are Keras's."""
    import tensorflow as tf

    class Adam(keras.optimizers.Adam):  # type: ignore[misc] # Keras has no types
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if self.amsgrad:
                super().update_step(gradient, variable, learning_rate)
                return
            position = self._get_variable_index(variable)
            beta_1, beta_2 = (ops.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
            step = ops.cast(self.iterations + 1, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[position].value.handle,
                v=self._velocities[position].value.handle,
                beta1_power=ops.power(beta_1, step),
                beta2_power=ops.power(beta_2, step),
                lr=ops.cast(learning_rate, variable.dtype),
                beta1=beta_1,
                beta2=beta_2,
                epsilon=ops.cast(self.epsilon, variable.dtype),
                grad=ops.cast(gradient, variable.dtype),
            )

    return Adam


def scheduled_rate(base: float, schedule: Schedule, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch.

    Warm-up over w epochs is linear: base · epoch / w. Epoch w + 1 + t then has
        cosine  base · (1 + cos(π t / (epochs − w))) / 2   (Loshchilov & Hutter 2017, eq. 5)
        step    base · factor^⌊t / every⌋

    Args:
        base: the optimizer's own rate.
        epoch: from 1 to epochs.
    """
    warm_up, every, factor = schedule["warm_up"], schedule["every"], schedule["factor"]
    if epoch <= warm_up:
        return base * epoch / warm_up
    done = epoch - warm_up - 1
    if schedule["decay"] == "cosine":
        return base * (1 + math.cos(math.pi * done / (epochs - warm_up))) / 2
    if every and factor:  # decay: step
        return base * factor ** (done // every)
    return base

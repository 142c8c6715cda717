"""Keras optimizers with Keras 2's `decay`: a serialized optimizer in, an optimizer out."""

from __future__ import annotations

from typing import Any

from scratchbook.config.errors import ScratchbookError


def make_optimizer(entry: dict[str, Any]) -> Any:
    """The optimizer of a spec.

    With `decay`, step t uses learning_rate / (1 + decay · t), t from 0, as Keras 2 did; the
    `learning_rate` itself stays a plain number, so that ReduceLROnPlateau can lower it.

    Args:
        entry: `{"class_name": "SGD", "config": {"learning_rate": 0.01, "decay": 1e-6}}`.

    Raises:
        ScratchbookError: Keras refuses an argument.
    """
    import keras
    from keras import ops

    config = dict(entry["config"])
    decay = config.pop("decay", 0.0)
    base = getattr(keras.optimizers, entry["class_name"])

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

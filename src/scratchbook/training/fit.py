"""The training loop: a model and arrays in, one epoch at a time out, each a pure function of
(seed, epoch) and the weights it starts from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from scratchbook.config.errors import ScratchbookError

from .batches import epoch_order, in_batches


class TrainingDivergedError(ScratchbookError):
    """The loss is no number any more."""


def seed_epoch(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets the state of every random generator in the model (dropout, augmentation) for an epoch.

    Generators otherwise go on from wherever the process left them, which a resumed run cannot know.
    """
    for position, generator in enumerate(_seed_generators(model)):
        state = np.random.default_rng([seed, epoch, position]).integers(2**31, size=2)
        generator.state.assign(state.astype(generator.state.dtype))


def _seed_generators(model: keras.Model) -> list[Any]:
    """In the order of the layers, nested models included."""
    found = []
    for layer in model._flatten_layers(include_self=False):
        generator = getattr(layer, "seed_generator", None) or getattr(layer, "generator", None)
        if isinstance(generator, keras.random.SeedGenerator):
            found.append(generator)
    return found


def train_epoch(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    on_batch: Callable[[int, int], None],
) -> dict[str, float]:
    """Trains on `rows` once, in the order of (seed, epoch).

    Args:
        model: compiled, with the metric `accuracy`.
        images: uint8 (n, height, width, 3); labels: int64 (n,); rows: int64 (m,) of both.
        on_batch: takes (batches done, batches in all).

    Returns:
        `loss` and `accuracy`, means over the epoch while the weights changed, and `seconds`.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite, at the epoch and batch named.
    """
    seed_epoch(model, seed, epoch)
    order = rows[epoch_order(len(rows), seed, epoch)]  # (m,)
    steps = math.ceil(len(rows) / batch_size)
    sums = {"loss": 0.0, "accuracy": 0.0}
    started = time.perf_counter()
    for step, batch in enumerate(in_batches(order, batch_size), start=1):
        # The metrics are reset with each call: these are means over this batch alone.
        logs = model.train_on_batch(images[batch], labels[batch, None], return_dict=True)
        for name in sums:
            sums[name] += float(logs[name]) * len(batch)
        if not math.isfinite(sums["loss"]):
            raise TrainingDivergedError(
                f"the loss became {float(logs['loss'])} in epoch {epoch}, batch {step} of "
                f"{steps}; a lower learning rate is the usual cure"
            )
        on_batch(step, steps)
    seconds = time.perf_counter() - started
    return {name: total / len(rows) for name, total in sums.items()} | {"seconds": seconds}


FLIPPED_AXES: dict[str | None, list[tuple[int, ...]]] = {  # of images (n, height, width, 3)
    None: [()],
    "horizontal": [(), (2,)],
    "vertical": [(), (1,)],
    "horizontal_and_vertical": [(), (1,), (2,), (1, 2)],
}


def predict_logits(
    model: keras.Model,
    images: np.ndarray,
    rows: np.ndarray,
    test_time_flip: str | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """The network's logits of `rows` of the images, in inference mode: float32 (m, units).

    With `test_time_flip`, the mean of the logits of an image and of its mirror images.
    """
    parts = []
    for batch in in_batches(rows, batch_size):
        pixels = images[batch]
        logits = [
            model.predict_on_batch(np.flip(pixels, axes)) for axes in FLIPPED_AXES[test_time_flip]
        ]
        parts.append(np.mean(np.asarray(logits, dtype=np.float32), axis=0))  # (b, units)
    if not parts:
        return np.empty((0, model.output.shape[-1]), dtype=np.float32)
    return np.concatenate(parts)


def measure(loss: Any, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss and accuracy of logits (m, units) against integer labels (m,), by the definitions that
    the training itself uses, but for what regularizers add. Logits that are no numbers answer
    nothing, so they are wrong."""
    predicted = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0] > 0
    right = (predicted == labels) & np.isfinite(logits).all(axis=1)
    value = keras.ops.convert_to_numpy(loss(labels[:, None], logits))
    return {"loss": float(np.mean(value)), "accuracy": float(np.mean(right))}

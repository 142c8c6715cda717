"""Batches in an order that we own: arrays, a seed and an epoch in, batches out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the training images in an epoch: a permutation of range(n), int64.

    A pure function of (seed, epoch). Keras's own `shuffle=True` repeats one permutation every
    epoch on TensorFlow, once a random seed was set.
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def in_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """`rows` (m,) in consecutive pieces of `batch_size`; the last may be smaller."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]

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


def sample_rows(labels: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the rows, class by class in proportion (largest remainders), drawn from `seed`.

    Args:
        labels: int64 (n,).
        rows: int64 (m,), rows of `labels` to draw from.
        count: 1 to m.

    Returns:
        int64 (count,), ascending.
    """
    classes, sizes = np.unique(labels[rows], return_counts=True)
    exact = sizes * (count / len(rows))
    quota = np.floor(exact).astype(int)
    largest_remainders = np.argsort(quota - exact, kind="stable")[: count - quota.sum()]
    quota[largest_remainders] += 1
    rng = np.random.default_rng([seed, count])
    chosen = [
        rng.permutation(rows[labels[rows] == label])[:share]
        for label, share in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def in_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """`rows` (m,) in consecutive pieces of `batch_size`; the last may be smaller."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]

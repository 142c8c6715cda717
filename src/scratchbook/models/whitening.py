"""The filters of a Whitening layer: training images in, a convolution's kernel and bias out."""

from __future__ import annotations

import numpy as np

from scratchbook.errors import ScratchbookError

MOST_PATCHES = 1_000_000
LEAST_VARIANCE = 0.01  # of the mean one, added to each: what hardly varies is mostly noise


def whitening_filters(
    images: np.ndarray, rows: np.ndarray, kernel_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The principal components of the images' patches, each scaled to variance 1 and in both
    signs, so that a ReLU after them loses nothing (Jordan 2024, arXiv:2404.00498).

    The sums are of whole numbers and so exact, however many threads there are.

    Args:
        images: uint8 (n, height, width, channels).
        rows: int64 (m,), those to learn from; of many, some spread evenly are read.
        kernel_size: k, the side of a patch in pixels.

    Returns:
        A kernel float32 (k, k, channels, 2·k·k·channels) and a bias float32 (2·k·k·channels,) for
        pixels of 0..1. The components come in pairs, the one that varies most first.

    Raises:
        ScratchbookError: images smaller than a patch, or of one colour all of them.
    """
    _, height, width, channels = images.shape
    if kernel_size > min(height, width):
        raise ScratchbookError(
            f"Whitening: kernel_size is {kernel_size}, but the images have {width} × {height} "
            "pixels; write a smaller one"
        )
    size = kernel_size**2 * channels
    of_image = (height - kernel_size + 1) * (width - kernel_size + 1)
    read = min(len(rows), max(1, MOST_PATCHES // of_image))
    sums, products = np.zeros(size, np.int64), np.zeros((size, size), np.int64)
    for row in rows[np.linspace(0, len(rows) - 1, read).astype(int)]:
        windows = np.lib.stride_tricks.sliding_window_view(
            images[row], (kernel_size, kernel_size), axis=(0, 1)
        )  # (h − k + 1, w − k + 1, channels, k, k)
        patches = windows.transpose(0, 1, 3, 4, 2).reshape(of_image, size).astype(np.int64)
        sums += patches.sum(axis=0)
        products += patches.T @ patches
    mean = sums / (read * of_image)
    covariance = products / (read * of_image) - np.outer(mean, mean)
    if not covariance.any():
        raise ScratchbookError(
            "Whitening: the training images are of one colour, so there is nothing to whiten"
        )
    variances, components = np.linalg.eigh(covariance / 255**2)  # rising; components in columns
    variances, components = variances[::-1], components[:, ::-1]
    # An eigenvector's sign is the library's choice.
    components = components * np.sign(components[np.abs(components).argmax(axis=0), range(size)])
    scaled = components / np.sqrt(variances + LEAST_VARIANCE * variances.mean())
    filters = np.stack([scaled, -scaled], axis=-1).reshape(size, 2 * size)
    bias = -(mean / 255) @ filters
    kernel = filters.reshape(kernel_size, kernel_size, channels, 2 * size)
    return kernel.astype(np.float32), bias.astype(np.float32)

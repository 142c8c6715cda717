"""How alike two class activation maps are: pairs of signed maps in, one number a pair out.

Every function takes maps float (n, h, w), signed and unscaled, and compares `a[i]` with `b[i]`.
None depends on a map's positive scale. A map without a positive part is empty: it points at
nothing. Against a non-empty map its overlap is 0 and its divergence 1; everything else that
involves an empty map is NaN, never 0.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, rel_entr
from scipy.stats import rankdata


def empty(maps: np.ndarray) -> np.ndarray:
    """Whether each map has no positive part; bool (n,). A map with a NaN or infinity is empty."""
    return np.asarray(~((maps > 0).any(axis=(1, 2)) & np.isfinite(maps).all(axis=(1, 2))))


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's ρ of the signed maps, in [−1, 1]: Pearson's r of the mid-ranks of their cells.

    Used for saliency maps by Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.

    Returns:
        float64 (n,); NaN where a map is empty or constant.
    """
    ranks = [rankdata(_cells(m), axis=1) for m in (a, b)]  # (n, h·w)
    return _where_both(a, b, _correlation(*ranks))


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of the signed maps, in [−1, 1]: cov(a, b) / (σ_a σ_b) over their cells.

    Returns:
        float64 (n,); NaN where a map is empty or constant.
    """
    return _where_both(a, b, _correlation(_cells(a), _cells(b)))


def iou(a: np.ndarray, b: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Intersection over union |T_a ∩ T_b| / |T_a ∪ T_b| of the top 20 % of cells, in [0, 1].

    T holds the cells at or above the ⌈share · h · w⌉-th largest value that are positive: ties at
    the border are all in, so that T does not depend on the order of the cells.

    Returns:
        float64 (n,); 0 where one map is empty, NaN where both are.
    """
    top_a, top_b = _top(a, share), _top(b, share)
    union = (top_a | top_b).sum(axis=(1, 2))
    both = (top_a & top_b).sum(axis=(1, 2))
    return np.asarray(np.divide(both, union, out=np.full(len(a), np.nan), where=union > 0))


def centre(maps: np.ndarray) -> np.ndarray:
    """Centre of mass of the positive part, (row, column) in cells from the grid's corner.

    Returns:
        float64 (n, 2); NaN where a map is empty. The centre of the first cell is (0.5, 0.5).
    """
    p = _distribution(maps)
    rows, columns = np.arange(maps.shape[1]) + 0.5, np.arange(maps.shape[2]) + 0.5
    return np.stack([p.sum(axis=2) @ rows, p.sum(axis=1) @ columns], axis=1)


def shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance between the centres of mass, in diagonals of the image: 0 to under 1.

    The grid is taken to cover the image evenly: a cell's height and width are alike.

    Returns:
        float64 (n,); NaN where a map is empty.
    """
    return np.asarray(np.linalg.norm(centre(a) - centre(b), axis=1) / np.hypot(*a.shape[1:]))


def focus(maps: np.ndarray) -> np.ndarray:
    """1 − H(p) / ln(h · w): 0 for an even map, 1 for a single cell.

    p is the positive part divided by its sum and H(p) = −Σ p ln p, Shannon's entropy; divided by
    its greatest value it is Pielou's evenness (1966).

    Returns:
        float64 (n,); NaN where a map is empty or the grid has one cell.
    """
    cells = maps.shape[1] * maps.shape[2]
    if cells == 1:
        return np.full(len(maps), np.nan)
    return np.asarray(1 - entr(_distribution(maps)).sum(axis=(1, 2)) / np.log(cells))


def jsd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Jensen–Shannon divergence of the positive parts in bits, in [0, 1].

    ½ Σ p log₂(p/m) + ½ Σ q log₂(q/m) with m = (p + q) / 2 (Lin 1991, eq. 4.1): 0 where the
    maps are alike, 1 where they share no cell.

    Returns:
        float64 (n,); 1 where one map is empty, NaN where both are.
    """
    p, q = _distribution(a), _distribution(b)
    m = (p + q) / 2
    bits = (rel_entr(p, m) + rel_entr(q, m)).sum(axis=(1, 2)) / (2 * np.log(2))
    bits = np.clip(bits, 0, 1)  # rounding alone can leave the interval
    return np.where(empty(a) ^ empty(b), 1.0, bits)


def settled(rho: np.ndarray, threshold: float = 0.8) -> np.ndarray:
    """From which epoch on the maps stay what they are at the end.

    Args:
        rho: Spearman's ρ to the final epoch, (epoch, n), the last row against itself.
        threshold: of ρ, reached in that epoch and in every later one. NaN never reaches it.

    Returns:
        int64 (n,): positions in the first axis; −1 where even the last row is NaN (an empty map).
    """
    stays = np.logical_and.accumulate((rho >= threshold)[::-1], axis=0)[::-1]
    return np.where(stays[-1], stays.argmax(axis=0), -1)


def _distribution(maps: np.ndarray) -> np.ndarray:
    """The positive parts, each divided by its sum; NaN where a map is empty. float64 (n, h, w)."""
    positive = np.where(empty(maps)[:, None, None], np.nan, np.maximum(maps, 0)).astype(np.float64)
    positive /= positive.max(axis=(1, 2), keepdims=True)  # so that the sum cannot overflow
    return np.asarray(positive / positive.sum(axis=(1, 2), keepdims=True))


def _top(maps: np.ndarray, share: float) -> np.ndarray:
    cells = maps.shape[1] * maps.shape[2]
    place = cells - int(np.ceil(share * cells))
    least = np.partition(_cells(maps), place, axis=1)[:, place, None, None]
    return np.asarray((maps >= least) & (maps > 0) & ~empty(maps)[:, None, None])


def _cells(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), maps.shape[1] * maps.shape[2])  # (n, h·w)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip((_centred(a) * _centred(b)).sum(axis=1), -1, 1))


def _centred(values: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; NaN where a row is constant."""
    values = values.astype(np.float64)
    varies = (values != values[:, :1]).any(axis=1, keepdims=True)
    scale = np.abs(values).max(axis=1, keepdims=True)
    scaled = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    centred = scaled - scaled.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    nothing = np.full_like(centred, np.nan)
    return np.asarray(np.divide(centred, length, out=nothing, where=varies & (length > 0)))


def _where_both(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(empty(a) | empty(b), np.nan, values)

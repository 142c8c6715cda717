"""Which rows of the prepared data a run trains, chooses and reports on: a spec and a seed in, rows
out."""

from __future__ import annotations

import numpy as np

from scratchbook.data.division import apportion
from scratchbook.errors import ScratchbookError
from scratchbook.results.prepared import Prepared
from scratchbook.results.records import SPLITS
from scratchbook.specs import Spec


def run_rows(spec: Spec, prepared: Prepared, seed: int) -> dict[str, np.ndarray]:
    """The rows of each split as a run of `spec` uses them: {split: int64 (m,)}.

    With `validation="test"` the validation images are trained on, and the test images choose the
    epoch: then there is no split `validation`. Those of `train` are the sample of `train_samples`
    images that the seed draws.

    Raises:
        ScratchbookError: no images to choose the epoch on, or too few to train on.
    """
    rows: dict[str, np.ndarray] = {name: prepared.indices(name) for name in SPLITS}
    validation = spec["validation"]
    if validation == "test":
        rows["train"] = np.sort(np.concatenate([rows["train"], rows.pop("validation")]))
    if not len(rows[validation]):
        raise ScratchbookError(
            f"there are no {validation} images to choose the best epoch on; give the data set a "
            f"`split: {{{validation}: 0.1}}` or the notebook another `validation`"
        )
    count, there = spec["train_samples"], len(rows["train"])
    if count is not None and count > there:
        raise ScratchbookError(
            f"train_samples is {count:,}, but there are only {there:,} training images"
        )
    if count is not None:
        rows["train"] = sample_rows(prepared.labels, rows["train"], count, seed)
    return rows


def sample_rows(labels: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the rows, class by class in proportion (largest remainders) but of every class one
    at least, drawn from `seed`.

    Args:
        labels: int64 (n,).
        rows: int64 (m,), rows of `labels` to draw from.
        count: at most m.

    Returns:
        int64 (count,), ascending.

    Raises:
        ScratchbookError: fewer than there are classes.
    """
    classes, sizes = np.unique(labels[rows], return_counts=True)
    if count < len(classes):
        raise ScratchbookError(
            f"train_samples is {count:,}, but there are {len(classes):,} classes, and each is to "
            f"be learnt from one image at least; give {len(classes):,} or more"
        )
    rng = np.random.default_rng([seed, count])
    chosen = [
        rng.permutation(rows[labels[rows] == label])[:share]
        for label, share in zip(classes, apportion(sizes, count, least=1), strict=True)
    ]
    return np.sort(np.concatenate(chosen))

"""How far the maps move: a run's maps in (and other seeds'), a table out, one row an epoch.

Every epoch's maps are compared with
    previous      the listed epoch before it (`previous` names it)
    final         the last listed epoch
and, since a figure for drift means nothing by itself, with
    other_images  the maps of other images in the same epoch: as unlike as maps get by chance
    other_seed    the same image and epoch of runs that differ in the seed alone
    untrained     epoch 0, before training
    random_head   the same trunk under a head with fresh weights (Adebayo et al. 2018)

Columns: `epoch, previous, images, empty, settled, settled_epoch`; `accuracy`, `probability_median`
(of the label); `focus_median, focus_q25, focus_q75`; and for every comparison `valid_{against}`
(pairs in which both maps are non-empty and not constant) and `{measure}_{against}_{median|q25|q75}`
for the measures spearman, pearson, iou, shift and jsd. A cell is empty where nothing is defined.
`settled` is the share of images that have settled by this epoch; `settled_epoch`, the same in every
row, is the median over the images that settle of the first epoch from which on ρ to the final
epoch stays at or above 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from scratchbook.cam import measures
from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import LeftOutError
from scratchbook.results.files import write_text
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.records import CamMaps

MEASURES = ("spearman", "pearson", "iou", "shift", "jsd")
PAIRS_OF_IMAGES = 256  # as many as 23 images have; more add time and no knowledge


def write_drift(maps: Path, output: Path, other_seeds: Sequence[Path] = ()) -> None:
    """Measures how a run's maps move.

    Args:
        maps: the run's.
        output: the table; without a row where the maps were left out.
        other_seeds: the maps of the same experiment under other seeds.

    Raises:
        ScratchbookError: another seed's maps are of other images, another layer or method.
        MissingError, DamagedError: maps that cannot be read.
    """
    text = "epoch\n"
    with suppress(LeftOutError):
        cam = read_cam(maps)
        others = [theirs for other in other_seeds if (theirs := _matching(cam, maps, other))]
        text = drift(cam, others).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(output, text)


def drift(cam: CamMaps, other_seeds: Sequence[CamMaps] = ()) -> pd.DataFrame:
    """The table.

    Args:
        cam: the run's maps.
        other_seeds: the same of other seeds.

    Returns:
        One row an epoch, in the order of `epochs`; columns as the module says.
    """
    maps, epochs, labels = cam.maps, cam.epochs, cam.labels
    rho = np.array([measures.spearman(m, maps[-1]) for m in maps])  # (epoch, image)
    settled = measures.settled(rho)  # (image,): positions
    settles = settled >= 0
    settled_epoch = np.median(epochs[settled[settles]]) if settles.any() else np.nan
    rows = []
    for at, now in enumerate(maps):  # (image, h, w)
        probability = cam.probability[at]  # (image, class)
        row = {
            "epoch": epochs[at],
            "previous": epochs[at - 1] if at else None,
            "images": len(now),
            "empty": int(measures.empty(now).sum()),
            "settled": float((settles & (settled <= at)).mean()),
            "settled_epoch": settled_epoch,
            "accuracy": float((probability.argmax(axis=1) == labels).mean()),
            "probability_median": float(np.median(probability[np.arange(len(labels)), labels])),
            **_quartiles("focus", measures.focus(now)),
        }
        for against, (a, b) in _pairs(cam, at, other_seeds).items():
            values = {name: getattr(measures, name)(a, b) for name in MEASURES}
            row[f"valid_{against}"] = int(np.isfinite(values["spearman"]).sum())
            for name, value in values.items():
                row |= _quartiles(f"{name}_{against}", value)
        rows.append(row)
    return pd.DataFrame(rows).astype({"previous": "Int64"})


def _pairs(
    cam: CamMaps, at: int, other_seeds: Sequence[CamMaps]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The maps of epoch `at` and what each is compared with, both (pair, h, w); may be empty."""
    maps, epochs = cam.maps, cam.epochs
    now = maps[at]
    nothing = now[:0], now[:0]
    pairs = np.array(list(combinations(range(len(now)), 2)), dtype=int).reshape(-1, 2)
    if len(pairs) > PAIRS_OF_IMAGES:
        pairs = np.random.default_rng(0).permutation(pairs)[:PAIRS_OF_IMAGES]
    # Each of the other seeds has the epoch once, or not at all.
    theirs = [then for other in other_seeds for then in other.maps[other.epochs == epochs[at]]]
    return {
        "previous": (now, maps[at - 1]) if at else nothing,
        "final": (now, maps[-1]),
        "other_images": (now[pairs[:, 0]], now[pairs[:, 1]]),
        "other_seed": (np.tile(now, (len(theirs), 1, 1)), np.reshape(theirs, (-1, *now.shape[1:]))),
        "untrained": (now, maps[0]) if epochs[0] == 0 and at else nothing,
        "random_head": nothing if cam.random_head is None else (now, cam.random_head[at]),
    }


def _quartiles(name: str, values: np.ndarray) -> dict[str, float]:
    defined = values[np.isfinite(values)]
    low, median, high = np.percentile(defined, [25, 50, 75]) if len(defined) else [np.nan] * 3
    return {f"{name}_median": median, f"{name}_q25": low, f"{name}_q75": high}


def _matching(mine: CamMaps, maps: Path, other: Path) -> CamMaps | None:
    try:
        theirs = read_cam(other)
    except LeftOutError:
        return None
    for name in ("layer", "method", "images", "grid", "target"):
        if not np.array_equal(getattr(mine, name), getattr(theirs, name)):
            raise ScratchbookError(
                f"{other}: its {name} is {getattr(theirs, name)}, but {maps} has "
                f"{getattr(mine, name)}; compare maps of one experiment, made with the same cam "
                "settings"
            )
    return theirs

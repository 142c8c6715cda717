"""Measure a run from its `predictions.h5` alone, and write what was measured as `metrics.json`.

Each run is evaluated in a process of its own, and there may be hundreds: NumPy and h5py start in
0.15 s, SciPy and scikit-learn would take another second. Tests compare the figures with theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import h5py
import numpy as np

from scratchbook.config.errors import ScratchbookError
from scratchbook.files import write_json

SPLITS = ("train", "validation", "test")
RELIABILITY_BINS = 15
LEVEL = 0.95


@dataclass(frozen=True)
class Split:
    """What a net said about one split.

    `logits` float64 (n, classes), `labels` and `index` int64 (n,); `index` is the row in the
    prepared data.
    """

    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray


class DivergedError(ScratchbookError):
    """A net answers with NaN or infinity: its figures do not exist, which is a result too."""


def evaluate(predictions: Path) -> dict[str, Any]:
    """Every figure of `metrics.json`, all of them at the run's best epoch.

    A split whose logits are not finite has no figures; `trouble` then says so in a sentence each
    (and `last.trouble` for the last epoch).

    Raises ScratchbookError for a split without images and for arrays that do not fit each other;
    the message names the file and the split.
    """
    predictions = Path(predictions)
    with _open(predictions) as file:
        names = [str(name) for name in json.loads(file.attrs["class_names"])]
        best, last = _group(file, "best"), _group(file, "last")
        report = {
            "epoch": int(best.attrs["epoch"]),
            "validation": str(file.attrs.get("validation", "validation")),
            "class_names": names,
            **_measured(file, "best", names, lambda split: evaluate_split(split, names)),
            "last": {"epoch": int(last.attrs["epoch"]), **_measured(file, "last", names, _brief)},
        }
    if not report["splits"] and "trouble" not in report:
        raise ScratchbookError(f"{predictions}: group 'best' holds no split; train the run again")
    return report


def write_metrics(predictions: Path, output: Path) -> None:
    """Evaluate `predictions` and write `output` whole or not at all."""
    write_json(Path(output), evaluate(predictions))


def read_split(file: h5py.File, when: str, split: str, names: list[str]) -> Split:
    """One split of an open `predictions.h5`, checked; `when` is `best` or `last`.

    Raises DivergedError for logits that are not finite, else ScratchbookError as `evaluate` does.
    """
    what = f"{when}/{split}"
    where = f"{file.filename}: {what}"
    group = file[when][split]
    logits = np.asarray(group["logits"], dtype=np.float64)  # (n, classes)
    labels = np.asarray(group["labels"], dtype=np.int64)  # (n,)
    index = np.asarray(group["index"], dtype=np.int64)  # (n,)
    if len(labels) == 0:
        raise ScratchbookError(f"{where} holds no image: a figure needs one image at least")
    if logits.shape != (len(labels), len(names)) or len(index) != len(labels):
        raise ScratchbookError(
            f"{where} does not fit together: logits {logits.shape}, labels {labels.shape}, "
            f"index {index.shape}, {len(names)} class names; train the run again"
        )
    unusable = ~np.isfinite(logits).all(axis=1)
    if unusable.any():
        raise DivergedError(
            f"{what}: the logits of {unusable.sum()} of {len(labels)} images are NaN or infinite "
            f"(first: image {index[unusable][0]}); the run diverged, try a lower learning rate"
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise ScratchbookError(
            f"{where}: label {labels.min() if labels.min() < 0 else labels.max()} has no class "
            f"name, {len(names)} are named"
        )
    return Split(logits, labels, index)


def evaluate_split(split: Split, names: list[str]) -> dict[str, Any]:
    """One split's figures.

    Log loss is natural-log cross-entropy from the logits, unclipped. Precision, recall and F1 of a
    class that is never met are 0. Brier is, for two classes, the squared error of one probability,
    for more the sum over the classes. `prior_entropy` is the log loss of a net that answers this
    split's class frequencies.
    """
    labels, n, classes = split.labels, len(split.labels), len(names)
    log_probability = _log_softmax(split.logits)  # (n, classes)
    probability = np.exp(log_probability)
    answer = split.logits.argmax(axis=1)

    # (classes, classes): rows are labels, columns answers
    confusion = np.bincount(labels * classes + answer, minlength=classes**2).reshape(classes, -1)
    hits, support, answered = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = hits / np.maximum(answered, 1)  # (classes,)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(answered + support, 1)
    squares = (probability - np.eye(classes)[labels]) ** 2  # (n, classes)
    auroc, average_precision, undefined = _ranking(labels, split.logits)
    ece, reliability = calibration(probability.max(axis=1), answer == labels)
    prior = support / n
    top5 = _top5(split.logits, labels) if classes > 10 else None
    return {
        "n": n,
        "accuracy": proportion(int(hits.sum()), n),
        "top5": None if top5 is None else proportion(top5, n),
        "macro_f1": float(np.mean(f1)),
        "log_loss": float(-log_probability[np.arange(n), labels].mean()),
        "brier": float((squares.sum(axis=1) if classes > 2 else squares[:, 1]).mean()),
        "ece": ece,
        "reliability": reliability,
        "auroc": auroc,
        "average_precision": average_precision,
        "undefined": undefined,
        "confusion": confusion.tolist(),
        "per_class": [
            {
                "name": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(names)
        ],
        "majority": {"class": names[int(prior.argmax())], "accuracy": float(prior.max())},
        "chance": 1 / classes,
        "prior_entropy": float(-(prior[prior > 0] * np.log(prior[prior > 0])).sum()),
    }


def proportion(successes: int, n: int, level: float = LEVEL) -> dict[str, float]:
    """A proportion with its Wilson score interval (Wilson 1927)."""
    low, high = wilson(successes / n, n, level)
    return {"value": successes / n, "low": float(low), "high": float(high)}


def wilson(
    share: float | np.ndarray, n: float | np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of each `share` seen in `n` trials, vectorised.

    `n` may be an effective number of trials and so need not be whole, which the same formula in
    statsmodels and SciPy does not take.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = RELIABILITY_BINS
) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error and its reliability bins (Guo et al. 2017, equation 3).

    `confidence` float (n,) is the probability of the answer given, `correct` bool (n,). The bins
    have equal width and include their upper edge; empty ones have no confidence nor accuracy.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    said = np.bincount(place, weights=confidence, minlength=bins)
    right = np.bincount(place, weights=correct, minlength=bins)
    return float(np.abs(said - right).sum() / len(confidence)), [
        {
            "lower": float(edges[i]),
            "upper": float(edges[i + 1]),
            "n": int(count[i]),
            "confidence": float(said[i] / count[i]) if count[i] else None,
            "accuracy": float(right[i] / count[i]) if count[i] else None,
        }
        for i in range(bins)
    ]


def _ranking(
    labels: np.ndarray, logits: np.ndarray
) -> tuple[float | None, float | None, dict[str, str]]:
    """AUROC and average precision of class 1, or why they are undefined."""
    if logits.shape[1] != 2:
        reason = f"measured for two classes only, not {logits.shape[1]}"
    elif len(np.unique(labels)) < 2:
        reason = "the split holds one class only"
    else:
        # Images of one score are not ranked among themselves: all of them are told at once.
        scores, place = np.unique(logits[:, 1] - logits[:, 0], return_inverse=True)
        ones, zeros = (np.bincount(place[labels == k], minlength=len(scores)) for k in (1, 0))
        outranked = np.cumsum(zeros) - zeros / 2  # of class 0, ties by half
        found = np.cumsum(ones[::-1])  # from the highest score on
        precision = found / (found + np.cumsum(zeros[::-1]))
        auroc = (ones * outranked).sum() / (ones.sum() * zeros.sum())
        return float(auroc), float((ones[::-1] * precision).sum() / ones.sum()), {}
    return None, None, {"auroc": reason, "average_precision": reason}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of each row; never infinite, however far apart the logits are."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _top5(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many labels are among the five largest logits."""
    five = np.argpartition(-logits, 5, axis=1)[:, :5]
    return int((five == labels[:, None]).any(axis=1).sum())


def _measured(
    file: h5py.File, when: str, names: list[str], measure: Callable[[Split], dict[str, Any]]
) -> dict[str, Any]:
    """`splits` with the figures of each, and `trouble` where some have none."""
    splits, trouble = {}, []
    for split in SPLITS:
        if split not in file[when]:
            continue
        try:
            splits[split] = measure(read_split(file, when, split, names))
        except DivergedError as error:
            trouble.append(str(error))
    return {"splits": splits} | ({"trouble": trouble} if trouble else {})


def _brief(split: Split) -> dict[str, float]:
    """Accuracy and log loss, for the last epoch beside the best one."""
    log_probability = _log_softmax(split.logits)
    own = log_probability[np.arange(len(split.labels)), split.labels]
    return {
        "accuracy": float((split.logits.argmax(axis=1) == split.labels).mean()),
        "log_loss": float(-own.mean()),
    }


def _open(predictions: Path) -> h5py.File:
    try:
        return h5py.File(predictions, "r")
    except FileNotFoundError:
        raise ScratchbookError(f"{predictions}: no such file; train the run first") from None
    except OSError as error:
        raise ScratchbookError(f"{predictions}: not a readable HDF5 file ({error})") from None


def _group(file: h5py.File, when: str) -> h5py.Group:
    if when not in file:
        raise ScratchbookError(
            f"{file.filename}: no group {when!r}, found {sorted(file)}; train the run again"
        )
    return file[when]

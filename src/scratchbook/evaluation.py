"""Measure a run from its `predictions.h5` alone, and write what was measured as `metrics.json`.

Each run is evaluated in a process of its own, and there may be hundreds: NumPy and h5py start in
0.15 s, SciPy and scikit-learn would take another second. Tests compare the figures with theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from scratchbook.results.errors import DamagedError, DivergedError
from scratchbook.results.files import write_json
from scratchbook.results.hdf5 import Predictions, open_predictions
from scratchbook.results.records import (
    BriefMetrics,
    LastMetrics,
    Metrics,
    Proportion,
    ReliabilityBin,
    SplitMetrics,
    SplitPredictions,
)

RELIABILITY_BINS = 15
LEVEL = 0.95
T = TypeVar("T")


def evaluate(predictions: Path) -> Metrics:
    """Every figure of `metrics.json`, all of them at the run's best epoch.

    A split whose logits are not finite has no figures; `trouble` then says so in a sentence each
    (and `last.trouble` for the last epoch). A run that diverged has those of its last whole epochs,
    and `diverged`.

    Raises:
        MissingError, DamagedError: there are no predictions, or some that cannot be measured.
    """
    with open_predictions(predictions) as said:
        names = said.class_names
        if said.is_empty:
            nothing: LastMetrics = {"epoch": 0, "splits": {}}
            return {
                "epoch": 0, "validation": said.validation, "class_names": names, "splits": {},
                "diverged": said.diverged or 0, "last": nothing,
            }  # fmt: skip
        best, trouble = _measured(said, "best", lambda split: evaluate_split(split, names))
        last, last_trouble = _measured(said, "last", _brief)
        if not best and not trouble:
            raise DamagedError(predictions, "group 'best' holds no split")
        metrics: Metrics = {
            "epoch": said.epoch("best"),
            "validation": said.validation,
            "class_names": names,
            "splits": best,
            **({"trouble": trouble} if trouble else {}),  # type: ignore[typeddict-item]
            "last": {"epoch": said.epoch("last"), "splits": last},
        }
        if said.diverged is not None:
            metrics["diverged"] = said.diverged
    if last_trouble:
        metrics["last"]["trouble"] = last_trouble
    return metrics


def write_metrics(predictions: Path, output: Path) -> None:
    """Evaluates `predictions` and writes `output` whole or not at all."""
    write_json(output, evaluate(predictions))


def evaluate_split(split: SplitPredictions, names: list[str]) -> SplitMetrics:
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


def proportion(successes: int, n: int, level: float = LEVEL) -> Proportion:
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
) -> tuple[float, list[ReliabilityBin]]:
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
    said: Predictions, when: str, measure: Callable[[SplitPredictions], T]
) -> tuple[dict[str, T], list[str]]:
    """The figures of each split, and why some have none."""
    splits, trouble = {}, []
    for split in said.splits(when):
        try:
            splits[split] = measure(said.read(when, split))
        except DivergedError as error:
            trouble.append(str(error))
    return splits, trouble


def _brief(split: SplitPredictions) -> BriefMetrics:
    """Accuracy and log loss, for the last epoch beside the best one."""
    log_probability = _log_softmax(split.logits)
    own = log_probability[np.arange(len(split.labels)), split.labels]
    return {
        "accuracy": float((split.logits.argmax(axis=1) == split.labels).mean()),
        "log_loss": float(-own.mean()),
    }

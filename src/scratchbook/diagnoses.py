"""Say what went wrong: from histories, metrics and the comparison to diagnoses with evidence.

Each diagnosis has a stable code, explained in docs/diagnoses.md, that a user can mute; each rule
reads its thresholds from `Thresholds`. The rules on single figures work on recorded ones too.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from scratchbook.comparison.runs import read_json
from scratchbook.comparison.tables import Comparison
from scratchbook.comparison.verdict import COVERS_BOTH
from scratchbook.config.diagnoses import CODES, Thresholds
from scratchbook.config.errors import ScratchbookError
from scratchbook.language import mark, tr, tr_n
from scratchbook.specs import is_outdated

ADVICE = MappingProxyType(
    {
        "NAN": mark("Lower the learning rate, and look for images or labels that are not numbers."),
        "PRIOR-COLLAPSE": mark(
            "Lower the learning rate, try Adam, or take layers out until it learns."
        ),
        "SATURATED": mark("Scale the images to 0–1, lower the first steps, or use another start."),
        "OVERFIT": mark("Stop earlier, add dropout or augmentation, or train on more images."),
        "UNDERTRAINED": mark("Train for more epochs, or raise the learning rate."),
        "LR-TOO-HIGH": mark("Lower the learning rate by a factor of three to ten."),
        "LEAK": mark("Remove the copies from the images that are trained on and train again."),
        "SMALL-TEST": mark("Measure on more images, or claim only larger differences."),
        "CHERRY-PICKED": mark("Choose the epoch on validation images and report the test images."),
        "SEED-NOISE": mark("Run more seeds before believing the gain."),
    }
)
MORE_SEEDS = mark("Run more seeds (more images would not do), or claim only larger differences.")
JUMP = 0.1  # LR-TOO-HIGH: a training loss that moves by less is noise, in a jump
RISE = 0.05  # ... and in one of many rises


@dataclass(frozen=True)
class Diagnosis:
    """One finding. `experiment` is empty for one about the whole notebook."""

    code: str
    experiment: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    recorded: bool = False
    remedy: str = ""
    """A marked message, where the code's own advice does not fit."""

    @property
    def advice(self) -> str:
        return tr(self.remedy or ADVICE[self.code])

    @property
    def page(self) -> str:
        """Where the docs explain it."""
        return f"docs/diagnoses.md#{self.code.lower()}"


def diagnose(
    page: dict[str, Any],
    results: Path,
    comparison: Comparison,
    *,
    duplicates: Sequence[Sequence[str]] = (),
) -> list[Diagnosis]:
    """Every finding on a notebook: those on the whole of it first, then by experiment.

    `duplicates` are the prepared data's [name, split, name, split]. The page may hold `diagnoses`:
    `mute`, a list of codes (`OVERFIT`) or codes of one experiment (`OVERFIT:train1`), and
    `thresholds`, changed ones by name. What only recorded figures show is marked `recorded`; they
    are held against the class shares of the first run that was measured.
    """
    limits, shares = thresholds_of(page), _class_shares(page, Path(results))
    found = [
        *cherry_picked(page),
        *leak(duplicates, limits, trained=_trained_on(page)),
        *small_test(comparison, limits),
    ]
    noisy = {one.experiment: one for one in seed_noise(comparison, limits)}
    for experiment in page["experiments"]:
        name, spec = experiment["name"], experiment["spec"]
        folder = Path(results) / page["name"] / name
        by_seed = {
            seed: diagnose_run(name, run, limits)
            for seed in page["seeds"]
            if not is_outdated(run := folder / f"seed{seed}", spec)
        }
        measured = _merged(by_seed)
        found += measured
        if name in noisy:
            found.append(noisy[name])
        recorded = diagnose_recorded(
            name,
            experiment.get("recorded") or {},
            classes=count_classes(spec),
            limits=limits,
            **shares,
        )
        found += [one for one in recorded if one.code not in {m.code for m in measured}]
    return unmuted(found, page)


def thresholds_of(page: dict[str, Any]) -> Thresholds:
    """Where a page draws the rules' lines."""
    return Thresholds(**((page.get("diagnoses") or {}).get("thresholds") or {}))


def unmuted(found: Sequence[Diagnosis], page: dict[str, Any]) -> list[Diagnosis]:
    """Those that the page does not mute, everywhere or for their experiment."""
    mute = (page.get("diagnoses") or {}).get("mute") or []
    return [
        one for one in found if one.code not in mute and f"{one.code}:{one.experiment}" not in mute
    ]


def diagnose_run(experiment: str, folder: Path, limits: Thresholds) -> list[Diagnosis]:
    """The findings on one run from its history.csv and metrics.json, whichever are there."""
    found = []
    if (folder / "history.csv").exists():
        history = read_history(folder / "history.csv")
        rules = (not_a_number, overfit, undertrained, learning_rate_too_high)
        found += [one for rule in rules if (one := rule(experiment, history, limits))]
    if (folder / "metrics.json").exists():
        metrics = read_json(folder / "metrics.json", "was not evaluated")
        if "trouble" in metrics and "NAN" not in {one.code for one in found}:
            said = tr(
                "The net no longer answers with numbers: {trouble}.", trouble=metrics["trouble"][0]
            )
            found.append(Diagnosis("NAN", experiment, said, {"epoch": metrics["epoch"]}))
        measured = metrics["splits"].get(metrics["validation"])
        if measured:
            figures = {
                "val_loss": measured["log_loss"],
                "val_accuracy": measured["accuracy"]["value"],
            }
            collapsed = prior_collapse(
                experiment,
                figures,
                len(metrics["class_names"]),
                limits,
                entropy=measured["prior_entropy"],
                majority=measured["majority"]["accuracy"],
            ) or saturated(experiment, figures, len(metrics["class_names"]), limits)
            found += [collapsed] if collapsed else []
    return found


def diagnose_recorded(
    experiment: str,
    recorded: dict[str, Any],
    *,
    classes: int,
    entropy: float | None = None,
    majority: float | None = None,
    limits: Thresholds | None = None,
) -> list[Diagnosis]:
    """What bare figures that someone wrote down already tell.

    `recorded` may hold train_accuracy, val_accuracy, train_loss and val_loss; `majority` is the
    share of the most frequent class and `entropy` that of all shares, where known.
    """
    limits = limits or Thresholds()
    figures = {key: value for key, value in recorded.items() if value is not None}
    found = [
        prior_collapse(experiment, figures, classes, limits, entropy=entropy, majority=majority)
        or saturated(experiment, figures, classes, limits),
        _recorded_overfit(experiment, figures, limits),
    ]
    return [replace(one, recorded=True) for one in found if one]


def prior_collapse(
    experiment: str,
    figures: dict[str, float],
    classes: int,
    limits: Thresholds,
    *,
    entropy: float | None = None,
    majority: float | None = None,
) -> Diagnosis | None:
    """The net answers how often each class occurs: its loss is the prior's entropy.

    Where the prior is not known, the one that fits the accuracy is tried: two classes of which
    the larger is always answered, or equally frequent classes. A net that has learnt something can
    have the same figures by chance, so it is told as a possibility.
    """
    loss, accuracy = figures.get("val_loss"), figures.get("val_accuracy")
    if loss is None or accuracy is None:
        return None
    known = entropy is not None
    if majority is None:
        majority = accuracy if classes == 2 else 1 / classes
    if entropy is None:
        entropy = _entropy(majority, classes)
    close = limits.prior_loss if known else limits.prior_loss_recorded
    near = abs(loss - entropy) <= close * entropy
    if not near or accuracy > majority + limits.prior_accuracy or majority == 1:
        return None
    prior = {"entropy": entropy, "majority": majority}
    if known:
        what = tr(
            "Loss {loss:.4f} at accuracy {accuracy:.3f} is the entropy of the class prior "
            "({entropy:.4f}, largest class {majority:.1%}): the net answers how often each class "
            "occurs and has learnt nothing from the images.",
            loss=loss,
            accuracy=accuracy,
            **prior,
        )
    else:
        what = tr(
            "Loss {loss:.4f} at accuracy {accuracy:.3f} would be the entropy of the class prior "
            "({entropy:.4f}) if the largest class had {majority:.1%} of the images: the net may "
            "answer how often each class occurs and have learnt nothing from them.",
            loss=loss,
            accuracy=accuracy,
            **prior,
        )
    return Diagnosis(
        "PRIOR-COLLAPSE", experiment, what, {"val_loss": loss, "val_accuracy": accuracy, **prior}
    )


def saturated(
    experiment: str, figures: dict[str, float], classes: int, limits: Thresholds
) -> Diagnosis | None:
    """Wrong answers are given with certainty, and the loss is worse than a blind guess."""
    loss, accuracy = figures.get("val_loss"), figures.get("val_accuracy")
    if loss is None or accuracy is None or accuracy == 1:
        return None
    each = loss / (1 - accuracy)
    if each < limits.saturated_loss or loss <= math.log(classes):
        return None
    return Diagnosis(
        "SATURATED",
        experiment,
        tr(
            "Loss {loss:.4f} at accuracy {accuracy:.3f} is {each:.1f} nats on each wrong answer "
            "(a blind guess loses {guess:.2f}): the softmax is saturated and passes no gradient.",
            loss=loss,
            accuracy=accuracy,
            each=each,
            guess=math.log(classes),
        ),
        {"val_loss": loss, "val_accuracy": accuracy, "nats_per_error": each},
    )


def not_a_number(
    experiment: str, history: dict[str, np.ndarray], limits: Thresholds
) -> Diagnosis | None:
    """Loss became NaN or infinite."""
    broken = ~np.isfinite(history["loss"]) | ~np.isfinite(history["val_loss"])
    if not broken.any():
        return None
    epoch = int(history["epoch"][broken.argmax()])
    message = tr("The loss is not a number from epoch {epoch} on; the run diverged.", epoch=epoch)
    return Diagnosis("NAN", experiment, message, {"epoch": epoch})


def overfit(
    experiment: str, history: dict[str, np.ndarray], limits: Thresholds
) -> Diagnosis | None:
    """The gap between training and validation grows while validation loss rises."""
    loss = history["val_loss"]
    if len(loss) < 3 or not np.isfinite(loss).all():
        return None
    lowest = int(loss.argmin())
    tail = slice(max(lowest + 1, len(loss) - 3), None)
    if lowest == len(loss) - 1:
        return None
    gap = history["accuracy"] - history["val_accuracy"]
    rise, growth = (
        float(loss[tail].mean() / loss[lowest] - 1),
        float(gap[tail].mean() - gap[lowest]),
    )
    if rise < limits.overfit_rise or growth < limits.overfit_gap:
        return None
    epoch = int(history["epoch"][lowest])
    return Diagnosis(
        "OVERFIT",
        experiment,
        tr(
            "After epoch {epoch} validation loss rises by {rise:.0%} ({lowest:.3f} to {last:.3f}) "
            "while the gap between training and validation accuracy grows by {growth:.1f} points "
            "to {gap:.1f}.",
            epoch=epoch,
            rise=rise,
            lowest=loss[lowest],
            last=loss[tail].mean(),
            growth=growth * 100,
            gap=gap[tail].mean() * 100,
        ),
        {"epoch": epoch, "val_loss_rise": rise, "gap_growth": growth},
    )


def undertrained(
    experiment: str, history: dict[str, np.ndarray], limits: Thresholds
) -> Diagnosis | None:
    """Validation still improves when training ends."""
    loss, epochs = history["val_loss"], len(history["val_loss"])
    if epochs < 3 or not np.isfinite(loss).all():
        return None
    window = max(1, min(3, epochs // 3))
    last, before = float(loss[-window:].mean()), float(loss[-2 * window : -window].mean())
    gain = 1 - last / before if before > 0 else 0.0
    late = int(loss.argmin()) >= epochs - max(1, math.ceil(limits.undertrained_end * epochs))
    if gain < limits.undertrained_gain or not late:
        return None
    return Diagnosis(
        "UNDERTRAINED",
        experiment,
        tr(
            "Validation loss still falls when training ends after {epochs} epochs: {last:.3f} "
            "over the last {window}, {before:.3f} over the {window} before.",
            epochs=epochs,
            last=last,
            window=window,
            before=before,
        ),
        {"epochs": epochs, "gain": gain},
    )


def learning_rate_too_high(
    experiment: str, history: dict[str, np.ndarray], limits: Thresholds
) -> Diagnosis | None:
    """Training loss, which should fall, keeps rising or jumps."""
    loss = history["loss"]
    if len(loss) < 4 or not np.isfinite(loss).all() or not (loss > 0).all():
        return None
    rates = history["learning_rate"][1:]  # in force in the epochs that can rise
    lowest = np.minimum.accumulate(loss)[:-1]
    jump = int((loss[1:] / lowest).argmax())
    # what a loss does that is almost zero is noise, not a step too far
    rises = (loss[1:] > loss[:-1] * (1 + limits.lr_rise)) & (np.diff(loss) > RISE)
    share = float(rises.mean())
    if loss[jump + 1] >= limits.lr_spike * lowest[jump] and loss[jump + 1] - lowest[jump] > JUMP:
        rate = float(rates[jump])
        what = tr(
            "With learning rate {rate:g} training loss jumps from {low:.3f} to {high:.3f} at "
            "epoch {epoch}.",
            rate=rate,
            low=lowest[jump],
            high=loss[jump + 1],
            epoch=int(history["epoch"][jump + 1]),
        )
    elif rises.any() and share >= limits.lr_share:
        rate = float(rates[rises].max())
        what = tr(
            "With a learning rate of up to {rate:g} training loss rises in {n} of {epochs} epochs.",
            rate=rate,
            n=rises.sum(),
            epochs=len(loss) - 1,
        )
    else:
        return None
    return Diagnosis(
        "LR-TOO-HIGH",
        experiment,
        what,
        {"learning_rate": rate, "rising_share": share},
    )


def cherry_picked(page: dict[str, Any]) -> list[Diagnosis]:
    """The best epoch is chosen on the split that is reported."""
    chosen = _chosen_on_test(page)
    if not chosen:
        return []
    return [
        Diagnosis(
            "CHERRY-PICKED",
            "",
            tr(
                "The best epoch is chosen on the test images that are reported, so every figure "
                "is too high by an unknown amount."
            ),
            {"experiments": chosen},
        )
    ]


def leak(
    duplicates: Sequence[Sequence[str]],
    limits: Thresholds,
    trained: Sequence[str] = ("train",),
) -> list[Diagnosis]:
    """The same image is in a split that is `trained` on and in one that is not."""
    across = [pair for pair in duplicates if (pair[1] in trained) != (pair[3] in trained)]
    if not across or len(across) < limits.leak_images:
        return []
    first = across[0]
    return [
        Diagnosis(
            "LEAK",
            "",
            tr_n(
                "{n} image is in two splits, first {image} ({split}) and {other} "
                "({other_split}): what is measured on them was partly learnt by heart.",
                "{n} images are in two splits, first {image} ({split}) and {other} "
                "({other_split}): what is measured on them was partly learnt by heart.",
                len(across),
                image=first[0],
                split=tr(first[1]),
                other=first[2],
                other_split=tr(first[3]),
            ),
            {"pairs": [list(pair) for pair in across]},
        )
    ]


def small_test(comparison: Comparison, limits: Thresholds) -> list[Diagnosis]:
    """Most experiments are closer to each other than the images, or images and seeds, can tell."""
    pairs = comparison.pairs
    if pairs.empty or comparison.detectable is None:
        return []
    half = (pairs["high"] - pairs["low"]) / 2
    close = pairs["difference"].abs() < half
    if close.mean() <= limits.small_test_share:
        return []
    images, middle = int(pairs["images"].iloc[0]), float(pairs["difference"].abs().median())
    figures = {
        "close": close.sum(),
        "pairs": len(pairs),
        "images": images,
        "split": tr(comparison.split),
        "detectable": comparison.detectable * 100,
        "middle": middle * 100,
    }
    if (pairs["covers"][close] == COVERS_BOTH).mean() > 0.5:
        what = tr(
            "{close} of {pairs} differences are smaller than their own margin of error: "
            "{images:,} {split} images and these seeds show differences of about "
            "{detectable:.1f} points, here they are {middle:.1f}.",
            **figures,
        )
    else:
        what = tr(
            "{close} of {pairs} differences are smaller than their own margin of error: "
            "{images:,} {split} images show differences of about {detectable:.1f} points, "
            "here they are {middle:.1f}.",
            **figures,
        )
    by_seeds = np.isinf(pairs["images_needed"][close]).mean() > 0.5
    return [
        Diagnosis(
            "SMALL-TEST",
            "",
            what,
            {
                "images": images,
                "detectable": comparison.detectable,
                "median_difference": middle,
                "pairs": int(close.sum()),
            },
            remedy=MORE_SEEDS if by_seeds else "",
        )
    ]


def seed_noise(comparison: Comparison, limits: Thresholds) -> list[Diagnosis]:
    """An experiment's gain over its parent is no larger than the seeds are apart."""
    rows = {row["experiment"]: row for row in comparison.rows.to_dict("records")}
    found = []
    for name, row in rows.items():
        parent = rows.get(row["parent"] if row["parent"] in rows else comparison.baseline)
        if parent is None or parent is row:
            continue
        spreads = [_deviation(one[f"{comparison.metric}_values"]) for one in (row, parent)]
        known = [spread for spread in spreads if spread is not None]
        gain = row[comparison.metric] - parent[comparison.metric]
        if not known or not gain > 0 or max(known) < limits.seed_noise_ratio * gain:
            continue
        found.append(
            Diagnosis(
                "SEED-NOISE",
                str(name),
                tr(
                    "The gain of {gain:.1f} points over {parent} is no larger than what a seed "
                    "changes (standard deviation {deviation:.1f} points).",
                    gain=gain * 100,
                    parent=parent["experiment"],
                    deviation=max(known) * 100,
                ),
                {"gain": gain, "seed_deviation": max(known)},
            )
        )
    return found


def read_history(path: Path) -> dict[str, np.ndarray]:
    """history.csv as float columns; a cell that is empty or no number is NaN."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    missing = [name for name in names if not rows or name not in rows[0]]
    if missing:
        raise ScratchbookError(f"{path}: no column or row of {', '.join(missing)}")
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def count_classes(spec: dict[str, Any]) -> int:
    """How many classes a resolved spec's last Dense tells apart; one sigmoid unit tells two."""
    for layer in reversed(spec["layers"]):
        if "units" in layer.get("config", {}):
            return max(2, int(layer["config"]["units"]))
    return 2


def _chosen_on_test(page: dict[str, Any]) -> list[str]:
    """The experiments that choose their best epoch on the test images."""
    return [one["name"] for one in page["experiments"] if one["spec"].get("validation") == "test"]


def _trained_on(page: dict[str, Any]) -> tuple[str, ...]:
    """The splits whose images a notebook trains on; it measures on the others."""
    return ("train", "validation") if _chosen_on_test(page) else ("train",)


def _class_shares(page: dict[str, Any], results: Path) -> dict[str, float]:
    """`entropy` and `majority` of the images that choose the epoch, as the first measured run has
    them; nothing without one."""
    for experiment in page["experiments"]:
        for seed in page["seeds"]:
            file = results / page["name"] / experiment["name"] / f"seed{seed}" / "metrics.json"
            if not file.exists():
                continue
            metrics = read_json(file, "was not evaluated")
            if shares := metrics["splits"].get(metrics["validation"]):
                return {
                    "entropy": shares["prior_entropy"],
                    "majority": shares["majority"]["accuracy"],
                }
    return {}


def _recorded_overfit(
    experiment: str, figures: dict[str, float], limits: Thresholds
) -> Diagnosis | None:
    train, validation = figures.get("train_accuracy"), figures.get("val_accuracy")
    if train is None or validation is None:
        return None
    gap = train - validation
    if gap < limits.overfit_gap_recorded:
        return None
    return Diagnosis(
        "OVERFIT",
        experiment,
        tr(
            "Training accuracy {train:g} against validation accuracy {validation:g}: a gap of "
            "{gap:.0f} points.",
            train=train,
            validation=validation,
            gap=gap * 100,
        ),
        {"gap": gap},
    )


def _merged(by_seed: dict[int, list[Diagnosis]]) -> list[Diagnosis]:
    """One diagnosis a code, with the seeds that show it and the first one's evidence."""
    first: dict[str, Diagnosis] = {}
    seeds: dict[str, tuple[int, ...]] = {}
    for seed, found in by_seed.items():
        for one in found:
            first.setdefault(one.code, one)
            seeds[one.code] = (*seeds.get(one.code, ()), seed)
    return [replace(first[code], seeds=seeds[code]) for code in CODES if code in first]


def _entropy(majority: float, classes: int) -> float:
    """Entropy of a prior with one class of `majority` and the rest equally frequent, in nats."""
    rest = (1 - majority) / (classes - 1)
    return -sum(p * math.log(p) for p in (majority, *[rest] * (classes - 1)) if p > 0)


def _deviation(values: str) -> float | None:
    numbers = [float(value) for value in str(values).split(";") if value not in ("", "nan")]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

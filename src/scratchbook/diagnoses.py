"""Say what went wrong: from histories, metrics and the comparison to findings with evidence.

A diagnosis is declared in `scratchbook.config.diagnoses` and bound to its rule by `finds`. A rule
looks at all that there is of a run, an experiment or a notebook, and says what shows it, in plain
numbers and names; a sentence is made of them where it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from scratchbook.comparison.tables import Comparison
from scratchbook.comparison.verdict import COVERS_BOTH
from scratchbook.config.diagnoses import DIAGNOSES, Diagnosis, Scope, Thresholds
from scratchbook.language import tr
from scratchbook.results.errors import MissingError
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_history, read_metrics
from scratchbook.results.records import History, Metrics, SplitMetrics
from scratchbook.specs import Page, Recorded, Spec

T = TypeVar("T")
Rule = TypeVar("Rule", bound=Callable[..., "Shown | None"])
Evidence = Mapping[str, float | str | Sequence[str] | Sequence[Sequence[str]]]
JUMP = 0.1  # LR-TOO-HIGH: a training loss that moves by less is noise, in a jump
RISE = 0.05  # ... and in one of many rises
RULES: dict[str, Callable[..., Shown | None]] = {}
"""The rule of each diagnosis by its code; filled by `finds`."""


class Shown(NamedTuple):
    """What a rule saw: all that the words need, and which variants of them say it."""

    evidence: Evidence
    words: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """A diagnosis of an experiment, or of the whole notebook where `experiment` is empty."""

    code: str
    experiment: str
    evidence: Evidence
    words: str = ""
    """The variant of the message, and of the advice, that fits; the usual one where it is empty."""
    remedy: str = ""
    seeds: tuple[int, ...] = ()
    recorded: bool = False

    @property
    def diagnosis(self) -> Diagnosis:
        return DIAGNOSES[self.code]

    @property
    def message(self) -> str:
        """What was seen, in the language that is spoken."""
        one = self.diagnosis
        message = one.variants[self.words] if self.words else one.message
        told = {
            key: one.told[key](value) if key in one.told else value
            for key, value in self.evidence.items()
        }
        return tr(message, **told) if isinstance(message, str) else message(**told)

    @property
    def advice(self) -> str:
        """What to do, in the language that is spoken."""
        one = self.diagnosis
        return tr(one.variants[self.remedy] if self.remedy else one.advice)

    @property
    def page(self) -> str:
        """Where the docs explain it."""
        return f"docs/diagnoses.md#{self.code.lower()}"


class Prior(NamedTuple):
    """How frequent the classes are: their entropy in nats, and the share of the largest."""

    entropy: float
    majority: float

    @classmethod
    def of(cls, split: SplitMetrics) -> Prior:
        return cls(split["prior_entropy"], split["majority"]["accuracy"])

    @classmethod
    def guessed(cls, accuracy: float, classes: int) -> Prior:
        """The one that fits the accuracy: two classes of which the larger is always answered, or
        equally frequent classes."""
        majority = accuracy if classes == 2 else 1 / classes
        rest = (1 - majority) / (classes - 1)
        shares = (majority, *[rest] * (classes - 1))
        return cls(-sum(p * math.log(p) for p in shares if p > 0), majority)


@dataclass(frozen=True)
class RunSeen:
    """All that there is of a run, or only the figures that someone wrote down."""

    figures: Recorded = field(default_factory=Recorded)
    classes: int = 2
    prior: Prior | None = None
    history: History | None = None
    trouble: Evidence | None = None


@dataclass(frozen=True)
class ExperimentSeen:
    """An experiment among the rows of the comparison, by name."""

    name: str
    rows: Mapping[str, Mapping[Hashable, Any]]
    comparison: Comparison


@dataclass(frozen=True)
class NotebookSeen:
    """A page, its comparison and its data's duplicates."""

    page: Page
    comparison: Comparison
    duplicates: Sequence[Sequence[str]] = ()

    @property
    def chosen_on_test(self) -> list[str]:
        """The experiments that choose their best epoch on the test images."""
        experiments = self.page["experiments"]
        return [one["name"] for one in experiments if one["spec"]["validation"] == "test"]


def diagnose(
    page: Page,
    results: Results,
    comparison: Comparison,
    *,
    duplicates: Sequence[Sequence[str]] = (),
) -> list[Finding]:
    """Every finding on a notebook: those on the whole of it first, then by experiment.

    `duplicates` are the prepared data's [name, split, name, split]. The page's `diagnoses` hold
    `mute`, a list of codes (`OVERFIT`) or codes of one experiment (`OVERFIT:train1`), and
    `thresholds`, changed ones by name. What only recorded figures show is marked `recorded`; they
    are held against the class shares of the first run that was measured.
    """
    limits, prior = thresholds_of(page), _first_prior(page, results)
    found = _look("notebook", "", NotebookSeen(page, comparison, duplicates), limits)
    rows = {row["experiment"]: row for row in comparison.rows.to_dict("records")}
    for experiment in page["experiments"]:
        name, spec = experiment["name"], experiment["spec"]
        by_seed = {
            seed: diagnose_run(name, results.run(run), limits)
            for seed, run in experiment["runs"].items()
        }
        measured = _merged(by_seed)
        recorded = diagnose_recorded(
            name, experiment["recorded"], classes=count_classes(spec), prior=prior, limits=limits
        )
        found += measured
        found += _look("experiment", name, ExperimentSeen(name, rows, comparison), limits)
        found += [one for one in recorded if one.code not in {m.code for m in measured}]
    return unmuted(found, page)


def thresholds_of(page: Page) -> Thresholds:
    """Where a page draws the rules' lines."""
    return Thresholds(**page["diagnoses"]["thresholds"])


def unmuted(found: Sequence[Finding], page: Page) -> list[Finding]:
    """Those that the page does not mute, everywhere or for their experiment."""
    mute = page["diagnoses"]["mute"]
    return [
        one for one in found if one.code not in mute and f"{one.code}:{one.experiment}" not in mute
    ]


def diagnose_run(experiment: str, run: RunFiles, limits: Thresholds) -> list[Finding]:
    """The findings on one run from its history.csv and metrics.json, whichever are there.

    Raises:
        DamagedError: one of them is there and cannot be read.
    """
    metrics = _if_there(read_metrics, run)
    if metrics and (epoch := metrics.get("diverged")) is not None:
        return [Finding("NAN", experiment, {"epoch": epoch}, "" if epoch else "inherited")]
    seen = RunSeen(history=_if_there(read_history, run))
    if metrics:
        if trouble := metrics.get("trouble"):
            seen = replace(seen, trouble={"epoch": metrics["epoch"], "trouble": trouble[0]})
        if measured := _measured(metrics):
            figures = Recorded(
                val_loss=measured["log_loss"], val_accuracy=measured["accuracy"]["value"]
            )
            classes, prior = len(metrics["class_names"]), Prior.of(measured)
            seen = replace(seen, figures=figures, classes=classes, prior=prior)
    return _look("run", experiment, seen, limits)


def diagnose_recorded(
    experiment: str,
    recorded: Recorded,
    *,
    classes: int,
    prior: Prior | None = None,
    limits: Thresholds | None = None,
) -> list[Finding]:
    """What bare figures that someone wrote down already tell; `prior` where it is known."""
    found = _look("run", experiment, RunSeen(recorded, classes, prior), limits or Thresholds())
    return [replace(one, recorded=True) for one in found]


def finds(code: str) -> Callable[[Rule], Rule]:
    """Binds a rule to its diagnosis: (what is seen of its scope, the thresholds) to what shows it,
    or None."""

    def bind(rule: Rule) -> Rule:
        RULES[code] = rule
        return rule

    return bind


@finds("NAN")
def not_a_number(run: RunSeen, limits: Thresholds) -> Shown | None:
    """Loss became NaN or infinite, or the net's answers did."""
    if history := run.history:
        broken = ~np.isfinite(history["loss"]) | ~np.isfinite(history["val_loss"])
        if broken.any():
            return Shown({"epoch": int(history["epoch"][broken.argmax()])})
    return Shown(run.trouble, "answers") if run.trouble else None


@finds("PRIOR-COLLAPSE")
def prior_collapse(run: RunSeen, limits: Thresholds) -> Shown | None:
    """The net answers how often each class occurs: its loss is the prior's entropy.

    A net that has learnt something can have the same figures by chance, so where the prior is not
    known it is told as a possibility.
    """
    loss, accuracy = run.figures.get("val_loss"), run.figures.get("val_accuracy")
    if loss is None or accuracy is None:
        return None
    prior = run.prior or Prior.guessed(accuracy, run.classes)
    close = limits.prior_loss if run.prior else limits.prior_loss_recorded
    near = abs(loss - prior.entropy) <= close * prior.entropy
    if not near or accuracy > prior.majority + limits.prior_accuracy or prior.majority == 1:
        return None
    evidence = {"loss": loss, "accuracy": accuracy, **prior._asdict()}
    return Shown(evidence, "" if run.prior else "guessed")


@finds("SATURATED")
def saturated(run: RunSeen, limits: Thresholds) -> Shown | None:
    """Wrong answers are given with certainty, and the loss is worse than a blind guess."""
    loss, accuracy = run.figures.get("val_loss"), run.figures.get("val_accuracy")
    if loss is None or accuracy is None or accuracy == 1 or prior_collapse(run, limits):
        return None
    each, guess = loss / (1 - accuracy), math.log(run.classes)
    if each < limits.saturated_loss or loss <= guess:
        return None
    return Shown({"loss": loss, "accuracy": accuracy, "each": each, "guess": guess})


@finds("OVERFIT")
def overfit(run: RunSeen, limits: Thresholds) -> Shown | None:
    """The gap between training and validation grows while validation loss rises; of bare figures,
    the gap alone."""
    history = run.history
    if history is None:
        train, validation = run.figures.get("train_accuracy"), run.figures.get("val_accuracy")
        if train is None or validation is None:
            return None
        if (between := train - validation) < limits.overfit_gap_recorded:
            return None
        return Shown({"train": train, "validation": validation, "gap": between}, "figures")
    loss = history["val_loss"]
    if len(loss) < 3 or not np.isfinite(loss).all():
        return None
    if (lowest := int(loss.argmin())) == len(loss) - 1:
        return None
    tail = slice(max(lowest + 1, len(loss) - 3), None)
    gap = history["accuracy"] - history["val_accuracy"]
    last, rise = float(loss[tail].mean()), float(loss[tail].mean() / loss[lowest] - 1)
    growth = float(gap[tail].mean() - gap[lowest])
    if rise < limits.overfit_rise or growth < limits.overfit_gap:
        return None
    return Shown({
        "epoch": int(history["epoch"][lowest]), "lowest": float(loss[lowest]), "last": last,
        "rise": rise, "gap": float(gap[tail].mean()), "growth": growth,
    })  # fmt: skip


@finds("UNDERTRAINED")
def undertrained(run: RunSeen, limits: Thresholds) -> Shown | None:
    """Validation still improves when training ends."""
    if run.history is None:
        return None
    loss, epochs = run.history["val_loss"], len(run.history)
    if epochs < 3 or not np.isfinite(loss).all():
        return None
    window = max(1, min(3, epochs // 3))
    last, before = float(loss[-window:].mean()), float(loss[-2 * window : -window].mean())
    gain = 1 - last / before if before > 0 else 0.0
    late = int(loss.argmin()) >= epochs - max(1, math.ceil(limits.undertrained_end * epochs))
    if gain < limits.undertrained_gain or not late:
        return None
    return Shown({"epochs": epochs, "window": window, "last": last, "before": before, "gain": gain})


@finds("LR-TOO-HIGH")
def learning_rate_too_high(run: RunSeen, limits: Thresholds) -> Shown | None:
    """Training loss, which should fall, keeps rising or jumps."""
    history = run.history
    if history is None or len(history) < 4:
        return None
    loss = history["loss"]
    if not np.isfinite(loss).all() or not (loss > 0).all():
        return None
    rates = history["learning_rate"][1:]  # in force in the epochs that can rise
    lowest = np.minimum.accumulate(loss)[:-1]
    jump = int((loss[1:] / lowest).argmax())
    low, high = float(lowest[jump]), float(loss[jump + 1])
    if high >= limits.lr_spike * low and high - low > JUMP:
        epoch = int(history["epoch"][jump + 1])
        return Shown({"rate": float(rates[jump]), "low": low, "high": high, "epoch": epoch})
    # what a loss does that is almost zero is noise, not a step too far
    rises = (loss[1:] > loss[:-1] * (1 + limits.lr_rise)) & (np.diff(loss) > RISE)
    if not rises.any() or rises.mean() < limits.lr_share:
        return None
    rate = float(rates[rises].max())
    return Shown({"rate": rate, "n": int(rises.sum()), "epochs": len(rises)}, "rises")


@finds("CHERRY-PICKED")
def cherry_picked(notebook: NotebookSeen, limits: Thresholds) -> Shown | None:
    """The best epoch is chosen on the split that is reported."""
    chosen = notebook.chosen_on_test
    return Shown({"experiments": chosen}) if chosen else None


@finds("LEAK")
def leak(notebook: NotebookSeen, limits: Thresholds) -> Shown | None:
    """The same image is in a split that is trained on and in one that is measured on."""
    trained = {"train", "validation"} if notebook.chosen_on_test else {"train"}
    across = [
        list(pair) for pair in notebook.duplicates if (pair[1] in trained) != (pair[3] in trained)
    ]
    if not across or len(across) < limits.leak_images:
        return None
    first = dict(zip(("image", "split", "other", "other_split"), across[0], strict=True))
    return Shown({"n": len(across), **first, "pairs": across})


@finds("SMALL-TEST")
def small_test(notebook: NotebookSeen, limits: Thresholds) -> Shown | None:
    """Most experiments are closer to each other than the images, or images and seeds, can tell."""
    pairs = notebook.comparison.pairs
    if pairs.empty:
        return None
    half = (pairs["high"] - pairs["low"]) / 2
    close = pairs["difference"].abs() < half
    if close.mean() <= limits.small_test_share:
        return None
    by_both = (pairs["covers"][close] == COVERS_BOTH).mean() > 0.5
    by_seeds = np.isinf(pairs["images_needed"][close]).mean() > 0.5
    evidence: Evidence = {
        "close": int(close.sum()), "pairs": len(pairs), "images": int(pairs["images"].iloc[0]),
        "split": str(pairs["split"].iloc[0]), "detectable": float(pairs["detectable"].median()),
        "middle": float(pairs["difference"].abs().median()),
    }  # fmt: skip
    return Shown(evidence, "" if by_both else "images", "more seeds" if by_seeds else "")


@finds("SEED-NOISE")
def seed_noise(experiment: ExperimentSeen, limits: Thresholds) -> Shown | None:
    """Its gain over its parent is no larger than the seeds are apart."""
    rows, comparison = experiment.rows, experiment.comparison
    row = rows.get(experiment.name)
    if row is None:
        return None
    parent = rows.get(row["parent"] if row["parent"] in rows else comparison.baseline)
    if parent is None or parent is row:
        return None
    spreads = [_deviation(one[f"{comparison.metric}_values"]) for one in (row, parent)]
    known = [spread for spread in spreads if spread is not None]
    gain = float(row[comparison.metric] - parent[comparison.metric])
    if not known or not gain > 0 or max(known) < limits.seed_noise_ratio * gain:
        return None
    return Shown({"gain": gain, "parent": str(parent["experiment"]), "deviation": max(known)})


def count_classes(spec: Spec) -> int:
    """How many classes a resolved spec's last Dense tells apart; one sigmoid unit tells two."""
    for layer in reversed(spec["layers"]):
        if "units" in layer.get("config", {}):
            return max(2, int(layer["config"]["units"]))
    return 2


def _look(scope: Scope, experiment: str, seen: object, limits: Thresholds) -> list[Finding]:
    """What the rules of a scope find, in the order of the diagnoses."""
    return [
        Finding(code, experiment, *shown)
        for code, one in DIAGNOSES.items()
        if one.scope == scope and (shown := RULES[code](seen, limits))
    ]


def _if_there(read: Callable[[RunFiles], T], run: RunFiles) -> T | None:
    try:
        return read(run)
    except MissingError:
        return None


def _measured(metrics: Metrics) -> SplitMetrics | None:
    """The figures of the images that chose the epoch."""
    return metrics["splits"].get(metrics["validation"])


def _first_prior(page: Page, results: Results) -> Prior | None:
    """Of the images that choose the epoch, as the first measured run has them."""
    for experiment in page["experiments"]:
        for run in experiment["runs"].values():
            metrics = _if_there(read_metrics, results.run(run))
            if metrics and (measured := _measured(metrics)):
                return Prior.of(measured)
    return None


def _merged(by_seed: dict[int, list[Finding]]) -> list[Finding]:
    """One finding a code, with the seeds that show it and the first one's evidence."""
    first: dict[str, Finding] = {}
    seeds: dict[str, tuple[int, ...]] = {}
    for seed, found in by_seed.items():
        for one in found:
            first.setdefault(one.code, one)
            seeds[one.code] = (*seeds.get(one.code, ()), seed)
    return [replace(first[code], seeds=seeds[code]) for code in DIAGNOSES if code in first]


def _deviation(values: str) -> float | None:
    numbers = [float(value) for value in str(values).split(";") if value not in ("", "nan")]
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None

"""Compare the runs of a notebook: a row an experiment (compare.csv), a row a pair (comparisons)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scratchbook.comparison.changes import changes
from scratchbook.comparison.runs import (
    SPLITS,
    Experiment,
    Images,
    check_same,
    read_answers,
    read_experiment,
)
from scratchbook.comparison.statistics import (
    Answers,
    SeedSpread,
    accuracies_interval,
    accuracy_interval,
    bca_interval,
    detectable,
    difference,
    difference_p,
    holm,
    images_needed,
    mcnemar,
    seed_spreads,
    summarise,
)
from scratchbook.comparison.verdict import COVERS_BOTH, COVERS_IMAGES, pair_verdict
from scratchbook.config.errors import ScratchbookError
from scratchbook.evaluation import LEVEL

ALL_PAIRS_UP_TO = 50
RESAMPLES = 4000
MEASURED = ("train_accuracy", "val_accuracy", "test_accuracy")
LOSSES = ("train_loss", "val_loss", "test_loss")
AVERAGED = (
    "best_epoch", "epochs", "gap", "seconds", "images_per_second",
    "multiply_adds", "training_flops",
)  # fmt: skip
COLUMNS = [
    "experiment",
    "id",
    "parent",
    "changes",
    "group",
    "point",
    "parameters",
    "trainable",
    "seeds",
    "status",
    "best_epoch",
    "epochs",
    *(f"{name}{part}" for name in MEASURED for part in ("", "_low", "_high", "_values")),
    "interval_covers",
    "gap",
    *(f"{name}{part}" for name in LOSSES for part in ("", "_values")),
    "baseline_difference",
    "baseline_difference_low",
    "baseline_difference_high",
    "recorded",
    "recorded_metric",
    "recorded_difference",
    "seconds",
    "images_per_second",
    "multiply_adds",
    "training_flops",
    "reached_epoch",
    "reached_flops",
    "precision",
    "tie",
]
PAIR_COLUMNS = [
    "first",
    "second",
    "split",
    "images",
    "first_seeds",
    "second_seeds",
    "first_accuracy",
    "second_accuracy",
    "difference",
    "low",
    "high",
    "covers",
    "only_first",
    "only_second",
    "mcnemar_p",
    "p",
    "p_holm",
    "detectable",
    "images_needed",
    "better",
    "verdict",
]


@dataclass(frozen=True)
class Comparison:
    """`rows` is compare.csv, best first, and `pairs` comparisons.csv, in the order of the page.

    `split` is the split that experiments are ranked and paired on; `detectable` the smallest
    difference that it could show between two typical experiments (None without a pair).
    """

    rows: pd.DataFrame
    pairs: pd.DataFrame
    metric: str
    split: str
    baseline: str | None
    detectable: float | None


def compare(
    page: dict[str, Any],
    results: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    partial: bool = False,
) -> Comparison:
    """Compare every experiment of `page` with the runs found under results/{notebook}.

    All pairs up to 50 experiments, beyond that each against the baseline (the page's, or its
    first). A run that is missing or failed leaves a row that says so. Raises ScratchbookError,
    naming both runs, where two runs were measured on different images; for a `partial` page such a
    run counts as failed, since it may only wait to be run on the new data.
    """
    folder = Path(results) / page["name"]
    declared = [
        read_experiment(one, page["seeds"], folder, page.get("reach"))
        for one in page["experiments"]
    ]
    metric = page.get("metric", "test_accuracy")
    split, answers = _read_all(declared, metric, partial)
    baseline = page.get("baseline") or (declared[0].name if declared else None)
    pairs = _pairs([x.name for x in declared], baseline, answers, split, resamples, seed, level)

    specs = {x.name: x.declared["spec"] for x in declared}
    spreads = {
        name: dict(zip(specs, seed_spreads([x.values(name) for x in declared]), strict=True))
        for name in MEASURED
    }
    rows = pd.DataFrame(
        [_row(x, specs, spreads, answers.get(x.name), metric, level) for x in declared],
        columns=COLUMNS,
    )
    rows = rows.sort_values(metric, ascending=False, kind="stable", na_position="last")
    rows = rows.reset_index(drop=True)
    _add_baseline(rows, pairs, baseline)
    rows["tie"] = _ties(rows, metric, answers, level)
    typical = float(pairs["detectable"].median()) if len(pairs) else None
    return Comparison(rows, pairs, metric, split, baseline, typical)


def _read_all(
    declared: list[Experiment], metric: str, partial: bool
) -> tuple[str, dict[str, Answers]]:
    """The split compared on, and every experiment's right and wrong answers on it."""
    prefix = metric.removesuffix("_accuracy")
    if prefix not in ("val", "test"):
        raise ScratchbookError(
            f"metric: {metric!r} cannot rank experiments; write test_accuracy or val_accuracy"
        )
    images: Images | None = None
    answers: dict[str, np.ndarray] = {}
    for experiment in declared:
        correct, kept = [], []
        for run in experiment.runs:
            split = run.validation if prefix == "val" else SPLITS[prefix]
            try:
                right, here = read_answers(run, split)
            except ScratchbookError as error:
                experiment.trouble.append(f"seed {run.seed} {error}")
                continue
            images = images or here
            try:
                check_same(images, here)
            except ScratchbookError as error:
                if not partial:
                    raise
                experiment.trouble.append(str(error))
                continue
            correct.append(right)
            kept.append(run)
        experiment.runs = kept
        if correct:
            answers[experiment.name] = np.stack(correct)
    found = dict(zip(answers, summarise(list(answers.values())), strict=True))
    return images.split if images else SPLITS[prefix], found


def _row(
    experiment: Experiment,
    specs: dict[str, dict[str, Any]],
    spreads: dict[str, dict[str, SeedSpread]],
    answers: Answers | None,
    metric: str,
    level: float,
) -> dict[str, Any]:
    declared = experiment.declared
    parent = declared.get("parent")
    row: dict[str, Any] = {
        "experiment": experiment.name,
        "parent": parent or "",
        "changes": "; ".join(changes(specs[parent], declared["spec"])) if parent in specs else "",
        "group": declared.get("group", ""),
        "point": "; ".join(f"{path}={value}" for path, value in declared.get("point", {}).items()),
        "seeds": len(experiment.runs),
        "status": experiment.status,
        "interval_covers": "",
    }
    if not experiment.runs:
        return row
    first = experiment.runs[0]
    row |= {key: first.figures[key] for key in ("id", "parameters", "trainable")}
    if answers is not None:
        row["interval_covers"] = _covers(answers.spread.degrees > 0)
    row["precision"] = "; ".join(dict.fromkeys(r.figures["precision"] for r in experiment.runs))
    for name in (*AVERAGED, *LOSSES):
        row[name] = _mean(experiment.values(name))
    for name in ("reached_epoch", "reached_flops"):
        values = experiment.values(name)
        if len(values) == len(experiment.runs):  # a seed that never gets there has no epoch
            row[name] = _mean(values)
    for name in (*MEASURED, *LOSSES):
        row[f"{name}_values"] = ";".join(f"{value:.6g}" for value in experiment.values(name))
    for name in MEASURED:
        values = experiment.values(name)
        if not values:
            continue
        row[name] = _mean(values)
        if name == metric and answers is not None:
            low, high = accuracy_interval(answers, level)
        else:
            images = first.images[name.removesuffix("_accuracy")]
            spread = spreads[name][experiment.name]
            low, high = accuracies_interval(values, images, spread, level)
        row[f"{name}_low"], row[f"{name}_high"] = low, high
    return row | _recorded(declared.get("recorded") or {}, row, metric)


def _recorded(recorded: dict[str, Any], row: dict[str, Any], metric: str) -> dict[str, Any]:
    """The recorded figure nearest to the notebook's metric, and how far the measured one is."""
    for name in (metric, "val_accuracy", "test_accuracy", "train_accuracy"):
        value = recorded.get(name)
        if value is not None:
            measured = row.get(name, np.nan)
            return {
                "recorded": value,
                "recorded_metric": name,
                "recorded_difference": measured - value,
            }
    return {}


def _pairs(
    names: Sequence[str],
    baseline: str | None,
    answers: dict[str, Answers],
    split: str,
    resamples: int,
    seed: int,
    level: float,
) -> pd.DataFrame:
    usable = [name for name in names if name in answers]
    if len(names) <= ALL_PAIRS_UP_TO:
        couples = list(combinations(usable, 2))
    elif baseline in answers:
        couples = [(baseline, name) for name in usable if name != baseline]
    else:
        couples = []
    rows = []
    for position, (first, second) in enumerate(couples):
        a, b = answers[first], answers[second]
        found = difference(a, b)
        rng = np.random.default_rng([seed, position])
        low, high = bca_interval(found, rng, resamples, level)
        exact = mcnemar(a, b)
        rows.append(
            {
                "first": first,
                "second": second,
                "split": split,
                "images": found.images,
                "first_seeds": a.seeds,
                "second_seeds": b.seeds,
                "first_accuracy": a.accuracy,
                "second_accuracy": b.accuracy,
                "difference": found.value,
                "low": low,
                "high": high,
                "covers": _covers(found.seeds_known),
                "only_first": float((found.counts * np.maximum(-found.values, 0)).sum()),
                "only_second": float((found.counts * np.maximum(found.values, 0)).sum()),
                "mcnemar_p": exact,
                "p": difference_p(found) if found.seeds_known else exact,
                "detectable": detectable(found, level),
                "images_needed": images_needed(found, level) if found.value else np.nan,
            }
        )
    table = pd.DataFrame(rows, columns=PAIR_COLUMNS)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    clear = (table["low"] > 0) | (table["high"] < 0)
    wins = clear & (table["p_holm"] < round(1 - level, 9))
    winner = table["second"].where(table["difference"] > 0, table["first"])
    table["better"] = winner.where(wins, "")
    table["verdict"] = [pair_verdict(row, len(table), level) for row in table.to_dict("records")]
    return table


def _add_baseline(rows: pd.DataFrame, pairs: pd.DataFrame, baseline: str | None) -> None:
    """Fill the difference of every experiment to the baseline from the pairs that hold both."""
    found: dict[str, tuple[float, float, float]] = {}
    for pair in pairs.to_dict("records"):
        if pair["first"] == baseline:
            found[pair["second"]] = (pair["difference"], pair["low"], pair["high"])
        elif pair["second"] == baseline:
            found[pair["first"]] = (-pair["difference"], -pair["high"], -pair["low"])
    nothing = (np.nan, np.nan, np.nan)
    columns = [f"baseline_difference{part}" for part in ("", "_low", "_high")]
    rows[columns] = [found.get(name, nothing) for name in rows["experiment"]]


def _ties(rows: pd.DataFrame, metric: str, answers: dict[str, Answers], level: float) -> list[bool]:
    """Which experiments the best one does not beat; the best itself only if another ties."""
    if rows.empty or rows["experiment"][0] not in answers:
        return [False] * len(rows)
    best = answers[rows["experiment"][0]]
    others = [answers.get(name) for name in rows["experiment"][1:]]
    p = []
    for other in others:
        if other is None:
            p.append(0.0)
            continue
        found = difference(other, best)
        p.append(difference_p(found) if found.seeds_known else mcnemar(other, best))
    tied = [
        other is not None and adjusted >= round(1 - level, 9)
        for other, adjusted in zip(others, holm(np.array(p)), strict=True)
    ]
    return [any(tied), *tied]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def _covers(seeds_known: bool) -> str:
    """What an interval takes into account, given what is known of the seeds."""
    return COVERS_BOTH if seeds_known else COVERS_IMAGES

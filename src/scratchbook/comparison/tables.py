"""Compare the runs of a notebook: a row an experiment (compare.csv), a row a pair (comparisons)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from scratchbook.changes import changes
from scratchbook.comparison.runs import (
    Experiment,
    Images,
    check_same,
    read_answers,
    read_experiment,
    same_runs,
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
from scratchbook.comparison.verdict import COVERS_BOTH, COVERS_IMAGES, Pair, pair_verdict
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import LEVEL
from scratchbook.figures import COMPARED, PREFIXES, fields
from scratchbook.results.paths import Results
from scratchbook.results.records import RunRow
from scratchbook.specs import Recorded, Spec, Trial

ALL_PAIRS_UP_TO = 50
RESAMPLES = 4000
COLUMNS = [
    "experiment", "id", "parent", "changes", "group", "point", *fields("size"),
    "seeds", "status", *fields("course"),
    *fields("accuracy"), "interval_covers", *fields("gap"), *fields("loss"),
    "baseline_difference", "baseline_difference_low", "baseline_difference_high",
    "recorded", "recorded_metric", "recorded_difference",
    *fields("cost"), "precision", "tie", *fields("more"),
]  # fmt: skip
Row = dict[str, Any]
"""A row of compare.csv: the value of each of `COLUMNS`."""


PAIR_COLUMNS = list(Pair.__annotations__)


@dataclass(frozen=True)
class Comparison:
    """`rows` is compare.csv, best by `metric` first, and `pairs` comparisons.csv, in the page's
    order."""

    rows: pd.DataFrame
    pairs: pd.DataFrame
    metric: str
    baseline: str
    runs: list[RunRow] = field(default_factory=list)
    """runs.csv: which run is whose."""


def compare(
    page: Trial,
    results: Results,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    partial: bool = False,
) -> Comparison:
    """Compare every experiment of `page` with the runs found among the results.

    All pairs up to 50 experiments, beyond that each against the baseline (the page's, or its
    first). A run that is missing or failed leaves a row that says so. Raises ScratchbookError,
    naming both runs, where two runs were measured on different images; for a `partial` page such a
    run counts as failed, since it may only wait to be run on the new data.
    """
    declared = [read_experiment(one, results, page["reach"]) for one in page["experiments"]]
    twins = same_runs(page)
    for experiment in declared:
        experiment.same_as = twins.get(experiment.name)
    metric, baseline = page["metric"], page["baseline"]
    split, answers = _read_all(declared, metric, partial)
    single = [x for x in declared if not x.same_as]
    pairs = _pairs([x.name for x in single], baseline, answers, split, resamples, seed, level)

    specs = {x.name: x.declared["spec"] for x in declared}
    same = {x.name: x.same_as or x.name for x in declared}
    spreads: dict[str, dict[str, SeedSpread]] = {}
    for name, figure in COMPARED.items():
        if figure.interval:
            found = seed_spreads([x.values(name) for x in single])
            of_single = {x.name: spread for x, spread in zip(single, found, strict=True)}
            spreads[name] = {one: of_single[first] for one, first in same.items()}
    rows = pd.DataFrame(
        [_row(x, specs, spreads, answers.get(x.name), metric, level) for x in declared],
        columns=COLUMNS,
    )
    falling = bool(COMPARED[metric].higher_is_better)
    rows = rows.sort_values(metric, ascending=not falling, kind="stable", na_position="last")
    rows = rows.reset_index(drop=True)
    _add_baseline(rows, pairs, baseline)
    ranked = list(dict.fromkeys(same[name] for name in rows["experiment"]))
    ties = dict(zip(ranked, _ties(ranked, answers, level), strict=True))
    rows["tie"] = [ties[same[name]] for name in rows["experiment"]]
    runs = [
        RunRow(experiment=one["name"], seed=seed, run=run, fold="")
        for one in page["experiments"]
        for seed, run in one["runs"].items()
    ]
    return Comparison(rows, pairs, metric, baseline, runs)


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
            split = run.measured.split_name(prefix)
            try:
                right, here = read_answers(run, split)
            except ScratchbookError as error:
                experiment.miss(run.seed, error)
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
    single = {x.name: answers[x.name] for x in declared if x.name in answers and not x.same_as}
    found = dict(zip(single, summarise(list(single.values())), strict=True))
    found |= {x.name: found[x.same_as] for x in declared if x.same_as in found}
    return images.split if images else PREFIXES[prefix], found


def _row(
    experiment: Experiment,
    specs: dict[str, Spec],
    spreads: dict[str, dict[str, SeedSpread]],
    answers: Answers | None,
    metric: str,
    level: float,
) -> Row:
    declared, parent = experiment.declared, experiment.declared["parent"]
    row: Row = {
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
    records = [run.measured.record for run in experiment.runs]
    row["id"] = records[0]["id"]
    row["precision"] = "; ".join(dict.fromkeys(record["precision"] for record in records))
    if answers is not None:
        row["interval_covers"] = _covers(answers.spread.degrees > 0)
    for name, figure in COMPARED.items():
        values = experiment.values(name)
        row[name] = figure.over_seeds(values, len(records))
        if f"{name}_values" in figure.fields:
            row[f"{name}_values"] = ";".join(f"{value:.6g}" for value in values)
        if not (figure.interval and values):
            continue
        if name == metric and answers is not None:
            low, high = accuracy_interval(answers, level)
        else:
            images = experiment.runs[0].measured.images(name)
            spread = spreads[name][experiment.name]
            low, high = accuracies_interval(values, images, spread, level)
        row[f"{name}_low"], row[f"{name}_high"] = low, high
    return row | _recorded(declared["recorded"], row, metric)


def _recorded(recorded: Recorded, row: Row, metric: str) -> Row:
    """The recorded figure nearest to the notebook's metric, and how far the measured one is."""
    written: dict[str, Any] = {**recorded}
    for name in (metric, "val_accuracy", "test_accuracy", "train_accuracy"):
        if (value := written.get(name)) is not None:
            return {"recorded": value, "recorded_metric": name,
                    "recorded_difference": row[name] - value}  # fmt: skip
    return {}


def _pairs(
    names: Sequence[str],
    baseline: str,
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
    pairs: list[Pair] = []
    for position, (first, second) in enumerate(couples):
        a, b = answers[first], answers[second]
        found = difference(a, b)
        rng = np.random.default_rng([seed, position])
        low, high = bca_interval(found, rng, resamples, level)
        exact = mcnemar(a, b)
        pairs.append({
            "first": first, "second": second, "split": split, "images": found.images,
            "first_seeds": a.seeds, "second_seeds": b.seeds,
            "first_accuracy": a.accuracy, "second_accuracy": b.accuracy,
            "difference": found.value, "low": low, "high": high,
            "covers": _covers(found.seeds_known),
            "only_first": float((found.counts * np.maximum(-found.values, 0)).sum()),
            "only_second": float((found.counts * np.maximum(found.values, 0)).sum()),
            "mcnemar_p": exact, "p": difference_p(found) if found.seeds_known else exact,
            "p_holm": np.nan, "detectable": detectable(found, level),
            "images_needed": images_needed(found, level) if found.value else np.nan,
            "better": "", "verdict": "",
        })  # fmt: skip
    for pair, adjusted in zip(pairs, holm(np.array([pair["p"] for pair in pairs])), strict=True):
        pair["p_holm"] = adjusted
        if (pair["low"] > 0 or pair["high"] < 0) and adjusted < round(1 - level, 9):
            pair["better"] = pair["second"] if pair["difference"] > 0 else pair["first"]
        pair["verdict"] = pair_verdict(pair, len(pairs), level)
    return pd.DataFrame(pairs, columns=PAIR_COLUMNS)


def _add_baseline(rows: pd.DataFrame, pairs: pd.DataFrame, baseline: str) -> None:
    """Fill the difference of every experiment to the baseline from the pairs that hold both."""
    found = {}
    for pair in pairs.to_dict("records"):
        if pair["first"] == baseline:
            found[pair["second"]] = (pair["difference"], pair["low"], pair["high"])
        elif pair["second"] == baseline:
            found[pair["first"]] = (-pair["difference"], -pair["high"], -pair["low"])
    nothing = (np.nan, np.nan, np.nan)
    columns = [f"baseline_difference{part}" for part in ("", "_low", "_high")]
    rows[columns] = [found.get(name, nothing) for name in rows["experiment"]]


def _ties(ranked: Sequence[str], answers: dict[str, Answers], level: float) -> list[bool]:
    """Which experiments, best first, the best one does not beat; the best itself only if another
    ties."""
    if not ranked or ranked[0] not in answers:
        return [False] * len(ranked)
    best = answers[ranked[0]]
    others = [answers.get(name) for name in ranked[1:]]
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


def _covers(seeds_known: bool) -> str:
    """What an interval takes into account, given what is known of the seeds."""
    return COVERS_BOTH if seeds_known else COVERS_IMAGES

"""A notebook as its files tell it: a page and the results in, what is there and what is not.

Nothing is measured here: every figure comes from a file that an earlier stage wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from scratchbook.comparison import Claim, Comparison, resolve_claim
from scratchbook.comparison.runs import diverged, same_runs
from scratchbook.comparison.tables import COLUMNS, PAIR_COLUMNS, Row
from scratchbook.comparison.verdict import Pair, pair_verdict
from scratchbook.config.claims import settings_of
from scratchbook.diagnoses import Finding, diagnose
from scratchbook.errors import ScratchbookError
from scratchbook.keys import cam_key
from scratchbook.language import tr, tr_n
from scratchbook.provenance import mixtures
from scratchbook.results.errors import DamagedError, MissingError, readable
from scratchbook.results.hdf5 import maps_missing, open_predictions
from scratchbook.results.paths import NotebookFiles, Results, RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import (
    end_of_log,
    read_history,
    read_metrics,
    read_record,
    read_table,
)
from scratchbook.results.records import History, Metrics, RunRecord
from scratchbook.specs import DeclaredExperiment, KeyResult, Page, Spec

MISTAKES = 12  # that are shown
CONFUSED = 15  # pairs of classes that are listed
ILLUSTRATED = 150  # experiments with figures of their own
TABLE_CLASSES = 20  # a confusion matrix of more is drawn, not written


@dataclass(frozen=True)
class Run:
    """One seed of an experiment, trained and perhaps evaluated."""

    seed: int
    files: RunFiles
    record: RunRecord
    history: History
    metrics: Metrics | None
    maps: Path | None
    """Of Grad-CAM, where the notebook asks for it; they may not be there."""
    drift: Path


@dataclass(frozen=True)
class Experiment:
    """An experiment as declared, the runs it has, what it lacks, and its row of compare.csv (may
    be empty)."""

    declared: DeclaredExperiment
    runs: list[Run]
    missing: list[str]
    remarks: list[str]
    """What is as it should be and still to be known: a run that diverged, or was left out."""
    row: Row

    @property
    def name(self) -> str:
        return self.declared["name"]

    @property
    def record(self) -> RunRecord | None:
        """Of its first run, which tells what all have in common."""
        return self.runs[0].record if self.runs else None

    @property
    def evaluated(self) -> tuple[Run, Metrics] | None:
        """The first run with figures of the test images."""
        for run in self.runs:
            if run.metrics and "test" in run.metrics["splits"]:
                return run, run.metrics
        return None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer on a test image, uint8 (h, w, 3) or None where the data are not there."""

    picture: np.ndarray | None
    true: str
    predicted: str
    probability: float
    name: str


@dataclass(frozen=True)
class Notebook:
    """A page with all that its results folder holds; `problems` tells what it does not, and
    `remarks` what else a reader must know of its runs."""

    page: Page
    experiments: list[Experiment]
    rows: list[Row]
    pairs: list[Pair]
    data: Prepared | None
    claims: list[tuple[Claim, float | None]]
    diagnoses: list[Finding]
    problems: list[str]
    remarks: list[str]

    @property
    def name(self) -> str:
        return self.page["name"]

    @property
    def title(self) -> str:
        return self.page["title"] or self.name

    @property
    def baseline_pairs(self) -> list[Pair]:
        """The comparisons that the baseline is part of."""
        baseline = self.page["baseline"]
        return [pair for pair in self.pairs if baseline in (pair["first"], pair["second"])]

    @cached_property
    def specs(self) -> dict[str, Spec]:
        """The resolved spec of each experiment."""
        return {one["name"]: one["spec"] for one in self.page["experiments"]}

    @cached_property
    def diagnosed(self) -> dict[str, list[Finding]]:
        """The findings on each experiment that has some; those on the notebook under no name."""
        found: dict[str, list[Finding]] = {}
        for one in self.diagnoses:
            found.setdefault(one.experiment, []).append(one)
        return found

    @property
    def runs(self) -> list[Run]:
        return [run for experiment in self.experiments for run in experiment.runs]

    @cached_property
    def illustrated(self) -> list[Experiment]:
        """The experiments that get figures: all, or of very many the best and the baseline.

        A page with the curves of a thousand experiments takes minutes to draw and is too large to
        open; their numbers are all there.
        """
        ranked = [row["experiment"] for row in self.rows] or [x.name for x in self.experiments]
        chosen = {*ranked[:ILLUSTRATED], self.page["baseline"]}
        return [experiment for experiment in self.experiments if experiment.name in chosen]


def load_notebook(page: Page, results: Results, tables: Results | None = None) -> Notebook:
    """Reads what the results hold of a notebook. A file that is missing or broken is a problem that
    is told, never an error: a page with one failed run is still worth reading.

    Args:
        page: the notebook's text and resolved specs.
        results: of its runs.
        tables: of its comparison; `results` unless given.
    """
    compared = (tables or results).notebook(page["name"])
    problems: list[str] = []
    rows = _table(compared.compare, COLUMNS, problems)
    pairs = _table(compared.comparisons, PAIR_COLUMNS, problems)
    # Said anew from the figures: the table's own sentences are English.
    compared_pairs = cast(list[Pair], pairs.to_dict("records"))
    pairs["verdict"] = [pair_verdict(pair, len(pairs)) for pair in compared_pairs]
    shown: list[Row] = _records(rows)
    by_name = {row["experiment"]: row for row in shown}
    same = same_runs(page)
    experiments = [
        _load_experiment(
            declared,
            page,
            results,
            compared,
            by_name.get(declared["name"], {}),
            same.get(declared["name"]),
        )
        for declared in page["experiments"]
    ]
    problems += [f"{one.name}: {text}" for one in experiments for text in one.missing]
    remarks = [f"{one.name}: {text}" for one in experiments for text in one.remarks]
    remarks += _mixtures(experiments)
    settings = settings_of([experiment["spec"] for experiment in page["experiments"]])
    claims = [_claim(result, rows, settings) for result in page["key_results"]]
    data = None
    try:
        data = Prepared(results.data(page["data"]))
    except MissingError:
        pass  # the page is as well made where the data are not
    except DamagedError as error:
        problems.append(str(error))
    comparison = Comparison(rows, pairs, page["metric"], page["baseline"])
    try:
        duplicates = data.duplicates if data else []
        diagnoses = diagnose(page, results, comparison, duplicates=duplicates)
    except ScratchbookError as error:
        diagnoses = []
        problems.append(tr("nothing is diagnosed: {error}", error=error))
    return Notebook(
        page, experiments, shown, _records(pairs), data, claims, diagnoses, problems, remarks
    )


def read_pictures(data: Prepared | None, index: np.ndarray) -> list[np.ndarray | None]:
    """Images uint8 (h, w, 3) at the rows `index` of the prepared data; None where it is not."""
    images = () if data is None else data.images
    return [images[i] if 0 <= i < len(images) else None for i in map(int, index)]


def read_mistakes(run: Run, data: Prepared | None) -> list[Mistake]:
    """The most confident mistakes on the test split at the best epoch, at most 12."""
    try:
        with open_predictions(run.files.predictions) as said:
            classes, split = said.class_names, said.read("best", "test")
    except ScratchbookError:
        return []
    weights = np.exp(split.logits - split.logits.max(axis=1, keepdims=True))  # (n, classes)
    probability = weights.max(axis=1) / weights.sum(axis=1)  # (n,)
    answer = split.logits.argmax(axis=1)
    wrong = np.flatnonzero(answer != split.labels)
    wrong = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    index = split.index[wrong]
    names = None if data is None else readable(data.names_of, index)
    names = names or [tr("image {number}", number=row) for row in index]
    return [
        Mistake(picture, classes[split.labels[i]], classes[answer[i]], float(probability[i]), name)
        for i, name, picture in zip(wrong, names, read_pictures(data, index), strict=True)
    ]  # fmt: skip


def confused_pairs(
    confusion: list[list[int]], names: list[str]
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: (true, predicted, images, share of the true class)."""
    matrix = np.asarray(confusion)
    off = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-off, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(i), len(matrix)) for i in order]
    return [
        (names[i], names[j], int(off[i, j]), float(off[i, j] / matrix[i].sum()))
        for i, j in pairs
        if off[i, j]
    ]


def _load_experiment(
    declared: DeclaredExperiment,
    page: Page,
    results: Results,
    notebook: NotebookFiles,
    row: Row,
    same: str | None,
) -> Experiment:
    runs: list[Run] = []
    missing: list[str] = []
    remarks: list[str] = []
    maps = cam_key(page["cam"]) if page["cam"] else None
    absent: dict[tuple[str, str], list[int]] = {}  # (file, end of the log): seeds
    for seed, name in declared["runs"].items():
        files = results.run(name)
        try:
            record = read_record(files)
            if (epoch := record.get("diverged")) is not None:
                remarks.append(tr("seed {seed} {trouble}", seed=seed, trouble=diverged(epoch)))
                continue
            history = read_history(files)
        except MissingError as error:
            log = end_of_log(results.log(name, "train"))
            absent.setdefault((error.file.name, log), []).append(seed)
            continue
        except DamagedError as error:
            told = f"{error.file}: {error.why}"
            missing.append(tr("seed {seed} cannot be read ({error})", seed=seed, error=told))
            continue
        metrics = readable(read_metrics, files)
        if metrics is None:
            missing.append(tr("seed {seed} is not evaluated (no readable metrics.json)", seed=seed))
        else:
            missing += [
                tr("seed {seed}: {trouble}", seed=seed, trouble=text)
                for text in metrics.get("trouble", [])
            ]
        run = Run(
            seed, files, record, history, metrics,
            maps=files.cam(maps) if maps else None,
            drift=notebook.drift(declared["name"], seed),
        )  # fmt: skip
        remarks += _maps_missing(run)
        runs.append(run)
    gone = [
        tr_n(
            "seed {seeds} is missing ({file} is not there)",
            "seeds {seeds} are missing ({file} is not there)",
            len(seeds), seeds=", ".join(map(str, seeds)), file=file,
        ) + (tr("; its log ends: {lines}", lines=log) if log else "")
        for (file, log), seeds in absent.items()
    ]  # fmt: skip
    remarks += [
        tr("seed {seed} is left out, as the notebook says", seed=seed)
        for seed in declared["left_out"]
    ]
    if same:
        remarks.append(tr("these are the runs of {experiment}, counted once", experiment=same))
    return Experiment(declared, runs, gone + missing, remarks, row)


def _mixtures(experiments: list[Experiment]) -> list[str]:
    """A sentence for each thing in which runs that are compared differ though nobody asked for it.
    A run that two experiments have counts once."""
    runs: dict[Path, tuple[str, RunRecord]] = {}
    for one in experiments:
        for run in one.runs:
            name = tr("{experiment} seed {seed}", experiment=one.name, seed=run.seed)
            runs.setdefault(run.files.folder, (name, run.record))
    return [
        tr("Runs that are compared were not made alike. {mixture}.", mixture=text)
        for text in mixtures(dict(runs.values()))
    ]


def _maps_missing(run: Run) -> list[str]:
    """What of a run's maps could not be made, and why."""
    if run.maps is None or not run.maps.exists():
        return []
    why, epochs = maps_missing(run.maps)
    if why:
        return [tr("seed {seed} has no Grad-CAM: {why}", seed=run.seed, why=why)]
    if epochs:
        return [tr(
            "seed {seed}: no weights were kept of epochs {epochs}, so Grad-CAM leaves them out",
            seed=run.seed, epochs=", ".join(map(str, epochs)),
        )]  # fmt: skip
    return []


def _table(path: Path, columns: list[str], problems: list[str]) -> pd.DataFrame:
    table = readable(read_table, path, columns)
    if table is None:
        problems.append(tr("{file} is missing or unreadable: nothing is compared", file=path.name))
        return pd.DataFrame(columns=columns)
    return table


def _records(table: pd.DataFrame) -> list[Any]:
    """Rows as dicts, an empty cell as None."""
    table = table.replace([np.inf, -np.inf], np.nan)  # JSON knows neither
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _claim(
    result: KeyResult, rows: pd.DataFrame, settings: set[float]
) -> tuple[Claim, float | None]:
    text, recorded = result["text"], result["recorded"]
    try:
        if rows.empty:
            raise ScratchbookError(tr("no runs are compared yet"))
        return resolve_claim(text, rows, recorded, settings), recorded
    except ScratchbookError as error:
        return Claim(text, "not measured", str(error), ()), recorded

"""A notebook as its files tell it: a page and the results folder in, what is there and what is not.

Nothing is measured here: every figure comes from a file that an earlier stage wrote.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from scratchbook.comparison import Claim, Comparison, resolve_claim
from scratchbook.comparison.tables import COLUMNS, PAIR_COLUMNS
from scratchbook.comparison.verdict import pair_verdict
from scratchbook.config.claims import settings_of
from scratchbook.config.errors import ScratchbookError
from scratchbook.diagnoses import Diagnosis, diagnose
from scratchbook.language import tr, tr_n
from scratchbook.specs import declared_otherwise

WORDS = {"experiment", "id", "parent", "changes", "group", "point", "status", "interval_covers",
         "recorded_metric", "precision", "first", "second", "split", "covers", "better",
         "verdict"}  # fmt: skip
MISTAKES = 12
ILLUSTRATED = 150  # experiments with figures of their own
TABLE_CLASSES = 20  # a confusion matrix of more is drawn, not written
LOG_LINES = 3


@dataclass(frozen=True)
class Run:
    """One seed of an experiment: `record` is run.json, `metrics` metrics.json or None."""

    seed: int
    folder: Path
    record: dict[str, Any]
    history: pd.DataFrame
    metrics: dict[str, Any] | None


@dataclass(frozen=True)
class Experiment:
    """An experiment as declared, the runs it has, and its row of compare.csv (may be empty)."""

    declared: dict[str, Any]
    runs: list[Run]
    missing: list[str]
    row: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.declared["name"])


@dataclass(frozen=True)
class Notebook:
    """A page with all that its results folder holds; `problems` tells what it does not."""

    page: dict[str, Any]
    experiments: list[Experiment]
    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    claims: list[tuple[Claim, float | None]]
    diagnoses: list[Diagnosis]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.page["name"])

    @cached_property
    def specs(self) -> dict[str, dict[str, Any]]:
        """The resolved spec of each experiment."""
        return {one["name"]: one["spec"] for one in self.page["experiments"]}

    @cached_property
    def diagnosed(self) -> dict[str, list[Diagnosis]]:
        """The findings on each experiment that has some; those on the notebook under no name."""
        found: dict[str, list[Diagnosis]] = {}
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
        chosen = {*ranked[:ILLUSTRATED], self.page.get("baseline")}
        return [experiment for experiment in self.experiments if experiment.name in chosen]


def load_notebook(page: dict[str, Any], results: Path, tables: Path | None = None) -> Notebook:
    """Reads what `results`/{notebook} holds. A file that is missing or broken is a problem told,
    never an error: a page with one failed run is still worth reading.

    Args:
        page: the notebook's text and resolved specs.
        results: the folder that holds {notebook}/ and data/.
        tables: the folder of {notebook}/compare.csv; `results` unless given.
    """
    folder = Path(results) / page["name"]
    compared = Path(tables or results) / page["name"]
    problems: list[str] = []
    rows = _read_table(compared / "compare.csv", COLUMNS, problems)
    pairs = _read_table(compared / "comparisons.csv", PAIR_COLUMNS, problems)
    # Said anew from the figures: the table's own sentences are English.
    pairs["verdict"] = [pair_verdict(pair, len(pairs)) for pair in pairs.to_dict("records")]
    by_name = {row["experiment"]: row for row in _records(rows)}
    experiments = [
        _load_experiment(declared, page["seeds"], folder, by_name.get(declared["name"], {}))
        for declared in page["experiments"]
    ]
    for experiment in experiments:
        problems += [f"{experiment.name}: {text}" for text in experiment.missing]
    settings = settings_of([experiment["spec"] for experiment in page["experiments"]])
    claims = [_claim(result, rows, settings) for result in page["key_results"]]
    data = Path(results) / "data" / f"{page['dataset']}.h5"
    diagnoses = _diagnose(page, Path(results), rows, pairs, read_data(data), problems)
    return Notebook(page, experiments, _records(rows), _records(pairs), claims, diagnoses, problems)


def read_cam(run: Run) -> dict[str, Any] | None:
    """The arrays and attributes of a run's cam.h5, or None where there is none."""
    try:
        with h5py.File(run.folder / "cam.h5", "r") as file:
            arrays = {key: file[key][()] for key in ("maps", "epochs", "images", "labels")}
            arrays["probability"] = file["probability"][()]
            return {**arrays, **{key: _plain(value) for key, value in file.attrs.items()}}
    except (OSError, KeyError):
        return None


def read_cam_facts(run: Run) -> dict[str, str]:
    """What cam.h5 says of itself (`layer`, `method`, `grid`, `flags`), without its maps."""
    try:
        with h5py.File(run.folder / "cam.h5", "r") as file:
            told = {key: _plain(value) for key, value in file.attrs.items()}
    except OSError:
        return {}
    sides = {key: "×".join(map(str, json.loads(told[key]))) for key in ("grid", "input_size")}
    return {
        "layer": str(told["layer"]),
        "method": {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}[str(told["method"])],
        "target": str(told["target"]),
        "flags": ", ".join(json.loads(told["flags"])),
        **sides,
    }


def read_drift(run: Run) -> pd.DataFrame | None:
    """A run's drift.csv, or None where there is none."""
    try:
        table = pd.read_csv(run.folder / "drift.csv")
    except (OSError, ValueError):
        return None
    return table if "epoch" in table and len(table) else None


def read_pictures(data: Path, index: np.ndarray) -> list[np.ndarray | None]:
    """Images uint8 (h, w, 3) at the rows `index` of the prepared data; None where it is not."""
    try:
        with h5py.File(data, "r") as file:
            images = file["images"]
            return [images[i] if 0 <= i < len(images) else None for i in map(int, index)]
    except (OSError, KeyError):
        return [None] * len(index)


def read_mistakes(run: Run, data: Path) -> list[dict[str, Any]]:
    """The most confident mistakes on the test split at the best epoch, at most 12.

    Dicts of `picture` (uint8 (h, w, 3) or None), `true`, `predicted`, `probability`, `name`.
    """
    try:
        with h5py.File(run.folder / "predictions.h5", "r") as file:
            classes = json.loads(file.attrs["class_names"])
            split = file["best/test"]
            logits = split["logits"][()].astype(np.float64)  # (n, classes)
            labels, index = split["labels"][()], split["index"][()]
    except (OSError, KeyError):
        return []
    if not len(logits) or not np.isfinite(logits).all():
        return []
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = weights.max(axis=1) / weights.sum(axis=1)  # (n,)
    answer = logits.argmax(axis=1)
    wrong = np.flatnonzero(answer != labels)
    wrong = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    names = _names(data, index[wrong])
    return [
        {
            "picture": picture,
            "true": classes[labels[i]],
            "predicted": classes[answer[i]],
            "probability": float(probability[i]),
            "name": name,
        }
        for i, picture, name in zip(wrong, read_pictures(data, index[wrong]), names, strict=True)
    ]


def read_data(data: Path) -> dict[str, Any]:
    """The prepared data's account of itself; every entry is there, empty if the file is missing."""
    told: dict[str, Any] = {
        "title": "", "source": "", "sha256": "", "notes": "[]", "duplicates": "[]",
    }  # fmt: skip
    try:
        with h5py.File(data, "r") as file:
            told |= {key: _plain(file.attrs[key]) for key in told if key in file.attrs}
    except OSError:
        pass
    return told | {key: json.loads(told[key]) for key in ("notes", "duplicates")}


def confused_pairs(
    confusion: list[list[int]], names: list[str], most: int = 15
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: (true, predicted, images, share of the true class)."""
    matrix = np.asarray(confusion)
    off = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), len(matrix)) for i in order]
    return [
        (names[i], names[j], int(off[i, j]), float(off[i, j] / matrix[i].sum()))
        for i, j in pairs
        if off[i, j]
    ]


def _load_experiment(
    declared: dict[str, Any], seeds: list[int], folder: Path, row: dict[str, Any]
) -> Experiment:
    runs, missing = [], []
    absent: dict[tuple[str, str], list[int]] = {}  # (file, end of the log): seeds
    for seed in seeds:
        place = folder / declared["name"] / f"seed{seed}"
        try:
            record = json.loads((place / "run.json").read_text(encoding="utf-8"))
            history = _read_history(place / "history.csv")
        except FileNotFoundError as error:
            log = folder.parent / "logs" / folder.name / declared["name"] / place.name / "train.log"
            key = Path(str(error.filename)).name, _end_of_log(log)
            absent.setdefault(key, []).append(seed)
            continue
        except (OSError, ValueError) as error:
            missing.append(tr("seed {seed} cannot be read ({error})", seed=seed, error=error))
            continue
        if changed := declared_otherwise(declared["spec"], record.get("spec", {})):
            missing.append(
                tr(
                    "seed {seed} was trained before this was changed: {keys}",
                    seed=seed,
                    keys=", ".join(changed),
                )
            )
            continue
        metrics = None
        try:
            metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            missing.append(tr("seed {seed} is not evaluated (no readable metrics.json)", seed=seed))
        missing += [
            tr("seed {seed}: {trouble}", seed=seed, trouble=text)
            for text in (metrics or {}).get("trouble", [])
        ]
        runs.append(Run(seed, place, record, history, metrics))
    told = [
        tr_n(
            "seed {seeds} is missing ({file} is not there)",
            "seeds {seeds} are missing ({file} is not there)",
            len(of_log), seeds=", ".join(map(str, of_log)), file=file,
        ) + end
        for (file, end), of_log in absent.items()
    ]  # fmt: skip
    return Experiment(declared, runs, told + missing, row)


def _read_history(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}; remove it, and the run is trained again") from None


def _end_of_log(log: Path) -> str:
    """The last lines of a training's log, for whoever asks why it has no results."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    last = [line.strip() for line in lines if line.strip()][-LOG_LINES:]
    return tr("; its log ends: {lines}", lines=" | ".join(last)) if last else ""


def _diagnose(
    page: dict[str, Any],
    results: Path,
    rows: pd.DataFrame,
    pairs: pd.DataFrame,
    data: dict[str, Any],
    problems: list[str],
) -> list[Diagnosis]:
    comparison = Comparison(
        rows,
        pairs,
        page["metric"],
        str(pairs["split"].iloc[0]) if len(pairs) else "test",
        page.get("baseline"),
        float(pairs["detectable"].median()) if len(pairs) else None,
    )
    try:
        return diagnose(page, results, comparison, duplicates=data["duplicates"])
    except ScratchbookError as error:
        problems.append(tr("nothing is diagnosed: {error}", error=error))
        return []


def _read_table(path: Path, columns: list[str], problems: list[str]) -> pd.DataFrame:
    words = {name: str for name in columns if name in WORDS or name.endswith("_values")}
    # An experiment may be called `nan`: only a number can be missing.
    numbers = {name: ["", "nan"] for name in columns if name not in words}
    try:
        table = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=numbers)
    except (OSError, ValueError):
        problems.append(tr("{file} is missing or unreadable: nothing is compared", file=path.name))
        table = pd.DataFrame(columns=columns)
    table = table.reindex(columns=columns)
    return table.assign(**{name: table[name].fillna("") for name in words})


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, an empty cell as None."""
    table = table.replace([np.inf, -np.inf], np.nan)  # JSON knows neither
    plain = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _claim(
    result: dict[str, Any], rows: pd.DataFrame, settings: set[float]
) -> tuple[Claim, float | None]:
    recorded = result.get("recorded")
    if rows.empty:
        return Claim(result["text"], "not measured", tr("no runs are compared yet"), ()), recorded
    try:
        return resolve_claim(result["text"], rows, recorded, settings), recorded
    except ScratchbookError as error:
        return Claim(result["text"], "not measured", str(error), ()), recorded


def _names(data: Path, index: np.ndarray) -> list[str]:
    try:
        with h5py.File(data, "r") as file:
            names = file["names"].asstr()
            return [str(names[int(i)]) for i in index]
    except (OSError, KeyError, ValueError):
        return [tr("image {number}", number=i) for i in index]


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value

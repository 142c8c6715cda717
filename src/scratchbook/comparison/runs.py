"""Read what the runs of one experiment left behind: their figures, and their right answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scratchbook.config.errors import ScratchbookError
from scratchbook.evaluation import read_split

SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass
class Run:
    """One run that finished: its figures by the names of compare.csv, and where its files lie."""

    folder: Path
    seed: int
    figures: dict[str, Any]
    images: dict[str, int]  # figures' prefix (train, val, test) -> images measured on
    validation: str  # the split that val_* was measured on


@dataclass
class Experiment:
    """An experiment of the page with the runs that finished, and why the others did not."""

    name: str
    declared: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """`complete`, or what is missing in a few words."""
        if not self.trouble:
            return "complete"
        return ("incomplete: " if self.runs else "failed: ") + "; ".join(self.trouble)

    def values(self, figure: str) -> list[float]:
        """Each finished run's figure, in the order of the seeds; runs without it left out."""
        found = (run.figures.get(figure) for run in self.runs)
        return [value for value in found if value is not None]


def read_experiment(declared: dict[str, Any], seeds: list[int], folder: Path) -> Experiment:
    """Read every seed of one experiment of a page under `folder` = results/{notebook}."""
    experiment = Experiment(declared["name"], declared)
    for seed in seeds:
        try:
            experiment.runs.append(read_run(folder / declared["name"] / f"seed{seed}", seed))
        except ScratchbookError as error:
            experiment.trouble.append(f"seed {seed} {error}")
    return experiment


def read_run(folder: Path, seed: int) -> Run:
    """One run's figures. Raises ScratchbookError with what is wrong with it, in a few words."""
    run = read_json(folder / "run.json", "was not trained")
    metrics = read_json(folder / "metrics.json", "was not evaluated")
    if "trouble" in metrics:
        raise ScratchbookError("; ".join(metrics["trouble"]))
    try:
        figures: dict[str, Any] = {
            "id": run["id"],
            "parameters": run["parameters"]["total"],
            "trainable": run["parameters"]["trainable"],
            "best_epoch": run["best_epoch"],
            "epochs": run["epochs"],
            "precision": run["precision"],
            "seconds": run["training_seconds"],
            "images_per_second": run["images_per_second"],
        }
        images = {}
        for prefix, split in SPLITS.items():
            measured = metrics["splits"].get(metrics["validation"] if prefix == "val" else split)
            if measured is not None:
                figures[f"{prefix}_accuracy"] = measured["accuracy"]["value"]
                figures[f"{prefix}_loss"] = measured["log_loss"]
                images[prefix] = measured["n"]
        if "train" in images and "val" in images:
            figures["gap"] = figures["train_accuracy"] - figures["val_accuracy"]
        return Run(folder, seed, figures, images, str(metrics["validation"]))
    except (KeyError, TypeError) as error:
        raise ScratchbookError(f"has a run.json or metrics.json without {error}") from None


@dataclass
class Images:
    """The images that all runs answered: who held them first, and which they are."""

    run: str
    split: str
    index: np.ndarray
    labels: np.ndarray


def read_answers(run: Run, split: str) -> tuple[np.ndarray, Images]:
    """Which images of `split` the run got right at its best epoch, bool (n,), by their index.

    Raises ScratchbookError where the predictions are missing or unusable.
    """
    path = run.folder / "predictions.h5"
    try:
        with h5py.File(path, "r") as file:
            found = read_split(file, "best", split, json.loads(file.attrs["class_names"]))
    except (OSError, KeyError) as error:
        raise ScratchbookError(f"has a {path.name} without best/{split} ({error})") from None
    order = found.index.argsort(kind="stable")
    right = (found.logits.argmax(axis=1) == found.labels)[order]  # (n,)
    name = f"{run.folder.parent.name}/{run.folder.name}"
    return right, Images(name, split, found.index[order], found.labels[order])


def check_same(one: Images, other: Images) -> None:
    """Raise ScratchbookError, naming both runs, unless they answered the same images."""
    if one.split != other.split:
        trouble = f"one is measured on the {one.split} split, the other on {other.split}"
    elif len(one.index) != len(other.index):
        trouble = f"their {one.split} splits have {len(one.index)} and {len(other.index)} images"
    elif not (np.array_equal(one.index, other.index) and np.array_equal(one.labels, other.labels)):
        trouble = f"their {one.split} splits hold different images"
    else:
        return
    raise ScratchbookError(
        f"{one.run} and {other.run} cannot be compared: {trouble}; "
        "run both again on the same prepared data"
    )


def read_json(path: Path, absent: str) -> dict[str, Any]:
    """A JSON file, or ScratchbookError with what its absence means (`absent`) in a few words."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScratchbookError(f"{absent} (no {path.name})") from None
    except (OSError, ValueError) as error:
        raise ScratchbookError(f"has an unreadable {path.name} ({error})") from None

"""Read what the runs of one experiment left behind: their figures, and their right answers."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scratchbook.config.errors import ScratchbookError
from scratchbook.evaluation import read_split
from scratchbook.specs import declared_otherwise

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


def read_experiment(
    declared: dict[str, Any], seeds: list[int], folder: Path, reach: float | None = None
) -> Experiment:
    """Read every seed of one experiment of a page under `folder` = results/{notebook}."""
    experiment = Experiment(declared["name"], declared)
    for seed in seeds:
        run = folder / declared["name"] / f"seed{seed}"
        try:
            experiment.runs.append(read_run(run, seed, declared["spec"], reach))
        except ScratchbookError as error:
            experiment.trouble.append(f"seed {seed} {error}")
    return experiment


def read_run(folder: Path, seed: int, spec: dict[str, Any], reach: float | None = None) -> Run:
    """One run's figures, and what it took to reach a validation accuracy of `reach`.

    Raises ScratchbookError with what is wrong with it, in a few words; so too where it was not
    trained by `spec`, what its experiment declares now.
    """
    run = read_json(folder / "run.json", "was not trained")
    metrics = read_json(folder / "metrics.json", "was not evaluated")
    if "trouble" in metrics:
        raise ScratchbookError("; ".join(metrics["trouble"]))
    try:
        if changed := declared_otherwise(spec, run["spec"]):
            raise ScratchbookError(f"was trained before this was changed: {', '.join(changed)}")
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
        figures |= _arithmetic(run)
        if reach is not None:
            figures |= _reached(read_csv(folder / "history.csv"), reach, figures)
        if "train" in images and "val" in images:
            figures["gap"] = figures["train_accuracy"] - figures["val_accuracy"]
        return Run(folder, seed, figures, images, str(metrics["validation"]))
    except (KeyError, TypeError) as error:
        raise ScratchbookError(f"has a run.json or metrics.json without {error}") from None


def _arithmetic(run: dict[str, Any]) -> dict[str, float]:
    """Multiply-adds of an image forward, and the floating point operations of the whole training.

    A multiply-add is two operations, and the way back costs twice the way forward (Amodei and
    Hernandez, AI and Compute, 2018): six an image. Augmentation and evaluation are left out, and
    frozen layers are counted like the others.
    """
    multiply_adds = [layer.get("multiply_adds") for layer in run["layers"]]
    if None in multiply_adds:  # of a run that was trained before this was recorded
        return {}
    images = run["data"]["counts"]["train"] * run["epochs"]
    return {
        "multiply_adds": sum(multiply_adds),
        "training_flops": 6.0 * sum(multiply_adds) * images,
    }


def _reached(
    history: list[dict[str, str]], accuracy: float, figures: dict[str, Any]
) -> dict[str, float]:
    """The first epoch of at least that validation accuracy, and the operations until its end."""
    epochs = (int(row["epoch"]) for row in history if float(row["val_accuracy"]) >= accuracy)
    epoch = next(epochs, None)
    if epoch is None:
        return {}
    reached: dict[str, float] = {"reached_epoch": epoch}
    if "training_flops" in figures:
        reached["reached_flops"] = figures["training_flops"] * epoch / figures["epochs"]
    return reached


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


def read_csv(path: Path) -> list[dict[str, str]]:
    """A table's rows, or ScratchbookError where there is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise ScratchbookError(f"has an unreadable {path.name} ({error})") from None

"""Synthetic result trees: from a notebook page to every file its runs would have written."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scratchbook.evaluation import write_metrics
from scratchbook.results.files import sha256_file
from scratchbook.results.paths import Results, RunFiles, run_name

DATA = "shapes-0123456789ab-p1"
COUNTS = {"train": 400, "validation": 150, "test": 200}
LAYERS = [
    {"class_name": "Conv2D", "config": {"filters": 8, "kernel_size": 3, "activation": "relu"}},
    {"class_name": "Flatten", "config": {}},
    {"class_name": "Dense", "config": {"units": 3, "activation": "softmax", "name": "predictions"}},
]


def make_page(
    name: str = "shapes",
    experiments: tuple[str, ...] = ("train1", "train2", "train3"),
    seeds: tuple[int, ...] = (0, 1),
    **changes: Any,
) -> dict[str, Any]:
    """A page of experiments, each the child of the one before with a lower learning rate; each has
    a key of its own, so that its runs are found by its name alone (`run_files`)."""
    page = {
        "name": name,
        "title": "Shapes",
        "goal": "Which net tells the shapes apart?",
        "lang": "en",
        "language": "en",
        "dataset": "shapes",
        "data_title": "Shapes",
        "citation": None,
        "data": DATA,
        "validation": "validation",
        "reach": None,
        "smoke": False,
        "cam": None,
        "grids": [],
        "diagnoses": {"mute": [], "thresholds": {}},
        "key_results": [{"text": f"best {{{experiments[-1]}.val_accuracy:.2f}}", "recorded": 0.83}],
        "baseline": experiments[0],
        "metric": "test_accuracy",
        "notes": [],
        "experiments": [
            {
                "name": experiment,
                "title": f"{experiment} - a net",
                "parent": experiments[i - 1] if i else None,
                "recorded": {"val_accuracy": 0.7 + 0.05 * i} if i < 2 else {},
                "notes": [f"note on {experiment}"],
                "spec": make_spec(learning_rate=0.01 / (i + 1)),
                "runs": made_runs(experiment, seeds),
                "left_out": [],
            }
            for i, experiment in enumerate(experiments)
        ],
        "seeds": list(seeds),
    }
    return page | changes


def make_spec(learning_rate: float = 0.01, **changes: Any) -> dict[str, Any]:
    """A resolved spec."""
    spec = {
        "dataset": "shapes",
        "layers": LAYERS,
        "augment": [],
        "optimizer": {"class_name": "Adam", "config": {"learning_rate": learning_rate}},
        "loss": "categorical_crossentropy",
        "batch_size": 32,
        "epochs": 8,
        "train_samples": None,
        "callbacks": [],
        "validation": "validation",
        "recorded_parameters": None,
    }
    return spec | changes


def made_key(experiment: str) -> str:
    """The key that `make_page` gives to an experiment of this name, `shapes-…`."""
    return f"shapes-{hashlib.sha256(experiment.encode()).hexdigest()[:12]}"


def made_runs(experiment: str, seeds: Iterable[int]) -> dict[int, str]:
    """What `make_page` calls the runs of an experiment, by seed."""
    return {seed: run_name(made_key(experiment), seed) for seed in seeds}


def run_files(root: Path, experiment: str, seed: int = 0) -> RunFiles:
    """A run of `make_page`'s experiment among the results in `root`."""
    return Results(root).run(run_name(made_key(experiment), seed))


def experiment_folder(root: Path, experiment: str) -> Path:
    """All runs of `make_page`'s experiment among the results in `root`."""
    return run_files(root, experiment).folder.parent


def copy_experiment(source: Path, target: Path, spec: dict[str, Any], name: str = "") -> None:
    """A key's runs under another key, or where they are, as if trained by `spec` for the experiment
    `name`; large files are linked."""
    if target != source:
        shutil.copytree(source, target, copy_function=os.link)
    for place in target.glob("seed*"):
        files = RunFiles(place)
        run, kept = (
            json.loads(file.read_text(encoding="utf-8")) for file in (files.record, files.checksums)
        )
        changed = {"key": target.name, "spec": spec}
        files.record.unlink()  # a link: writing through it would change the source
        told = run | changed | ({"experiment": name} if name else {})
        files.record.write_text(json.dumps(told, indent=1), encoding="utf-8")
        files.checksums.unlink()
        sums = kept["files"] | _sums([files.record])
        files.checksums.write_text(json.dumps(kept | changed | {"files": sums}), encoding="utf-8")


def make_results(
    root: Path,
    page: dict[str, Any],
    *,
    classes: tuple[str, ...] = ("circle", "square", "triangle"),
    counts: dict[str, int] | None = None,
    accuracy: dict[str, float] | None = None,
    seed: int = 0,
    diverged: Mapping[tuple[str, int], int] | None = None,
) -> Path:
    """Write run.json, history.csv, predictions.h5, checksums.json and derived/metrics.json of every
    run of `page`.

    `root` is the results folder; a run goes to where its experiment's `runs` say, below root/runs.
    A page without runs, as a project tells it without a plan, is given made-up ones and `data`.
    `accuracy` sets an experiment's test accuracy (default: 0.6 rising by 0.08 an experiment);
    images are hard or easy for all experiments alike, so that experiments are paired as real ones
    are. `diverged` tells in which epoch a run, (experiment, seed), did. Returns root/runs.
    """
    counts = {**COUNTS, **(counts or {})}
    page["data"] = page.get("data") or DATA
    for i, experiment in enumerate(page["experiments"]):
        name = experiment["name"]
        left_out = experiment.setdefault("left_out", [])
        if not experiment.get("runs"):
            seeds = [one for one in page["seeds"] if one not in left_out]
            experiment["runs"] = made_runs(name, seeds)
        wanted = (accuracy or {}).get(name, min(0.6 + 0.08 * i, 0.95))
        for run_seed, run in experiment["runs"].items():
            make_run(
                Results(root).run(run).folder,
                experiment["spec"],
                run_seed,
                classes=classes,
                counts=counts,
                accuracy=wanted,
                data_seed=seed,
                noise_seed=(seed, i, run_seed),
                notebook=page["name"],
                experiment=name,
                data=page["data"],
                diverged=(diverged or {}).get((name, run_seed)),
            )
    return Results(root).store


def make_run(
    folder: Path,
    spec: dict[str, Any],
    run_seed: int,
    *,
    classes: tuple[str, ...],
    counts: dict[str, int],
    accuracy: float,
    data_seed: int = 0,
    noise_seed: tuple[int, ...] = (0,),
    notebook: str = "shapes",
    experiment: str = "train1",
    data: str = DATA,
    diverged: int | None = None,
) -> None:
    """Write the files of one run, `folder` being {key}/seed{seed}: those that training leaves, the
    checksums that make them whole, and derived/metrics.json.

    One that `diverged` in an epoch has the epochs before it; without one, neither predictions nor
    checkpoints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = RunFiles(folder)
    rng = np.random.default_rng(noise_seed)
    epochs = int(spec["epochs"]) if diverged is None else max(0, diverged - 1)
    best = min(epochs, max(1, epochs - 2))
    history = _history(rng, epochs, best, accuracy, len(classes))
    files.history.write_text(history, encoding="utf-8")

    splits = ("train", "test") if spec["validation"] == "test" else tuple(COUNTS)
    ends = {"best": best, "last": epochs} if epochs else {}
    with h5py.File(files.predictions, "w") as file:
        file.attrs["class_names"] = json.dumps(list(classes))
        file.attrs["validation"] = spec["validation"]
        if diverged is not None:
            file.attrs["diverged"] = diverged
        for when, epoch in ends.items():
            group = file.create_group(when)
            group.attrs["epoch"] = epoch
            start = 0
            for split in splits:
                n = counts[split]
                lift = 0.1 if split == "train" else 0.0
                write_split(
                    group.create_group(split),
                    *make_predictions(
                        np.random.default_rng((data_seed, start)),
                        rng,
                        n,
                        len(classes),
                        min(accuracy + lift, 0.99),
                    ),
                    np.arange(start, start + n),
                )
                start += n
    parameters = 1000 + 10 * len(spec["layers"])
    run = {
        "key": folder.parent.name,
        "notebook": notebook,
        "experiment": experiment,
        "seed": run_seed,
        "id": f"{spec['dataset']}-{parameters}",
        "spec": spec,
        "parameters": {"total": parameters, "trainable": parameters - 10, "non_trainable": 10},
        "layers": [
            {
                "name": f"layer_{i}",
                "class_name": layer["class_name"],
                "output_shape": [None, 8, 8, 8],
                "parameters": 100 * i,
                "multiply_adds": 1000 * i,
                "config": layer["config"],
            }
            for i, layer in enumerate(spec["layers"])
        ],
        "best_epoch": best,
        "epochs": epochs,
        "monitor": "val_accuracy",
        "validation": spec["validation"],
        "precision": "float32",
        "backend": "tensorflow",
        "hardware": {
            "cpu": "a CPU",
            "cores": 2,
            "memory_gb": 8.0,
            "gpus": [],
            "threads": 2,
            "platform": "Linux-x86_64",
        },
        "device": "a CPU",
        "packages": {"keras": "3.15.1", "tensorflow-cpu": "2.21.0", "numpy": "2.4.6"},
        "python": "3.11.7",
        "training": {"loop": 1, "layers": 1},
        "preparing": 1,
        "pretrained": {},
        "git": {"commit": "0" * 40, "dirty": False},
        "data": {
            "dataset": spec["dataset"],
            "file": data,
            "sha256": "0" * 64,
            "arrays_sha256": "cd" * 32,
            "counts": counts,
            "class_names": list(classes),
        },
        "wall_seconds": 12.0 + run_seed,
        "training_seconds": 10.0 + run_seed,
        "images_per_second": 320.0 - run_seed,
        "started": "2026-11-21T05:00:00+00:00",
        "weights_sha256": {"best": "a" * 64, "final": "b" * 64}
        if ends
        else {"best": "", "final": ""},
        "checkpoints": [
            {
                "epoch": best,
                "file": f"{spec['dataset']}-{parameters}-{best:02d}-{accuracy:.2f}.weights.h5",
                "kept_for": ["best"],
            }
        ]
        if ends
        else [],
    } | ({} if diverged is None else {"diverged": diverged})
    files.record.write_text(json.dumps(run, indent=1), encoding="utf-8")
    files.checksums.write_text(json.dumps(_checksums(files, run)), encoding="utf-8")
    write_metrics(files.predictions, files.metrics)


def _checksums(files: RunFiles, run: dict[str, Any]) -> dict[str, Any]:
    """checksums.json of what training left."""
    same = ("key", "seed", "spec", "weights_sha256", "precision", "backend", "training",
            "preparing")  # fmt: skip
    return {
        **{name: run[name] for name in same},
        "threads": run["hardware"]["threads"],
        "initial": None,
        "data": run["data"]["file"],
        "diverged": run.get("diverged"),
        "finished": "2026-11-21T05:01:00+00:00",
        "files": _sums([files.history, files.predictions, files.record]),
    }


def _sums(files: Iterable[Path]) -> dict[str, Any]:
    return {file.name: {"size": file.stat().st_size, "sha256": sha256_file(file)} for file in files}


def make_predictions(
    data: np.random.Generator, noise: np.random.Generator, n: int, classes: int, accuracy: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (n, classes) and labels int64 (n,) of a net that is right with `accuracy`.

    `data` draws what all nets share (labels, how hard an image is), `noise` what is one net's own.
    """
    labels = data.integers(0, classes, n)
    hard = data.standard_normal(n)
    chance = 0.7 * hard + math.sqrt(1 - 0.7**2) * noise.standard_normal(n)  # standard normal
    threshold = float(np.quantile(noise.standard_normal(100_000), accuracy))
    right = chance < threshold
    answer = np.where(right, labels, (labels + noise.integers(1, classes, n)) % classes)
    logits = noise.normal(0, 0.5, (n, classes))
    logits[np.arange(n), answer] = logits.max(axis=1) + noise.exponential(1.5, n) + 0.05
    return logits.astype(np.float32), labels.astype(np.int64)


def write_split(
    group: h5py.Group, logits: np.ndarray, labels: np.ndarray, index: np.ndarray
) -> None:
    """One split of predictions.h5."""
    group["logits"] = np.asarray(logits, dtype=np.float32)
    group["labels"] = np.asarray(labels, dtype=np.int64)
    group["index"] = np.asarray(index, dtype=np.int64)


def _history(
    rng: np.random.Generator, epochs: int, best: int, accuracy: float, classes: int
) -> str:
    """history.csv that climbs to `accuracy` at `best` and stays just under it after."""
    rows = ["epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"]
    for epoch in range(1, epochs + 1):
        climb = 1 - math.exp(-3 * epoch / best)
        value = (accuracy - 0.02 * (epoch != best)) * climb
        loss = math.log(classes) * (1 - 0.7 * climb)
        rows.append(
            f"{epoch},{loss:.4f},{min(value + 0.05, 1):.4f},{loss + 0.1:.4f},{value:.4f},"
            f"0.001,{1 + 0.1 * rng.random():.2f}"
        )
    return "\n".join(rows) + "\n"

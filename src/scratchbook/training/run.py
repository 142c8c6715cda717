"""Train one run from its spec to its files: history.csv, checkpoints/, predictions.h5, run.json."""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from scratchbook import models, provenance
from scratchbook.config.errors import ScratchbookError
from scratchbook.data.prepared import Prepared
from scratchbook.data.rows import run_rows
from scratchbook.files import write_atomically, write_json

from .fit import measure, predict_logits, train_epoch
from .losses import accuracy_metric, loss_function
from .optimizers import make_optimizer, scheduled_rate
from .state import Progress, RunState, check_space, hash_file, readable_write_errors, try_room

HISTORY = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
MONITOR = "val_accuracy"
HDF5_OVERHEAD = 8192  # bytes an array, at most


@dataclass(frozen=True)
class RunFiles:
    """Where a run writes; all but `state` are whole or absent."""

    history: Path
    checkpoints: Path
    predictions: Path
    run: Path
    state: Path


def train_run(
    spec: dict[str, Any],
    seed: int,
    prepared: Prepared,
    files: RunFiles,
    *,
    identity: dict[str, str],
    keep_epochs: dict[int, list[str]],
    precision: str,
    hardware: dict[str, Any],
    code: Path,
    pretrained: Path = Path(),
    initial_run: Path | None = None,
    say: Callable[[str], None],
    on_batch: Callable[[int, int], None],
) -> None:
    """Trains, or goes on with, one run and writes its files.

    Args:
        spec: the resolved experiment.
        seed: of the weights, the order, dropout, augmentation and the training sample.
        identity: `notebook` and `experiment`, for `run.json`.
        keep_epochs: epochs whose weights are kept beside the best and the last, and for what.
        precision: `float32` or `mixed_bfloat16`.
        hardware: what `scratchbook.hardware` says of this machine.
        code: a folder in the repository whose commit is recorded.
        pretrained: the folder of backbones' weights files.
        initial_run: run.json of the run that `initial_weights` names, its checkpoints beside it.
        say: takes a line for the log and the terminal.
        on_batch: takes (batches done, batches in the epoch).

    Raises:
        ScratchbookError: network, head, data and recorded figures do not fit each other; the disk
            is full or not to be written on; another process trains this run.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    activation = models.output_activation(spec["layers"])
    loss = loss_function(spec["loss"], activation, spec.get("label_smoothing", 0.0))
    model = models.start(
        spec, prepared, precision, seed=seed, pretrained=pretrained, initial_run=initial_run
    )
    parameters = models.count_parameters(model)
    models.check_recorded(spec, parameters)
    models.check_classes(model, len(prepared.class_names))
    rows = run_rows(spec, prepared, seed)
    if spec["batch_size"] > len(rows["train"]):
        raise ScratchbookError(
            f"batch_size is {spec['batch_size']:,}, more than the {len(rows['train']):,} training "
            "images; give a smaller batch_size"
        )
    optimizer = make_optimizer(spec["optimizer"])
    base_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    model.compile(optimizer=optimizer, loss=loss, metrics=[accuracy_metric(activation)])
    optimizer.build(model.trainable_variables)
    # Keras writes the optimizer's variables too, where a model has one: twice the weights again.
    bare_model = keras.Model(model.inputs, model.outputs)

    backend = keras.backend.backend()
    packages = provenance.describe_packages(provenance.NUMERIC_PACKAGES[backend])
    key = {
        "spec": spec,
        "seed": seed,
        # The pixels too: one source can be resized in many ways.
        "data": provenance.hash_arrays([prepared.images, prepared.labels, prepared.split]),
        "precision": precision,
        "backend": backend,
        "threads": hardware["threads"],
        "packages": packages,
        "code": provenance.hash_code(),
        "keep_epochs": sorted(keep_epochs),
        "initial": provenance.hash_arrays(_weights(model)),
    }
    with readable_write_errors(files.state):
        state = RunState(files.state, key, say)
        check_space(
            files.state, _bytes(model.variables), _bytes(_all_variables(model)),
            spec["epochs"], len(keep_epochs), say,
        )  # fmt: skip
    progress = _restore(state, model, say)
    progress.started = progress.started or started
    machine = f"{hardware['cpu']}, GPUs {hardware['gpus']}"
    if progress.machine not in ("", machine):
        say(
            f"the epochs before were trained on another machine ({progress.machine}; this one: "
            f"{machine}): the last digits may not be those of an uninterrupted run"
        )
    progress.machine = machine
    earlier = progress.wall_seconds  # of attempts that ended early, up to the last saved epoch
    callbacks = _callbacks(spec, model, progress.history)
    images, labels = prepared.images, prepared.labels
    validation_rows = rows[spec["validation"]]
    predict = partial(predict_logits, model, images, test_time_flip=spec.get("test_time_flip"))

    while progress.epoch < spec["epochs"] and not progress.stopped:
        epoch = progress.epoch + 1
        if schedule := spec.get("schedule"):
            optimizer.learning_rate = scheduled_rate(base_rate, schedule, epoch, spec["epochs"])
        learning_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        epoch_clock = time.perf_counter()
        trained = train_epoch(
            model, images, labels, rows["train"],
            batch_size=spec["batch_size"], seed=seed, epoch=epoch, on_batch=on_batch,
        )  # fmt: skip
        validated = measure(loss, predict(validation_rows), labels[validation_rows])
        validated["loss"] += _penalty(model)
        row = {
            "epoch": epoch,
            "loss": trained["loss"],
            "accuracy": trained["accuracy"],
            "val_loss": validated["loss"],
            "val_accuracy": validated["accuracy"],
            "learning_rate": learning_rate,
            "seconds": time.perf_counter() - epoch_clock,
        }
        before = set(progress.checkpoints)
        progress.epoch = epoch
        progress.history.append(row)
        progress.training_seconds += trained["seconds"]
        for callback in callbacks:
            callback.on_epoch_end(epoch - 1, dict(row))
        progress.stopped = model.stop_training
        last = epoch == spec["epochs"] or progress.stopped
        wanted = {best_epoch(progress.history)} | (keep_epochs.keys() & range(1, epoch + 1))
        with readable_write_errors(files.state):
            if last or epoch in wanted:
                try_room(
                    state.checkpoint(epoch),
                    _bytes(model.variables) + HDF5_OVERHEAD * (1 + len(model.variables)),
                )
                bare_model.save_weights(state.checkpoint(epoch))
                progress.checkpoints[epoch] = hash_file(state.checkpoint(epoch)) or ""
                wanted.add(epoch)
            progress.checkpoints = {e: d for e, d in progress.checkpoints.items() if e in wanted}
            progress.wall_seconds = earlier + time.perf_counter() - clock
            state.save(progress, _variables(model))
            state.keep_only(before | wanted)
        rate = len(rows["train"]) / max(trained["seconds"], 1e-9)
        say(_progress_line(row, spec["epochs"], rate, progress.history))

    best, last_epoch = best_epoch(progress.history), progress.epoch
    digests, logits = {}, {}
    for epoch in sorted({best, last_epoch}):
        bare_model.load_weights(state.checkpoint(epoch))
        digests[epoch] = provenance.hash_arrays(_weights(model))
        logits[epoch] = {s: predict(r) for s, r in rows.items()}
    predictions = {"best": (best, logits[best]), "last": (last_epoch, logits[last_epoch])}

    display_id = models.display_id(spec["dataset"], parameters)
    kept: list[dict[str, Any]] = [
        {
            "epoch": epoch,
            "file": checkpoint_name(display_id, progress.history[epoch - 1]),
            "kept_for": [
                *(["best"] if epoch == best else []),
                *(["last"] if epoch == last_epoch else []),
                *keep_epochs.get(epoch, []),
            ],
        }
        for epoch in sorted(progress.checkpoints)
    ]
    with readable_write_errors(files.run.parent):
        _write_history(files.history, progress.history)
        _write_predictions(files.predictions, predictions, rows, prepared, spec["validation"])
        files.checkpoints.mkdir(parents=True, exist_ok=True)
        for entry in kept:
            _copy(state.checkpoint(int(entry["epoch"])), files.checkpoints / str(entry["file"]))
        write_json(
            files.run,
            {
                **identity,
                "seed": seed,
                "id": display_id,
                "spec": spec,
                "parameters": parameters,
                "layers": models.layer_table(spec, model),
                "best_epoch": best,
                "epochs": last_epoch,
                "monitor": MONITOR,
                "validation": spec["validation"],
                "precision": precision,
                "backend": backend,
                "hardware": hardware,
                "packages": packages | provenance.describe_packages(["snakemake"]),
                "python": provenance.python_version(),
                "git": provenance.describe_git(code),
                "data": {
                    "dataset": spec["dataset"],
                    "sha256": prepared.sha256,
                    "counts": {s: len(rows.get(s, ())) for s in ("train", "validation", "test")},
                    "class_names": prepared.class_names,
                },
                "started": progress.started,
                "wall_seconds": round(earlier + time.perf_counter() - clock, 3),
                "training_seconds": round(progress.training_seconds, 3),
                "images_per_second": round(
                    len(rows["train"]) * last_epoch / max(progress.training_seconds, 1e-9), 1
                ),
                "weights_sha256": {"best": digests[best], "final": digests[last_epoch]},
                "checkpoints": kept,
            },
        )
        state.discard()


def best_epoch(history: list[dict[str, float]]) -> int:
    """The first epoch with the highest validation accuracy."""
    return int(max(history, key=lambda row: (row[MONITOR], -row["epoch"]))["epoch"])


def checkpoint_name(display_id: str, row: dict[str, float]) -> str:
    """`cifar10-11018058-48-0.82.weights.h5`."""
    return f"{display_id}-{int(row['epoch']):02d}-{row['val_accuracy']:.2f}.weights.h5"


def _restore(state: RunState, model: keras.Model, say: Callable[[str], None]) -> Progress:
    found = state.load()
    if found is None:
        return Progress()
    progress, arrays = found
    for variable, value in zip(_all_variables(model), arrays, strict=True):
        variable.assign(value)
    say(f"going on after epoch {progress.epoch}")
    return progress


def _all_variables(model: keras.Model) -> list[Any]:
    """Weights, generator states and the optimizer's variables."""
    return [*model.variables, *model.optimizer.variables]


def _bytes(variables: list[Any]) -> int:
    return sum(
        math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype)).itemsize
        for v in variables
    )


def _penalty(model: keras.Model) -> float:
    """What the regularizers add to the loss of any batch."""
    of_weights = (v.regularizer(v) for v in model.trainable_variables if v.regularizer is not None)
    return float(sum(keras.ops.convert_to_numpy(penalty) for penalty in of_weights))


def _variables(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in _all_variables(model)]


def _weights(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.get_weights()]


def _callbacks(spec: dict[str, Any], model: keras.Model, history: list[dict[str, float]]) -> list:
    """The spec's Keras callbacks, brought to where they were by replaying the history.

    Each epoch is replayed at its own learning rate: ReduceLROnPlateau counts on otherwise once the
    rate has come down to its `min_lr`.
    """
    callbacks = []
    restored_rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
    model.stop_training = False
    for entry in spec["callbacks"]:
        config = {"monitor": "val_loss", "mode": "auto"} | entry["config"]
        if config["mode"] == "auto":  # Keras would ask the metrics, which a first batch builds
            config["mode"] = "max" if config["monitor"].endswith("accuracy") else "min"
        callback = getattr(keras.callbacks, entry["class_name"])(**config)
        callback.set_model(model)
        callback.on_train_begin()
        callbacks.append(callback)
    for row in history:
        model.optimizer.learning_rate.assign(row["learning_rate"])
        for callback in callbacks:
            callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
    if history:
        model.optimizer.learning_rate.assign(restored_rate)
    return callbacks


def _progress_line(
    row: dict[str, float], epochs: int, rate: float, history: list[dict[str, float]]
) -> str:
    seconds = [r["seconds"] for r in history]
    left = (epochs - row["epoch"]) * sorted(seconds)[len(seconds) // 2]
    return (
        f"epoch {int(row['epoch'])}/{epochs}  loss {row['loss']:.4f}  "
        f"accuracy {row['accuracy']:.3f}  val_loss {row['val_loss']:.4f}  "
        f"val_accuracy {row['val_accuracy']:.3f}  {rate:,.0f} images/s  "
        f"{_duration(left)} left"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    write_atomically(path, write)


def _write_predictions(
    path: Path,
    predictions: dict[str, tuple[int, dict[str, np.ndarray]]],
    rows: dict[str, np.ndarray],
    prepared: Prepared,
    validation: str,
) -> None:
    def write(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            file.attrs["class_names"] = json.dumps(prepared.class_names)
            file.attrs["validation"] = validation
            for name, (epoch, logits) in predictions.items():
                group = file.create_group(name)
                group.attrs["epoch"] = epoch
                for split, values in logits.items():
                    group[f"{split}/logits"] = two_columns(values)  # (m, classes)
                    group[f"{split}/labels"] = prepared.labels[rows[split]]
                    group[f"{split}/index"] = rows[split]

    arrays = [logits for _, of_split in predictions.values() for logits in of_split.values()]
    # Labels and row numbers are int64 each; one column of logits becomes two.
    size = sum(2 * values.nbytes + 16 * len(values) + 3 * HDF5_OVERHEAD for values in arrays)
    try_room(path, size + HDF5_OVERHEAD)
    write_atomically(path, write)


def two_columns(logits: np.ndarray) -> np.ndarray:
    """One sigmoid unit's logit z (m, 1) as two logits [0, z]: their softmax is the sigmoid."""
    if logits.shape[1] > 1:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=1)


def _copy(source: Path, target: Path) -> None:
    # A copy, so that a job killed here still finds its state whole.
    write_atomically(target, lambda partial: shutil.copyfile(source, partial))

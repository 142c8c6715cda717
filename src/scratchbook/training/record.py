"""What a trained run leaves: its last snapshot in; history.csv, predictions.h5, checkpoints/ and
run.json out."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import keras
import numpy as np

from scratchbook import models, provenance
from scratchbook.results.files import link_file, sha256_file, write_atomically, write_json
from scratchbook.results.hdf5 import write_predictions
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record, write_history
from scratchbook.results.records import (
    Checkpoint,
    Hardware,
    RunRecord,
    SplitPredictions,
    StartedFrom,
)
from scratchbook.specs import Spec

from .build import Setup
from .loop import predict_logits
from .numbers import training_numbers
from .state import MONITOR, RunState, Snapshot, readable_write_errors


def write_run(
    setup: Setup, state: RunState, snapshot: Snapshot, begun: float, run: RunFiles,
    hardware: Hardware, code: Path, initial_run: RunFiles | None,
) -> None:  # fmt: skip
    """Writes all that a run leaves, run.json last; each file is whole or absent.

    Of one that diverged the last whole epoch is the last; where there is none, it has neither
    predictions nor checkpoints.

    Args:
        state: holds the weights of the epochs that are kept.
        snapshot: of the last epoch.
        begun: when the run would have begun, had it never been interrupted; by `perf_counter`.
        code: a folder in the repository whose commit is recorded.
        initial_run: the run whose weights it started from.

    Raises:
        ScratchbookError: the files cannot be written.
    """
    order, spec, data, history = setup.order, setup.order.spec, setup.prepared, snapshot.history
    ends = {"best": snapshot.best_epoch, "last": snapshot.epoch} if history else {}
    digests, said = {}, {}
    for epoch in sorted(set(ends.values())):
        setup.bare_model.load_weights(state.files.checkpoint(epoch))
        digests[epoch] = setup.hash_weights()
        said[epoch] = predict_splits(setup)
    parameters = models.count_parameters(setup.model)
    display_id = models.display_id(spec["dataset"], parameters)
    kept = [
        Checkpoint(
            epoch=epoch,
            file=f"{display_id}-{epoch:02d}-{history[epoch - 1]['val_accuracy']:.2f}.weights.h5",
            kept_for=[
                *(when for when in ends if ends[when] == epoch),
                *order.keep_epochs.get(epoch, []),
            ],
        )
        for epoch in sorted(snapshot.checkpoints)
    ]
    packages = [*provenance.NUMERIC_PACKAGES[backend := keras.backend.backend()], "snakemake"]
    seen = len(setup.rows["train"]) * snapshot.epoch  # images
    with readable_write_errors(run.folder):
        write_history(run.history, history)
        predictions = {when: (epoch, said[epoch]) for when, epoch in ends.items()}
        write_predictions(
            run.predictions, predictions, data.class_names, spec["validation"], snapshot.diverged
        )
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        for entry in kept:
            # Its state stays whole: a job that is killed here finds it so.
            link = partial(link_file, state.files.checkpoint(entry["epoch"]))
            write_atomically(run.checkpoint(entry["file"]), link, sync=False)
        record = RunRecord(
            key=order.key,
            notebook=order.notebook,
            experiment=order.experiment,
            seed=order.seed,
            id=display_id,
            spec=spec,
            parameters=parameters,
            layers=models.layer_table(spec, setup.model),
            best_epoch=snapshot.best_epoch,
            epochs=snapshot.epoch,
            monitor=MONITOR,
            validation=spec["validation"],
            precision=order.precision,
            backend=backend,
            hardware=hardware,
            device=", ".join(hardware["gpus"]) or hardware["cpu"],
            packages=provenance.describe_packages(packages),
            python=provenance.python_version(),
            training=training_numbers(spec),
            preparing=data.preparing,
            pretrained=order.pretrained,
            git=provenance.describe_git(code),
            data={
                "dataset": spec["dataset"],
                "file": order.data,
                "sha256": data.sha256,
                "arrays_sha256": data.arrays_sha256,
                "counts": {
                    "train": len(setup.rows["train"]),
                    "validation": len(setup.rows.get("validation", ())),
                    "test": len(setup.rows["test"]),
                },
                "class_names": data.class_names,
            },
            started=snapshot.started,
            wall_seconds=round(time.perf_counter() - begun, 3),
            training_seconds=round(snapshot.training_seconds, 3),
            images_per_second=round(seen / max(snapshot.training_seconds, 1e-9), 1),
            weights_sha256={
                "best": digests[ends["best"]] if ends else "",
                "final": digests[ends["last"]] if ends else "",
            },
            checkpoints=kept,
        )
        if snapshot.diverged is not None:
            record["diverged"] = snapshot.diverged
        if initial_run is not None and order.initial is not None:
            record["initial"] = _started_from(order.initial, initial_run, spec)
        write_json(run.record, record)


def _started_from(name: str, run: RunFiles, spec: Spec) -> StartedFrom:
    """Which weights of a run another one began with."""
    record = read_record(run)
    epoch = models.starting_epoch(record, spec["initial_weights"]["checkpoint"])
    file = run.weights(record).get(epoch)
    return StartedFrom(run=name, epoch=epoch, weights_sha256=sha256_file(file) if file else "")


def predict_splits(setup: Setup) -> dict[str, SplitPredictions]:
    """What the net says, with its weights as they are now, of each split's images."""
    images, labels = setup.prepared.images, setup.prepared.labels
    flip, said = setup.order.spec.get("test_time_flip"), {}
    for split, rows in setup.rows.items():
        logits = predict_logits(setup.model, images, rows, flip)  # (m, units)
        said[split] = SplitPredictions(two_columns(logits), labels[rows], rows)
    return said


def two_columns(logits: np.ndarray) -> np.ndarray:
    """One sigmoid unit's logit z (m, 1) as two logits [0, z]: their softmax is the sigmoid."""
    if logits.shape[1] > 1:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=1)

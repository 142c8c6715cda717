"""Train finished runs again beside the results: a run's files in, the first difference out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scratchbook.config.errors import ScratchbookError

COMPARED = ("run.json", "history.csv", "predictions.h5")
STDERR = 2  # where the epochs of a repeated training are told; the verdicts go to stdout
_READ = ("spec", "seed", "backend", "precision", "hardware", "packages", "python", "git", "data",
         "weights_sha256")  # fmt: skip
_NEVER_EQUAL = {"seconds"}  # of history.csv: how long an epoch took


def verify_run(results: Path, name: Path, scratch: Path, pretrained: Path) -> str:
    """Trains one run again, in a process of its own, and compares what comes out bit for bit.

    The process has the spec, seed, threads, precision and backend that the run's `run.json`
    records: sums are split between threads, so another number of them gives other last digits.

    Args:
        results: the folder of results; only read.
        name: `{notebook}/{experiment}/seed{seed}`.
        scratch: an empty folder for the repeated run.
        pretrained: the folder of backbones' weights files.

    Returns:
        "" where all is identical, else where it first differs.

    Raises:
        ScratchbookError: there are no results to compare with, or training failed.
    """
    for file in COMPARED:
        if not (results / name / file).is_file():
            raise ScratchbookError(f"{results / name / file} is missing; let snakemake make it")
    recorded = read_run(results / name)
    command = [
        sys.executable,
        "-u",
        "-m",
        __name__,
        *map(str, (results, name, scratch, pretrained)),
    ]
    environment = {**os.environ, "KERAS_BACKEND": recorded["backend"]}
    answer = subprocess.run(
        command, env=environment, stdout=STDERR, stderr=subprocess.PIPE, text=True
    )
    if answer.returncode:
        said = answer.stderr.strip() or f"the training ended with code {answer.returncode}"
        raise ScratchbookError(f"it cannot be trained again: {said.splitlines()[-1]}")
    difference = first_difference(results / name, scratch)
    circumstances = changed_circumstances(recorded, read_run(scratch))
    if difference and circumstances:
        return f"{difference} (then and now differ too: {', '.join(circumstances)})"
    return difference


def first_difference(kept: Path, repeated: Path) -> str:
    """Where two runs' folders first differ: history, then weights, then predictions; or ""."""
    return (
        _history_difference(kept / "history.csv", repeated / "history.csv")
        or _weights_difference(read_run(kept), read_run(repeated))
        or _predictions_difference(kept / "predictions.h5", repeated / "predictions.h5")
    )


def changed_circumstances(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What, of all that a run's numbers depend on beside its spec, is not what it was."""
    then_and_now = {
        "data": (recorded["data"]["sha256"], now["data"]["sha256"]),
        "commit": (recorded["git"]["commit"], now["git"]["commit"]),
        "Python": (recorded["python"], now["python"]),
        **{key: (recorded["hardware"][key], now["hardware"][key]) for key in ("cpu", "gpus")},
        **{
            package: (recorded["packages"].get(package), now["packages"].get(package))
            for package in sorted(recorded["packages"] | now["packages"])
        },
    }
    return [what for what, (then, present) in then_and_now.items() if then != present]


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json in a folder.

    Raises:
        ScratchbookError: it is damaged, or of a version that recorded less.
    """
    file = folder / "run.json"
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in _READ if key not in run]
    except (ValueError, TypeError) as error:
        raise ScratchbookError(f"{file} is damaged: {error}") from None
    if missing:
        raise ScratchbookError(f"{file} does not say {', '.join(missing)}; train it anew")
    return run


def repeat(results: Path, name: Path, scratch: Path, pretrained: Path) -> None:
    """Trains a run again in this process, which has not imported Keras yet.

    Raises:
        ScratchbookError: data, weights or the GPU that it was trained with are not there.
    """
    from scratchbook.hardware import describe_hardware, keras_device

    run = read_run(results / name)
    threads, on_gpu = run["hardware"]["threads"], bool(run["hardware"]["gpus"])
    with keras_device(threads, on_gpu, print) as has_gpu:
        from scratchbook.data.prepared import Prepared
        from scratchbook.training.run import RunFiles, train_run

        if has_gpu != on_gpu:
            raise ScratchbookError("it was trained on a GPU, and there is none here")
        start = run["spec"].get("initial_weights")
        initial = results / run["notebook"] / start["experiment"] / name.name if start else None
        train_run(
            run["spec"],
            run["seed"],
            Prepared(results / "data" / f"{run['data']['dataset']}.h5"),
            RunFiles(
                history=scratch / "history.csv",
                checkpoints=scratch / "checkpoints",
                predictions=scratch / "predictions.h5",
                run=scratch / "run.json",
                state=scratch / "state",
            ),
            identity={key: run[key] for key in ("notebook", "experiment")},
            keep_epochs={},
            precision=run["precision"],
            hardware=describe_hardware(threads, on_gpu),
            code=Path(__file__).parent,
            pretrained=pretrained,
            initial_run=initial / "run.json" if initial else None,
            say=print,
            on_batch=lambda done, total: None,
        )


def _history_difference(kept: Path, repeated: Path) -> str:
    for epoch, (before, after) in enumerate(zip_longest(_rows(kept), _rows(repeated)), start=1):
        if before is None or after is None:
            return f"epoch {epoch}: {_only_in(before is None)}"
        for column in dict.fromkeys([*after, *before]):
            if column not in _NEVER_EQUAL and before.get(column) != after.get(column):
                return f"epoch {epoch}, {column}: {before.get(column)}, now {after.get(column)}"
    return ""


def _only_in(repeated: bool) -> str:
    return f"only in the {'repeated run' if repeated else 'results'}"


def _rows(history: Path) -> list[dict[str, str]]:
    with history.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _weights_difference(kept: dict[str, Any], repeated: dict[str, Any]) -> str:
    for name in ("best", "final"):
        before, after = (run["weights_sha256"][name] for run in (kept, repeated))
        if before != after:
            return f"the {name} weights: sha256 {before[:12]}…, now {after[:12]}…"
    return ""


def _predictions_difference(kept: Path, repeated: Path) -> str:
    before, after = _arrays(kept), _arrays(repeated)
    for name in sorted(after | before):
        if name not in before or name not in after:
            return f"predictions, {name}: {_only_in(name in after)}"
        if before[name].shape != after[name].shape:
            return f"predictions, {name}: shape {before[name].shape}, now {after[name].shape}"
        unequal = np.argwhere(before[name] != after[name])
        if len(unequal):
            row = unequal[0][0]
            return f"predictions, {name}, row {row}: {before[name][row]}, now {after[name][row]}"
    return ""


def _arrays(predictions: Path) -> dict[str, np.ndarray]:
    """{`best/test/logits`: its values} of a predictions.h5.

    Raises:
        ScratchbookError: the file is damaged.
    """
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item[()])

    try:
        with h5py.File(predictions, "r") as file:
            file.visititems(collect)
    except OSError as error:
        raise ScratchbookError(f"{predictions} is damaged: {error}") from None
    return arrays


if __name__ == "__main__":
    try:
        repeat(*map(Path, sys.argv[1:]))
    except ScratchbookError as error:
        sys.exit(" ".join(str(error).splitlines()))

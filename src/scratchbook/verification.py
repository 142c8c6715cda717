"""Train finished runs again beside the results: a run's files in, the first difference out."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import MissingError
from scratchbook.results.hdf5 import open_predictions
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_epochs, read_record
from scratchbook.results.records import Epoch, RunRecord

STDERR = 2  # where the epochs of a repeated training are told; the verdicts go to stdout
_NEVER_EQUAL = {"seconds"}  # of history.csv: how long an epoch took


def verify_run(results: Results, run: RunFiles, scratch: Path, pretrained: Path) -> str:
    """Trains one run again, in a process of its own, and compares what comes out bit for bit.

    The process has the spec, seed, threads, precision and backend that the run's `run.json`
    records: sums are split between threads, so another number of them gives other last digits.

    Args:
        results: where the run and its data are; only read.
        run: one of them.
        scratch: an empty folder for the repeated run.
        pretrained: the folder of backbones' weights files.

    Returns:
        "" where all is identical, else where it first differs.

    Raises:
        MissingError, DamagedError: there are no results to compare with.
        ScratchbookError: training failed.
    """
    recorded = read_record(run)
    for file in (run.history, run.predictions):
        if not file.is_file():
            raise MissingError(file)
    arguments = map(str, (results.folder, run.folder, scratch, pretrained))
    answer = subprocess.run(
        [sys.executable, "-u", "-m", __name__, *arguments],
        env={**os.environ, "KERAS_BACKEND": recorded["backend"]},
        stdout=STDERR,
        stderr=subprocess.PIPE,
        text=True,
    )
    if answer.returncode:
        said = answer.stderr.strip() or f"the training ended with code {answer.returncode}"
        raise ScratchbookError(f"it cannot be trained again: {said.splitlines()[-1]}")
    repeated = Results(scratch).trained(run.name)
    difference = first_difference(run, repeated)
    circumstances = changed_circumstances(recorded, read_record(repeated))
    if difference and circumstances:
        return f"{difference} (then and now differ too: {', '.join(circumstances)})"
    return difference


def first_difference(kept: RunFiles, repeated: RunFiles) -> str:
    """Where two runs first differ: history, then weights, then predictions; or ""."""
    return (
        _history_difference(*map(_epochs, (kept, repeated)))
        or _weights_difference(*map(read_record, (kept, repeated)))
        or _predictions_difference(*map(_predictions, (kept, repeated)))
    )


def changed_circumstances(recorded: RunRecord, now: RunRecord) -> list[str]:
    """What, of all that a run's numbers depend on beside its spec, is not what it was."""
    then_and_now = {
        "data": (recorded["data"]["arrays_sha256"], now["data"]["arrays_sha256"]),
        **{
            f"our code for {name}": (recorded["training"].get(name), now["training"].get(name))
            for name in sorted(recorded["training"] | now["training"])
        },
        "commit": (recorded["git"]["commit"], now["git"]["commit"]),
        "Python": (recorded["python"], now["python"]),
        "device": (recorded["device"], now["device"]),
        **{
            package: (recorded["packages"].get(package), now["packages"].get(package))
            for package in sorted(recorded["packages"] | now["packages"])
        },
    }
    return [what for what, (then, present) in then_and_now.items() if then != present]


def repeat(results: Results, run: RunFiles, scratch: Results, pretrained: Path) -> None:
    """Trains a run again in this process, which has not imported Keras yet.

    Raises:
        ScratchbookError: data, weights or the GPU that it was trained with are not there.
    """
    from scratchbook.hardware import describe_hardware, keras_device

    record = read_record(run)
    threads, on_gpu = record["hardware"]["threads"], bool(record["hardware"]["gpus"])
    with keras_device(threads, on_gpu, print) as has_gpu:
        from scratchbook.results.prepared import Prepared
        from scratchbook.training.order import Order, Printer
        from scratchbook.training.run import train_run

        if has_gpu != on_gpu:
            raise ScratchbookError("it was trained on a GPU, and there is none here")
        start = record["initial"]["run"] if "initial" in record else None
        order = Order(
            key=record["key"],
            notebook=record["notebook"],
            experiment=record["experiment"],
            spec=record["spec"],
            seed=record["seed"],
            precision=record["precision"],
            backend=record["backend"],
            threads=threads,
            keep_epochs={},
            data=record["data"]["file"],
            pretrained=record["pretrained"],
            initial=start,
        )
        train_run(
            order,
            Prepared(results.data(order.data)),
            scratch.trained(run.name),
            scratch.state(run.name),
            hardware=describe_hardware(threads, on_gpu),
            code=Path(__file__).parent,
            pretrained=pretrained,
            initial_run=results.run(start) if start else None,
            console=Printer(),
        )


def _history_difference(kept: list[Epoch], repeated: list[Epoch]) -> str:
    for epoch, (before, after) in enumerate(zip_longest(kept, repeated), start=1):
        if before is None or after is None:
            return f"epoch {epoch}: {_only_in(before is None)}"
        for column in after | before:
            then, now = (repr(row.get(column)) for row in (before, after))  # NaN equals NaN
            if column not in _NEVER_EQUAL and then != now:
                return f"epoch {epoch}, {column}: {then}, now {now}"
    return ""


def _epochs(run: RunFiles) -> list[Epoch]:
    """The rows of history.csv; none of a run that diverged before its first epoch was whole."""
    return read_epochs(run) if read_record(run)["epochs"] else []


def _only_in(repeated: bool) -> str:
    return f"only in the {'repeated run' if repeated else 'results'}"


def _weights_difference(kept: RunRecord, repeated: RunRecord) -> str:
    name: Literal["best", "final"]
    for name in ("best", "final"):
        before, after = (record["weights_sha256"][name] for record in (kept, repeated))
        if before != after:
            return f"the {name} weights: sha256 {before[:12]}…, now {after[:12]}…"
    return ""


def _predictions_difference(kept: dict[str, np.ndarray], repeated: dict[str, np.ndarray]) -> str:
    for name in sorted(repeated | kept):
        if name not in kept or name not in repeated:
            return f"predictions, {name}: {_only_in(name in repeated)}"
        before, after = kept[name], repeated[name]
        if before.shape != after.shape:
            return f"predictions, {name}: shape {before.shape}, now {after.shape}"
        both_nan = (before != before) & (after != after)
        for row in np.argwhere((before != after) & ~both_nan)[:1, 0]:
            return f"predictions, {name}, row {row}: {before[row]}, now {after[row]}"
    return ""


def _predictions(run: RunFiles) -> dict[str, np.ndarray]:
    with open_predictions(run.predictions) as predictions:
        return predictions.arrays()


if __name__ == "__main__":
    try:
        results, run, scratch, pretrained = map(Path, sys.argv[1:])
        repeat(Results(results), RunFiles(run), Results(scratch), pretrained)
    except ScratchbookError as error:
        sys.exit(" ".join(str(error).splitlines()))

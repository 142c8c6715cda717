"""Train one run, or go on with it: an order and prepared data in; history.csv, checkpoints/,
predictions.h5 and run.json out."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_record
from scratchbook.results.records import Hardware

from .build import Setup, build, count_bytes, resume_key
from .loop import train
from .order import Listener, Order
from .record import write_run
from .state import RunState, Snapshot, check_space, readable_write_errors


def train_run(
    order: Order,
    prepared: Prepared,
    run: RunFiles,
    state: Path,
    *,
    hardware: Hardware,
    code: Path,
    pretrained: Path,
    initial_run: RunFiles | None,
    console: Listener,
) -> None:
    """Trains, or goes on with, one run and writes its files, each whole or absent.

    The state stays: where the files are lost before they are kept, they are written from it again.

    Args:
        run: where the files go.
        state: the folder that a killed training goes on from.
        hardware: what `scratchbook.hardware` says of this machine.
        code: a folder in the repository whose commit is recorded.
        pretrained: the folder of backbones' weights files.
        initial_run: the run that `initial_weights` names.

    Raises:
        ScratchbookError: network, head, data and recorded figures do not fit each other; the disk
            is full or not to be written on; another process trains this run.
    """
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    inherited = initial_run is not None and "diverged" in read_record(initial_run)
    if inherited:
        # There is nothing to start from: it is as it would have been drawn, and nothing is trained.
        told: Any = {name: part for name, part in order.spec.items() if name != "initial_weights"}
        bare = build(replace(order, spec=told), prepared, pretrained, None)
        setup = replace(bare, order=order)
    else:
        setup = build(order, prepared, pretrained, initial_run)
    weights, values = count_bytes(setup.model.variables), count_bytes(setup.variables)
    epochs, kept = order.spec["epochs"], len(order.keep_epochs)
    with readable_write_errors(state):
        held = RunState(state, resume_key(setup), console.say)
        check_space(state, weights, values, epochs, kept, console.say)
    snapshot = _restored(setup, held, hardware, console)
    snapshot.started = snapshot.started or started
    begun = clock - snapshot.wall_seconds  # which is of earlier attempts, as far as they were saved
    if inherited:
        console.say(f"the run that it starts from diverged ({order.initial}), and so does this one")
        snapshot.diverged = 0
    else:
        train(setup, held, snapshot, begun, console)
    write_run(setup, held, snapshot, begun, run, hardware, code, initial_run)
    held.release()


def _restored(setup: Setup, state: RunState, hardware: Hardware, console: Listener) -> Snapshot:
    """The snapshot to go on from, the network's variables set to what they were then."""
    snapshot, arrays = state.load() or (Snapshot(), [])
    if arrays:
        for variable, value in zip(setup.variables, arrays, strict=True):
            variable.assign(value)
        console.say(f"going on after epoch {snapshot.epoch}")
    machine = f"{hardware['cpu']}, GPUs {hardware['gpus']}"
    if snapshot.machine not in ("", machine):
        console.say(
            f"the epochs before were trained on another machine ({snapshot.machine}; this one: "
            f"{machine}): the last digits may not be those of an uninterrupted run"
        )
    snapshot.machine = machine
    return snapshot

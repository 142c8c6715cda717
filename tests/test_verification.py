"""What `scratchbook verify` finds: runs trained again beside results that it leaves alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from projects import run_of, scratchbook, snakemake
from result_trees import make_run, make_spec
from scratchbook.results.errors import DamagedError, MissingError
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_record
from scratchbook.results.records import SPLITS
from scratchbook.verification import changed_circumstances, first_difference, verify_run

EPOCHS = (
    "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n"
    "1,0.5,0.1,0.7,nan,0.01,3\n"
    "2,0.4,0.2,0.6,0.2,0.01,3\n"
)


def write_run(folder: Path, diverged: int | None = None) -> RunFiles:
    spec, counts = make_spec(), dict.fromkeys(SPLITS, 4)
    make_run(
        folder, spec, 0, classes=("x", "y", "z"), counts=counts, accuracy=0.5, diverged=diverged
    )
    run = RunFiles(folder)
    if diverged is not None:
        return run
    run.history.write_text(EPOCHS)
    with h5py.File(run.predictions, "a") as file:
        file["last/test/logits"][0] = np.nan
    return run


@pytest.fixture
def kept(tmp_path: Path) -> RunFiles:
    return write_run(tmp_path / "kept/seed0")


@pytest.fixture
def again(tmp_path: Path) -> RunFiles:
    return write_run(tmp_path / "again/seed0")


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_runs_that_took_another_time_are_identical(kept: RunFiles, again: RunFiles) -> None:
    edit(again.history, "nan,0.01,3", "nan,0.01,9")
    assert first_difference(kept, again) == ""


def test_the_first_epoch_and_column_that_differ_are_named(kept: RunFiles, again: RunFiles) -> None:
    edit(again.history, "2,0.4,0.2,0.6", "2,0.41,0.2,0.61")
    edit(again.record, "b" * 64, "c" * 64)
    assert first_difference(kept, again) == "epoch 2, loss: 0.4, now 0.41"


def test_a_number_is_not_what_is_none_and_a_column_more_is_a_difference(
    kept: RunFiles, again: RunFiles
) -> None:
    edit(again.history, "nan", "0.1")
    assert first_difference(kept, again) == "epoch 1, val_accuracy: nan, now 0.1"
    again.history.write_text(EPOCHS.replace("\n", ",1\n").replace("seconds,1", "seconds,more"))
    assert first_difference(kept, again) == "epoch 1, more: None, now 1.0"


def test_a_missing_epoch_is_a_difference(kept: RunFiles, again: RunFiles) -> None:
    edit(again.history, EPOCHS.splitlines(keepends=True)[2], "")
    assert first_difference(kept, again) == "epoch 2: only in the results"
    assert first_difference(again, kept) == "epoch 2: only in the repeated run"


@pytest.mark.parametrize(("name", "letter"), [("best", "a"), ("final", "b")])
def test_weights_are_compared_after_the_history(
    kept: RunFiles, again: RunFiles, name: str, letter: str
) -> None:
    edit(again.record, letter * 64, "0" * 64)
    difference = first_difference(kept, again)
    assert difference == f"the {name} weights: sha256 {letter * 12}…, now {'0' * 12}…"


def test_predictions_are_compared_last(kept: RunFiles, again: RunFiles) -> None:
    with h5py.File(again.predictions, "a") as file:
        file["last/test/logits"][2, 1] += 1e-6
    assert "predictions, last/test/logits, row 2" in first_difference(kept, again)
    with h5py.File(again.predictions, "a") as file:
        file["last/test/logits"][0, 1] = 0
    assert "predictions, last/test/logits, row 0: [nan nan nan]" in first_difference(kept, again)
    with h5py.File(again.predictions, "a") as file:
        del file["best"]
    assert "best/test/index: only in the results" in first_difference(kept, again)


def test_other_circumstances_are_named(kept: RunFiles) -> None:
    then = read_record(kept)
    packages = then["packages"] | {"keras": "4.0", "jax": "1"}
    now: Any = {
        **then, "packages": packages, "data": {**then["data"], "arrays_sha256": "d2"},
        "training": {"loop": 2, "layers": 1, "whitening": 1}, "device": "a GPU",
    }  # fmt: skip
    assert changed_circumstances(then, now) == [
        "data", "our code for loop", "our code for whitening", "device", "jax", "keras",
    ]  # fmt: skip
    assert changed_circumstances(then, then) == []


def test_what_is_missing_or_damaged_is_named(kept: RunFiles, tmp_path: Path) -> None:
    def verify() -> None:
        verify_run(Results(tmp_path), kept, tmp_path / "scratch", tmp_path)

    kept.predictions.unlink()
    with pytest.raises(MissingError, match=r"there is no .*kept/seed0/predictions\.h5"):
        verify()
    kept.history.unlink()
    with pytest.raises(MissingError, match=r"there is no .*kept/seed0/history\.csv"):
        verify()
    edit(kept.record, '"backend"', '"was backend"')
    with pytest.raises(DamagedError, match=r"kept/seed0/run\.json: backend: Field required"):
        verify()
    kept.record.write_text("")
    with pytest.raises(DamagedError, match=r"kept seed 0 has an unreadable .*run\.json"):
        verify()


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_runs_that_diverged_alike_are_identical(tmp_path: Path, epoch: int) -> None:
    kept, again, whole = (
        write_run(tmp_path / name / "seed0", epoch if name != "whole" else None)
        for name in ("kept", "again", "whole")
    )
    assert first_difference(kept, again) == ""
    assert "epoch 1" in first_difference(kept, whole)
    assert "epoch 1" in first_difference(whole, kept)


def test_an_experiment_that_is_not_there_is_refused(project: Path) -> None:
    answer = scratchbook(project, "verify", "halves", "--experiments", "narow")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "--experiments: halves has no 'narow'; did you mean 'narrow'?\n"


def test_an_untouched_project_is_identical_and_a_changed_number_is_found(project: Path) -> None:
    history = Results(project / "results").run(run_of(project, "wide")).history
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    edit(history, rows[1]["val_loss"], "0.125")
    results = {file: file.read_bytes() for file in project.glob("results/**/*") if file.is_file()}

    answer = scratchbook(project, "verify", "halves", "--seeds", "0")
    narrow, wide = answer.stdout.splitlines()
    assert narrow == "halves/narrow/seed0: identical"
    assert wide == (
        f"halves/wide/seed0: differs first in epoch 2, val_loss: 0.125, now {rows[1]['val_loss']}"
    )
    assert answer.returncode == 1
    assert "epoch 2/2" in answer.stderr
    assert results == {
        file: file.read_bytes() for file in project.glob("results/**/*") if file.is_file()
    }

    shutil.rmtree(history.parent)
    answer = scratchbook(project, "verify", "halves", "--experiments", "wide")
    assert answer.returncode == 1
    assert "halves/wide/seed0: not verified: " in answer.stdout
    assert "seed 0 was not trained" in answer.stdout


def test_a_run_has_the_threads_it_declares_however_few_cores_there_are(project: Path) -> None:
    """Snakemake lowers a job's threads to --cores, which would give other last digits."""
    notebook = project / "config/notebooks/halves.yaml"
    edit(notebook, "  epochs: 2\n", "  epochs: 2\n  threads: 2\n")
    trained, files = [], Results(project / "results").run(run_of(project, "narrow"))
    target = str(files.record.relative_to(project))
    for cores in (1, 2):
        shutil.rmtree(files.folder.parent, ignore_errors=True)
        shutil.rmtree(project / "results/state", ignore_errors=True)
        answer = snakemake(project, target, cores=cores)
        assert answer.returncode == 0, answer.stderr
        run = json.loads(files.record.read_text())
        assert run["hardware"]["threads"] == 2
        trained.append(run["weights_sha256"])
    assert trained[0] == trained[1]

"""What `scratchbook verify` finds: runs trained again beside results that it leaves alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from projects import scratchbook, snakemake
from scratchbook.config.errors import ScratchbookError
from scratchbook.verification import changed_circumstances, first_difference, verify_run

RUN = {
    "spec": {}, "seed": 0, "backend": "tensorflow", "precision": "float32", "python": "3.11.7",
    "hardware": {"threads": 1, "cpu": "A", "gpus": []}, "packages": {"keras": "3.15.1"},
    "git": {"commit": None}, "data": {"dataset": "shapes", "sha256": "d1"},
    "weights_sha256": {"best": "b" * 64, "final": "f" * 64},
}  # fmt: skip


def write_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "history.csv").write_text("epoch,loss,val_loss,seconds\n1,0.5,0.7,3\n2,0.4,0.6,3\n")
    with h5py.File(folder / "predictions.h5", "w") as file:
        file["best/test/logits"] = np.zeros((4, 3), np.float32)
        file["last/test/logits"] = np.zeros((4, 3), np.float32)
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return write_run(tmp_path / "kept")


@pytest.fixture
def again(tmp_path: Path) -> Path:
    return write_run(tmp_path / "again")


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_runs_that_took_another_time_are_identical(kept: Path, again: Path) -> None:
    edit(again / "history.csv", "0.7,3", "0.7,9")
    assert first_difference(kept, again) == ""


def test_the_first_epoch_and_column_that_differ_are_named(kept: Path, again: Path) -> None:
    edit(again / "history.csv", "2,0.4,0.6", "2,0.41,0.61")
    edit(again / "run.json", "b" * 64, "c" * 64)
    assert first_difference(kept, again) == "epoch 2, loss: 0.4, now 0.41"


def test_a_missing_epoch_is_a_difference(kept: Path, again: Path) -> None:
    edit(again / "history.csv", "2,0.4,0.6,3\n", "")
    assert first_difference(kept, again) == "epoch 2: only in the results"
    assert first_difference(again, kept) == "epoch 2: only in the repeated run"


@pytest.mark.parametrize(("name", "letter"), [("best", "b"), ("final", "f")])
def test_weights_are_compared_after_the_history(
    kept: Path, again: Path, name: str, letter: str
) -> None:
    edit(again / "run.json", letter * 64, "0" * 64)
    difference = first_difference(kept, again)
    assert difference == f"the {name} weights: sha256 {letter * 12}…, now {'0' * 12}…"


def test_predictions_are_compared_last(kept: Path, again: Path) -> None:
    with h5py.File(again / "predictions.h5", "a") as file:
        file["last/test/logits"][2, 1] = 1e-7
    assert "predictions, last/test/logits, row 2" in first_difference(kept, again)
    with h5py.File(again / "predictions.h5", "a") as file:
        del file["best"]
    assert "best/test/logits: only in the results" in first_difference(kept, again)


def test_other_circumstances_are_named() -> None:
    now = {**RUN, "packages": {"keras": "4.0", "jax": "1"}, "data": {"sha256": "d2"}}
    assert changed_circumstances(RUN, now) == ["data", "jax", "keras"]
    assert changed_circumstances(RUN, RUN) == []


def test_what_is_missing_or_damaged_is_named(kept: Path, tmp_path: Path) -> None:
    def verify() -> None:
        verify_run(tmp_path, Path("kept"), tmp_path / "scratch", tmp_path)

    (kept / "run.json").write_text('{"seed": 0}')
    with pytest.raises(ScratchbookError, match=r"kept/run.json does not say spec, backend"):
        verify()
    (kept / "run.json").write_text("")
    with pytest.raises(ScratchbookError, match=r"kept/run.json is damaged"):
        verify()
    (kept / "history.csv").unlink()
    with pytest.raises(ScratchbookError, match=r"kept/history.csv is missing"):
        verify()


def test_an_experiment_that_is_not_there_is_refused(project: Path) -> None:
    answer = scratchbook(project, "verify", "halves", "--experiments", "narow")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "--experiments: halves has no 'narow'; did you mean 'narrow'?\n"


def test_an_untouched_project_is_identical_and_a_changed_number_is_found(project: Path) -> None:
    history = project / "results/halves/wide/seed0/history.csv"
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
    assert "wide/seed0: not verified: results/halves/wide/seed0/run.json is miss" in answer.stdout


def test_a_run_has_the_threads_it_declares_however_few_cores_there_are(project: Path) -> None:
    """Snakemake lowers a job's threads to --cores, which would give other last digits."""
    notebook = project / "config/notebooks/halves.yaml"
    edit(notebook, "  epochs: 2\n", "  epochs: 2\n  threads: 2\n")
    trained = []
    for cores in (1, 2):
        shutil.rmtree(project / "results/halves")
        answer = snakemake(project, "results/halves/narrow/seed0/run.json", cores=cores)
        assert answer.returncode == 0, answer.stderr
        run = json.loads((project / "results/halves/narrow/seed0/run.json").read_text())
        assert run["hardware"]["threads"] == 2
        trained.append(run["weights_sha256"])
    assert trained[0] == trained[1]

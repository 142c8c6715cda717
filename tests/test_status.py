"""What `scratchbook status` says of runs, by the files that they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from projects import scratchbook
from scratchbook.status import RunStatus, run_statuses, status_table

RUN = Path("halves/narrow/seed0")
SPEC = {"epochs": 50, "batch_size": 8, "recorded_parameters": None}
TRIAL = {"name": "halves", "seeds": [0], "experiments": [{"name": "narrow", "spec": SPEC}]}
NOW = 1_000_000.0


def epoch(number: int, left: str = "13 s") -> str:
    return (
        f"epoch {number}/50  loss 0.7485  accuracy 0.777  val_loss 0.8376  val_accuracy 0.7{number}"
        f"  1,490 images/s  {left} left"
    )


def write_log(results: Path, *lines: str, age: float = 1.0, state: bool = True) -> None:
    log = results / "logs" / RUN / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(["I0000 something of a library", *lines]) + "\n")
    os.utime(log, (NOW - age, NOW - age))
    if state:
        (results / "state" / RUN).mkdir(parents=True)


def write_run(results: Path, spec: dict[str, Any]) -> None:
    folder = results / RUN
    folder.mkdir(parents=True)
    values = {"epochs": 3, "best_epoch": 2, "images_per_second": 2046.4, "spec": spec}
    (folder / "run.json").write_text(json.dumps(values))
    (folder / "history.csv").write_text("epoch,val_accuracy\n1,0.5\n2,0.75\n3,0.625\n")


def status(results: Path) -> RunStatus:
    (row,) = run_statuses(results, [TRIAL], NOW)
    return row


def test_a_run_that_left_nothing_waits(tmp_path: Path) -> None:
    assert status(tmp_path) == RunStatus("halves", "narrow", 0, "waiting", 50)


def test_a_run_in_training_is_as_far_as_its_last_line_says(tmp_path: Path) -> None:
    write_log(tmp_path, epoch(11), epoch(12, "1.2 h"), "7 of 90")
    assert status(tmp_path) == RunStatus(
        "halves", "narrow", 0, "training", 50, 12, 0.712, 1490.0, "1.2 h"
    )


def test_a_run_that_goes_on_counts_the_epochs_before_it_was_killed(tmp_path: Path) -> None:
    write_log(tmp_path, "going on after epoch 31")
    assert (status(tmp_path).state, status(tmp_path).epoch) == ("training", 31)


def test_a_run_that_has_only_started_is_in_training(tmp_path: Path) -> None:
    write_log(tmp_path, state=False)
    assert (status(tmp_path).state, status(tmp_path).epoch) == ("training", 0)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    write_log(tmp_path, epoch(1), "error: the loss became nan in epoch 2", "Traceback", age=9999)
    row = status(tmp_path)
    assert (row.state, row.epoch) == ("failed", 1)
    assert row.detail == "the loss became nan in epoch 2"


def test_an_interrupted_run_says_so_at_once(tmp_path: Path) -> None:
    write_log(tmp_path, epoch(4), "interrupted; start Snakemake again to go on")
    row = status(tmp_path)
    assert (row.state, row.epoch, row.left) == ("stale", 4, "")
    assert row.detail == "interrupted; start Snakemake again to go on"


@pytest.mark.parametrize(
    ("lines", "age", "state"),
    [
        ([epoch(12, "38 s")], 100, "training"),  # epochs of one second
        ([epoch(12, "38 s")], 130, "stale"),
        ([epoch(12, "38 min")], 230, "training"),  # epochs of one minute
        ([epoch(12, "38 min")], 250, "stale"),
        ([], 800, "training"),  # the first epoch may take long
        ([], 1000, "stale"),
        ([epoch(12)], -3600, "training"),  # the clock was put back
    ],
)
def test_a_run_is_stale_once_its_log_rests_for_longer_than_its_epochs_take(
    tmp_path: Path, lines: list[str], age: float, state: str
) -> None:
    write_log(tmp_path, *lines, age=age)
    assert status(tmp_path).state == state


def test_a_finished_run_shows_its_best_epoch(tmp_path: Path) -> None:
    write_log(tmp_path, epoch(3), state=False, age=9999)
    write_run(tmp_path, {**SPEC, "recorded_parameters": 7})
    row = status(tmp_path)
    assert (row.state, row.epoch, row.val_accuracy) == ("done", 3, 0.75)
    assert (row.images_per_second, row.detail) == (2046.4, "best in epoch 2")


def test_a_finished_run_of_another_spec_is_stale(tmp_path: Path) -> None:
    write_run(tmp_path, {**SPEC, "batch_size": 16, "schedule": {"warmup": 1}})
    row = status(tmp_path)
    assert (row.state, row.detail) == ("stale", "declared otherwise now: batch_size, schedule")


def test_results_that_were_removed_wait_though_their_log_is_there(tmp_path: Path) -> None:
    write_log(tmp_path, epoch(50), state=False, age=9999)
    assert status(tmp_path) == RunStatus("halves", "narrow", 0, "waiting", 50)


def test_damaged_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, SPEC)
    (tmp_path / RUN / "history.csv").write_text("")
    assert (status(tmp_path).state, status(tmp_path).val_accuracy) == ("failed", None)
    assert "history.csv cannot be read; remove it" in status(tmp_path).detail
    (tmp_path / RUN / "run.json").write_text("{")
    assert status(tmp_path).state == "failed"
    assert "run.json cannot be read" in status(tmp_path).detail


def test_seeds_asked_for_on_the_command_line_are_shown_too(tmp_path: Path) -> None:
    (tmp_path / "state/halves/narrow/seed10").mkdir(parents=True)
    (tmp_path / "halves/narrow/seed2").mkdir(parents=True)
    assert [row.seed for row in run_statuses(tmp_path, [TRIAL], NOW)] == [0, 2, 10]


def test_the_table_is_aligned_and_counts() -> None:
    rows = [
        RunStatus("halves", "narrow", 0, "training", 50, 9, 0.5, 12490.0, "2 min"),
        RunStatus("halves", "wider", 10, "waiting", 50),
        RunStatus("halves", "wide", 0, "failed", 50, 1, 0.25, 3.0, detail="no memory"),
    ]
    assert status_table(rows).splitlines() == [
        "notebook  experiment  seed  state     epoch  val accuracy  images/s   left",
        "halves    narrow      0     training   9/50         0.500    12,490  2 min",
        "halves    wider       10    waiting       –             –         –      –",
        "halves    wide        0     failed     1/50         0.250         3      –  no memory",
        "3 runs: 1 training, 1 waiting, 1 failed",
    ]


def test_the_command_reads_what_real_runs_leave(project: Path) -> None:
    answer = scratchbook(project, "status")
    assert "2 runs: 2 done" in answer.stdout, answer.stderr
    (project / "results/halves/wide/seed0/run.json").unlink()
    (project / "results/state/halves/wide/seed0").mkdir(parents=True)
    (project / "results/logs/halves/wide/seed0/train.log").touch()
    answer = scratchbook(project, "status", "halves")
    row = next(line for line in answer.stdout.splitlines() if " wide " in line)
    assert row.split()[3:5] == ["training", "2/2"]


def test_the_command_needs_no_keras_and_watches_until_ctrl_c(project: Path) -> None:
    told = project / "imports"
    with told.open("w") as stderr:
        watch = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "scratchbook.cli", "status", "--watch"],
            cwd=project, stdout=subprocess.PIPE, stderr=stderr, text=True,
            env={**os.environ, "PYTHONPATH": str(project / "src")},
            # A shell that runs the tests in the background has Ctrl-C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    assert watch.stdout is not None
    while "2 runs: 2 done" not in watch.stdout.readline():
        assert watch.poll() is None
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=20)
    assert watch.returncode == 0
    names = {line.rpartition("|")[2].strip() for line in told.read_text().splitlines()}
    assert "scratchbook.status" in names
    assert not names & {"keras", "tensorflow", "numpy", "pandas", "matplotlib"}

"""What `scratchbook status` says of runs, by the files that they leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from projects import run_of, scratchbook
from result_trees import COUNTS, make_run, make_spec
from scratchbook.results.paths import Results, run_name
from scratchbook.results.store import Store
from scratchbook.status import RunStatus, mixed_answers, run_statuses, status_table

KEY = "shapes-3f9a0c61d2e8"
RUN = run_name(KEY, 0)
SPEC = make_spec(epochs=50)
NOW = 1_000_000.0


def told(epoch: int, each: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "epochs": 50,
        "figures": {"loss": 0.7485, "val_accuracy": 0.7 + epoch / 1000},
        "images_per_second": 1490.0,
        "seconds_left": each * (50 - epoch),
        "epoch_seconds": each,
        **more,
    }


def tell(root: Path, age: float = 1.0, unfinished: bool = True, **more: Any) -> None:
    """What a job leaves that told this so many seconds ago."""
    results = Results(root)
    file = results.progress(RUN)
    file.parent.mkdir(parents=True)
    said = {"stage": "training", "state": "running", "updated": NOW - age, **more}
    file.write_text(json.dumps(said))
    if unfinished:
        results.state(RUN).mkdir(parents=True)


def write_run(root: Path, **how: Any) -> None:
    folder = Results(root).run(RUN).folder
    make_run(folder, SPEC, 0, classes=("a", "b"), counts=COUNTS, accuracy=0.75, **how)


def plan_of(root: Path, seeds: Sequence[int] = (0,), lacks_data: bool = False) -> Any:
    """A notebook with one experiment, whose key is KEY, beside the results in `root`."""
    results = Results(root)
    return SimpleNamespace(
        results=results, store=Store(results), lacks_data=lambda notebook: lacks_data,
        project=SimpleNamespace(notebooks={"halves": SimpleNamespace(experiments=["narrow"])}),
        spec=lambda notebook, experiment: SPEC, seeds=lambda notebook, experiment: list(seeds),
        run=lambda notebook, experiment, seed: run_name(KEY, seed),
        runs=lambda notebook: {"narrow": {seed: run_name(KEY, seed) for seed in seeds}},
    )  # fmt: skip


def status(root: Path) -> RunStatus:
    (row,) = run_statuses(plan_of(root), ["halves"], NOW)
    return row


def test_a_run_that_left_nothing_waits(tmp_path: Path) -> None:
    assert status(tmp_path) == RunStatus("halves", "narrow", 0, "waiting", 50)


def test_a_run_in_training_is_as_far_as_its_job_told(tmp_path: Path) -> None:
    tell(tmp_path, **told(12, each=115.0))
    assert status(tmp_path) == RunStatus(
        "halves", "narrow", 0, "training", 50, 12, 0.712, 1490.0, "73 min"
    )


def test_a_run_that_goes_on_counts_the_epochs_before_it_was_killed(tmp_path: Path) -> None:
    tell(tmp_path, epoch=31, epochs=50)
    assert (status(tmp_path).state, status(tmp_path).epoch) == ("training", 31)


def test_a_run_that_has_only_started_is_in_training(tmp_path: Path) -> None:
    tell(tmp_path, unfinished=False)
    assert (status(tmp_path).state, status(tmp_path).epoch) == ("training", 0)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    message = "the loss became nan in epoch 2"
    tell(tmp_path, age=9999, **told(1, state="failed", message=message))
    row = status(tmp_path)
    assert (row.state, row.epoch, row.left, row.detail) == ("failed", 1, "", message)


def test_an_interrupted_run_says_so_at_once(tmp_path: Path) -> None:
    tell(tmp_path, **told(4, state="interrupted"))
    row = status(tmp_path)
    assert (row.state, row.epoch, row.left) == ("stale", 4, "")
    assert row.detail == "interrupted; start Snakemake again to go on"


@pytest.mark.parametrize(
    ("said", "age", "state"),
    [
        (told(12), 100, "training"),  # epochs of one second
        (told(12), 130, "stale"),
        (told(12, each=60), 230, "training"),
        (told(12, each=60), 250, "stale"),
        ({}, 800, "training"),  # the first epoch may take long
        ({}, 1000, "stale"),
        (told(12), -3600, "training"),  # the clock was put back
    ],
)
def test_a_run_is_stale_once_its_job_rests_for_longer_than_its_epochs_take(
    tmp_path: Path, said: dict[str, Any], age: float, state: str
) -> None:
    tell(tmp_path, age=age, **said)
    assert status(tmp_path).state == state


def test_a_job_of_another_machine_is_known_by_its_silence_alone(tmp_path: Path) -> None:
    tell(tmp_path, **told(12, host="elsewhere", pid=2**22 + 1))
    assert status(tmp_path).state == "training"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"stage": "training"}', "\x00", "[" * 100_000]
    + [
        json.dumps({"stage": "training", "state": "failed", "updated": NOW} | odd)
        for odd in ({"figures": []}, {"epoch_seconds": "x"}, {"message": 5}, {"updated": None})
    ],
)
def test_a_damaged_progress_file_stops_nothing(tmp_path: Path, text: str) -> None:
    tell(tmp_path, **told(12))
    Results(tmp_path).progress(RUN).write_text(text)
    assert status(tmp_path).state == "waiting"


def test_a_finished_run_shows_its_best_epoch(tmp_path: Path) -> None:
    tell(tmp_path, unfinished=False, age=9999, **told(3, state="done"))
    write_run(tmp_path)
    row = status(tmp_path)
    assert (row.state, row.epoch, row.images_per_second) == ("done", 50, 320.0)
    assert (row.val_accuracy, row.detail) == (pytest.approx(0.7127, abs=0.001), "best in epoch 48")


@pytest.mark.parametrize(("epoch", "said"), [(4, "in epoch 4"), (1, "in epoch 1"), (0, "")])
def test_a_run_that_diverged_is_finished_and_says_where(
    tmp_path: Path, epoch: int, said: str
) -> None:
    write_run(tmp_path, diverged=epoch)
    row = status(tmp_path)
    assert (row.state, row.epoch, row.detail) == ("diverged", max(0, epoch - 1), said)
    assert row.val_accuracy is None


def test_a_run_that_is_asked_for_again_waits_and_then_trains(tmp_path: Path) -> None:
    write_run(tmp_path)
    tell(tmp_path, unfinished=False, **told(50, state="done"))
    Store(Results(tmp_path)).ask_again(RUN, False, datetime.now(UTC))
    row = status(tmp_path)
    assert (row.state, row.epoch, row.detail) == ("waiting", None, "to be trained again")
    Results(tmp_path).state(RUN).mkdir(parents=True)
    said = {"stage": "training", "state": "running", "updated": NOW - 1, **told(3)}
    Results(tmp_path).progress(RUN).write_text(json.dumps(said))
    assert (status(tmp_path).state, status(tmp_path).epoch) == ("training", 3)


def test_a_notebook_without_data_is_shown_and_says_so(tmp_path: Path) -> None:
    rows = run_statuses(plan_of(tmp_path, lacks_data=True), ["halves"], NOW)
    assert rows == [
        RunStatus("halves", "narrow", 0, "waiting", 50, detail="its data are not there")
    ]
    assert mixed_answers(plan_of(tmp_path, lacks_data=True), ["halves"]) == []


def test_what_finished_runs_differ_in_and_nobody_asked_for_is_said(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = Results(tmp_path).run(run_name(KEY, seed)).folder
        make_run(folder, SPEC, seed, classes=("a", "b"), counts=COUNTS, accuracy=0.75)
    plan = plan_of(tmp_path, seeds=(0, 1, 2))
    assert mixed_answers(plan, ["halves"]) == []
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"float32"', '"mixed_bfloat16"'))
    (line,) = mixed_answers(plan, ["halves"])
    assert line.startswith("halves: mixed precision")
    assert "narrow seed 1" in line


def test_results_that_were_removed_wait_though_their_progress_is_there(tmp_path: Path) -> None:
    tell(tmp_path, unfinished=False, age=9999, **told(50, state="done"))
    assert status(tmp_path) == RunStatus("halves", "narrow", 0, "waiting", 50)


def test_damaged_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    write_run(tmp_path)
    run = Results(tmp_path).run(RUN)
    whole = run.history.read_text()
    run.history.write_text("")
    assert (status(tmp_path).state, status(tmp_path).val_accuracy) == ("failed", None)
    assert f"{run.history}: has an unreadable history.csv" in status(tmp_path).detail
    run.history.write_text("x" * len(whole.encode()))  # its size is what it was
    assert status(tmp_path).state == "failed"
    assert "has an unreadable history.csv" in status(tmp_path).detail
    run.history.write_text(whole)
    assert status(tmp_path).state == "done"
    run.predictions.unlink()
    assert "is not whole (no predictions.h5)" in status(tmp_path).detail
    run.checksums.write_text("{")
    assert status(tmp_path).state == "failed"
    assert "unreadable checksums.json" in status(tmp_path).detail


@pytest.mark.parametrize("best", ["00", "99", '"2"', "2.5"])
def test_a_best_epoch_that_there_is_not_is_the_records_fault(tmp_path: Path, best: str) -> None:
    write_run(tmp_path)
    run = Results(tmp_path).run(RUN)
    text = run.record.read_text().replace('"best_epoch": 48', f'"best_epoch": {best}')
    run.record.write_text(text)
    kept = json.loads(run.checksums.read_text())
    kept["files"]["run.json"]["size"] = run.record.stat().st_size
    run.checksums.write_text(json.dumps(kept))
    assert (status(tmp_path).state, status(tmp_path).val_accuracy) == ("failed", None)
    told = "has no best epoch" if best == "99" else "has an unreadable run.json"
    assert told in status(tmp_path).detail


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
    results, run = Results(project / "results"), run_of(project, "wide")
    shutil.rmtree(results.run(run).folder)
    results.state(run).mkdir(parents=True)
    progress = results.progress(run)
    told = json.loads(progress.read_text())
    assert (told["stage"], told["state"], told["total"]) == ("mapping", "done", 3)
    begun = {**told, "stage": "training", "state": "running", "epoch": 2}
    for pid, state in ((os.getpid(), "training"), (told["pid"], "stale")):
        progress.write_text(json.dumps({**begun, "pid": pid}))
        answer = scratchbook(project, "status", "halves")
        row = next(line for line in answer.stdout.splitlines() if " wide " in line)
        assert row.split()[3:5] == [state, "2/2"]
    assert row.endswith("its process is gone")


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


def test_smoke_runs_that_were_begun_are_shown_by_the_command(project: Path) -> None:
    notebooks = project / "config/notebooks"
    (notebooks / "others.yaml").write_text((notebooks / "halves.yaml").read_text())
    runs = Results(project / "results/smoke").notebook("others").runs
    runs.parent.mkdir(parents=True)
    runs.touch()
    assert "others" in scratchbook(project, "status", "--smoke").stdout
    assert "others" not in scratchbook(project, "status").stdout

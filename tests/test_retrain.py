"""`scratchbook retrain`: old runs stay until the new are whole, and going back costs nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from projects import planned, run_of, scratchbook, snakemake


def contents(folder: Path) -> dict[str, str]:
    """What training left of a run, by file."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and "derived" not in file.parts
    }


def trained(jobs: set[str]) -> set[str]:
    return {job for job in jobs if job.startswith("train_run ")}


def test_a_run_is_trained_again_and_put_back(project: Path) -> None:
    narrow, wide = (run_of(project, name) for name in ("narrow", "wide"))
    place, other = (project / "results/runs" / run for run in (wide, narrow))
    before, untouched = contents(place), contents(other)
    page = (project / "report.html").read_bytes()

    asked = scratchbook(project, "retrain", "halves", "wide")
    assert asked.returncode == 0, asked.stderr
    assert "wide seed 0: is trained again" in asked.stdout
    assert "was asked for already" in scratchbook(project, "retrain", "halves", "wide").stdout
    # Nothing has left its place yet.
    assert contents(place) == before
    status = scratchbook(project, "status").stdout
    assert "to be trained again" in status
    assert status.endswith("2 runs: 1 done, 1 waiting\n")
    assert trained(planned(project)) == {f"train_run {wide}"}

    answer = snakemake(project)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "1 run to train (wide again, as asked); 1 is there" in answer.stdout + answer.stderr
    (earlier,) = (place.parent / "earlier").iterdir()
    assert contents(earlier) == before
    assert (earlier / "derived/metrics.json").is_file()
    new, old = (json.loads((at / "run.json").read_text()) for at in (place, earlier))
    assert new["weights_sha256"] == old["weights_sha256"]  # by the same code, on the same machine
    assert new["started"] != old["started"]
    assert not list((project / "results/open").glob("*/*.retrain"))
    assert planned(project) == set()
    assert (project / "report.html").read_bytes() != page

    put_back = scratchbook(project, "retrain", "halves", "wide", "--undo")
    assert put_back.returncode == 0, put_back.stderr
    assert "is again the one that was finished" in put_back.stdout
    assert contents(place) == before
    # The page is made anew, and nothing else: neither is trained, nor mapped.
    jobs = {job.split()[0] for job in planned(project)}
    assert "compare_experiments" in jobs
    assert not jobs & {"train_run", "keep_run", "map_attention", "evaluate_run"}
    assert contents(other) == untouched


def test_asking_that_is_taken_back_leaves_all_as_it_was(project: Path) -> None:
    every = scratchbook(project, "retrain", "halves")
    assert every.stdout.count("is trained again") == 2
    assert len(trained(planned(project))) == 2
    assert scratchbook(project, "retrain", "halves", "--undo").stdout.count("is not trained") == 2
    assert planned(project) == set()
    nothing = scratchbook(project, "retrain", "halves", "--undo")
    assert nothing.returncode == 1
    assert nothing.stderr == "halves: nothing to take back\n"


def test_what_there_is_not_is_named(project: Path) -> None:
    for arguments, told in [
        (["halves", "wid"], "halves has no 'wid'; did you mean 'wide'?"),
        (["halves", "wide", "--seed", "7"], "--seed 7: halves has seeds 0"),
        (["halve"], "there is no notebook 'halve'"),
    ]:
        answer = scratchbook(project, "retrain", *arguments)
        assert answer.returncode == 1
        assert told in answer.stderr
        assert "Traceback" not in answer.stderr

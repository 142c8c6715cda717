"""Kill a whole Snakemake at any moment, over edits, going back and training again: no finished run
is lost or changed, and in the end each is what it is where nothing was killed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from projects import REPOSITORY, make_project, run_of
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.store import Store
from scratchbook.verification import first_difference

PATIENCE = 600  # seconds for one Snakemake on a busy machine
DEADLY = Path(__file__).parent / "deadly"
STAGES = {  # in their order, and about how often each writes a file, renames one or removes one
    "prepare_dataset": 4,
    "order_run": 5,
    "train_run": 40,
    "keep_run": 30,
    "evaluate_run": 5,
    "map_attention": 8,
    "measure_drift": 5,
    "compare_experiments": 25,
    "write_notebook": 60,
    "write_report": 6,
    "describe_results": 6,
}
OFTEN = ["train_run", "keep_run", "keep_run"]  # where there is most to lose
LAST = list(STAGES)[-4:]
ANYWHERE = {"snakemake": 250, "delay": 8}  # its own operations; seconds
ASKING = 12  # operations of `scratchbook retrain`
LAYERS = """
    layers:
      - Conv2D: {kernel_size: 3, padding: same, activation: relu, filters: 2}
      - Dropout: 0.1
      - Flatten
      - Dense: {units: 3, activation: softmax}"""
Files = dict[str, str]  # sha256 by name

KEY = "shapes-0123456789ab"
RUN = f"{KEY}/seed0"
STORE = """
from datetime import UTC, datetime
from pathlib import Path
from scratchbook.results.paths import Results
from scratchbook.results.store import Store
results, run, now = Results(Path("results")), {run!r}, datetime.now(UTC)
store = Store(results)
{does}
"""
DOES = {
    "keep_run": "store.keep(run, results.trained(run), results.run(run), now)",
    "ask_again": "store.ask_again(run, True, now)",
    "undo": "store.undo(run)",
}


def write_trained(place: RunFiles, started: str) -> None:
    """The files of a trained run, as small as can be."""
    place.checkpoints.mkdir(parents=True)
    told = {"key": KEY, "seed": 0, "spec": {}, "weights_sha256": {}, "precision": "float32",
            "backend": "tensorflow", "hardware": {"threads": 1}, "training": {}, "preparing": 1,
            "data": {"file": "shapes"}, "started": started}  # fmt: skip
    place.record.write_text(json.dumps(told))
    for file in (
        place.history,
        place.predictions,
        place.checkpoint("one"),
        place.checkpoint("two"),
    ):
        file.write_text(f"{file.name} of {started}")


def store_does(folder: Path, what: str, dies_at: int | None = None) -> bool:
    """Has the store of a folder do something in a process of its own; whether that survived."""
    script = folder / f"job.{what}.py"
    script.write_text(STORE.format(run=RUN, does=DOES[what]))
    answer = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(DEADLY)]),
             "DEADLY": f"{what} {dies_at} alone" if dies_at else ""},
    )  # fmt: skip
    assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
    return answer.returncode == 0


def deaths(template: Path, what: str) -> Iterator[Path]:
    """Copies of a folder in which the store died at its first, its second, … and after its last
    operation."""
    done = template.with_name(f"{template.name}-{what}-done")
    shutil.copytree(template, done)
    assert store_does(done, what)
    whole = tree(done)
    is_last = False
    for number in itertools.count(1):
        if is_last:
            return
        folder = template.with_name(f"{template.name}-{what}-{number}")
        shutil.copytree(template, folder)
        assert not store_does(folder, what, dies_at=number)
        is_last = tree(folder) == whole
        yield folder


def tree(folder: Path) -> set[str]:
    """The names of the files and folders in one."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*")}


@pytest.fixture
def asked_again(tmp_path: Path) -> Path:
    """A folder of results whose one run was asked for again, and has a successor to be kept."""
    folder = tmp_path / "one"
    results = Results(folder / "results")
    write_trained(results.trained(RUN), "once")
    assert store_does(folder, "keep_run")
    assert store_does(folder, "ask_again")
    write_trained(results.trained(RUN), "again")
    return folder


def test_a_run_whose_keeping_dies_at_any_moment_is_kept_by_the_next_one(tmp_path: Path) -> None:
    write_trained(Results(tmp_path / "one/results").trained(RUN), "once")
    dead = list(deaths(tmp_path / "one", "keep_run"))
    assert len(dead) > 10
    for folder in dead:
        results = Results(folder / "results")
        assert finished(results).keys() <= {RUN}
        Store(results).sweep()  # as the next start does
        assert store_does(folder, "keep_run")
        assert finished(results).keys() == {RUN}
        assert tree(results.store) == tree(tmp_path / "one-keep_run-done/results/runs")


def test_a_run_that_is_replaced_at_any_moment_is_there_or_aside_once(asked_again: Path) -> None:
    [old] = finished(Results(asked_again / "results")).values()
    dead = list(deaths(asked_again, "keep_run"))
    assert len(dead) > 10
    for folder in dead:
        results = Results(folder / "results")
        store = Store(results)
        found = finished(results)
        assert old in found.values()
        assert RUN in found or store.is_open(RUN)
        store.sweep()
        if store.is_open(RUN):
            assert store_does(folder, "keep_run")
        found = finished(results)
        [aside] = store.earlier(RUN)
        assert found.keys() == {RUN, aside}
        assert found[aside] == old != found[RUN]
        assert not results.request(RUN).exists()


def test_a_run_that_is_asked_for_at_any_moment_stays(tmp_path: Path) -> None:
    results = Results(tmp_path / "one/results")
    write_trained(results.trained(RUN), "once")
    assert store_does(tmp_path / "one", "keep_run")
    before = finished(results)
    for folder in deaths(tmp_path / "one", "ask_again"):
        assert finished(Results(folder / "results")) == before
        assert store_does(folder, "ask_again")
        assert Store(Results(folder / "results")).request(RUN)["prepare"]


def test_asking_that_is_taken_back_leaves_the_run_whenever_keeping_died(asked_again: Path) -> None:
    [old] = finished(Results(asked_again / "results")).values()
    for folder in deaths(asked_again, "keep_run"):
        results = Results(folder / "results")
        successor_is_there = finished(results).get(RUN, old) != old
        assert store_does(folder, "undo")
        assert not Store(results).is_open(RUN)
        if successor_is_there and finished(results)[RUN] != old:
            assert store_does(folder, "undo")
        assert finished(results)[RUN] == old


def test_a_run_that_is_put_back_at_any_moment_is_not_lost(asked_again: Path) -> None:
    [old] = finished(Results(asked_again / "results")).values()
    assert store_does(asked_again, "keep_run")
    both = sorted(
        map(sorted, (f.items() for f in finished(Results(asked_again / "results")).values()))
    )
    for folder in deaths(asked_again, "undo"):
        results = Results(folder / "results")
        assert sorted(map(sorted, (f.items() for f in finished(results).values()))) == both
        while finished(results).get(RUN) != old:
            assert store_does(folder, "undo")


def notebook(experiments: dict[str, float], seeds: list[int]) -> str:
    """A page on one small network, trained at these rates."""
    return (
        f"goal: Which rate?\ndataset: shapes\nseeds: {seeds}\n"
        "defaults: {batch_size: 12, epochs: 3}\n"
        "cam: {epochs: [1, last], images: 2}\nexperiments:\n"
    ) + "".join(
        f"  {name}:\n    title: the rate {rate}{LAYERS}\n"
        f"    optimizer: {{Adam: {{learning_rate: {rate}}}}}\n"
        for name, rate in experiments.items()
    )


class Survivor:
    """A project whose Snakemakes are killed.

    Args:
        folder: where it goes.
        seed: of the moments at which that happens.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = make_project(folder)
        self.results = Results(folder / "results")
        self.random = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # how often a run was asked for again

    def declare(self, experiments: dict[str, float], seeds: list[int]) -> None:
        text = notebook(experiments, seeds)
        (self.folder / "config/notebooks/halves.yaml").write_text(text)

    def finish(self, *targets: str) -> None:
        """Runs Snakemake to its end."""
        code = self.start("", "snakemake", "--cores", "2", *targets)
        assert code == 0, self.log[-5000:]

    def start(self, moment: str, module: str, *arguments: str) -> int:
        """Snakemake or `scratchbook`, in a process group of its own that ends at a moment.

        Args:
            moment: `delay 3.5` seconds from now, one that `deadly` knows, or "", for never.

        Returns:
            The exit code; that of SIGKILL where it was killed.
        """
        name, _, delay = moment.partition(" ")
        path = os.pathsep.join([str(self.folder / "src"), str(DEADLY)])
        with (self.folder / "snakemake.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "DEADLY": moment},
            )  # fmt: skip
        try:
            code = process.wait(float(delay) if name == "delay" else PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            assert name == "delay", self.log[-5000:]
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ProcessLookupError):  # until nobody of the group is left
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.005)
        return code

    @property
    def log(self) -> str:
        return (self.folder / "snakemake.log").read_text(errors="replace")

    def survive(self, count: int, stages: list[str]) -> None:
        """Starts Snakemake and kills it, `count` times or until there is nothing left to do, ever
        later in its work. Looks each time whether all that was finished is there."""
        for moment in self._moments(count, stages):
            before = finished(self.results)
            code = self.start(moment, "snakemake", "--cores", "2")
            self.check(before, moment)
            if code == 0:
                return
            # A job that is killed alone is seen by its Snakemake, which fails and takes it back.
            assert code == (1 if "alone" in moment else -signal.SIGKILL), self.log[-5000:]
            self.killed[moment.split()[0]] += 1
            if code < 0:
                assert self.start("", "snakemake", "--unlock") == 0

    def _moments(self, count: int, stages: list[str]) -> Iterator[str]:
        order = list(STAGES)

        def place(name: str) -> float:
            anywhere = self.random.uniform(order.index(stages[0]), len(order))
            return order.index(name) if name in STAGES else anywhere

        for name in sorted(self.random.choices([*stages, *ANYWHERE], k=count), key=place):
            if name == "delay":
                yield f"delay {self.random.uniform(0, ANYWHERE[name]):.2f}"
            else:
                alone = " alone" if name in STAGES and self.random.random() < 0.25 else ""
                yield f"{name} {self.random.randint(1, (STAGES | ANYWHERE)[name])}{alone}"

    def ask_again(self, experiment: str, seed: int) -> None:
        """Has a finished run trained again, by a command that is killed, and one that is not."""
        run = run_of(self.folder, experiment, seed)
        assert not self.results.request(run).exists()
        command = ("scratchbook.cli", "retrain", "halves", experiment, "--seed", str(seed))
        moment = f"retrain {self.random.randint(1, ASKING)}"
        for deadly in (moment, ""):
            before = finished(self.results)
            code = self.start(deadly, *command)
            self.killed["retrain"] += code == -signal.SIGKILL
            self.check(before, moment)
            assert code == (-signal.SIGKILL if deadly else 0), self.log[-5000:]
        assert self.results.request(run).exists()
        self.asked[run] += 1

    def check(self, before: dict[str, Files], moment: str) -> None:
        """What was finished is there to the byte; aside only where it was asked for again, and only
        for its successor."""
        after = finished(self.results)
        for run, files in before.items():
            if after.get(run) == files:
                continue
            aside = [name for name in self.earlier(run) if after.get(name) == files]
            assert len(aside) == 1, f"{moment}: {run} is lost"
            assert self.asked[run], f"{moment}: {run} was put aside, and nobody asked for it"
            assert run in after or self.results.request(run).exists(), f"{moment}: {run} is nowhere"

    def earlier(self, run: str) -> list[str]:
        """The runs that were put aside for one."""
        key, seed = run.split("/")
        places = self.results.run(f"{key}/earlier").folder.glob(f"*-{seed}")
        return [f"{key}/earlier/{place.name}" for place in places]


def finished(results: Results) -> dict[str, Files]:
    """The files of all finished runs but for what is derived, by the run's place in the store; each
    is whole, and beside them there is no part of one."""
    found: dict[str, Files] = {}
    for folder in [*results.store.glob("*/seed*"), *results.store.glob("*/earlier/*")]:
        files = {
            file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("[!.]*")
            if file.is_file() and "derived" not in file.relative_to(folder).parts
        }
        if files:
            assert "checksums.json" in files, f"{folder} is a part of a run"
            sums = json.loads((folder / "checksums.json").read_text())["files"]
            told = {name: file["sha256"] for name, file in sums.items()}
            assert told == {name: files[name] for name in files if name != "checksums.json"}
            found[folder.relative_to(results.store).as_posix()] = files
    return found


Step = tuple[dict[str, float], list[int], list[str], bool]


def edits() -> Iterator[Step]:
    """What is declared, one after the other: rates by experiment, seeds, in which stages it is
    killed, and whether one of its finished runs is asked for again."""
    for number in itertools.count(1):
        one, two, three = number / 1000, number / 1000 + 0.0001, number / 1000 + 0.0002
        first = list(STAGES)[number > 1 :]  # the data are prepared once
        stages = [*list(STAGES)[1:], *OFTEN]
        yield {"narrow": one, "wide": two}, [0], [*first, *OFTEN], False
        yield {"narrow": one, "wide": three}, [0], stages, False
        yield {"narrow": one, "wide": two}, [0], LAST, False
        yield {"slim": one, "wide": two}, [0, 1], stages, False
        yield {"slim": one, "wide": two}, [0, 1], stages, True


def kill_again_and_again(folder: Path, kills: int, seed: int) -> Counter[str]:
    """How often a process of each kind was the one that died first."""
    survivor = Survivor(folder / "killed", seed)
    declared: dict[float, set[int]] = {}
    for experiments, seeds, stages, is_asked_again in edits():
        survivor.declare(experiments, seeds)
        for rate in experiments.values():
            declared.setdefault(rate, set()).update(seeds)
        if is_asked_again:
            survivor.finish()
            survivor.ask_again("slim", survivor.random.choice(seeds))
        count = min(kills - survivor.killed.total(), 3 if stages is LAST else 4)
        survivor.survive(count, stages)
        if survivor.killed.total() >= kills:
            break

    # All that was ever declared, from nothing and without being killed.
    whole = Survivor(folder / "whole", seed)
    everything = {f"rate{number}": rate for number, rate in enumerate(declared)}
    for project in (survivor, whole):
        project.declare(everything, sorted(set().union(*declared.values())))
    runs = [
        run_of(survivor.folder, name, each)
        for name, rate in everything.items()
        for each in declared[rate]
    ]
    targets = [f"results/runs/{run}/derived/metrics.json" for run in runs]
    whole.finish(*targets)
    survivor.finish(*targets)
    for run in runs:
        assert first_difference(whole.results.run(run), survivor.results.run(run)) == "", run
        assert len(survivor.earlier(run)) == survivor.asked[run], run
    assert not list(survivor.results.states.rglob("*.npz"))
    assert not list(survivor.results.store.glob("*/.partial-*"))
    assert "Traceback" not in survivor.log
    return survivor.killed


@pytest.mark.parametrize(
    "kills",
    [pytest.param(20, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.nightly)],
)
def test_whatever_is_killed_no_finished_run_is_lost_or_changed(
    kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = kill_again_and_again(tmp_path, kills=kills, seed=kills // 100)
    with capsys.disabled():
        print(f"\nkilled: {dict(killed)}")
    assert killed.total() >= kills
    if kills >= 100:  # few need not strike everything
        assert killed.keys() >= {*STAGES, *ANYWHERE, "retrain"} - {"prepare_dataset"}

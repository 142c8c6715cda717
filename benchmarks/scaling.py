"""How the workflow grows: sets of 100, 1,000 and 10,000 runs in; time, memory and page size out.

    uv run python benchmarks/scaling.py

A notebook of the sets has 50 experiments with two seeds. Snakemake is the real one, the results are
made: ten experiments' files, linked under the other names. Look at processor seconds: other work on
the machine stretches the clock's, but not those.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from projects import make_project  # noqa: E402 (found through the line above)
from result_trees import copy_experiment, make_results  # noqa: E402
from scratchbook.config.project import load_project  # noqa: E402
from scratchbook.plan import Plan  # noqa: E402
from scratchbook.results.paths import Results  # noqa: E402

EXPERIMENTS, SEEDS, MADE = 50, 2, 10
LAYERS = """
    layers:
      - Conv2D: {filters}
      - Dropout: 0.1
      - MaxPooling2D
      - Flatten
      - Dense: {{units: 3, activation: softmax, name: predictions}}"""


class Cost(NamedTuple):
    """What a process and those it started took."""

    wall: float
    cpu: float
    peak_mb: float


def make_set(
    folder: Path, notebooks: int, experiments: int = EXPERIMENTS, seeds: int = SEEDS
) -> None:
    """A project with so many notebooks; half of their experiments share a network."""
    make_project(folder)
    (folder / "config/notebooks/halves.yaml").unlink()
    names = [f"n{i:03}" for i in range(notebooks)]
    for number, name in enumerate(names):
        # Each of its own, since runs that are asked for twice are trained once.
        rates = [0.001 + (number * experiments + i) / 1e7 for i in range(experiments)]
        tried = "".join(
            f"  e{i}:\n    title: the rate {1000 * rate:g} thousandths"
            + ("\n    parent: e0" if i else "")
            + (LAYERS.format(filters=2 + i % 7) if i % 2 == 0 else "")
            + f"\n    optimizer: {{Adam: {{learning_rate: {rate:.7f}}}}}\n"
            for i, rate in enumerate(rates)
        )
        (folder / f"config/notebooks/{name}.yaml").write_text(
            "goal: Which rate?\ndataset: shapes\ndefaults:\n  epochs: 10\n"
            "  layers: {Conv2D: {kernel_size: 3, padding: same, activation: relu}}\n"
            f"experiments:\n{tried}"
        )
    (folder / "config/config.yaml").write_text(
        f"notebooks: {json.dumps(names)}\nseeds: {list(range(seeds))}\nprecision: float32\n"
    )


def measure(folder: Path, *command: str, until: str | None = None) -> Cost:
    """Runs Python in a project, to its end or to the first line that holds `until`."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder / "src")}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and until in line:
            break
    wall = time.monotonic() - started
    if until:
        os.killpg(process.pid, signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    if status and not (until and until in lines[-1]):
        raise RuntimeError("".join(lines[-20:]))
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)


def make_files(folder: Path) -> None:
    """Finished runs for a whole project: a few experiments made, linked under the others' keys."""
    with contextlib.chdir(folder):
        plan = Plan(load_project(), gpu=False)
        pages = [plan.page(name) for name in plan.project.notebooks]
        first = pages[0]
        few = first | {"experiments": first["experiments"][:MADE]}
        counts = {"train": 50, "validation": 50, "test": 1000}
        make_results(plan.results.folder, few, counts=counts)
        folders = [
            plan.results.run(experiment["runs"][0]).folder.parent
            for experiment in few["experiments"]
        ]
        for page in pages:
            for i, experiment in enumerate(page["experiments"]):
                target = plan.results.run(experiment["runs"][0]).folder.parent
                copy_experiment(folders[i % MADE], target, experiment["spec"], experiment["name"])


WRITE_PAGE = """
from pathlib import Path
from scratchbook.cli.chosen import chosen_plan
from scratchbook.config.project import load_project
from scratchbook.report.html import write_page
plan = chosen_plan(list(load_project().notebooks))
pages, made = [plan.page(name) for name in plan.project.notebooks], plan.results.partial
write_page(pages, plan.results, Path("report"), Path("all.html"), "", made=made)
"""


def measure_set(folder: Path) -> Iterator[tuple[str, Cost, str]]:
    """What a set costs, step by step, and the size of each page."""
    first, *others = load_project(folder=folder).notebooks
    snakemake = ("-m", "snakemake", "--cores", "2", "--resources", "gpu=0")
    dry_run = (*snakemake, "--dry-run", "-q")
    yield "dry-run, all open", measure(folder, *dry_run), ""
    results = Results(folder / "results")
    with contextlib.chdir(folder):
        plan = Plan(load_project(), gpu=False)
        run = plan.run(first, "e1", 0)
        order = plan.order(run)
        order.write(plan.results.order(run))
    data = results.data(order.data)
    data.parent.mkdir(parents=True)
    data.touch()
    remote = ("--mode", "remote", "--nolock", "--force", "--allowed-rules", "train_run")
    cost = measure(
        folder, *snakemake, *remote, "--target-jobs", f"train_run:run={run}", "--dry-run"
    )
    yield "start of one job in a process of its own", cost, ""
    data.unlink()
    yield "until the first job starts", measure(folder, *snakemake, until="rule prepare_data"), ""
    shutil.rmtree(folder / ".snakemake")  # the lock of the one that was killed, too
    data.touch()  # before what is made from it
    make_files(folder)
    yield "dry-run, all finished", measure(folder, *dry_run), ""
    cost = measure(folder, "-m", "scratchbook.cli", "report", first, "--output", "one.html")
    yield "one notebook: compare, draw, page", cost, size_of(folder / "one.html")
    made = results.partial.notebook
    for other in others:
        shutil.copytree(made(first).folder, made(other).folder, copy_function=os.link)
    yield "page of all notebooks", measure(folder, "-c", WRITE_PAGE), size_of(folder / "all.html")
    if not others:
        yield "evaluate all, compare, draw, page", *finish(folder, first, snakemake)


def finish(folder: Path, notebook: str, snakemake: tuple[str, ...]) -> tuple[Cost, str]:
    """From finished trainings to the page. Without Grad-CAM, which is arithmetic: see cam.py."""
    declared = folder / f"config/notebooks/{notebook}.yaml"
    declared.write_text(f"cam: null\n{declared.read_text()}")
    metrics = list((folder / "results/runs").glob("*/seed*/derived/metrics.json"))
    for file in metrics:
        file.unlink()
    finishing = (*snakemake, "--nolock", "--rerun-triggers", "mtime", "--")
    # As after a training, the networks are checked.
    measure(folder, *finishing, str(metrics[0].relative_to(folder)))
    metrics[0].unlink()
    return measure(folder, *finishing, "report.html"), size_of(folder / "report.html")


def size_of(page: Path) -> str:
    return f"{page.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """Measures each set once; prints a row for each step, with its growth over the set before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10_000])
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}, Snakemake {version('snakemake')}, n = 1")  # fmt: skip
    print("\n| runs | step | processor s | growth | wall s | load | peak MB | page |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    sets = [(f"{runs:,}", runs // EXPERIMENTS // SEEDS, EXPERIMENTS, SEEDS) for runs in given.runs]
    before: dict[str, float] = {}
    for name, *shape in [*sets, ("1,000 in one notebook", 1, 1000, 1)]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "project"
            make_set(folder, *shape)
            for step, cost, size in measure_set(folder):
                growth = f"{cost.cpu / before[step]:.1f}×" if step in before else ""
                before[step] = cost.cpu
                print(f"| {name} | {step} | {cost.cpu:.1f} | {growth} | {cost.wall:.1f} | "
                      f"{os.getloadavg()[0]:.0f} | {cost.peak_mb:.0f} | {size} |",
                      flush=True)  # fmt: skip
        before = before if name in [one[0] for one in sets[:-1]] else {}


if __name__ == "__main__":
    main()

"""How the workflow grows: sets of 100, 1,000 and 10,000 runs in; time, memory and page size out.

    uv run python benchmarks/scaling.py

A notebook of the sets has 50 experiments with two seeds. Snakemake is the real one, the results are
made: ten experiments' files, linked under the other names. Look at processor seconds: other work on
the machine stretches the clock's, but not those.
"""

from __future__ import annotations

import argparse
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
    """Results for every run of a project: a few experiments made, linked under the other names."""
    project, results = load_project(folder=folder), Results(folder / "results")
    first, *others = project.notebooks
    page = project.page(first)
    few = page | {"experiments": page["experiments"][:MADE]}
    counts = {"train": 50, "validation": 50, "test": 1000}
    made = make_results(results.folder, few, counts=counts)
    for i, experiment in enumerate(page["experiments"]):
        source = made / page["experiments"][i % MADE]["name"]
        copy_experiment(source, made / experiment["name"], experiment["spec"])
    for other in others:
        shutil.copytree(made, results.notebook(other).folder, copy_function=os.link)


WRITE_PAGE = """
from pathlib import Path
from scratchbook.config.project import load_project
from scratchbook.report.html import write_page
project = load_project()
pages, made = [project.page(name) for name in project.notebooks], project.results.partial
write_page(pages, project.results, Path("report"), Path("all.html"), "", made=made)
"""


def measure_set(folder: Path) -> Iterator[tuple[str, Cost, str]]:
    """What a set costs, step by step, and the size of each page."""
    first, *others = load_project(folder=folder).notebooks
    snakemake = ("-m", "snakemake", "--cores", "2", "--resources", "gpu=0")
    yield "dry-run", measure(folder, *snakemake, "--dry-run", "-q"), ""
    results = Results(folder / "results")
    data = results.data("shapes")
    data.parent.mkdir(parents=True)
    data.touch()
    job = f"train_run:notebook={first},experiment=e1,seed=0"
    remote = ("--mode", "remote", "--nolock", "--force", "--allowed-rules", "train_run")
    cost = measure(folder, *snakemake, *remote, "--target-jobs", job, "--dry-run")
    yield "start of one job in a process of its own", cost, ""
    data.unlink()
    yield "until the first job starts", measure(folder, *snakemake, until="rule prepare_data"), ""
    data.touch()  # before what is made from it
    make_files(folder)
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
    runs = Results(folder / "results").runs(notebook)
    for run in runs:
        run.metrics.unlink()
        run.checkpoints.mkdir()
    finishing = (*snakemake, "--nolock", "--rerun-triggers", "mtime", "--")
    evaluated = runs[0].metrics
    # As after a training, the networks are checked.
    measure(folder, *finishing, str(evaluated.relative_to(folder)))
    evaluated.unlink()
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

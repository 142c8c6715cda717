"""What an orchestrator costs on the graph of a notebook: Snakemake and `dvc repro`, in turn.

    pip install -r benchmarks/requirements.txt && python benchmarks/orchestration.py [--runs N]

The graph is Scratchbook's: prepare, then train, evaluate and Grad-CAM of each run, then compare and
report. Both are given the same commands, which put a stage's small inputs into one file, so that
what is left is the orchestrator's own time: of the first run, of a second with nothing to do, and
after one run's parameters changed, which changes every file behind them: five stages. DVC runs one
stage at a time; Snakemake is also run with two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import yaml

DVC = [sys.executable, "-m", "dvc"]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores"]
WAYS = {
    "dvc repro": [*DVC, "repro", "--quiet"],
    "snakemake --cores 1": [*SNAKEMAKE, "1"],
    "snakemake --cores 2": [*SNAKEMAKE, "2"],
}


def stages(runs: int) -> dict[str, tuple[list[str], str]]:
    """The graph: {stage: (the files it needs, the file it makes)}."""
    graph: dict[str, tuple[list[str], str]] = {"prepare": (["source"], "data")}
    for run in range(runs):
        graph[f"train{run}"] = (["data", f"spec{run}"], f"predictions{run}")
        graph[f"evaluate{run}"] = ([f"predictions{run}"], f"metrics{run}")
        graph[f"cam{run}"] = ([f"predictions{run}", "data"], f"drift{run}")
    made = [f"{name}{run}" for run in range(runs) for name in ("metrics", "drift")]
    graph["compare"] = (made, "compare")
    graph["report"] = (["compare", *made], "page")
    return graph


def write_project(folder: Path, runs: int) -> None:
    """The same graph as a dvc.yaml and as a Snakefile, and the files that it starts from."""
    graph = stages(runs)
    sources = {need for needs, _ in graph.values() for need in needs} - {
        made for _, made in graph.values()
    }
    for name in sources:
        (folder / name).write_text(f"{name}\n" * 1000)
    declared = {
        name: {"cmd": f"cat {' '.join(needs)} > {made}", "deps": needs, "outs": [made]}
        for name, (needs, made) in graph.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": declared}))
    rules = ["rule all:\n    input: 'page'\n"] + [
        f"rule {name}:\n    input: {needs!r}\n    output: {made!r}\n"
        "    shell: 'cat {input} > {output}'\n"
        for name, (needs, made) in graph.items()
    ]
    (folder / "Snakefile").write_text("\n".join(rules))


def seconds(command: list[str], folder: Path) -> float:
    """How long a command takes; raises CalledProcessError where it fails."""
    started = time.perf_counter()
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


def measure(way: str, runs: int) -> tuple[float, float, float]:
    """Seconds of a first run, of one with nothing to do, and of one after a change."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, runs)
        if way.startswith("dvc"):
            seconds([*DVC, "init", "--no-scm", "--quiet"], folder)
        first = seconds(WAYS[way], folder)
        idle = seconds(WAYS[way], folder)
        (folder / "spec0").write_text("another rate\n")
        changed = seconds(WAYS[way], folder)
        assert "another rate" in (folder / "page").read_text()
        return first, idle, changed


def main() -> None:
    """Runs each way in turn and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Snakemake {version('snakemake')}, DVC {version('dvc')}, {len(stages(options.runs))} "
        f"stages for {options.runs} runs, median of {options.rounds} rounds\n\n"
        "| way | first run, s | nothing to do, s | one run changed, s |\n|---|---:|---:|---:|"
    )
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            found[way].append(measure(way, options.runs))
    for way, rounds in found.items():
        first, idle, changed = (median(column) for column in zip(*rounds, strict=True))
        print(f"| {way} | {first:.1f} | {idle:.1f} | {changed:.1f} |")


if __name__ == "__main__":
    main()

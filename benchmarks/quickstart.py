"""How long the quickstart takes, from a ready environment to report.html, and where the time goes.

    uv run python benchmarks/quickstart.py

Runs the committed code in a clone of its own, so nothing here is touched or reused.
"""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def main() -> None:
    """Runs the quickstart once and prints a table of its parts."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "scratchbook"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=clone, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        command = ["snakemake", "--cores", "2", "--resources", "gpu=0"]
        load = os.getloadavg()[0]
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", *command], cwd=clone, check=True)
        wall = time.monotonic() - started
        size = (clone / "report.html").stat().st_size
        parts: dict[str, list[float]] = defaultdict(list)
        for file in (clone / "results/benchmarks").rglob("*.tsv"):
            with file.open(encoding="utf-8") as lines:
                name = "prepare" if file.parent.name == "data" else file.stem
                parts[name].append(float(next(csv.DictReader(lines, delimiter="\t"))["s"]))
    print(f"\n`{' '.join(command)}` at {commit}: {wall:.0f} s to a page of {size / 1e6:.1f} MB")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f}")
    print(f"\n{'part':<12}{'jobs':>6}{'seconds each':>14}{'seconds in all':>16}")
    for name, seconds in sorted(parts.items(), key=lambda item: -sum(item[1])):
        print(
            f"{name:<12}{len(seconds):>6}{sum(seconds) / len(seconds):>14.1f}{sum(seconds):>16.1f}"
        )
    busy = sum(map(sum, parts.values()))
    print(
        f"\njobs {busy:.0f} s on two cores; Snakemake, checks and waiting {wall - busy / 2:.0f} s"
    )


if __name__ == "__main__":
    main()

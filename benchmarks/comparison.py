"""How long comparing takes: 1,000 experiments against the baseline, and all pairs of 50.

    uv run python benchmarks/comparison.py

Each experiment has three seeds and 10,000 test images. The prediction files are those of ten made
experiments, linked under the other names.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from result_trees import (  # noqa: E402 (found through the line above)
    copy_experiment,
    experiment_folder,
    make_page,
    make_results,
)
from scratchbook.comparison import compare  # noqa: E402
from scratchbook.results.paths import Results  # noqa: E402

SEEDS = (0, 1, 2)
MADE = 10


def make_tree(results: Path, experiments: int) -> dict[str, Any]:
    """A page of so many experiments, and their files."""
    names = tuple(f"t{i:03}" for i in range(experiments))
    page = make_page(experiments=names, seeds=SEEDS)
    few = page | {"experiments": page["experiments"][:MADE]}
    make_results(results, few, counts={"train": 50, "validation": 50, "test": 10_000})
    for i, one in enumerate(page["experiments"][MADE:]):
        source, copy = (experiment_folder(results, name) for name in (names[i % MADE], one["name"]))
        copy_experiment(source, copy, one["spec"], one["name"])
    return page


def main() -> None:
    """Compares twice and prints a row for each."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print(f"{'experiments':>11}{'pairs':>8}{'seconds':>10}{'CPU s':>8}{'peak GB':>10}")
    for experiments in (50, 1000):
        with tempfile.TemporaryDirectory() as folder:
            page = make_tree(Path(folder), experiments)
            wall, processor = time.perf_counter(), time.process_time()
            found = compare(page, Results(Path(folder)))
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # from kilobytes
        print(
            f"{experiments:>11,}{len(found.pairs):>8,}{wall:>10.1f}{processor:>8.1f}{peak:>10.2f}"
        )


if __name__ == "__main__":
    main()

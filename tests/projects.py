"""Small real projects for tests: the repository's workflow, a tiny data set, two experiments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parent.parent
PARTS = ["Snakefile", "rules", "workflow", "src", "report", "profiles", "envs", "requirements.txt"]

DATASETS = """
shapes:
  title: Bright and dark halves
  size: [12, 12]
  sources: [{kind: folder, path: shapes}]
  split: {validation: 0.2, test: 0.2, seed: 0}
"""
NOTEBOOK = """
goal: Does a wider net tell top from bottom better?
dataset: shapes
key_results:
  - text: "narrow {narrow.test_accuracy:.2f}, wide {wide.test_accuracy:.2f}"
defaults:
  layers: {Conv2D: {kernel_size: 3, padding: same, activation: relu}}
  batch_size: 8
  epochs: 2
experiments:
  narrow:
    title: a narrow net
    layers:
      - Conv2D: 2
      - Dropout: 0.1
      - MaxPooling2D
      - Flatten
      - Dense: {units: 3, activation: softmax, name: predictions}
    notes: [it learns something]
  wide:
    title: a wide net
    parent: narrow
    layers:
      - Conv2D: 4
      - Dropout: 0.1
      - MaxPooling2D
      - Flatten
      - Dense: {units: 3, activation: softmax, name: predictions}
cam: {epochs: [1, last], images: 3}
"""


def make_project(folder: Path, notebook: str = NOTEBOOK, config: str = "") -> Path:
    """A project in `folder` with the notebook `halves` on the data set `shapes`."""
    copy_repository(folder, PARTS)
    notebooks = folder / "config/notebooks"
    notebooks.mkdir(parents=True)
    (folder / "config/datasets.yaml").write_text(DATASETS)
    (folder / "config/config.yaml").write_text(
        f"notebooks: [halves]\nseeds: [0]\nprecision: float32\n{config}"
    )
    (notebooks / "halves.yaml").write_text(notebook)
    make_shapes(folder / "data/shapes")
    return folder


def copy_repository(folder: Path, parts: Sequence[str] = (*PARTS, "config")) -> Path:
    """The repository as it is, with the quickstart's declarations, and nothing that it has made."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


def make_shapes(folder: Path, images_a_class: int = 20) -> None:
    """Noise whose top half, bottom half or neither is bright: three classes that can be learnt."""
    rng = np.random.default_rng(0)
    for label, rows in {"top": slice(0, 6), "bottom": slice(6, 12), "none": slice(0, 0)}.items():
        (folder / label).mkdir(parents=True)
        for number in range(images_a_class):
            pixels = rng.integers(0, 120, (12, 12, 3), dtype=np.uint8)
            pixels[rows] += 100
            Image.fromarray(pixels).save(folder / label / f"{number:02d}.png")


def snakemake(
    project: Path, *arguments: str, cores: int = 2, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the real Snakemake in a project."""
    return run(project, "-m", "snakemake", "--cores", str(cores), *arguments, **environment)


def scratchbook(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command `scratchbook` in a project."""
    return run(project, "-m", "scratchbook.cli", *arguments)


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a project, with the project's own copy of the package."""
    variables = {**os.environ, "PYTHONPATH": str(project / "src"), **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def planned(project: Path, *arguments: str) -> set[str]:
    """The jobs a Snakemake run would do: `train_run shapes-3f9a0c61d2e8/seed0` and so on."""
    answer = snakemake(project, "--dry-run", *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    jobs = set()
    for block in re.split(r"^(?:local)?rule ", answer.stdout + answer.stderr, flags=re.M)[1:]:
        rule = block.split(":", 1)[0]
        wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.M)
        values = re.findall(r"=([^,\s]+)", wildcards[1]) if wildcards else []
        jobs.add(" ".join([rule, "/".join(values)]).strip())
    return jobs - {"all"}


def run_of(
    project: Path, experiment: str, seed: int = 0, notebook: str = "halves", **environment: str
) -> str:
    """Where an experiment's run lies in the store, as it is declared now: `shapes-…/seed0`."""
    code = (
        "from scratchbook.cli.chosen import chosen_plan\n"
        f"print(chosen_plan([{notebook!r}]).run({notebook!r}, {experiment!r}, {seed}))"
    )
    answer = run(project, "-c", code, **environment)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()

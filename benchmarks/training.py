"""Training's speed and memory: Scratchbook, a plain Keras script and PyTorch, side by side.

    pip install -r benchmarks/requirements.txt && python benchmarks/training.py [--quick] [CASE …]

Each way is a process of its own (training_ways.py) that trains whole epochs, input and validation
included, whenever it is its turn. One round is two epochs of each, of which the second counts, and
of the rounds the median. The images are made: what a network learns from them makes no difference
to its speed. One thing it does: ours writes weights in epochs that are the best so far, which on
noise is seldom the one that counts (docs/performance.md says how long they take). Photos are
decoded by ours once, in the preparation, before any epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from PIL import Image
from training_ways import VALIDATION

from scratchbook.config.datasets import FolderSource, Split
from scratchbook.config.project import load_notebook, load_project
from scratchbook.data.prepare import prepare
from scratchbook.hardware import describe_hardware

REPOSITORY = Path(__file__).parent.parent
IN_MEMORY = ("scratchbook_run", "keras_arrays", "torch_float32", "torch_bf16")
TINY = [
    {"class_name": "MaxPooling2D", "config": {"pool_size": 4}},
    {"class_name": "Conv2D", "config": {"filters": 16, "kernel_size": 3, "activation": "relu"}},
    {"class_name": "GlobalAveragePooling2D", "config": {}},
    {"class_name": "Dense", "config": {"units": 3, "activation": "softmax"}},
]


@dataclass(frozen=True)
class Case:
    """A network to be trained in some ways."""

    notebook: str
    experiment: str
    side: int  # pixels
    batch_size: int
    images: int  # of the data set's training images
    epoch: int  # of them, the images of an epoch here
    ways: tuple[str, ...] = IN_MEMORY
    layers: list[dict[str, Any]] | None = None  # instead of the experiment's

    @property
    def validated(self) -> int:
        """Images of an epoch's validation: one for nine of training."""
        return self.epoch // 9

    def spec(self) -> dict[str, Any]:
        """The experiment's, with this batch size, on made images."""
        spec = load_notebook(self.notebook, REPOSITORY / "config/notebooks").spec(self.experiment)
        changed = {"batch_size": self.batch_size, "validation": "validation", "callbacks": []}
        if self.layers is not None:
            changed |= {"layers": self.layers, "recorded_parameters": None}
        # Of the losses, the one that all ways call by the same name.
        return spec | changed | {"loss": "categorical_crossentropy", "recorded_trainable": None}


PHOTO_WAYS = ("scratchbook_run", "keras_folder")
CASES = {
    "cifar10-128": Case("cifar10", "train3", 32, 128, 45_000, 10_240),
    "cifar10-512": Case("cifar10", "train3", 32, 512, 45_000, 10_240),
    "cifar10-512-whole": Case(
        "cifar10", "train3", 32, 512, 45_000, 45_000, ("scratchbook_run", "convolution_rate")
    ),
    "pcam-128": Case("pcam", "six", 96, 128, 8_000, 2_048),
    "photos-dogs3": Case("dogs3", "train2", 224, 16, 306, 306, PHOTO_WAYS),
    "photos-tiny": Case("dogs3", "train2", 224, 16, 3_060, 3_060, PHOTO_WAYS, TINY),
}


@dataclass(frozen=True)
class Target:
    """What a case is to reach: a ratio, how it is found, and whether more or less is better."""

    case: str
    what: str
    bound: float
    at_least: bool
    find: Callable[[dict[str, Measured], Case], float]


@dataclass(frozen=True)
class Measured:
    """Medians of one way over the rounds, and how far they spread."""

    rounds: list[dict[str, Any]]

    def median(self, key: str) -> float:
        """Of one figure of the reports."""
        return median(report[key] for report in self.rounds)

    @property
    def images(self) -> int:
        """Training images of an epoch."""
        return self.rounds[0]["images"]

    @property
    def speed(self) -> float:
        """Training images/s of whole epochs."""
        return self.images / self.median("seconds")

    @property
    def spread(self) -> str:
        """The slowest and the fastest round, images/s."""
        seconds = [report["seconds"] for report in self.rounds]
        return f"{self.images / max(seconds):,.0f}–{self.images / min(seconds):,.0f}"

    @property
    def peak(self) -> float:
        """Bytes, the largest of all rounds."""
        return max(report["peak_bytes"] for report in self.rounds)


def against_torch(found: dict[str, Measured], case: Case) -> float:
    best = max(found["torch_float32"].speed, found["torch_bf16"].speed)
    return found["scratchbook_run"].speed / best


def against_keras(found: dict[str, Measured], case: Case) -> float:
    plain = "keras_folder" if "keras_folder" in found else "keras_arrays"
    return found["scratchbook_run"].speed / found[plain].speed


def memory_against_keras(found: dict[str, Measured], case: Case) -> float:
    plain = "keras_folder" if "keras_folder" in found else "keras_arrays"
    return found["scratchbook_run"].peak / found[plain].peak


def share_of_rate(found: dict[str, Measured], case: Case) -> float:
    """Of the training's own operations, validation not counted, in what the machine multiplies."""
    from scratchbook import models

    spec = case.spec()
    table = models.layer_table(spec, models.build(spec, (case.side, case.side, 3)))
    flops = 2 * 3 * sum(layer["multiply_adds"] for layer in table)  # a training image
    return found["scratchbook_run"].speed * flops / found["convolution_rate"].median("flops")


def share_of_input(found: dict[str, Measured], case: Case) -> float:
    ours = found["scratchbook_run"]
    return ours.median("input_seconds") / ours.median("seconds")


TARGETS = [
    Target("cifar10-128", "speed of the best PyTorch", 1.5, True, against_torch),
    Target("cifar10-128", "speed of plain Keras", 2.5, True, against_keras),
    Target("cifar10-128", "peak memory of plain Keras", 1.3, False, memory_against_keras),
    Target("cifar10-512-whole", "share of the bf16 convolution rate", 0.55, True, share_of_rate),
    Target("pcam-128", "speed of the best PyTorch", 2.0, True, against_torch),
    Target("pcam-128", "peak memory of plain Keras", 1.3, False, memory_against_keras),
    Target("photos-dogs3", "speed of plain Keras", 3.0, True, against_keras),
    Target("photos-dogs3", "share of input in an epoch", 0.05, False, share_of_input),
    Target("photos-tiny", "speed of plain Keras, decoding binds", 3.0, True, against_keras),
]


def main() -> None:
    """Measures the cases that are asked for, all by default, and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short epochs and three rounds")
    parser.add_argument("--whole", action="store_true", help="epochs of all training images")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    rounds = 3 if options.quick else options.rounds
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    cpu = describe_hardware(1, on_gpu=False)["cpu"]
    print(f"`python benchmarks/training.py {' '.join(sys.argv[1:])}` at {commit}, "
          f"{os.cpu_count()} cores of {cpu}, load {os.getloadavg()[0]:.1f} at the start, "
          f"median of {rounds} rounds\n")  # fmt: skip
    print("| case | way | images/s | slowest–fastest | core seconds / 1,000 images | peak GB | "
          "ours is |\n|---|---|---|---|---|---|---|")  # fmt: skip
    results = {}
    for name in options.cases or CASES:
        case = CASES[name]
        if options.quick:
            case = replace(case, epoch=min(case.epoch, 10 * case.batch_size))
        elif options.whole:
            case = replace(case, epoch=case.images)
        results[name] = case, measure(name, case, rounds)
        print_case(name, *results[name])
    print("\n| case | ours against | to reach | measured | met |\n|---|---|---|---|---|")
    for target in TARGETS:
        if target.case in results:
            case, found = results[target.case]
            value = target.find(found, case)
            met = value >= target.bound if target.at_least else value <= target.bound
            sign = "≥" if target.at_least else "≤"
            print(f"| {target.case} | {target.what} | {sign} {target.bound:g} | {value:.3g} | "
                  f"{'yes' if met else 'no'} |")  # fmt: skip


def print_case(name: str, case: Case, found: dict[str, Measured]) -> None:
    """One row a way."""
    for way, measured in found.items():
        if way == "convolution_rate":
            print(f"| {name} | bf16 convolutions | {measured.median('flops') / 1e12:.2f} TFLOP/s "
                  "| | | | |")  # fmt: skip
            continue
        core_seconds = measured.median("processor_seconds") / measured.images * 1000
        ratio = found["scratchbook_run"].speed / measured.speed
        print(f"| {name} | {way} ({measured.rounds[0]['version']}) | {measured.speed:,.0f} | "
              f"{measured.spread} | {core_seconds:.2f} | {measured.peak / 1e9:.2f} | "
              f"{'' if way == 'scratchbook_run' else f'{ratio:.2f}×'} |", flush=True)  # fmt: skip


def measure(name: str, case: Case, rounds: int) -> dict[str, Measured]:
    """Every way's epochs, one of each at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        task = make_task(folder, name, case)
        workers = {way: stack.enter_context(started(way, task)) for way in case.ways}
        for worker, log in workers.values():
            next_report(worker, log)  # builds and traces
        reports: dict[str, list[dict[str, Any]]] = {way: [] for way in workers}
        for _ in range(rounds):
            for way, (worker, log) in workers.items():
                # While it waited, the system may have taken back memory that it now needs again:
                # that is no cost of training, and the first epoch bears it.
                for _ in range(2):
                    worker.stdin.write("go\n")
                    worker.stdin.flush()
                    report = next_report(worker, log)
                reports[way].append(report)
    return {way: Measured(reports[way]) for way in reports}


@contextmanager
def started(way: str, task: dict[str, Any]) -> Iterator[Any]:
    """A way's process, having been told its task."""
    log = Path(task["folder"]) / f"{way}.log"
    command = [sys.executable, str(Path(__file__).with_name("training_ways.py")), way]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            text=True, env=environment,
        ) as worker,
    ):  # fmt: skip
        try:
            worker.stdin.write(json.dumps(task) + "\n")
            worker.stdin.flush()
            yield worker, log
        finally:
            worker.kill()


def next_report(worker: Any, log: Path) -> dict[str, Any]:
    """What a way says of the epoch that it has just done.

    Raises:
        RuntimeError: it died.
    """
    line = worker.stdout.readline()
    if not line:
        last = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(worker.args)} ended with code {worker.wait()}:\n{last}")
    return json.loads(line)


def make_task(folder: Path, name: str, case: Case) -> dict[str, Any]:
    """Made data in a folder, and what a way must know."""
    task = {
        "case": name,
        "spec": case.spec(),
        "folder": str(folder),
        "prepared": str(folder / "prepared.h5"),
        "photos": str(folder / "photos"),
        "side": case.side,
        "images": case.epoch,
    }
    if case.ways == PHOTO_WAYS:
        make_photos(folder / "photos", case.epoch + case.validated)
        dataset = load_project({"notebooks": [case.notebook]}, REPOSITORY).datasets["dogs3"]
        source = FolderSource(kind="folder", path=str(folder / "photos"))
        split = Split(validation=VALIDATION, test=0.01, seed=dataset.split.seed)
        changed = dataset.model_copy(update={"sources": [source], "split": split})
        prepare("photos", changed, folder, Path(task["prepared"]), say=lambda line: None)
    else:
        make_prepared(Path(task["prepared"]), case)
    return task


def make_prepared(path: Path, case: Case) -> None:
    """A prepared data set of noise: the case's images to train on and to validate, no others."""
    rng = np.random.default_rng(0)
    count = case.images + case.validated
    classes = case.spec()["layers"][-1]["config"]["units"]
    with h5py.File(path, "w") as file:
        shape = (count, case.side, case.side, 3)
        images = file.create_dataset("images", shape, np.uint8)
        for start in range(0, count, 1000):  # all at once takes memory
            block = (min(1000, count - start), *shape[1:])
            images[start : start + 1000] = rng.integers(0, 256, block, np.uint8)
        file["labels"] = rng.integers(0, classes, count)
        file["split"] = np.repeat([0, 1], [case.images, case.validated]).astype(np.uint8)
        texts = {"dataset": "noise", "title": "noise", "source": "made", "sha256": "0"}
        file.attrs.update(arrays_sha256="0", preparing=1)
        lists = {"class_names": [str(k) for k in range(classes)], "notes": [], "duplicates": []}
        file.attrs.update(texts | {key: json.dumps(value) for key, value in lists.items()})


def make_photos(folder: Path, count: int) -> None:
    """JPEG files of 500 × 375 pixels in three folders, of about the size that such photos have."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (94, 125, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(
            place / f"{number}.jpg", quality=80
        )


if __name__ == "__main__":
    main()

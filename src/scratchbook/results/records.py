"""What the files of a run say: the types of run.json, history.csv, metrics.json, predictions.h5 and
cam.h5, each after what it consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired

from typing_extensions import TypedDict  # which pydantic can check, before Python 3.12 too

from scratchbook.specs import Spec

if TYPE_CHECKING:
    import numpy as np

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Parameters(TypedDict):  # as Keras's `summary` counts them
    total: int
    trainable: int
    non_trainable: int


class LayerRow(TypedDict):
    name: str
    class_name: str
    output_shape: list[int | None]  # None for the batch
    parameters: int
    multiply_adds: NotRequired[int]  # of one image forward; the first runs did not record them
    config: dict[str, Any]  # the arguments that were declared


class Hardware(TypedDict):
    cpu: str
    cores: int | None
    memory_gb: float | None
    gpus: list[str]
    threads: int
    platform: str


class Git(TypedDict):  # None outside git
    commit: str | None
    dirty: bool | None


class Counts(TypedDict):  # images of each split
    train: int
    validation: int
    test: int


class DataUsed(TypedDict):
    dataset: str
    file: str  # the name of the prepared file
    sha256: str  # of the source's content
    arrays_sha256: str  # of what was prepared from it
    counts: Counts
    class_names: list[str]


class Checkpoint(TypedDict):
    epoch: int
    file: str
    kept_for: list[str]  # best, last, cam, warm start


class WeightHashes(TypedDict):  # sha256 over the arrays
    best: str
    final: str


class StartedFrom(TypedDict):
    """The run whose weights a run began with."""

    run: str
    epoch: int
    weights_sha256: str  # of the file that was loaded


class RunRecord(TypedDict):
    """run.json: all that is known of how a run was made."""

    key: str
    notebook: str  # that it was first trained for
    experiment: str
    seed: int
    id: str
    spec: Spec
    parameters: Parameters
    layers: list[LayerRow]
    best_epoch: int
    epochs: int
    monitor: str
    validation: str
    precision: str
    backend: str
    hardware: Hardware
    device: str  # the GPU, or else the processor
    packages: dict[str, str]
    python: str
    training: dict[str, int]  # the numbers of our own code that answered, by feature
    preparing: int
    pretrained: dict[str, str]  # sha256 of the weights that backbones began with
    initial: NotRequired[StartedFrom]
    diverged: NotRequired[int]  # the epoch in which the loss became no number
    git: Git
    data: DataUsed
    started: str  # ISO 8601
    wall_seconds: float
    training_seconds: float
    images_per_second: float
    weights_sha256: WeightHashes
    checkpoints: list[Checkpoint]


class RunRow(TypedDict):
    """A row of runs.csv."""

    experiment: str
    seed: int
    run: str  # its folder in the store
    fold: str  # "" without


class FileSum(TypedDict):
    size: int  # bytes
    sha256: str


class Kept(TypedDict):
    """checksums.json: what makes a run in the store whole, and enough of run.json to tell which
    run it is should that be lost."""

    key: str
    seed: int
    spec: Spec
    weights_sha256: WeightHashes
    precision: str
    backend: str
    threads: int
    initial: str | None  # the run that it started from
    training: dict[str, int]
    preparing: int
    data: str  # the name of the prepared file
    diverged: int | None
    finished: str  # ISO 8601
    files: dict[str, FileSum]


class Epoch(TypedDict):
    """A row of history.csv, in the order of its columns."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class History:
    """history.csv by column, float64 (epochs,) each."""

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["epoch"])

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def at(self, epoch: int | None) -> dict[str, float] | None:
        """The row of an epoch, if the run came so far."""
        for row, number in enumerate(self["epoch"]):
            if number == epoch:
                return {name: float(values[row]) for name, values in self.columns.items()}
        return None


class Proportion(TypedDict):  # with its 95 % interval
    value: float
    low: float
    high: float


class ReliabilityBin(TypedDict):  # images whose answer had a probability between two edges
    lower: float
    upper: float
    n: int
    confidence: float | None
    accuracy: float | None


class ClassMetrics(TypedDict):
    name: str
    precision: float
    recall: float
    f1: float
    support: int


Majority = TypedDict("Majority", {"class": str, "accuracy": float})  # always answering it


class SplitMetrics(TypedDict):
    """One split's figures at the best epoch."""

    n: int
    accuracy: Proportion
    top5: Proportion | None
    macro_f1: float
    log_loss: float
    brier: float
    ece: float
    reliability: list[ReliabilityBin]
    auroc: float | None
    average_precision: float | None
    undefined: dict[str, str]  # figure: why there is none
    confusion: list[list[int]]  # rows are labels, columns answers
    per_class: list[ClassMetrics]
    majority: Majority
    chance: float
    prior_entropy: float


class BriefMetrics(TypedDict):
    accuracy: float
    log_loss: float


class LastMetrics(TypedDict):  # of the last epoch, beside the best one
    epoch: int
    splits: dict[str, BriefMetrics]
    trouble: NotRequired[list[str]]


class Metrics(TypedDict):
    """metrics.json: what was measured of a run's predictions."""

    epoch: int
    validation: str  # the split that the epoch was chosen on
    class_names: list[str]
    splits: dict[str, SplitMetrics]
    trouble: NotRequired[list[str]]  # a sentence for each split that has no figures
    diverged: NotRequired[int]  # the epoch in which it did
    last: LastMetrics


@dataclass(frozen=True)
class SplitPredictions:
    """What a net said about one split at one epoch."""

    logits: np.ndarray  # float64 (n, classes)
    labels: np.ndarray  # int64 (n,)
    index: np.ndarray  # int64 (n,): rows of the prepared data


@dataclass(frozen=True)
class CamMaps:
    """cam.h5: Grad-CAM of some images through the epochs."""

    maps: np.ndarray  # float32 (epoch, image, h, w), signed and unscaled
    epochs: np.ndarray  # int64 (epoch,); 0 is before training
    images: np.ndarray  # int64 (image,): rows of the prepared data
    labels: np.ndarray  # int64 (image,): the classes explained
    probability: np.ndarray  # float (epoch, image, class)
    names: list[str]  # (image,)
    random_head: np.ndarray | None  # float32 (epoch, image, h, w): under a head of fresh weights
    layer: str
    method: Literal["gradcam", "hirescam"]
    target: Literal["label", "predicted"]
    grid: tuple[int, int]
    input_size: tuple[int, int]  # of what the network sees: an image, or its middle
    class_names: list[str]
    flags: list[str]
    missing: list[int]  # epochs that were asked for and whose weights were not kept
    diverged: int | None  # the epoch in which the run did

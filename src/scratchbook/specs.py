"""What a project's declarations resolve to: the types of the plain values that can be hashed,
written and handed to a job, and whether two specs are the same training."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # which pydantic can check, before Python 3.12 too


class KerasObject(TypedDict):
    """A serialized Keras object, as `keras.saving` knows it."""

    class_name: str
    config: dict[str, Any]  # Keras's own arguments, or a Residual's, a Backbone's, a Whitening's


class Schedule(TypedDict):
    """The learning rate of each epoch."""

    warm_up: int
    decay: Literal["none", "cosine", "step"]
    every: int | None
    factor: float | None


class InitialWeights(TypedDict):
    """Whose weights a run starts from."""

    experiment: str
    checkpoint: str | int  # best, last or an epoch


class Spec(TypedDict):
    """What determines an experiment's runs, with every default filled in."""

    dataset: str
    layers: list[KerasObject]
    augment: list[KerasObject]
    optimizer: KerasObject
    loss: str
    batch_size: int
    epochs: int
    train_samples: int | None
    callbacks: list[KerasObject]
    validation: Literal["validation", "test"]
    recorded_parameters: NotRequired[int | None]  # assertions, no part of a training
    recorded_trainable: NotRequired[int | None]
    # written only where there is one
    initial_weights: NotRequired[InitialWeights]
    schedule: NotRequired[Schedule]
    label_smoothing: NotRequired[float]
    test_time_flip: NotRequired[str]


class Recorded(TypedDict, total=False):
    """What an earlier notebook wrote down of an experiment."""

    parameters: int
    trainable: int
    epoch: int
    train_accuracy: float
    val_accuracy: float
    train_loss: float
    val_loss: float
    weights: str


class DeclaredExperiment(TypedDict):
    """One experiment of a notebook. The words are a page's alone."""

    name: str
    parent: str | None
    recorded: Recorded
    spec: Spec
    runs: dict[int, str]  # of each seed: where it lies in the store; a plan's to fill in
    left_out: list[int]  # seeds that take no part
    group: NotRequired[str]  # the grid that made it, and with which values
    point: NotRequired[dict[str, Any]]
    title: NotRequired[str]
    notes: NotRequired[list[str]]


class Cam(TypedDict):
    """What Grad-CAM is to look at."""

    epochs: list[int | str]
    images: int | list[int | str]
    layer: str | None
    method: Literal["gradcam", "hirescam"]
    target: Literal["label", "predicted"]


class Trial(TypedDict):
    """What a notebook tries and measures, without a word of its text."""

    name: str
    dataset: str
    data: str  # the prepared file; a plan's to fill in
    validation: Literal["validation", "test"]
    baseline: str
    metric: str
    reach: float | None
    seeds: list[int]
    smoke: bool
    cam: Cam | None
    experiments: list[DeclaredExperiment]


class KeyResult(TypedDict):
    """One line of the key results."""

    text: str
    recorded: float | None


class DeclaredGrid(TypedDict):
    """The words on a grid."""

    name: str
    title: str
    notes: list[str]


class DiagnosisSettings(TypedDict):
    """Which findings a notebook mutes, and where the rules draw their lines."""

    mute: list[str]
    thresholds: dict[str, float]


class Page(Trial):
    """All that a page says beside its figures: what is tried, and the words about it."""

    language: str
    title: str
    data_title: str
    citation: str | None  # of the data
    goal: str
    lang: str
    notes: list[str]
    grids: list[DeclaredGrid]
    diagnoses: DiagnosisSettings
    key_results: list[KeyResult]


def settings_changed(spec: Spec, before: Spec) -> list[str]:
    """The keys of a resolved spec that another one has other values of; names are no settings."""
    now, then = dict(spec), dict(before)
    return [
        key
        for key in sorted(now | then)
        if key not in ("dataset", "initial_weights")
        and not key.startswith("recorded_")
        and now.get(key) != then.get(key)
    ]

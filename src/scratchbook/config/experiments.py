"""The pydantic models of an experiment: a network and how it is trained, as written in YAML."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from .grids import Values
from .keras_api import LOSSES, keras_object, keras_schema
from .layers import layer_object, layer_schema
from .strict import Name, Strict, unusable


def _check_layer(entry: Any) -> Any:
    layer_object(entry)
    return entry


def _check_entry(entry: Any, kind: str) -> Any:
    """Checks an entry's class and arguments; the entry is kept as written, since the notebook's
    defaults are merged in only when an experiment is resolved."""
    keras_object(entry, kind)
    return entry


def _keras(kind: str) -> tuple[BeforeValidator, WithJsonSchema]:
    return BeforeValidator(partial(_check_entry, kind=kind)), WithJsonSchema(keras_schema(kind))


KerasEntry = str | dict[str, Any]
Layer = Annotated[KerasEntry, BeforeValidator(_check_layer), WithJsonSchema(layer_schema())]
AugmentationLayer = Annotated[KerasEntry, *_keras("augmentation layer")]
Optimizer = Annotated[KerasEntry, *_keras("optimizer")]
Callback = Annotated[KerasEntry, *_keras("callback")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=20_000)]


class Schedule(Strict):
    """The learning rate of each epoch, from the optimizer's own."""

    warm_up: int = Field(0, ge=0)
    """Epochs in which it rises in equal steps, the last of them at the full rate."""
    decay: Literal["cosine", "step", "none"] = "none"
    """What it does then: falls to near 0 along half a `cosine`, falls by `factor` `every` so many
    epochs (`step`), or stays."""
    every: int | None = Field(None, ge=1)
    """For `step`: after how many epochs."""
    factor: float | None = Field(None, gt=0, lt=1)
    """For `step`: by what it is multiplied."""

    @model_validator(mode="after")
    def _complete(self) -> Schedule:
        if self.decay == "step" and (self.every is None or self.factor is None):
            raise unusable("`decay: step` needs `every` and `factor`")
        if self.decay != "step" and (self.every is not None or self.factor is not None):
            raise unusable(f"`every` and `factor` are for `decay: step`, not {self.decay!r}")
        if self.decay == "none" and not self.warm_up:
            raise unusable("gives every epoch the same rate; give `warm_up` or `decay`")
        return self


class Training(Strict):
    """How a network is trained; each key may stand in an experiment or in `defaults`."""

    augment: list[AugmentationLayer] | None = None
    """Keras augmentation layers, applied to training images only, each epoch anew, on pixels of
    0 to 255. `RandomCrop: {height: 28, width: 28}` is the size that the network sees: of a training
    image a window that is drawn for it, of any other image, under Grad-CAM too, the middle."""
    optimizer: Optimizer | None = None
    """A Keras optimizer, `Adam: {learning_rate: 0.001}` (the default) or by name alone. `decay` is
    Keras 2's rule: learning_rate / (1 + decay · steps)."""
    schedule: Schedule | None = None
    """The learning rate of each epoch: `{warm_up: 2, decay: cosine}`, or
    `{decay: step, every: 10, factor: 0.1}`. Not together with `ReduceLROnPlateau`."""
    loss: Literal["categorical_crossentropy", "binary_crossentropy"] | None = None
    """The loss; `categorical_crossentropy` unless given. `binary_crossentropy` on a softmax is
    taken by its definition, on probabilities clipped at 1e-7."""
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    """The share of each label that the loss spreads evenly over all classes; 0 unless given. The
    losses in history.csv have it too, as Keras's; what is measured on predictions never has."""
    test_time_flip: Literal["horizontal", "vertical", "horizontal_and_vertical"] | None = None
    """Whatever is predicted of an image, while validating too, is the mean of the logits of it and
    of its mirror images, as `RandomFlip` makes them. Grad-CAM explains the image as it stands."""
    batch_size: int | None = Field(None, ge=1)
    """Images in one step; 32 unless given."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the training images; 10 unless given."""
    train_samples: int | None = Field(None, ge=1)
    """Train on this many images only: a stratified sample, drawn anew for each seed, with one image
    of every class at least."""
    callbacks: list[Callback] | None = None
    """`ReduceLROnPlateau`, `EarlyStopping`, with Keras's arguments."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the training, 1 unless given. Small networks train best with one thread
    each, side by side."""
    keep: int | None = Field(None, ge=1)
    """Checkpoints kept of a run at most, 20 unless given. Kept are those of the best and the last
    epoch, and of the epochs that Grad-CAM or a warm start asks for; none is dropped in silence:
    asking for more than `keep` is refused."""


DEFAULTS: dict[str, Any] = {
    "augment": [],
    "optimizer": {"Adam": {"learning_rate": 0.001}},
    "schedule": None,
    "loss": LOSSES[0],
    "label_smoothing": 0.0,
    "test_time_flip": None,
    "batch_size": 32,
    "epochs": 10,
    "train_samples": None,
    "callbacks": [],
    "threads": 1,
    "keep": 20,
}
"""What holds where neither the experiment, nor its parents, nor the notebook says otherwise."""


class Defaults(Training):
    """What holds for every experiment of the notebook that does not say otherwise."""

    layers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Arguments a layer class takes unless an experiment gives them:
    `Conv2D: {kernel_size: 3, padding: same}`."""

    @field_validator("layers", mode="before")
    @classmethod
    def _known_layers(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, arguments in value.items():
                keras_object({name: arguments}, "layer")
        return value


class InitialWeights(Strict):
    """Start from the weights of another experiment's run with the same seed, not from random ones.
    The optimizer starts anew."""

    experiment: Name
    """The experiment; it is run first."""
    checkpoint: Literal["best", "last"] | Annotated[int, Field(ge=1)] = "best"
    """Which of its weights: `best`, `last` or the number of an epoch."""


class Recorded(Strict):
    """What an earlier notebook wrote down; shown beside what is measured here."""

    parameters: int | None = Field(None, ge=0)
    """The network's parameter total. An assertion: a network of another size is not trained."""
    trainable: int | None = Field(None, ge=0)
    """Its trainable parameters. An assertion too."""
    epoch: int | None = Field(None, ge=1)
    """The epoch that the recorded figures belong to."""
    train_accuracy: Fraction | None = None
    """Accuracy on the training images, 0 to 1."""
    val_accuracy: Fraction | None = None
    """Accuracy on the validation images, 0 to 1."""
    train_loss: float | None = Field(None, ge=0)
    """Loss on the training images."""
    val_loss: float | None = Field(None, ge=0)
    """Loss on the validation images."""
    weights: str | None = None
    """The name of the weights file."""


class Experiment(Training):
    """One thing to try: an architecture and its hyper-parameters."""

    title: Text = ""
    """A few words, shown in the headings."""
    parent: Name | None = None
    """The experiment this one starts from: keys that are not written here are taken from it, and
    the report shows what changed."""
    layers: list[Layer] | None = Field(None, min_length=1)
    """The network, as Keras layers in order: `Conv2D: 32`, `MaxPooling2D`, …, `Residual` blocks,
    and perhaps a pretrained `Backbone` or `Whitening` in first place. The last is a `Dense` with a
    softmax unit a class (or one sigmoid unit)."""
    initial_weights: InitialWeights | None = None
    """Weights of another experiment to start from (not taken over from a parent):
    `{experiment: train1, checkpoint: best}`."""
    grid: dict[str, Values] | None = None
    """Values to try in place of this experiment's own, `{optimizer.learning_rate: [1e-3, 1e-4]}`:
    it becomes one experiment for each combination, named after its values."""
    recorded: Recorded = Field(default_factory=Recorded)
    """Figures an earlier notebook wrote down for this experiment."""
    notes: list[Text] = Field(default_factory=list)
    """What you thought; shown as written."""


class GridMember(Experiment):
    """One of the experiments that a grid makes."""

    model_config = ConfigDict(defer_build=True)  # few notebooks have a grid

    group: Name
    """The experiment that declares the grid."""
    point: dict[str, Any]
    """The value of each of the grid's paths: a number, or what the value is called."""
    group_title: Text
    """That experiment's title."""
    group_notes: list[Text]
    """And its notes, which are about all of them."""

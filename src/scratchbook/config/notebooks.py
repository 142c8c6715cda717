"""The pydantic models of a notebook page: one goal, one data set, its experiments."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from scratchbook.errors import nearest
from scratchbook.figures import COMPARED
from scratchbook.specs import Spec

from .claims import bindings
from .diagnoses import Diagnoses
from .experiments import DEFAULTS, Defaults, Experiment, GridMember, Layer, Text, Training
from .grids import NAME_THEM, Setting, combinations, member_name, place
from .keras_api import keras_object
from .layers import check_place, layer_object
from .settings import Backend, Precision, Seeds
from .strict import NAME_PATTERN, Name, Strict, explain, unusable


class KeyResult(Strict):
    """One line of the key results."""

    text: Text
    """Free text; `{train2.val_accuracy:.2f}` stands for the figure of a run."""
    recorded: float | None = None
    """The figure that an earlier notebook wrote down for it."""


def _rising(choice: str) -> str:
    """Refuses a range that holds no epoch."""
    first, _, last = choice.partition("-")
    if last and not 1 <= int(first) <= int(last):
        raise unusable(
            f"the range {choice!r} holds no epoch; write the first, from 1 on, and then the last"
        )
    return choice


EpochChoice = (
    Annotated[int, Field(ge=1)]
    | Annotated[str, Field(pattern=r"^(last|best|\d+-\d+)$"), AfterValidator(_rising)]
)


class Cam(Strict):
    """Grad-CAM through the epochs."""

    epochs: list[EpochChoice] = Field(default=["best", "last"], min_length=1)
    """Which epochs to look at: numbers, ranges like `1-5`, `best`, `last`."""
    images: Annotated[int, Field(ge=1, le=64)] | Annotated[list[int | str], Field(min_length=1)] = 6
    """How many images (a fixed, class-balanced sample), or which: their names or rows in the
    prepared data."""
    layer: str | None = None
    """The layer to look at; the deepest one with a grid of at least 7×7 unless given."""
    method: Literal["gradcam", "hirescam"] = "gradcam"
    """`hirescam` is faithful where the head is Flatten → Dense."""
    target: Literal["label", "predicted"] = "label"
    """The class that is explained: the image's own, the same in every epoch, or the one that each
    epoch predicts."""

    def numbered(self) -> list[int]:
        """The epochs given by number or range, ascending."""
        found: set[int] = set()
        for choice in self.epochs:
            if isinstance(choice, int):
                found.add(choice)
            elif "-" in choice:
                first, last = map(int, choice.split("-"))
                found.update(range(first, last + 1))
        return sorted(found)


class Notebook(Strict):
    """One page: one question, one data set, the experiments that answer it."""

    title: Text = ""
    """The name on the page; the file's name unless given."""
    goal: Text
    """The question."""
    lang: str = Field("en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """The language your notes are written in, for browsers and screen readers."""
    dataset: Name
    """A data set of `config/datasets.yaml`."""
    key_results: list[KeyResult] = Field(default_factory=list)
    """What was learnt, with figures bound to runs."""
    notes: list[Text] = Field(default_factory=list)
    """Remarks on the whole notebook."""
    validation: Literal["validation", "test"] = "validation"
    """The split that the best epoch is chosen on. `test` trains on train and validation images
    together and chooses on the very images that are reported; the report then says so."""
    baseline: Name | None = None
    """The experiment that the others are compared with; the first unless given."""
    seeds: Seeds | None = None
    """The random seeds of this notebook, instead of those in `config/config.yaml`."""
    precision: Precision | None = None
    """In which this notebook's networks are trained, instead of `config/config.yaml`'s."""
    backend: Backend | None = None
    """What Keras computes with for this notebook, instead of `config/config.yaml`'s."""
    leave_out: dict[Name, Seeds] = Field(default_factory=dict)
    """Seeds of an experiment that take no part, `{aug: [3]}`, such as one that diverged; the page
    says so."""
    defaults: Defaults = Field(default_factory=Defaults)
    """What holds for every experiment that does not say otherwise."""
    reach: float | None = Field(None, gt=0, le=1)
    """A validation accuracy to reach: the tables then say in which epoch each experiment first
    does, and after how much arithmetic."""
    experiments: dict[Name, Experiment] = Field(min_length=1)
    """The experiments by name, in the order in which they were tried."""
    diagnoses: Diagnoses = Field(default_factory=Diagnoses)
    """What is looked for in the results; docs/diagnoses.md explains each code."""
    cam: Cam | None = Cam()
    """Grad-CAM through the epochs; `null` leaves it out."""

    @field_validator("experiments")
    @classmethod
    def _expand_grids(
        cls, declared: dict[str, Experiment], info: ValidationInfo
    ) -> dict[str, Experiment]:
        """Puts a grid's experiments in its place."""
        if "defaults" not in info.data:  # what is wrong there is told first
            return declared
        single = {name: one for name, one in declared.items() if one.grid is None}
        expanded: dict[str, Experiment] = {}
        known = ChainMap(expanded, single)
        for name, experiment in declared.items():
            if experiment.grid is None:
                expanded[name] = experiment
                continue
            try:
                members = _grid_members(name, experiment, known, info.data["defaults"])
            except PydanticCustomError as error:
                inside = (error.context or {}).get("inside", ())
                raise unusable(error.message(), name, "grid", *inside) from None
            for member in members:
                if member in declared or member in expanded:
                    raise unusable(
                        f"makes an experiment {member!r}, but there is one of that name; rename "
                        f"it, or {NAME_THEM}",
                        name,
                        "grid",
                    )
            expanded |= members
        return expanded

    @model_validator(mode="after")
    def _references_exist(self) -> Notebook:
        known = self.experiments
        if self.baseline is not None and self.baseline not in known:
            raise unusable(
                f"baseline: no experiment {self.baseline!r}; {nearest(self.baseline, known)}"
            )
        sound: set[str] = set()  # their ancestors are known, and one has layers
        for name, experiment in known.items():
            chain = {name: None}  # a dict, as a set that keeps the order
            last = name
            while last not in sound and (parent := known[last].parent) is not None:
                if parent not in known:
                    raise unusable(
                        f"experiments.{last}.parent: no experiment {parent!r}; "
                        f"{nearest(parent, known)}"
                    )
                if parent in chain:
                    raise unusable(
                        f"experiments.{name}.parent: goes in a circle: "
                        f"{' → '.join([*chain, parent])}"
                    )
                chain[parent] = None
                last = parent
            found = last in sound
            for one in reversed(chain):
                found = found or known[one].layers is not None
                sound.update([one] if found else [])
            if not found:
                raise unusable(
                    f"experiments.{name}.layers: is missing; give the list of layers, "
                    "or a `parent` to take them from"
                )
            self._check_layers(f"experiments.{name}.layers", experiment.layers or [])
        return self

    @model_validator(mode="after")
    def _one_hand_on_the_rate(self) -> Notebook:
        for name in self.experiments:
            callbacks = [
                keras_object(entry, "callback")["class_name"]
                for entry in self._value(name, "callbacks") or []
            ]
            if self._value(name, "schedule") and "ReduceLROnPlateau" in callbacks:
                raise unusable(
                    f"experiments.{name}.schedule: sets the learning rate of each epoch, and so "
                    "does ReduceLROnPlateau; leave one of them out (`callbacks: []`)"
                )
        return self

    @model_validator(mode="after")
    def _warm_starts_lead_back(self) -> Notebook:
        sound: set[str] = set()  # those that lead back to random weights
        for name in self.experiments:
            chain = {name: None}  # a dict, as a set that keeps the order
            last = name
            while last not in sound and (start := self.experiments[last].initial_weights):
                where = f"experiments.{last}.initial_weights"
                source = start.experiment
                if source not in self.experiments:
                    raise unusable(
                        f"{where}.experiment: no experiment {source!r}; "
                        f"{nearest(source, self.experiments)}"
                    )
                if source in chain:
                    raise unusable(
                        f"{where}.experiment: goes in a circle: {' → '.join([*chain, source])}; "
                        "let one of them start from random weights"
                    )
                epochs = self._value(source, "epochs")
                if isinstance(start.checkpoint, int) and start.checkpoint > epochs:
                    raise unusable(
                        f"{where}.checkpoint: is epoch {start.checkpoint}, but {source} is trained "
                        f"for {epochs}"
                    )
                chain[source] = None
                last = source
            sound.update(chain)
        return self

    @model_validator(mode="after")
    def _no_more_checkpoints_than_wished(self) -> Notebook:
        for name in self.experiments:
            keep, wanted = self._value(name, "keep"), self.kept_epochs(name)
            epochs = self._value(name, "epochs")
            most = min(epochs, len({*wanted, epochs}) + 1)  # the last, and the best may be another
            if most > keep:
                asked = ", ".join(map(str, wanted))
                reason = f", and epochs {asked} for Grad-CAM or a warm start" if wanted else ""
                raise unusable(
                    f"allows {keep} checkpoints of a run, but up to {most} are needed: of the best "
                    f"epoch, the last{reason}; give `keep: {most}`, or ask for fewer `cam.epochs`",
                    "experiments",
                    name,
                    "keep",
                )
        return self

    @staticmethod
    def _check_layers(where: str, written: list[Layer]) -> None:
        layers = [layer_object(entry) for entry in written]
        if layers and (last := layers[-1]["class_name"]) not in ("Dense", "Activation"):
            raise unusable(
                f"{where}[{len(layers) - 1}]: the last layer must be a Dense with a softmax unit a "
                f"class, but it is {last}"
            )
        for position, layer in enumerate(layers[1:], 1):
            check_place(layer, f"{where}[{position}]")

    @model_validator(mode="after")
    def _mutes_name_experiments(self) -> Notebook:
        for entry in self.diagnoses.mute:
            experiment = entry.partition(":")[2]
            if experiment and experiment not in self.experiments:
                raise unusable(
                    f"diagnoses.mute: {entry!r}: no experiment {experiment!r}; "
                    f"{nearest(experiment, self.experiments)}"
                )
        return self

    @model_validator(mode="after")
    def _left_out_are_there(self) -> Notebook:
        for name in self.leave_out:
            if name not in self.experiments:
                raise unusable(
                    f"no experiment {name!r}; {nearest(name, self.experiments)}", "leave_out", name
                )
        return self

    @model_validator(mode="after")
    def _claims_are_bound(self) -> Notebook:
        for position, result in enumerate(self.key_results):
            where = f"key_results[{position}].text"
            try:
                found = list(bindings(result.text))
            except ValueError as error:
                raise unusable(f"{where}: {error}") from None
            for binding in found:
                if binding.experiment not in self.experiments:
                    raise unusable(
                        f"{where}: {binding.text}: no experiment {binding.experiment!r}; "
                        f"{nearest(binding.experiment, self.experiments)}"
                    )
                if binding.metric not in COMPARED:
                    raise unusable(
                        f"{where}: {binding.text}: no figure {binding.metric!r}; "
                        f"{nearest(binding.metric, COMPARED)}"
                    )
        return self

    @cached_property
    def _inherited(self) -> dict[str, dict[str, Any]]:
        """What each experiment says itself or takes from its parents, each of them visited once."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.experiments:
            chain = [name]
            while chain[-1] not in found and (parent := self.experiments[chain[-1]].parent):
                chain.append(parent)
            for one in reversed(chain):
                if one not in found:
                    experiment = self.experiments[one]
                    found[one] = found.get(experiment.parent or "", {}) | _written(experiment)
        return found

    @cached_property
    def _started_from(self) -> dict[str, set[str | int]]:
        """The checkpoints of an experiment that others start from."""
        found: dict[str, set[str | int]] = {}
        for experiment in self.experiments.values():
            if start := experiment.initial_weights:
                found.setdefault(start.experiment, set()).add(start.checkpoint)
        return found

    def _value(self, experiment: str, key: str) -> Any:
        """A training key as the experiment has it, wherever it is written."""
        inherited = self._inherited[experiment]
        return inherited[key] if key in inherited else _value([], self.defaults, key)

    def threads(self, experiment: str) -> int:
        """CPU threads of the experiment's trainings."""
        return self._value(experiment, "threads")

    def grids(self) -> dict[str, GridMember]:
        """The grids' names, each with the first of the experiments that it makes."""
        found: dict[str, GridMember] = {}
        for one in self.experiments.values():
            if isinstance(one, GridMember):
                found.setdefault(one.group, one)
        return found

    def kept_epochs(self, experiment: str) -> dict[int, list[str]]:
        """The numbered epochs whose weights are needed, and by what: Grad-CAM (`cam`) or another
        experiment's `warm start`. The best and the last are kept anyway."""
        needs: dict[str, set[str | int]] = {
            "cam": {*self.cam.numbered()} if self.cam else set(),
            "warm start": self._started_from.get(experiment, set()),
        }
        return {
            epoch: [need for need, wanted in needs.items() if epoch in wanted]
            for epoch in range(1, self._value(experiment, "epochs") + 1)
            if any(epoch in wanted for wanted in needs.values())
        }

    def spec(self, experiment: str) -> Spec:
        """What determines the experiment's runs, with every default filled in (plain JSON)."""
        value = partial(self._value, experiment)
        recorded = self.experiments[experiment].recorded
        start = self.experiments[experiment].initial_weights
        schedule = value("schedule")
        given = {  # written only where there is one
            "initial_weights": start and start.model_dump(),
            "schedule": schedule and schedule.model_dump(),
            "label_smoothing": value("label_smoothing"),
            "test_time_flip": value("test_time_flip"),
        }
        return {
            "dataset": self.dataset,
            "layers": [layer_object(entry, self.defaults.layers) for entry in value("layers")],
            "augment": [keras_object(entry, "augmentation layer") for entry in value("augment")],
            "optimizer": keras_object(value("optimizer"), "optimizer"),
            "loss": value("loss"),
            "batch_size": value("batch_size"),
            "epochs": value("epochs"),
            "train_samples": value("train_samples"),
            "callbacks": [keras_object(entry, "callback") for entry in value("callbacks")],
            "validation": self.validation,
            **{key: part for key, part in given.items() if part},  # type: ignore[typeddict-item]
            "recorded_parameters": recorded.parameters,
            "recorded_trainable": recorded.trainable,
        }


def _written(experiment: Experiment) -> dict[str, Any]:
    """The keys that an experiment's children take from it, as far as they stand there."""
    keys = experiment.model_fields_set & {"layers", *Training.model_fields}
    written = {key: getattr(experiment, key) for key in keys}
    return {key: value for key, value in written.items() if (key, value) != ("layers", None)}


def _chain(experiment: Experiment, known: Mapping[str, Experiment]) -> list[Experiment]:
    """The experiment, its parent, its parent's parent, … as far as they are known."""
    chain = [experiment]
    names: set[str] = set()
    while (name := chain[-1].parent) is not None and name not in names and name in known:
        chain.append(known[name])
        names.add(name)
    return chain


def _value(chain: list[Experiment], defaults: Defaults, key: str) -> Any:
    """A key of the first in a chain, wherever it is written."""
    levels = [*chain, *([defaults] if key in DEFAULTS else [])]
    written = (getattr(level, key) for level in levels if key in level.model_fields_set)
    return next(written, DEFAULTS.get(key))


def _grid_members(
    name: str, experiment: Experiment, known: Mapping[str, Experiment], defaults: Defaults
) -> dict[str, Experiment]:
    """The experiments that a grid makes, by name.

    Args:
        name: the experiment that declares the grid.
        experiment: the same.
        known: the experiments that it can take keys from.
        defaults: the notebook's.
    """
    if experiment.recorded.model_fields_set:
        raise unusable("has `recorded` figures beside it, which are those of one experiment")
    if experiment.parent is not None and experiment.parent not in known:
        raise unusable(
            f"no experiment {experiment.parent!r} to take keys from; a grid's parent is one of "
            f"those above it; {nearest(experiment.parent, known)}"
        )
    chain = _chain(experiment, known)
    shared = {
        key: getattr(experiment, key)
        for key in experiment.model_fields_set - {"grid", "title", "notes", "recorded"}
    }
    members: dict[str, Experiment] = {}
    for settings in combinations(experiment.grid or {}):
        member = member_name(name, settings)
        if member in members:
            raise unusable(f"two combinations would both be called {member!r}; {NAME_THEM}")
        if not re.match(NAME_PATTERN, member):
            raise unusable(
                f"makes an experiment {member!r}, but a name has at most 64 characters; {NAME_THEM}"
            )
        words = {
            "title": ", ".join(f"{one.path} {one.shown}" for one in settings),
            "group": name,
            "group_title": experiment.title,
            "group_notes": experiment.notes,
            "point": {one.path: one.shown for one in settings},
        }
        written = shared | _placed(settings, shared, chain, defaults)
        try:
            members[member] = GridMember.model_validate(written | words)
        except ValidationError as error:
            raise unusable(explain(error, member, lambda _: None).replace("\n", "; ")) from None
    _refuse_equals(members)
    return members


def _placed(
    settings: Sequence[Setting],
    written: dict[str, Any],
    chain: list[Experiment],
    defaults: Defaults,
) -> dict[str, Any]:
    """The keys of an experiment that settings change, whole keys before what is inside them."""
    placed: dict[str, Any] = {}
    for path, _, value in sorted(settings, key=lambda one: "." in one.path):
        key = path.partition(".")[0]
        current = placed.get(key, written.get(key))
        if key not in placed and key not in written and key != "initial_weights":
            current = _value(chain, defaults, key)  # no parent hands down initial weights
        placed[key] = place(path, current, value)
    return placed


def _refuse_equals(members: dict[str, Experiment]) -> None:
    """Refuses two experiments that are one: a path whose values another path overrules."""
    first: dict[str, str] = {}
    for name, member in members.items():
        same = first.setdefault(member.model_dump_json(exclude={"title", "point"}), name)
        if same != name:
            raise unusable(f"{same} and {name} are the same experiment; leave one path out")

"""Everything a folder declares: config.yaml, datasets.yaml and notebooks in, checked values out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from scratchbook.errors import ScratchbookError, nearest
from scratchbook.results.paths import RESERVED, Results
from scratchbook.specs import (
    Cam,
    DeclaredExperiment,
    DiagnosisSettings,
    Page,
    Recorded,
    Spec,
    Trial,
)

from .datasets import Dataset, Datasets
from .experiments import Experiment, GridMember
from .layers import backbones
from .notebooks import Notebook
from .reading import line_finder, line_of, read_yaml
from .settings import Settings
from .strict import NAME_PATTERN, explain

SMOKE_IMAGES = 30
"""About how many images of a data set `smoke=true` keeps; each class stays in each split."""
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Project:
    """A folder's declarations, checked. Its methods give plain values, ready to be hashed, written
    or handed to a job."""

    settings: Settings
    datasets: dict[str, Dataset]
    notebooks: Mapping[str, Notebook]

    @property
    def image_limit(self) -> int | None:
        """About how many images of a data set are prepared; None for all."""
        return SMOKE_IMAGES if self.settings.smoke else None

    @property
    def results(self) -> Results:
        """Where results go; a smoke run's never mix with real ones."""
        return Results(Path("results/smoke" if self.settings.smoke else "results"))

    def check_results(self) -> None:
        """Refuses a place for results that something else has taken.

        Raises:
            ScratchbookError: there is a file, or a link to nothing, where their folder is to be.
        """
        for place in (self.results.folder, *self.results.folder.parents):
            if not place.is_dir() and (place.exists() or place.is_symlink()):
                raise ScratchbookError(
                    f"{place} is no folder, but results are to be written there; move it away"
                )

    def seeds(self, notebook: str) -> list[int]:
        """The random seeds of a notebook's runs; the first in a smoke run."""
        seeds = self.notebooks[notebook].seeds or self.settings.seeds
        return seeds[:1] if self.settings.smoke else seeds

    def precision(self, notebook: str) -> str:
        """In which a notebook's networks are to be trained, as declared."""
        return self.notebooks[notebook].precision or self.settings.precision

    def backend(self, notebook: str) -> str:
        """What a notebook's networks are to be trained with, as declared."""
        return self.notebooks[notebook].backend or self.settings.backend

    def left_out(self, notebook: str, experiment: str) -> list[int]:
        """The seeds of an experiment that its notebook leaves out."""
        return self.notebooks[notebook].leave_out.get(experiment, [])

    def spec(self, notebook: str, experiment: str) -> Spec:
        """What determines an experiment's runs: one epoch on whatever is there for a smoke run."""
        spec = self.notebooks[notebook].spec(experiment)
        if self.settings.smoke:
            for backbone in backbones(spec["layers"]):
                backbone["weights"] = "none"  # what runs in minutes does without downloads
            if start := spec.get("initial_weights"):
                start["checkpoint"] = "last"  # of the one epoch that there is
            spec["epochs"], spec["train_samples"] = 1, None
            spec["batch_size"] = min(spec["batch_size"], 8)
        return spec

    def threads(self, notebook: str, experiment: str) -> int:
        """CPU threads of an experiment's trainings; one in a smoke run, where starting up takes
        longer than training and so two at a time take half as long."""
        if self.settings.smoke:
            return 1
        return self.notebooks[notebook].threads(experiment)

    def kept_epochs(self, notebook: str, experiment: str) -> dict[int, list[str]]:
        """The numbered epochs whose weights are kept beside the best and the last, and for what."""
        epochs = self.spec(notebook, experiment)["epochs"]
        wanted = self.notebooks[notebook].kept_epochs(experiment)
        return {epoch: needs for epoch, needs in wanted.items() if epoch <= epochs}

    def cam(self, notebook: str) -> Cam | None:
        """What Grad-CAM is to look at in a notebook's runs, if at anything."""
        declared = self.notebooks[notebook].cam
        return cast(Cam, declared.model_dump()) if declared else None

    def command(self) -> str:
        """The command that makes these results again."""
        chosen = self.settings
        language = f" language={chosen.language}" if chosen.language != "en" else ""
        smoke = " smoke=true" if chosen.smoke else ""
        backend = f" backend={chosen.backend}" if chosen.backend != "auto" else ""
        return (
            f"snakemake --cores all --config 'notebooks=[{','.join(chosen.notebooks)}]' "
            f"'seeds=[{','.join(map(str, chosen.seeds))}]' precision={chosen.precision}"
            f"{backend}{language}{smoke}"
        )

    def trial(self, notebook: str) -> Trial:
        """What a notebook tries and measures, without a word of its text: editing notes and titles
        leaves this as it is."""
        declared = self.notebooks[notebook]
        return {
            "name": notebook,
            "dataset": declared.dataset,
            "data": "",
            "validation": declared.validation,
            "baseline": declared.baseline or next(iter(declared.experiments)),
            "metric": "val_accuracy" if declared.validation == "test" else "test_accuracy",
            "reach": declared.reach,
            "seeds": self.seeds(notebook),
            "smoke": self.settings.smoke,
            "cam": self.cam(notebook),
            "experiments": [
                self._declared(notebook, name, experiment)
                for name, experiment in declared.experiments.items()
            ],
        }

    def page(self, notebook: str) -> Page:
        """All that a page says beside its figures: what is tried, and the words about it."""
        declared = self.notebooks[notebook]
        return {
            **self.trial(notebook),
            "language": self.settings.language,
            "title": declared.title or notebook,
            "data_title": self.datasets[declared.dataset].title,
            "citation": self.datasets[declared.dataset].citation,
            "goal": declared.goal,
            "lang": declared.lang,
            "notes": declared.notes,
            "grids": [
                {"name": name, "title": member.group_title, "notes": member.group_notes}
                for name, member in declared.grids().items()
            ],
            "diagnoses": cast(DiagnosisSettings, declared.diagnoses.model_dump()),
            "key_results": [
                {"text": result.text, "recorded": result.recorded}
                for result in declared.key_results
            ],
            "experiments": [
                self._declared(notebook, name, experiment)
                | {"title": experiment.title, "notes": experiment.notes}
                for name, experiment in declared.experiments.items()
            ],
        }

    def _declared(self, notebook: str, name: str, experiment: Experiment) -> DeclaredExperiment:
        told: DeclaredExperiment = {
            "name": name,
            "parent": experiment.parent,
            "recorded": cast(Recorded, experiment.recorded.model_dump(exclude_none=True)),
            "spec": self.spec(notebook, name),
            "runs": {},
            "left_out": self.left_out(notebook, name),
        }
        if isinstance(experiment, GridMember):
            told |= {"group": experiment.group, "point": experiment.point}
        return told


class _Notebooks(Mapping[str, Notebook]):
    """The chosen notebooks, each read and checked when it is first asked for."""

    def __init__(self, names: list[str], folder: Path, datasets: Mapping[str, Dataset]) -> None:
        self._read: dict[str, Notebook | None] = dict.fromkeys(names)
        self._folder = folder
        self._datasets = datasets

    def __getitem__(self, name: str) -> Notebook:
        notebook = self._read[name]
        if notebook is None:
            notebook = load_notebook(name, self._folder / "notebooks")
            if notebook.dataset not in self._datasets:
                file = self._folder / "notebooks" / f"{name}.yaml"
                raise ScratchbookError(
                    f"{file}:{line_of(file, ('dataset',))}: dataset: no data set "
                    f"{notebook.dataset!r} in {self._folder / 'datasets.yaml'}; "
                    f"{nearest(notebook.dataset, self._datasets)}"
                )
            self._read[name] = notebook
        return notebook

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def load_project(
    settings: Mapping[str, Any] | None = None, folder: Path = Path(), *, whole: bool = True
) -> Project:
    """Reads and checks all that the chosen notebooks need.

    Args:
        settings: config.yaml as Snakemake merged it with `--config`; read from the file if None.
        folder: holds `config/`.
        whole: False leaves each notebook unread until it is asked for: a job that Snakemake starts
            in a process of its own needs one of what may be hundreds, checked before.

    Raises:
        ScratchbookError: something cannot be used; one line for each mistake in a file.
    """
    config = folder / "config"
    written = read_yaml(config / "config.yaml")
    given = settings or written or {}
    values = dict(given) if isinstance(given, Mapping) else given
    chosen = validate(Settings, values, config / "config.yaml")
    datasets = validate(Datasets, read_yaml(config / "datasets.yaml"), config / "datasets.yaml")
    notebooks = _Notebooks(chosen.notebooks, config, datasets.root)
    if whole:
        tuple(notebooks.values())
    return Project(chosen, datasets.root, notebooks)


def load_notebook(name: str, folder: Path) -> Notebook:
    """One notebook of config/notebooks/.

    Raises:
        ScratchbookError: no such notebook, or something in it cannot be used.
    """
    file = folder / f"{name}.yaml"
    if not re.match(NAME_PATTERN, name) or name in RESERVED:
        raise ScratchbookError(
            f"{name!r} is no name for a notebook: lower-case letters, digits, - and _, at most 64, "
            f"and not one of {', '.join(sorted(RESERVED))}, since it becomes a folder of results/"
        )
    if not file.exists():
        known = notebook_names(folder)
        raise ScratchbookError(
            f"notebooks: there is no notebook {name!r} in {folder}; {nearest(name, known)}"
        )
    return validate(Notebook, read_yaml(file), file)


def notebook_names(folder: Path) -> list[str]:
    """The notebooks in a folder, sorted."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def validate(model: type[Model], values: Any, file: Path) -> Model:
    """Values of a file as a pydantic model.

    Raises:
        ScratchbookError: each mistake with its file, line and key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ScratchbookError(explain(error, str(file), line_finder(file))) from None

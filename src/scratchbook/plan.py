"""What is wanted and what is there: a project and its results in, each experiment's runs out, which
of them are open, and what their trainings are to be told.

A notebook declares experiments; the store keeps runs by their keys. Here, and only here, the one
becomes the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scratchbook.changes import changes
from scratchbook.config.layers import backbones
from scratchbook.config.project import Project
from scratchbook.data.content import Content, Sources, data_identity
from scratchbook.data.numbers import preparing_number
from scratchbook.errors import ScratchbookError
from scratchbook.hardware import default_backend, list_gpus, resolve_precision
from scratchbook.keys import cam_key, run_key
from scratchbook.results.errors import ResultError, readable
from scratchbook.results.paths import run_name
from scratchbook.results.reading import read_runs
from scratchbook.results.records import Kept
from scratchbook.results.store import Store
from scratchbook.specs import Page, Spec, Trial, settings_changed
from scratchbook.training.order import Order

if TYPE_CHECKING:
    from scratchbook.bucket import Bucket


AnyTrial = TypeVar("AnyTrial", bound=Trial)
TOLD = 5  # reasons for training that are told


@dataclass(frozen=True)
class Asked:
    """Who wants a run: an experiment of a notebook, with a seed."""

    notebook: str
    experiment: str
    seed: int


class Plan:
    """A project beside its results.

    Args:
        project: as declared.
        bucket: where the results are, if not on this disk.
        gpu: whether trainings may use this machine's GPUs.
    """

    def __init__(self, project: Project, bucket: Bucket | None = None, *, gpu: bool = True) -> None:
        self.project, self.results = project, project.results
        self.store = Store(project.results, bucket)
        self.sources = Sources(project.results.sources)
        self._bucket, self._gpu = bucket, gpu

    @cache
    def spec(self, notebook: str, experiment: str) -> Spec:
        """What an experiment declares."""
        return self.project.spec(notebook, experiment)

    # --- keys -------------------------------------------------------------------------------------

    def run(self, notebook: str, experiment: str, seed: int | str) -> str:
        """Where a run lies in the store, or will: `digits-3f9a0c61d2e8/seed0`."""
        return run_name(self.key(notebook, experiment), seed)

    def key(self, notebook: str, experiment: str) -> str:
        """An experiment's key, as it is declared now."""
        digits = self._digits(notebook)[experiment]
        return self.store.key(self.project.notebooks[notebook].dataset, digits)

    @cache
    def _digits(self, notebook: str) -> dict[str, str]:
        """The digits of each experiment's key."""

        def digits(experiment: str, initial: str | None) -> str:
            spec = self.spec(notebook, experiment)
            return run_key(
                spec,
                data=self.identity(spec["dataset"]),
                precision=self.project.precision(notebook),
                backend=self.project.backend(notebook),
                threads=self.project.threads(notebook, experiment),
                pretrained=self.pretrained(spec),
                initial=initial,
            )

        return _starts_first(self.project, notebook, digits)

    def pretrained(self, spec: Spec) -> dict[str, str]:
        """What the weights are that a spec's backbones start from."""
        if not any(backbones(spec["layers"])):
            return {}
        from scratchbook.models.weights import weights_identity  # with NumPy and h5py

        folder = Path(self.project.settings.data_dir)
        return weights_identity(spec["layers"], folder, self.sources.file_sha256)

    # --- data -------------------------------------------------------------------------------------

    @cache
    def identity(self, dataset: str) -> str:
        """The digits of all that decides a data set's pixels, labels and splits."""
        declared, limit = self.project.datasets[dataset], self.project.image_limit
        return data_identity(declared, self.content(dataset), limit)

    def lacks_data(self, notebook: str) -> str | None:
        """Why a notebook's runs cannot be told: its data are nowhere, and never were seen. None
        where they can."""
        try:
            self.identity(self.project.notebooks[notebook].dataset)
        except ScratchbookError as error:
            return str(error)
        return None

    @cache
    def content(self, dataset: str) -> Content:
        """What a data set's source holds, or held when it was last seen."""
        declared, folder = self.project.datasets[dataset], Path(self.project.settings.data_dir)
        return self.sources.content(
            declared, folder, self._prepared.__contains__, self.project.image_limit
        )

    @cache
    def _number(self, dataset: str) -> int:
        """That of today's code, by which a data set is prepared."""
        declared, limit = self.project.datasets[dataset], self.project.image_limit
        return preparing_number(declared, self.content(dataset).index, limit)

    def dataset_of(self, data: str) -> str:
        """The data set that a prepared file is made from, by its name.

        Raises:
            ScratchbookError: none that is declared now.
        """
        identity = data.rsplit("-", 2)[-2]
        for notebook in self.project.notebooks.values():
            if self.identity(notebook.dataset) == identity:
                return notebook.dataset
        raise ScratchbookError(
            f"{self.results.data(data)} is gone, and no data set is declared as the one it was "
            "prepared from"
        )

    @cache
    def data_name(self, notebook: str, *, anew: bool = False) -> str:
        """The prepared file that a notebook's new runs read: the one that its finished runs read,
        while it is there; `anew` the one of today's code."""
        dataset = self.project.notebooks[notebook].dataset
        identity, number = self.identity(dataset), self._number(dataset)
        known = self._prepared.get(identity, {})
        if not anew and known.keys() - {number}:
            for kept in self._finished(notebook):
                if kept["data"] in known.values():
                    return kept["data"]
        return known.get(number, f"{dataset}-{identity}-p{number}")

    @cache
    def data_of(self, run: str) -> str:
        """The prepared file that a run reads, or has read."""
        if run not in self.open and (kept := self.store.kept(run)):
            return kept["data"]
        return self.order(run).data

    @cache
    def has_pixels(self, run: str) -> bool:
        """Whether what needs a run's images can be made."""
        return self.can_prepare(self.data_of(run))

    def has_data(self, data: str) -> bool:
        """Whether prepared data are there."""
        return data in self._names

    def can_prepare(self, data: str) -> bool:
        """Whether prepared data are there, or can be made as they were."""
        if self.has_data(data):
            return True
        with suppress(ScratchbookError):
            dataset = self.dataset_of(data)
            return data.endswith(f"-p{self._number(dataset)}") and self.content(dataset).there
        return False

    @cached_property
    def _prepared(self) -> dict[str, dict[int, str]]:
        """The prepared files that there are, by identity and number."""
        found: dict[str, dict[int, str]] = {}
        for name in self._names:
            _, identity, number = name.rsplit("-", 2)
            found.setdefault(identity, {})[int(number[1:])] = name
        return found

    @cached_property
    def _names(self) -> set[str]:
        folder = self.results.data("any").parent
        if self._bucket:
            names = [Path(name) for name in self._bucket.names(folder)]
        else:
            names = list(folder.glob("*.h5"))
        return {name.stem for name in names if name.suffix == ".h5" and "-p" in name.stem}

    # --- runs -------------------------------------------------------------------------------------

    @cached_property
    def wanted(self) -> dict[str, list[Asked]]:
        """Every run of the chosen notebooks, and who wants it."""
        found: dict[str, list[Asked]] = {}
        for notebook in self.project.notebooks:
            for experiment, runs in self.runs(notebook).items():
                for seed, run in runs.items():
                    found.setdefault(run, []).append(Asked(notebook, experiment, seed))
        return found

    def seeds(self, notebook: str, experiment: str) -> list[int]:
        """An experiment's seeds, but for those that its notebook leaves out."""
        left_out = self.project.left_out(notebook, experiment)
        return [seed for seed in self.project.seeds(notebook) if seed not in left_out]

    @cache
    def runs(self, notebook: str) -> dict[str, dict[int, str]]:
        """The runs of a notebook, by experiment and seed, but for those that it leaves out."""
        return {
            experiment: {
                seed: self.run(notebook, experiment, seed)
                for seed in self.seeds(notebook, experiment)
            }
            for experiment in self.project.notebooks[notebook].experiments
        }

    @cached_property
    def open(self) -> set[str]:
        """Those that are to be trained, with those whose weights they start from.

        Raises:
            ScratchbookError: a finished run is not whole any more.
        """
        self.store.check()
        found, damaged = set(), []
        waiting = list(self.wanted)
        while waiting:
            run = waiting.pop()
            try:
                if run not in found and self.store.is_open(run):
                    found.add(run)
                    if initial := self._initial(run):
                        waiting.append(initial)
            except ResultError as error:
                damaged.append(self._cure(run, error))
        if damaged:
            raise ScratchbookError("\n".join(sorted(damaged)))
        return found

    def _cure(self, run: str, error: ResultError) -> str:
        asked = self._asked(run)
        command = f"scratchbook retrain {asked.notebook} {asked.experiment} --seed {asked.seed}"
        return (
            f"{error.file}: {error.brief}, and the run was finished; put back what it was, or have "
            f"it trained again: {command}"
        )

    @cache
    def _asked(self, run: str) -> Asked:
        """Who wants a run first; of a run that only others start from, its own experiment."""
        if run in self.wanted:
            return self.wanted[run][0]
        key, seed = run.rsplit("/seed", 1)
        for notebook in self.project.notebooks:
            for experiment in self.project.notebooks[notebook].experiments:
                if self.key(notebook, experiment) == key:
                    return Asked(notebook, experiment, int(seed))
        raise ScratchbookError(f"no experiment is declared as the run {run}")

    @cache
    def _initial(self, run: str) -> str | None:
        """The run whose weights a run starts from."""
        asked = self._asked(run)
        start = self.spec(asked.notebook, asked.experiment).get("initial_weights")
        return self.run(asked.notebook, start["experiment"], asked.seed) if start else None

    @cache
    def order(self, run: str) -> Order:
        """What the training of an open run is told. One that has begun goes on as it began."""
        asked = self._asked(run)
        names = asked.notebook, asked.experiment
        begun = self._begun(run)
        spec, request = self.spec(*names), self.store.request(run)
        anew = request is not None and request["prepare"]
        return Order(
            key=run.rsplit("/", 1)[0],
            notebook=asked.notebook,
            experiment=asked.experiment,
            spec=spec,
            seed=asked.seed,
            precision=begun.precision if begun else self._resolved("precision", *names),
            backend=begun.backend if begun else self._resolved("backend", *names),
            threads=self.project.threads(*names),
            keep_epochs=self.kept_epochs(run),
            data=begun.data if begun else self.data_name(asked.notebook, anew=anew),
            pretrained=self.pretrained(spec),
            initial=self._initial(run),
        )

    def kept_epochs(self, run: str) -> dict[int, list[str]]:
        """The numbered epochs whose weights are kept of a run: all that anybody asks for."""
        found: dict[int, list[str]] = {}
        for asked in self.wanted.get(run) or [self._asked(run)]:
            wanted = self.project.kept_epochs(asked.notebook, asked.experiment)
            for epoch, needs in wanted.items():
                known = found.setdefault(epoch, [])
                known += [need for need in needs if need not in known]
        return dict(sorted(found.items()))

    def _begun(self, run: str) -> Order | None:
        """The order of a training that has left something to go on from."""
        path = self.results.order(run)
        try:
            if self.results.state(run).exists() or self.results.trained(run).folder.exists():
                told = path.read_bytes()
            elif self._bucket and f"{run}.tar.gz" in self._states:
                told = self._bucket.read(path) or b""
            else:
                return None
            order = Order.from_plain(json.loads(told))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return order if order.data in self._names else None

    @cached_property
    def _states(self) -> set[str]:
        """In the bucket, of trainings that were begun."""
        return self._bucket.names(self.results.states) if self._bucket else set()

    @cache
    def _resolved(self, what: str, notebook: str, experiment: str) -> str:
        """`auto` as the experiment's finished runs have it, else as the notebook's where this
        machine does that natively, else as this machine does."""
        declared = getattr(self.project, what)(notebook)
        if declared != "auto":
            return str(declared)
        for kept in self._finished(notebook, experiment):
            return str(kept[what])  # type: ignore[literal-required]
        for kept in self._finished(notebook):
            value = str(kept[what])  # type: ignore[literal-required]
            if self._is_native(what, value):
                return value
        return self._machine[what]

    def _is_native(self, what: str, value: str) -> bool:
        if what == "precision":
            return value in ("float32", self._machine["precision"])
        return find_spec(value) is not None

    @cached_property
    def _machine(self) -> dict[str, str]:
        on_gpu = self._gpu and bool(list_gpus())
        return {"precision": resolve_precision("auto", on_gpu), "backend": default_backend()}

    @cache
    def _finished(self, notebook: str, experiment: str | None = None) -> list[Kept]:
        """The finished runs of a notebook or of one of its experiments."""
        every, found = self.runs(notebook), []
        for name in every if experiment is None else [experiment]:
            for run in every[name].values():
                with suppress(ResultError):
                    if kept := self.store.kept(run):
                        found.append(kept)
        return found

    # --- pages ------------------------------------------------------------------------------------

    def trial(self, notebook: str) -> Trial:
        """What a notebook tries, and where its runs and data are."""
        return self._filled_in(self.project.trial(notebook))

    def page(self, notebook: str) -> Page:
        """All that a page says beside its figures, and where its runs and data are."""
        return self._filled_in(self.project.page(notebook))

    def _filled_in(self, trial: AnyTrial) -> AnyTrial:
        if self.lacks_data(trial["name"]):
            return trial  # and so without runs
        runs = self.runs(trial["name"])
        trial["data"] = self.data_name(trial["name"])
        for experiment in trial["experiments"]:
            experiment["runs"] = runs[experiment["name"]]
        return trial

    def cam(self, notebook: str) -> str | None:
        """What the maps of a notebook's runs are called; None where it asks for none."""
        choices = self.project.cam(notebook)
        return cam_key(choices) if choices else None

    def news(self) -> str:
        """What is to be trained, and why, in a sentence; "" where all is there."""
        if not self.open:
            return ""
        reasons = dict.fromkeys(self._why(run) for run in sorted(self.open, key=self._place))
        more = len(reasons) - TOLD
        told = "; ".join(list(reasons)[:TOLD]) + (f"; and {more} more reasons" if more > 0 else "")
        there = sum(run not in self.open for run in self.wanted)
        runs = f"{len(self.open):,} run{'s' * (len(self.open) != 1)} to train"
        return f"{runs} ({told}); {there:,} {'is' if there == 1 else 'are'} there"

    def _place(self, run: str) -> int:
        return self._order_of_runs.get(run, -1)

    @cached_property
    def _order_of_runs(self) -> dict[str, int]:
        return {run: position for position, run in enumerate(self.wanted)}

    def _why(self, run: str) -> str:
        """Why a run is open: what of its experiment is not as its last page had it."""
        asked = self._asked(run)
        name = asked.experiment
        if self.results.request(run).exists():
            return f"{name} again, as asked"
        shown = self._shown(asked.notebook).get(name)
        if shown is None:
            return f"{name} is new"
        if shown.rsplit("/", 1)[0] == run.rsplit("/", 1)[0]:
            return f"seed {asked.seed} of {name}"
        try:
            before = self.store.kept(shown)
        except ResultError:
            before = None
        if before is None:
            return f"{name} is not there"
        spec = self.spec(asked.notebook, name)
        if settings_changed(spec, before["spec"]):
            return f"{'; '.join(changes(before['spec'], spec))} of {name}"
        if self.identity(spec["dataset"]) != before["data"].rsplit("-", 2)[-2]:
            return f"other data for {name}"
        return f"{name} in another precision, backend, number of threads or from other weights"

    @cache
    def _shown(self, notebook: str) -> dict[str, str]:
        """The run of each experiment that a notebook's last page showed, one of its seeds."""
        rows = readable(read_runs, self.results.notebook(notebook).runs) or []
        return {row["experiment"]: row["run"] for row in rows}


def twins(project: Project, notebook: str) -> dict[str, str]:
    """Experiments of a notebook that are the same run as one before them, {second: first}. It needs
    neither data nor results: what all have in common is left out."""

    def digits(experiment: str, initial: str | None) -> str:
        threads = project.threads(notebook, experiment)
        return run_key(
            project.spec(notebook, experiment), data="", precision="auto", backend="auto",
            threads=threads, pretrained={}, initial=initial,
        )  # fmt: skip

    first: dict[str, str] = {}
    of_all = _starts_first(project, notebook, digits)
    known = {name: first.setdefault(of_all[name], name) for name in of_all}
    return {name: same for name, same in known.items() if same != name}


def _starts_first(
    project: Project, notebook: str, digits: Callable[[str, str | None], str]
) -> dict[str, str]:
    """What `digits` makes of each experiment and of the digits of the one that it starts from."""
    experiments = project.notebooks[notebook].experiments
    starts = {
        name: one.initial_weights.experiment if one.initial_weights else None
        for name, one in experiments.items()
    }
    found: dict[str, str] = {}
    for name in experiments:
        chain = [name]
        while chain[-1] not in found and (start := starts[chain[-1]]):
            chain.append(start)
        for one in reversed(chain):
            if one not in found:
                found[one] = digits(one, found.get(starts[one] or ""))
    return {name: found[name] for name in experiments}

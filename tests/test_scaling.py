"""What grows with a set of notebooks grows no faster than it: steps are counted, not timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from projects import NOTEBOOK, REPOSITORY, make_project, make_shapes, run_of, snakemake
from result_trees import copy_experiment, experiment_folder, make_page, make_results
from scratchbook.comparison import compare, write_comparison
from scratchbook.config import project as project_module
from scratchbook.config.project import Project, load_project
from scratchbook.models import checks
from scratchbook.plan import Plan
from scratchbook.report.html import write_page
from scratchbook.report.loading import load_notebook
from scratchbook.report.markdown import notebook_markdown
from scratchbook.results.paths import Results
from scratchbook.specs import Page

PACKAGE = str(REPOSITORY / "src")
LAYERS = "[Flatten, {Dense: {units: 3, activation: softmax}}]"


def steps(work: Callable[[], object]) -> int:
    """The lines of the package that some work runs through, each turn of a loop counted."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def declare(folder: Path, notebooks: int, experiments: int) -> Path:
    """A folder whose experiments are each the child of the one before and start from its weights;
    the last is written first."""
    tried = [f"  e0: {{layers: {LAYERS}}}"]
    tried += [
        f"  e{i}: {{parent: e{i - 1}, batch_size: {i}, initial_weights: {{experiment: e{i - 1}, "
        f"checkpoint: 1}}}}"
        for i in range(1, experiments)
    ]
    text = "goal: g\ndataset: shapes\nexperiments:\n" + "\n".join(reversed(tried)) + "\n"
    config = folder / "config"
    (config / "notebooks").mkdir(parents=True)
    names = [f"n{i}" for i in range(notebooks)]
    for name in names:
        (config / f"notebooks/{name}.yaml").write_text(text)
    (config / "config.yaml").write_text(f"notebooks: {json.dumps(names)}\n")
    (config / "datasets.yaml").write_text(
        "shapes: {title: s, size: [8, 8], sources: [{kind: folder, path: shapes}]}\n"
    )
    return folder


def ask(project: Project) -> None:
    """What the jobs of every run ask, none of which is finished."""
    plan = Plan(project, gpu=False)
    assert plan.news()
    for run in plan.open:
        plan.order(run).plain()
        plan.has_pixels(run)
    for name in project.notebooks:
        plan.cam(name)
        plan.page(name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results and data are looked for: a folder of shapes, and no results."""
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / "data/shapes", images_a_class=3)


@pytest.mark.parametrize("shape", [(1, 60), (6, 10)], ids=["wide", "many"])
def test_declarations_take_steps_in_proportion_to_the_runs(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    counts = []
    for times in (1, 2):
        notebooks, experiments = shape[0] * (times if shape[0] > 1 else 1), shape[1]
        experiments *= times if shape[0] == 1 else 1
        folder = declare(tmp_path / str(times), notebooks, experiments)
        counts.append(steps(lambda folder=folder: ask(load_project(folder=folder))))
    assert counts[1] < 2.1 * counts[0]


def test_each_file_of_a_set_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = project_module.read_yaml
    monkeypatch.setattr(
        project_module, "read_yaml", lambda path: (read.append(path.name), real(path))[1]
    )
    project = load_project(folder=declare(tmp_path, 3, 2))
    ask(project)
    ask(project)
    assert sorted(read) == ["config.yaml", "datasets.yaml", "n0.yaml", "n1.yaml", "n2.yaml"]


def test_a_job_in_its_own_process_reads_its_order_and_no_notebook(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    run = run_of(project, "wide")
    answer = snakemake(project, f"results/open/{run}.order.json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    order = json.loads((project / f"results/open/{run}.order.json").read_text())
    assert (project / f"results/data/{order['data']}.h5").is_file()  # an order waits for its data
    (project / "config/notebooks/halves.yaml").write_text(NOTEBOOK.replace("goal", "gaol", 1))
    whole = snakemake(project, "--dry-run")
    assert whole.returncode == 1
    assert "gaol" in whole.stdout + whole.stderr
    job = snakemake(
        project, "--dry-run", "--mode", "remote", "--nolock", "--allowed-rules", "train_run",
        "--target-jobs", f"train_run:run={run}",
    )  # fmt: skip
    assert job.returncode == 0, job.stdout + job.stderr
    assert "rule train_run" in job.stdout + job.stderr


def test_the_page_takes_steps_in_proportion_to_the_experiments(tmp_path: Path) -> None:
    counts = []
    for n in (60, 120):  # above 50 experiments, each is compared with the baseline alone
        page = make_page(experiments=tuple(f"t{i}" for i in range(n)), seeds=(0,))
        results = tmp_path / str(n)
        few = page | {"experiments": page["experiments"][:2]}
        make_results(results, few, counts={"train": 20, "validation": 20, "test": 40})
        for i in range(2, n):
            source, copy = (experiment_folder(results, f"t{each}") for each in (i % 2, i))
            copy_experiment(source, copy, page["experiments"][i]["spec"])
        made = Results(results)
        write_comparison(compare(page, made, resamples=20), made.notebook(page["name"]))

        def render(page: Page = page, made: Results = made) -> None:
            notebook_markdown(load_notebook(page, made), {})
            write_page([page], made, REPOSITORY / "report", made.folder / "report.html", "")

        assert len(load_notebook(page, made).runs) == n
        counts.append(steps(render))
    assert counts[1] < 2.1 * counts[0]


def test_networks_that_are_equal_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    keras = SimpleNamespace(utils=SimpleNamespace(clear_session=lambda free_memory: None))
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setattr(checks, "build", lambda spec, shape: built.append(spec["layers"]))
    monkeypatch.setattr(checks, "count_parameters", lambda model: {"total": 7, "trainable": 7})
    monkeypatch.setattr(checks, "layer_table", lambda spec, model: [])
    monkeypatch.setattr(checks, "layer_weights", lambda model: [])
    specs = {
        f"e{i}": {"dataset": "d", "layers": ["a" if i < 3 else "b"], "augment": [], "batch_size": i}
        for i in range(5)
    } | {"wrong": {"dataset": "d", "layers": ["a"], "augment": [], "recorded_parameters": 8}}
    networks, mistakes = checks.survey_networks(specs, (8, 8))
    assert built == [["a"], ["b"]]
    assert [networks[name]["id"] for name in specs] == ["d-7"] * 6
    assert len(mistakes) == 1
    assert mistakes[0].startswith("experiments.wrong.recorded.parameters is 8")

"""What keeps a run and what makes a new one, seen by the real Snakemake on finished projects."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from projects import NOTEBOOK, make_project, planned, run_of, scratchbook, snakemake
from scratchbook.results.files import write_json
from scratchbook.results.paths import Results

HALVES = "config/notebooks/halves.yaml"
WIDE = "    title: a wide net\n"
MAKES_A_RUN = {"order_run", "train_run", "keep_run"}
COMPARED = {"compare_experiments halves", "write_notebook halves"}
PAGE = {"write_notebook halves", "write_report", "describe_results"}


@pytest.fixture
def project(finished: Path, project: Path) -> Iterator[Path]:
    """A copy of the finished project, whose runs are there to the byte when a test is over."""
    yield project
    if project.exists():
        assert kept(finished).items() <= kept(project).items()


def kept(project: Path) -> dict[str, str]:
    """The sha256 of each file of the finished runs, but for what is derived from them."""
    store = project / "results/runs"
    return {
        file.relative_to(store).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in store.glob("*/seed*/**/*")
        if file.is_file() and "derived" not in file.parts and not file.name.startswith(".")
    }


def edit(project: Path, file: str, before: str, after: str) -> None:
    path = project / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def declare(project: Path, setting: str) -> None:
    """Gives a setting to the experiment `wide`."""
    edit(project, HALVES, WIDE, f"{WIDE}    {setting}\n")


def rules(jobs: set[str]) -> set[str]:
    return {job.split()[0] for job in jobs}


def trained(jobs: set[str]) -> set[str]:
    """The runs that are ordered, trained and kept: of each all three or none."""
    of_runs = {job for job in jobs if job.split()[0] in MAKES_A_RUN}
    runs = {job.split()[1] for job in of_runs}
    assert of_runs == {f"{rule} {run}" for rule in MAKES_A_RUN for run in runs}
    return runs


def planned_without_training(project: Path, *arguments: str) -> set[str]:
    """The jobs of a dry run, none of which makes a run."""
    jobs = planned(project, *arguments)
    assert trained(jobs) == set()
    return jobs


# --- what keeps a run -----------------------------------------------------------------------------


def test_a_finished_project_runs_nothing(project: Path) -> None:
    assert planned(project) == set()


@pytest.mark.parametrize(
    ("before", "after"),
    [("it learns something", "it learns little"), ("a wide net", "a broad net")],
    ids=["note", "title"],
)
def test_editing_words_renders_the_page_and_nothing_else(
    project: Path, before: str, after: str
) -> None:
    edit(project, HALVES, before, after)
    assert planned(project) == PAGE


def test_another_language_renders_and_compares_nothing_anew(project: Path) -> None:
    assert planned(project, "--config", "language=zh") == PAGE


def test_writing_down_a_recorded_figure_trains_nothing(project: Path) -> None:
    declare(project, "recorded: {parameters: 547, val_accuracy: 0.9}")
    assert planned(project) == PAGE | {"compare_experiments halves"}


def test_touching_every_file_trains_nothing(project: Path) -> None:
    for file in [*project.glob("src/**/*.py"), *project.glob("workflow/**/*.py"),
                 *project.glob("rules/*"), *project.glob("config/**/*.yaml"),
                 *project.glob("data/**/*.png"), project / "Snakefile"]:  # fmt: skip
        file.touch()
    assert planned(project) == set()
    for file in project.rglob("results/**/*"):
        file.touch()
    planned_without_training(project)


def test_data_that_were_moved_are_the_same_data(project: Path, tmp_path: Path) -> None:
    (project / "data").rename(tmp_path / "elsewhere")
    with (project / "config/config.yaml").open("a") as config:
        config.write(f"data_dir: {tmp_path / 'elsewhere'}\n")
    assert planned(project) == {"write_report", "describe_results"}  # they show the configuration


def test_a_project_that_was_moved_runs_nothing(finished: Path, project: Path) -> None:
    moved = project.rename(project.with_name("moved"))
    assert planned(moved) == set()
    assert kept(moved) == kept(finished)


def test_copied_results_without_their_times_train_nothing(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(project / "results")
    shutil.copytree(tmp_path / "copy", project / "results", copy_function=shutil.copyfile)
    planned_without_training(project)


def test_a_fresh_checkout_of_the_code_runs_nothing(project: Path, tmp_path: Path) -> None:
    for part in ("src", "workflow", "rules", "report", "config", "profiles"):
        shutil.copytree(project / part, tmp_path / part, copy_function=shutil.copyfile)
        shutil.rmtree(project / part)
        shutil.copytree(tmp_path / part, project / part, copy_function=shutil.copyfile)
    assert planned(project) == set()


def test_lost_records_of_snakemake_train_nothing(project: Path) -> None:
    shutil.rmtree(project / ".snakemake")
    assert planned(project) == set()


def test_a_renamed_experiment_keeps_its_runs(project: Path) -> None:
    (project / HALVES).write_text((project / HALVES).read_text().replace("narrow", "slim"))
    assert planned(project) == PAGE | COMPARED | {"measure_drift halves/slim/0"}


def test_a_renamed_notebook_keeps_its_runs(project: Path) -> None:
    (project / HALVES).rename(project / "config/notebooks/parts.yaml")
    edit(project, "config/config.yaml", "halves", "parts")
    jobs = planned_without_training(project)
    assert "compare_experiments parts" in jobs
    assert "map_attention" not in rules(jobs)


def test_a_renamed_data_set_keeps_its_runs(project: Path) -> None:
    edit(project, "config/datasets.yaml", "shapes:", "bright:")
    edit(project, "config/datasets.yaml", "Bright and dark", "Light and dark")
    edit(project, HALVES, "dataset: shapes", "dataset: bright")
    assert planned(project) == PAGE | COMPARED


def test_a_deleted_experiment_leaves_its_runs(project: Path) -> None:
    text = (project / HALVES).read_text()
    declared = yaml.safe_load(text)
    del declared["experiments"]["wide"], declared["key_results"]
    (project / HALVES).write_text(yaml.safe_dump(declared, sort_keys=False))
    assert planned(project) == PAGE | COMPARED
    (project / HALVES).write_text(text)
    assert planned(project) == set()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WIDE, f"{WIDE}    optimizer: {{Adam: {{learning_rate: 1.0e-3, beta_1: 0.9}}}}\n"),
        (WIDE, f"{WIDE}    loss: categorical_crossentropy\n    augment: []\n    threads: 1\n"),
        ("- Conv2D: 4\n", "- Conv2D: {filters: 4, strides: [1, 1], use_bias: true}\n"),
    ],
    ids=["optimizer", "experiment", "layer"],
)
def test_a_default_in_so_many_words_keeps_the_run(project: Path, before: str, after: str) -> None:
    edit(project, HALVES, before, after)
    planned_without_training(project)


def test_another_seed_trains_only_that_seed(project: Path) -> None:
    runs = {run_of(project, name, seed=1) for name in ("narrow", "wide")}
    assert trained(planned(project, "--config", "seeds=[0,1]")) == runs


def test_a_folder_that_is_zipped_and_unpacked_again_is_the_same_data(project: Path) -> None:
    data, told = project / "data", {"write_report", "describe_results"}
    shutil.make_archive(str(data / "shapes"), "zip", data / "shapes")
    shutil.rmtree(data / "shapes")
    edit(project, "config/datasets.yaml", "folder, path: shapes", "archive, path: shapes.zip")
    assert planned(project) == told

    shutil.unpack_archive(data / "shapes.zip", data / "unpacked")
    (data / "shapes.zip").unlink()
    edit(project, "config/datasets.yaml", "archive, path: shapes.zip", "folder, path: unpacked")
    assert planned(project) == told


def test_a_file_of_the_finder_among_the_images_changes_nothing(project: Path) -> None:
    for folder in ("shapes", "shapes/top"):
        (project / "data" / folder / ".DS_Store").write_bytes(b"Bud1")
    assert planned(project) == set()


def test_data_that_keras_is_to_fetch_have_their_key_before(project: Path, tmp_path: Path) -> None:
    names = ", ".join(f"n{number}" for number in range(10))
    source = f"{{kind: keras, name: mnist, class_names: [{names}]}}"
    edit(project, "config/datasets.yaml", "{kind: folder, path: shapes}", source)
    home = tmp_path / "keras"
    before = run_of(project, "wide", KERAS_HOME=str(home))
    (home / "datasets").mkdir(parents=True)
    (home / "datasets/mnist.npz").write_bytes(b"as if it had been fetched")
    assert run_of(project, "wide", KERAS_HOME=str(home)) == before


def test_a_source_that_is_gone_trains_nothing(project: Path) -> None:
    shutil.rmtree(project / "data")
    assert planned(project) == set()
    train_in_name_only(project)
    runs = {run_of(project, name, seed=1) for name in ("narrow", "wide")}
    jobs = planned(project, "--config", "seeds=[0,1]")
    assert trained(jobs) == runs
    assert "prepare_dataset" not in rules(jobs)

    shutil.rmtree(project / "results/data")
    planned_without_training(project)
    answer = snakemake(project, "--config", "seeds=[0,1]")
    assert answer.returncode != 0
    assert "the source it needs is not there" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_colleague_with_the_results_and_no_data_trains_nothing(
    project: Path, tmp_path: Path
) -> None:
    colleague = make_project(tmp_path / "colleague")
    shutil.rmtree(colleague / "data")
    for part in ("runs", "data"):
        shutil.copytree(
            project / "results" / part, colleague / "results" / part, copy_function=shutil.copyfile
        )
    shutil.copyfile(project / "results/sources.json", colleague / "results/sources.json")
    planned_without_training(colleague)
    jobs = planned(colleague, "--config", "seeds=[0,1]")
    assert trained(jobs) == {run_of(colleague, name, seed=1) for name in ("narrow", "wide")}
    assert "prepare_dataset" not in rules(jobs)
    shutil.rmtree(colleague / "results/data")
    planned_without_training(colleague)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("src/scratchbook/training/loop.py", set()),
        ("src/scratchbook/models/network.py", {"map_attention", "measure_drift"}),
        ("src/scratchbook/data/source.py", set()),
        ("src/scratchbook/results/store.py", set()),
        ("src/scratchbook/evaluation.py", {"evaluate_run"}),
        ("src/scratchbook/cam/maps.py", {"map_attention", "measure_drift"}),
        ("src/scratchbook/config/claims.py", {"compare_experiments", "write_notebook"}),
        ("report/page.html.j2", {"write_report"}),
    ],
)
def test_an_update_of_a_stages_code_trains_nothing_and_runs_that_stage(
    project: Path, file: str, expected: set[str]
) -> None:
    with (project / file).open("a") as code:
        code.write("# of a newer version\n" if file.endswith(".py") else "\n")
    jobs = rules(planned_without_training(project))
    of_runs = {"prepare_dataset", "evaluate_run", "map_attention", "measure_drift"}
    assert expected <= jobs
    assert jobs & of_runs == expected & of_runs


def test_an_update_of_keras_and_python_trains_nothing(finished: Path, tmp_path: Path) -> None:
    project = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    for place in project.glob("results/runs/*/seed0"):
        record = json.loads((place / "run.json").read_text())
        record["packages"] |= {"keras": "3.0.0", "numpy": "1.26.0"}
        record["python"], record["training"]["loop"] = "3.10.1", 0
        replace_record(place, record)
    before = kept(project)
    runs = {run_of(project, name, seed=1) for name in ("narrow", "wide")}
    assert trained(planned(project, "--config", "seeds=[0,1]")) == runs
    assert kept(project) == before


def replace_record(place: Path, record: dict[str, object]) -> None:
    """Another run.json of a finished run, which stays whole."""
    write_json(place / "run.json", record)
    sums = json.loads((place / "checksums.json").read_text())
    content = (place / "run.json").read_bytes()
    sums["files"]["run.json"] = {
        "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    sums["training"] = record["training"]
    write_json(place / "checksums.json", sums)


def test_a_note_is_on_the_page_and_every_result_as_it_was(project: Path) -> None:
    results = {p: p.read_bytes() for p in project.glob("results/runs/**/*.*") if p.is_file()}
    drawn = drawing(project)
    edit(project, HALVES, "it learns something", "a <b>new</b> note")
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stderr
    assert "a &lt;b&gt;new&lt;/b&gt; note" in (project / "report.html").read_text()
    assert drawing(project) == drawn
    assert {p: p.read_bytes() for p in results} == results


def drawing(project: Path) -> str:
    """The page's drawing of the rules, of which training is one."""
    page = (project / "report.html").read_text()
    drawn = re.search(r'<svg[^>]*aria-label="Graph of.*?</svg>', page, flags=re.DOTALL)
    assert drawn
    assert "train_run reads order_run, prepare_dataset" in drawn[0]
    return drawn[0]


def test_the_rules_are_drawn_alike_before_and_after(finished: Path, tmp_path: Path) -> None:
    before, after = rule_graph(make_project(tmp_path / "project")), rule_graph(finished)
    assert before == after
    assert {("prepare_dataset", "train_run"), ("train_run", "keep_run")} <= before


def rule_graph(project: Path) -> set[tuple[str, str]]:
    """Which rule's outputs which one reads, as Snakemake draws it."""
    dot = snakemake(project, "--rulegraph", "dot").stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', dot))
    return {(names[source], names[to]) for source, to in re.findall(r"(\d+) -> (\d+)", dot)}


# --- what makes a new one -------------------------------------------------------------------------

STAND_IN = """
import json, shutil
from pathlib import Path
order, run = json.loads(Path(snakemake.input.order).read_text()), Path(snakemake.output[0])
ignored = shutil.ignore_patterns("derived", "checksums.json", ".*")
shutil.copytree(sorted(Path("results/runs").glob("*/seed0"))[0], run, ignore=ignored)
record = json.loads((run / "run.json").read_text())
record |= {name: order[name] for name in ("key", "seed", "spec", "precision", "backend")}
record["hardware"]["threads"], record["data"]["file"] = order["threads"], order["data"]
(run / "run.json").write_text(json.dumps(record))
with Path("trained.log").open("a") as log:
    print(order["key"], order["seed"], order["precision"], file=log)
"""


def train_in_name_only(project: Path) -> None:
    """From now on a training copies the files of a run that is there, and no network is built."""
    (project / "workflow/scripts/train_run.py").write_text(STAND_IN)
    edit(project, "Snakefile", "        check_networks()\n", "")


def trainings(project: Path) -> list[str]:
    """The runs that were trained in name only."""
    lines = (project / "trained.log").read_text().splitlines()
    return ["{}/seed{}".format(*line.split()) for line in lines]


def checksums(run: str) -> str:
    """What Snakemake is asked for to have a run and nothing more."""
    return f"results/runs/{run}/checksums.json"


def swap_images(project: Path) -> None:
    """Two images of different classes and one size change places, and none of their times."""
    images = [*project.glob("data/shapes/top/*.png"), *project.glob("data/shapes/none/*.png")]
    by_size: dict[int, Path] = {}
    for image in sorted(images):
        other = by_size.setdefault(image.stat().st_size, image)
        if other.parent != image.parent:
            break
    for one in (image, other):
        os.utime(one, (0, 0))
    time.sleep(2.1)  # what was changed just now is not remembered
    planned_without_training(project)
    third = image.with_suffix(".third")
    image.rename(third)
    other.rename(image)
    third.rename(other)


def in_notebook(setting: str) -> Callable[[Path], None]:
    return lambda project: edit(
        project, HALVES, "dataset: shapes\n", f"dataset: shapes\n{setting}\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda project: declare(project, "optimizer: {Adam: {learning_rate: 0.01}}"),
        lambda project: declare(project, "threads: 2"),
        in_notebook("precision: mixed_bfloat16"),
        in_notebook("precision: auto"),
        in_notebook("backend: tensorflow"),
        swap_images,
    ],
    ids=["rate", "threads", "precision", "auto", "backend", "data"],
)
def test_what_is_asked_otherwise_is_trained_beside_what_was(
    project: Path, change: Callable[[Path], None]
) -> None:
    train_in_name_only(project)
    old, before = run_of(project, "wide"), kept(project)
    change(project)
    new = run_of(project, "wide")
    assert new != old
    answer = snakemake(project, "--", checksums(new))
    assert answer.returncode == 0, answer.stderr
    assert trainings(project) == [new]
    after = kept(project)
    assert before.items() <= after.items()
    assert {file.rsplit("/", 1)[0].split("/check")[0] for file in after.keys() - before.keys()} == {
        new
    }


def test_going_back_to_an_earlier_value_finds_the_earlier_run(project: Path) -> None:
    train_in_name_only(project)
    text = (project / HALVES).read_text()
    declare(project, "optimizer: {Adam: {learning_rate: 0.01}}")
    assert snakemake(project, "--", checksums(run_of(project, "wide"))).returncode == 0
    planned_without_training(project)
    (project / HALVES).write_text(text)
    assert planned(project) <= {"describe_results"}  # which says what code there is


def test_other_pretrained_weights_of_one_name_are_trained_beside(project: Path) -> None:
    train_in_name_only(project)
    backbone = "Backbone: {application: MobileNetV2, weights: my.weights.h5}"
    edit(project, HALVES, "Conv2D: 4", backbone)
    runs = {}
    for content in (b"one", b"two"):
        (project / "data/my.weights.h5").write_bytes(content)
        runs[content], before = run_of(project, "wide"), kept(project)
        answer = snakemake(project, "--", checksums(runs[content]))
        assert answer.returncode == 0, answer.stderr
        assert before.items() < kept(project).items()
    assert runs[b"one"] != runs[b"two"]
    assert trainings(project) == [runs[b"one"], runs[b"two"]]
    (project / "data/my.weights.h5").write_bytes(b"one")
    planned_without_training(project)


def test_a_machine_without_bf16_trains_no_run_that_is_there(project: Path) -> None:
    train_in_name_only(project)
    flags = 'set(_cpu_info("flags", "Features").split())'
    edit(project, "config/config.yaml", "precision: float32", "precision: auto")
    edit(project, "src/scratchbook/hardware.py", flags, '{"amx_bf16"}')
    wide = run_of(project, "wide")
    answer = snakemake(project, "--resources", "gpu=0", "--", checksums(wide))
    assert answer.returncode == 0, answer.stderr
    assert (project / "trained.log").read_text().split()[-1] == "mixed_bfloat16"

    edit(project, "src/scratchbook/hardware.py", '{"amx_bf16"}', "set()")
    narrow = run_of(project, "narrow")
    assert trained(planned(project, "--resources", "gpu=0")) == {narrow}
    both = [run_of(project, "narrow"), run_of(project, "wide", seed=1)]
    seeds = ["--resources", "gpu=0", "--config", "seeds=[0,1]"]
    answer = snakemake(project, *seeds, "--", *map(checksums, both))
    assert answer.returncode == 0, answer.stderr
    told = dict(line.rsplit(" ", 1) for line in (project / "trained.log").read_text().splitlines())
    # A seed more of what is there is as that, whatever this machine does best.
    assert told[both[1].replace("/seed", " ")] == "mixed_bfloat16"
    assert told[both[0].replace("/seed", " ")] == "float32"


def test_what_is_to_be_trained_and_why_is_said_first(project: Path) -> None:
    declare(project, "optimizer: {Adam: {learning_rate: 0.003}}")
    answer = snakemake(project, "--dry-run")
    line = "1 run to train (optimizer: Adam: learning_rate 0.001 → 0.003 of wide); 1 is there"
    said = answer.stdout + answer.stderr
    assert line in said.splitlines()
    assert said.index(line) < said.index("train_run")
    assert "to train" not in snakemake(project, "--dry-run", "--config", "language=zh").stderr


# --- one run for all who ask for it ---------------------------------------------------------------

AGAIN = """
  again:
    title: narrow in other words
    layers:
      - Conv2D: {filters: 2, kernel_size: 3, padding: same, activation: relu}
      - Dropout: 0.1
      - MaxPooling2D: {pool_size: [2, 2]}
      - Flatten
      - Dense: {units: 3, activation: softmax, name: predictions}
"""


def test_what_two_notebooks_and_two_experiments_ask_for_is_trained_once(tmp_path: Path) -> None:
    twice = NOTEBOOK.replace("\ncam:", f"{AGAIN}cam:")
    project = make_project(tmp_path / "project", twice)
    (project / "config/notebooks/other.yaml").write_text(twice.replace("wide", "broad"))
    runs = {run_of(project, name) for name in ("narrow", "wide", "again")}
    assert len(runs) == 2
    jobs = planned(project, "--config", "notebooks=[halves,other]")
    assert trained(jobs) == runs
    assert {"compare_experiments halves", "compare_experiments other"} <= jobs


def test_what_an_earlier_declaration_asked_for_is_not_trained_again(project: Path) -> None:
    text = (project / HALVES).read_text()
    assert text.count("  narrow:\n") == 1
    (project / HALVES).write_text(text.replace("\ncam:", f"{AGAIN}cam:"))
    planned_without_training(project)


def test_a_seed_that_is_left_out_is_not_trained(project: Path) -> None:
    in_notebook("leave_out: {wide: [1]}")(project)
    jobs = planned(project, "--config", "seeds=[0,1]")
    assert trained(jobs) == {run_of(project, "narrow", seed=1)}


DIVERGING = """
  wild:
    title: far too fast
    parent: narrow
    optimizer: {SGD: {learning_rate: 1.0e+30}}
  tame:
    title: from its weights
    parent: narrow
    initial_weights: {experiment: wild, checkpoint: best}
"""


@pytest.mark.long
def test_what_diverges_and_what_starts_from_it_is_finished(project: Path) -> None:
    text = (project / HALVES).read_text().partition("cam:")[0]
    (project / HALVES).write_text(f"{text}{DIVERGING[1:]}cam: null\n")
    before = kept(project)
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for name in ("wild", "tame"):
        place = Results(project / "results").run(run_of(project, name))
        assert "diverged" in json.loads(place.record.read_text())
    page = (project / "report.html").read_text()
    assert "far too fast" in page
    assert "diverged" in page
    assert not (project / "report.partial.html").exists()
    assert planned(project) == set()

    # Whatever Snakemake is told to make anew, a finished run is none of it.
    finished = kept(project)
    assert before.items() < finished.items()
    for force in (["-R", "train_run", "keep_run"], ["--forceall"]):
        assert trained(planned(project, *force)) == set()
        answer = snakemake(project, *force)
        assert answer.returncode == 0, answer.stderr
        assert kept(project) == finished
    assert "evaluate_run" in answer.stderr


# --- what cannot be gone on with ------------------------------------------------------------------


def test_a_place_for_results_that_is_a_link_does(project: Path, tmp_path: Path) -> None:
    (project / "results").rename(tmp_path / "elsewhere")
    (project / "results").symlink_to(tmp_path / "elsewhere")
    train_in_name_only(project)
    planned_without_training(project)
    declare(project, "optimizer: {Adam: {learning_rate: 0.01}}")
    new = run_of(project, "wide")
    answer = snakemake(project, "--", checksums(new))
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "elsewhere/runs" / new / "checksums.json").exists()


def newer_layout(project: Path) -> None:
    (project / "results/runs/layout.json").write_text('{"layout": 3}')


def older_layout(project: Path) -> None:
    run = project / "results/halves/narrow/seed0/run.json"
    run.parent.mkdir(parents=True)
    run.write_text("{}")


def file_for_a_run(project: Path) -> None:
    run = project / "results/runs" / run_of(project, "wide", seed=1)
    run.write_text("")
    edit(project, "config/config.yaml", "seeds: [0]", "seeds: [0, 1]")


def file_for_a_key(project: Path) -> None:
    declare(project, "optimizer: {Adam: {learning_rate: 0.01}}")
    (project / "results/runs" / run_of(project, "wide")).parent.write_text("")


def folder_for_a_notebook(project: Path) -> None:
    (project / HALVES).unlink()
    (project / HALVES).mkdir()


def other_text(project: Path) -> None:
    (project / HALVES).write_bytes("goal: Größe?\n".encode("latin-1"))


def no_permission(project: Path) -> None:
    (project / HALVES).chmod(0)
    if os.access(project / HALVES, os.R_OK):
        pytest.skip("who runs this may read everything")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (newer_layout, "results/runs is of layout 3, and this Scratchbook knows layout 2"),
        (older_layout, "results/halves/narrow/seed0 is a run of the layout before this one"),
        (file_for_a_run, "seed1 is a file, but a run is to be kept there; move it away"),
        (file_for_a_key, "is a file, but a run is to be kept there; move it away"),
        (folder_for_a_notebook, f"{HALVES}: this is a folder, not a YAML file"),
        (other_text, f"{HALVES}: this is not YAML: unacceptable character"),
        (no_permission, f"{HALVES}: Permission denied"),
    ],
)
def test_what_cannot_be_gone_on_with_is_told_in_a_sentence_and_nothing_is_lost(
    finished: Path, project: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(project)
    for answer in (snakemake(project), scratchbook(project, "status")):
        assert answer.returncode != 0
        assert told in answer.stdout + answer.stderr
        assert "Traceback" not in answer.stdout + answer.stderr
    assert kept(finished).keys() <= kept(project).keys()


# --- job processes --------------------------------------------------------------------------------

DEADLY = """
import errno, os, signal
from scratchbook.results import store
if os.environ.get("KEEP") == "die":
    os.killpg(os.getpgrp(), signal.SIGKILL)
link = store.link_file
def full(source, target):
    if str(target).endswith("predictions.h5"):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))
    link(source, target)
if os.environ.get("KEEP") == "full":
    store.link_file = full
"""


def start_and_die(project: Path, *arguments: str, **environment: str) -> None:
    """Runs Snakemake where a job kills it with all of its group."""
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=project, env={**os.environ, "PYTHONPATH": str(project / "src"), **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.wait() == -signal.SIGKILL
    assert snakemake(project, "--unlock").returncode == 0


def job(project: Path, rule: str, run: str) -> subprocess.CompletedProcess[str]:
    """A job in a process of its own, as a cluster starts it, and starts it again."""
    return snakemake(
        project, "--target-jobs", f"{rule}:run={run}", "--mode", "remote", "--allowed-rules", rule,
        "--nolock", "--no-hooks", "--ignore-incomplete", cores=1,
    )  # fmt: skip


def test_a_run_that_could_not_be_kept_is_kept_by_the_next_start_and_trained_once(
    project: Path,
) -> None:
    train_in_name_only(project)
    script = project / "workflow/scripts/keep_run.py"
    script.write_text(DEADLY + script.read_text())
    declare(project, "optimizer: {Adam: {learning_rate: 0.01}}")
    new, before = run_of(project, "wide"), kept(project)
    start_and_die(project, "--", checksums(new), KEEP="die")
    assert kept(project) == before
    answer = snakemake(project, "--", checksums(new), KEEP="full")
    assert answer.returncode != 0
    assert "No space left on device" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert kept(project) == before
    answer = snakemake(project, "--", checksums(new))
    assert answer.returncode == 0, answer.stderr
    assert trainings(project) == [new]
    assert before.items() < kept(project).items()
    assert not list(project.glob("results/runs/*/.partial-*"))
    assert not list(project.glob("results/open/*/seed*"))


@pytest.mark.long
def test_a_training_that_is_killed_after_its_last_write_is_not_trained_again(
    project: Path, tmp_path: Path
) -> None:
    with (project / "workflow/scripts/train_run.py").open("a") as script:
        script.write("if os.environ.get('TRAIN') == 'die':\n    os.killpg(os.getpgrp(), 9)\n")
    declare(project, "optimizer: {Adam: {learning_rate: 0.01}}")
    new, before = run_of(project, "wide"), kept(project)
    start_and_die(project, "--", checksums(new), TRAIN="die")
    assert kept(project) == before
    shutil.copytree(project / "results/open", tmp_path / "open")
    answer = snakemake(project, "--", checksums(new))
    assert answer.returncode == 0, answer.stderr
    log = (project / "results/logs" / new / "train.log").read_text()
    assert "going on after epoch 2" in log
    assert len(pd.read_csv(project / "results/runs" / new / "history.csv")) == 2
    finished = kept(project)
    assert before.items() < finished.items()

    # A cluster that starts jobs of a finished run again, where nothing is declared any more.
    shutil.copytree(tmp_path / "open", project / "results/open", dirs_exist_ok=True)
    (project / HALVES).unlink()
    shutil.rmtree(project / "data")
    for rule in ("train_run", "keep_run"):
        answer = job(project, rule, new)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert kept(project) == finished

"""What a user writes is checked before anything runs, and a mistake names itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from projects import NOTEBOOK, REPOSITORY, make_project, scratchbook, snakemake
from scratchbook.config.claims import bindings, typed_numbers
from scratchbook.config.datasets import Datasets
from scratchbook.config.notebooks import Notebook
from scratchbook.config.project import load_notebook, load_project, notebook_names, validate
from scratchbook.config.reading import line_of, read_yaml
from scratchbook.errors import ScratchbookError


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing has run; tests write its notebook anew."""
    return make_project(tmp_path_factory.mktemp("fresh") / "project")


def message(project: Path, notebook: str) -> str:
    (project / "config/notebooks/halves.yaml").write_text(notebook)
    with pytest.raises(ScratchbookError) as caught:
        load_project(folder=project)
    return str(caught.value)


def edited(before: str, after: str) -> str:
    assert before in NOTEBOOK
    return NOTEBOOK.replace(before, after, 1)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("epochs: 2", "epoch: 2", ["defaults", "unknown key 'epoch'", "did you mean 'epochs'?"]),
        ("Conv2D: 2", "Conv2d: 2", ["layers[0]", "unknown layer 'Conv2d'", "'Conv2D'?"]),
        ("Dropout: 0.1", "Dropout: {rat: 0.1}", ["layers[1]", "takes no 'rat'", "'rate'?"]),
        ("epochs: 2", "optimizer: Adan", ["unknown optimizer 'Adan'", "did you mean 'Adam'?"]),
        ("epochs: 2", "epochs: two", ["defaults.epochs", "integer", "'two'"]),
        ("epochs: 2", "epochs: 0", ["defaults.epochs", "greater than or equal to 1", "0"]),
        ("softmax", "sofmax", ["unknown activation 'sofmax'", "'softmax'?"]),
        ("dataset: shapes", "dataset: shape", ["no data set 'shape'", "'shapes'?"]),
        ("parent: narrow", "parent: narow", ["no experiment 'narow'", "'narrow'?"]),
        ("parent: narrow", "parent: wide", ["circle", "wide → wide"]),
        ("{narrow.test", "{narow.test", ["key_results[0].text", "'narow'", "'narrow'?"]),
        ("narrow.test_accuracy", "narrow.test_acuracy", ["'test_acuracy'", "'test_accuracy'?"]),
        ("{narrow.test_accuracy:.2f}", "{}", ["'{}' is no binding"]),
        ("  wide:", "  narrow:", ["'narrow' is written twice", "line"]),
        ("  wide:", "  ../x:", ["'../x'"]),
        ("  wide:", "  a name:", ["'a name'"]),
        ("  wide:", "  '':", ["''"]),
        ("  wide:", f"  {'x' * 300}:", ["xxx"]),
        ("goal:", "gaol:", ["unknown key 'gaol'", "did you mean 'goal'?"]),
        ("cam:", "diagnoses: {mute: [OVERFITT]}\ncam:", ["'OVERFITT' is no", "'OVERFIT'?"]),
        ("cam:", "diagnoses: {mute: ['OVERFIT:wid']}\ncam:", ["no experiment 'wid'", "'wide'?"]),
        (
            "cam:",
            "diagnoses: {thresholds: {overfit_gapp: 1}}\ncam:",
            ["diagnoses.thresholds", "'overfit_gapp'", "'overfit_gap'?"],
        ),
        (
            "epochs: 2",
            "callbacks: [ReduceLROnPlateau: {monitor: val_acc}]",
            ["unknown monitor 'val_acc'", "did you mean 'val_accuracy'?"],
        ),
        (
            "epochs: 2",
            "callbacks: [EarlyStopping: {mode: maximum}]",
            ["unknown mode 'maximum'", "'max'"],
        ),
        ("epochs: 2", "optimizer: {Adam: {use_ema: true}}", ["Adam takes no 'use_ema'"]),
        (
            "Conv2D: 2",
            "Conv2D: {filters: 2, activity_regularizer: l2}",
            ["narrow.layers[0]", "takes no 'activity_regularizer', which would count in the train"],
        ),
        (
            "activation: relu}",
            "activity_regularizer: l2}",
            ["defaults.layers", "takes no 'activity_regularizer', which would count in the train"],
        ),
        ("dataset: shapes", "dataset: shapes\nprecision: bf16", ["precision", "'mixed_bfloat16'"]),
        ("dataset: shapes", "dataset: shapes\nbackend: Torch", ["backend", "'torch'", "'Torch'"]),
        ("cam:", "leave_out: {wid: [0]}\ncam:", ["leave_out.wid", "'wid'", "mean 'wide'?"]),
        ("cam:", "leave_out: {wide: [1, 1]}\ncam:", ["leave_out.wide", "1 is listed more"]),
        ("cam:", "leave_out: {wide: []}\ncam:", ["leave_out.wide", "at least 1 item"]),
        ("Dropout: 0.1", "Normalization", ["Normalization computes no mean", "give it both"]),
        ("dataset: shapes", "dataset: shapes\nseeds: [0, 1, 0]", ["seeds", "0 is listed more"]),
        ("epochs: [1, last]", "epochs: [2-1]", ["cam.epochs[0]", "'2-1' holds no epoch"]),
        ("images: 3", "images: []", ["cam.images", "at least 1 item"]),
        ("test_accuracy:.2f", "test_accuracy:d", ["key_results[0].text", "'d' is no number"]),
        ("test_accuracy:.2f", "test_accuracy:q", ["key_results[0].text", "'q' is no number"]),
        ("epochs: [1, last]", "epochs: [1, latest]", ["cam.epochs[1]", "'latest'"]),
        ("goal:", "title: {{ x }}\ngoal:", ["yaml:2: {'x': None} cannot be a key", "quotes"]),
        ("goal:", "? [a, b]\n: 1\ngoal:", ["halves.yaml:2: ['a', 'b'] cannot be a key"]),
        ("goal:", "title: 2026-02-30\ngoal:", ["halves.yaml:2: '2026-02-30' cannot", "quotes"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_cure(
    fresh: Path, before: str, after: str, said: list[str]
) -> None:
    text = message(fresh, edited(before, after))
    assert text.startswith(str(fresh / "config/notebooks/halves.yaml:"))
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "epochs: [1, last]",
            "epochs: [0]",
            "cam.epochs[0]: input should be greater than or equal to 1, or be a valid string, but "
            "0 was given",
        ),
        (
            "images: 3",
            "images: [1.5]",
            "cam.images[0]: input should be a valid integer, got a number with a fractional part, "
            "or be a valid string, but 1.5 was given",
        ),
        (
            "parent: narrow",
            "initial_weights: {experiment: narrow, checkpoint: lst}",
            "experiments.wide.initial_weights.checkpoint: input should be 'best' or 'last', or be "
            "a valid integer, unable to parse string as an integer, but 'lst' was given",
        ),
        (
            "      - MaxPooling2D",
            "      - Backbone: {application: VGG16, freeze: {up_to: 3}}",
            "experiments.narrow.layers[2]: Backbone: freeze.up_to: input should be a valid string, "
            "but 3 was given",
        ),
        (
            "  wide:",
            "  int: {epochs: 0}\n  wide:",  # a name that pydantic uses too
            "experiments.int.epochs: input should be greater than or equal to 1, but 0 was given",
        ),
    ],
)
def test_one_mistake_is_one_line_with_no_keys_but_the_files(
    fresh: Path, before: str, after: str, said: str
) -> None:
    text = message(fresh, edited(before, after))
    assert text.count("\n") == 0
    assert text.partition(": ")[2] == said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("title:", "titel:", "2: pets: unknown key 'titel'; did you mean 'title'?"),
        ("path:", "pth:", "5: pets.sources[0]: unknown key 'pth'; did you mean 'path'?"),
        ("path: x", "path: 3", "5: pets.sources[0].path: input should be a valid string, but 3"),
        ("folder", "foldr", "5: pets.sources[0]: unknown kind 'foldr'; did you mean 'folder'?"),
        ("kind: folder, ", "", "5: pets.sources[0]: `kind` is missing; known: archive, "),
        ("T\n", "T\n  split: {sed: 1}\n", "4: pets.split: unknown key 'sed'; did you mean 'seed'?"),
    ],
)
def test_a_mistake_in_a_data_set_is_named_with_its_place_and_a_cure(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    text = "\npets:\n  title: T\n  sources:\n    - {kind: folder, path: x}\n  size: [4, 4]\n"
    file = tmp_path / "datasets.yaml"
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(ScratchbookError) as caught:
        validate(Datasets, read_yaml(file), file)
    assert str(caught.value).startswith(f"{file}:{said}")
    assert "\n" not in str(caught.value)


def test_the_line_of_a_merged_key_is_that_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &base\n  size: 1\n  seed: 2\nuse:\n  <<: [*base]\n  seed: 3\n")
    lines = [line_of(file, ("use", key)) for key in ("size", "seed", "sedd")]
    assert lines == [2, 6, None]


def test_the_line_of_the_mistake_is_given(fresh: Path) -> None:
    notebook = edited("epochs: 2", "epochs: two")
    line = notebook.splitlines().index("  epochs: two") + 1
    assert f"halves.yaml:{line}: defaults.epochs" in message(fresh, notebook)


def test_all_mistakes_are_told_at_once(fresh: Path) -> None:
    text = message(fresh, edited("epochs: 2", "epochs: two").replace("images: 3", "images: 0"))
    assert "defaults.epochs" in text
    assert "cam.images" in text


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300, "smoke", "data", "runs", "Upper"])
def test_a_notebook_name_that_is_no_safe_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScratchbookError, match="is no name for a notebook"):
        load_notebook(name, tmp_path)


def test_snakemake_refuses_a_mistake_before_its_first_job(fresh: Path) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(edited("Conv2D: 2", "Conv2d: 2"))
    answer = snakemake(fresh)
    assert answer.returncode != 0
    assert "unknown layer 'Conv2d'; did you mean 'Conv2D'?" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert not (fresh / "results").exists()


def test_check_names_the_layer_that_images_are_too_small_for(fresh: Path) -> None:
    pools = "      - MaxPooling2D\n"
    (fresh / "config/notebooks/halves.yaml").write_text(edited(pools, pools * 4))
    answer = scratchbook(fresh, "check")
    assert answer.returncode == 1
    assert "experiments.narrow.layers[5]: MaxPooling2D" in answer.stderr
    assert "1 × 1 × 2" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_check_shows_both_numbers_where_recorded_parameters_differ(fresh: Path) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(
        edited("    title: a wide net\n", "    recorded: {parameters: 1234}\n")
    )
    answer = scratchbook(fresh, "check")
    assert answer.returncode == 1
    assert "experiments.wide.recorded.parameters is 1,234, but this network has 547" in (
        answer.stderr
    )


def test_check_shows_both_shapes_where_a_warm_start_does_not_fit(fresh: Path) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(
        edited("    title: a wide net\n", "    initial_weights: {experiment: narrow}\n")
    )
    answer = scratchbook(fresh, "check")
    assert answer.returncode == 1
    said = answer.stderr.strip().splitlines()[-1]
    assert said.endswith(
        "config/notebooks/halves.yaml: experiments.wide.initial_weights: this network has layer "
        "'conv2d_1' of shape 3×3×3×4, 4 where 'narrow', whose weights it is to take over, has "
        "layer 'conv2d_1' of shape 3×3×3×2, 2; make the layers equal"
    )


def test_a_wrong_recorded_total_stops_the_workflow_before_training(fresh: Path) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(
        edited("    title: a wide net\n", "    recorded: {parameters: 1234}\n")
    )
    answer = snakemake(fresh)
    assert answer.returncode != 0
    assert "recorded.parameters is 1,234, but this network has 547" in answer.stderr
    assert not list(fresh.glob("results/halves/**/run.json"))


def test_every_shipped_notebook_is_in_order() -> None:
    names = notebook_names(REPOSITORY / "config/notebooks")
    assert {"little-data", "cifar10"} <= set(names)
    load_project({"notebooks": names}, REPOSITORY)


def test_generated_files_are_in_step_with_the_code() -> None:
    program = (
        "from pathlib import Path; from scratchbook.config.documents import generate\n"
        "for path, text in generate(Path('config')).items():\n"
        "    assert path.read_text(encoding='utf-8') == text, f'{path}: run scratchbook generate'"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_config_imports_quickly_and_lightly() -> None:
    program = (
        "import sys, time; start = time.process_time()\n"
        "import scratchbook.config.project, scratchbook.data.location\n"
        "print(time.process_time() - start)\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'numpy', 'h5py', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    seconds = []
    for _ in range(5):  # processor time, since other jobs on the machine are no fault of ours
        answer = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        seconds.append(float(answer.stdout))
    assert min(seconds) < 0.3


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4))
def test_no_values_whatever_raise_anything_but_a_readable_error(values: dict) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        Notebook.model_validate(values)


def test_yaml_numbers_and_words_are_what_a_reader_takes_them_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("rate: 1e-4\nanswer: no\ncount: 12\nflag: true\n")
    assert read_yaml(file) == {"rate": 1e-4, "answer": "no", "count": 12, "flag": True}


def test_a_child_takes_what_it_does_not_write_from_its_parent() -> None:
    values = yaml.safe_load(NOTEBOOK)
    values["experiments"]["narrow"]["epochs"] = 7
    notebook = Notebook.model_validate(values)
    assert notebook.spec("wide")["epochs"] == 7
    assert notebook.spec("wide")["batch_size"] == 8
    assert notebook.spec("wide")["layers"][0] == {
        "class_name": "Conv2D",
        "config": {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
    }


def test_bindings_are_found_with_their_formats() -> None:
    found = list(bindings("a {x.val_accuracy:.2f} b {y-1.parameters:,} c {z.epochs}"))
    assert [(b.experiment, b.metric, b.format) for b in found] == [
        ("x", "val_accuracy", ".2f"), ("y-1", "parameters", ","), ("z", "epochs", "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("Best 0.83, not .8 or 0,79.", ["0.83", ".8", "0,79"]),
        ("83 %, 83.1% and 4 points", ["83 %", "83.1%", "4 points"]),
        ("准确率0.83，提高４个百分点，８３％。", ["0.83", "4个百分点", "83%"]),
        ("3×3 maps, 1,024 units, train 2, ResNet50 and five layers", []),
        ("on 2026-11-21 or 21.11.2026 with Keras 3.15.1, v2.5 and net-0.5", []),
        ("Adam at 1e-4 and at 0.001 reaches {train2.val_accuracy:.2f}", []),
        ("109,082,179 个参数", []),
    ],
)
def test_decimals_and_percentages_are_claims_and_whole_numbers_are_not(
    text: str, typed: list[str]
) -> None:
    assert typed_numbers(text, settings={0.001}) == typed


@given(st.floats(0.001, 1, exclude_max=True), st.text("abc ，准确率:;()", max_size=12))
def test_no_accuracy_typed_after_words_goes_unseen(accuracy: float, words: str) -> None:
    assert typed_numbers(f"{words} {accuracy:.3f}") == [f"{accuracy:.3f}"]


def test_check_reports_a_typed_number_with_its_line_and_passes(fresh: Path) -> None:
    text = edited('  - text: "narrow', '  - text: "0.83 it is; with dropout 0.1 narrow')
    (fresh / "config/notebooks/halves.yaml").write_text(text)
    answer = scratchbook(fresh, "check")
    assert answer.returncode == 0
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "0.83" in one)
    assert f"halves.yaml:{line}: key_results[0].text: 0.83 bound to no run" in answer.stderr


def test_the_readmes_examples_are_what_they_say_they_are() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    notebook, dataset = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    page = Notebook.model_validate(yaml.safe_load(notebook))
    assert len(page.spec("two")["layers"]) == len(page.spec("one")["layers"]) + 1
    assert list(Datasets.model_validate(yaml.safe_load(dataset)).root) == ["pets"]
    assert len(notebook.splitlines()) <= 10


def test_a_notebooks_seeds_win_over_the_configurations_and_a_smoke_run_takes_the_first() -> None:
    settings = {"notebooks": ["little-data", "cifar10-fast"], "seeds": [3, 4]}
    project = load_project(settings, REPOSITORY)
    assert project.seeds("little-data") == [3, 4]
    assert project.seeds("cifar10-fast") == [0, 1, 2]
    smoke = load_project(settings | {"smoke": True}, REPOSITORY)
    assert smoke.seeds("little-data") == [3]
    assert smoke.seeds("cifar10-fast") == [0]


def test_a_notebooks_precision_and_backend_win_over_the_configurations(fresh: Path) -> None:
    notebook = fresh / "config/notebooks/halves.yaml"
    notebook.write_text(NOTEBOOK)
    project = load_project(folder=fresh)
    assert (project.precision("halves"), project.backend("halves")) == ("float32", "auto")
    given = load_project({"notebooks": ["halves"], "backend": "jax"}, fresh)
    assert (given.precision("halves"), given.backend("halves")) == ("auto", "jax")
    assert "precision=auto backend=jax" in given.command()
    notebook.write_text(NOTEBOOK + "precision: mixed_bfloat16\nbackend: torch\n")
    project = load_project({"notebooks": ["halves"], "backend": "jax"}, fresh)
    assert (project.precision("halves"), project.backend("halves")) == ("mixed_bfloat16", "torch")


@pytest.mark.parametrize(
    "given", [{"precision": "bfloat16"}, {"backend": "keras"}, {"backend": None}]
)
def test_what_a_training_cannot_run_in_is_refused(fresh: Path, given: dict) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(NOTEBOOK)
    (name,) = given
    with pytest.raises(ScratchbookError, match=rf"{name}.*'auto'"):
        load_project({"notebooks": ["halves"], **given}, fresh)


def test_a_seed_that_is_left_out_is_told_with_its_experiment(fresh: Path) -> None:
    (fresh / "config/notebooks/halves.yaml").write_text(NOTEBOOK + "leave_out: {wide: [3]}\n")
    project = load_project({"notebooks": ["halves"], "seeds": [0, 3]}, fresh)
    assert project.seeds("halves") == [0, 3]
    told = {one["name"]: one["left_out"] for one in project.trial("halves")["experiments"]}
    assert told == {"narrow": [], "wide": [3]}

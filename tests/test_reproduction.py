"""docs/reproduction.md: recorded beside reproduced, from small records alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from projects import REPOSITORY, make_project, run, run_of, scratchbook
from result_trees import made_key, make_page, make_results, run_files
from scratchbook.cli.listing import reproduced
from scratchbook.errors import ScratchbookError
from scratchbook.reproduction import collect_records, reproduction_page
from scratchbook.results.errors import DamagedError
from scratchbook.results.paths import Records, Results


@pytest.fixture
def page(tmp_path: Path) -> dict:
    """A page whose runs' records were collected, and whose results are gone since."""
    page = make_page()
    make_results(tmp_path / "results", page)
    drift = Results(tmp_path / "results").notebook("shapes").drift("train1", 0)
    drift.parent.mkdir(parents=True)
    drift.write_text("epoch\n1\n")
    collect_records(Results(tmp_path / "results"), [page], Records(tmp_path / "records"))
    shutil.rmtree(tmp_path / "results")
    return page


def row_of(text: str, experiment: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {experiment} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_only_small_text_records_are_kept(page: dict, tmp_path: Path) -> None:
    folder = tmp_path / "records/shapes"
    files = [file for file in folder.rglob("*") if file.is_file()]
    of_one = {file.relative_to(folder).as_posix() for file in files if "train1/seed0" in str(file)}
    assert of_one == {
        "train1/seed0/run.json", "train1/seed0/derived/metrics.json", "train1/seed0/history.csv",
        "drift/train1/seed0.csv",
    }  # fmt: skip
    assert len(files) == 3 * 6 + 1
    assert sum(file.stat().st_size for file in files if "train1/seed0" in str(file)) < 200_000


def test_the_table_can_be_made_again_from_the_records_alone(page: dict, tmp_path: Path) -> None:
    text = reproduction_page([page], Records(tmp_path / "records"), {})
    values, epochs = [], []
    for seed in (0, 1):
        kept = Records(tmp_path / "records").run("shapes", "train1", seed)
        metrics = json.loads(kept.metrics.read_text())
        values.append(metrics["splits"]["validation"]["accuracy"]["value"])
        epochs.append(metrics["epoch"])
    planned = json.loads(kept.record.read_text())["epochs"]
    cells = row_of(text, "train1")
    assert cells[2] == "0.7"
    assert f"**{sum(values) / 2:.4f}**" in cells[3]
    assert all(f"{value:.4f}" in cells[3] for value in values)
    assert cells[3].endswith(f"epoch {epochs[0]}, {epochs[1]} of {planned}")  # equal ones too
    assert cells[7] == "0, 1"
    points = 100 * (sum(values) / 2 - 0.7)
    assert f"- **train1** {points:+.1f} points against the recorded 0.7" in text


def test_a_range_of_several_intervals_is_not_called_a_95_percent_interval(
    page: dict, tmp_path: Path
) -> None:
    text = reproduction_page([page], Records(tmp_path / "records"), {})
    assert re.search(r"side all that the seeds' 95 % intervals span, \[0\.\d", text)
    for folder in (tmp_path / "records").glob("*/*/seed1"):
        shutil.rmtree(folder)
    text = reproduction_page([page], Records(tmp_path / "records"), {})
    assert re.search(r"side the 95 % interval \[0\.\d", text)


@pytest.mark.parametrize(("value", "written"), [(1.0, "1"), (10.0, "10"), (0.5, "0.5"), (0, "0")])
def test_a_whole_number_ends_in_no_point(
    page: dict, tmp_path: Path, value: float, written: str
) -> None:
    page["experiments"][0]["recorded"] = {"val_accuracy": 0.7, "val_loss": value}
    text = reproduction_page([page], Records(tmp_path / "records"), {})
    assert row_of(text, "train1")[5] == written


def test_the_findings_are_those_that_the_notebook_wants(page: dict, tmp_path: Path) -> None:
    def findings(**wanted) -> str:
        declared = page | {"diagnoses": page["diagnoses"] | wanted}
        text = reproduction_page([declared], Records(tmp_path / "records"), {})
        return row_of(text, "train1")[9]

    assert findings() == "UNDERTRAINED"
    assert findings(mute=["UNDERTRAINED:train1"]) == "–"
    assert findings(thresholds={"undertrained_gain": 0.9}) == "–"


@pytest.mark.parametrize("validation", ["validation", "test"])
def test_the_data_set_has_the_images_of_the_run_that_trains_on_most(
    tmp_path: Path, validation: str
) -> None:
    page = make_page()
    few, *others = page["experiments"]
    for experiment in page["experiments"]:
        experiment["spec"]["validation"] = validation
    make_results(tmp_path / "results", page | {"experiments": [few]}, counts={"train": 300})
    make_results(tmp_path / "results", page | {"experiments": others})
    collect_records(Results(tmp_path / "results"), [page], Records(tmp_path / "records"))
    assert "400 images to train on" in reproduction_page([page], Records(tmp_path / "records"), {})


def test_one_core_is_told_in_the_singular(page: dict, tmp_path: Path) -> None:
    for file in (tmp_path / "records").glob("*/*/*/run.json"):
        file.write_text(file.read_text().replace('"cores": 2', '"cores": 1'))
    assert "a CPU, 1 core;" in reproduction_page([page], Records(tmp_path / "records"), {})


def test_the_listed_accuracy_is_of_the_recorded_split_and_of_the_projects_seeds(
    tmp_path: Path,
) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page)
    runs = [run_files(tmp_path, "train1", n) for n in (0, 1, 2)]
    measured = [json.loads(run.metrics.read_text()) for run in runs]
    values = [one["splits"]["validation"]["accuracy"]["value"] for one in measured]
    wrong: list[str] = []
    assert reproduced(runs[:2], wrong) == fmean(values[:2])
    assert reproduced([run_files(tmp_path, "train1", 7)], wrong) is None
    assert wrong == []
    runs[1].metrics.write_text("{")
    runs[2].metrics.write_text("{}")
    assert reproduced(runs, wrong) == values[0]
    assert [line.split(": ")[0] for line in wrong] == [
        f"{made_key('train1')} seed {run.seed} has an unreadable {run.metrics}" for run in runs[1:]
    ]


def test_the_list_tells_an_unreadable_file_below_its_table(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    results = Results(project / "results")
    for seed in (0, 7):  # the project's, and one of before
        broken = results.run(run_of(project, "wide").replace("seed0", f"seed{seed}")).metrics
        broken.parent.mkdir(parents=True)
        broken.write_text("{")
    told = results.run(run_of(project, "wide")).metrics.relative_to(project)
    answer = scratchbook(project, "list", "halves")
    assert answer.returncode == 1
    assert "wide" in answer.stdout
    assert f"unreadable {told}" in answer.stderr
    assert "seed7" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_run_that_is_missing_is_listed_with_the_reason(page: dict, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "records/shapes/train2")
    text = reproduction_page(
        [page], Records(tmp_path / "records"), {"shapes": {"train2": "Its weights are not here."}}
    )
    assert "- **train2**, recorded 0.75: Its weights are not here." in text
    assert "| train2 |" not in text


def test_an_unfinished_run_is_not_collected(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path / "results", page)
    run_files(tmp_path / "results", "train1", 1).metrics.unlink()
    collect_records(Results(tmp_path / "results"), [page], Records(tmp_path / "records"))
    assert [f.name for f in (tmp_path / "records/shapes/train1").iterdir()] == ["seed0"]


def test_a_run_that_diverged_has_no_figures_to_keep(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path / "results", page, diverged={("train1", 1): 3, ("train2", 0): 1})
    collect_records(Results(tmp_path / "results"), [page], Records(tmp_path / "records"))
    kept = [run.name for run in Records(tmp_path / "records").runs("shapes")]
    assert kept == ["train1/seed0", "train2/seed1", "train3/seed0", "train3/seed1"]
    page = reproduction_page([page], Records(tmp_path / "records"), {})
    assert [row_of(page, name)[7] for name in ("train1", "train2", "train3")] == ["0", "1", "0, 1"]


@pytest.mark.parametrize(
    ("remarks", "told"),
    [
        ({"shape": {}}, "no notebook 'shape'; did you mean 'shapes'"),
        ({"shapes": {"trian1": "why"}}, "shapes has no experiment 'trian1'; did you mean"),
    ],
)
def test_a_remark_on_what_there_is_not_is_refused(
    page: dict, tmp_path: Path, remarks: dict, told: str
) -> None:
    with pytest.raises(ScratchbookError, match=told):
        reproduction_page([page], Records(tmp_path / "records"), remarks)


def test_a_broken_record_is_named(page: dict, tmp_path: Path) -> None:
    broken = tmp_path / "records/shapes/train1/seed0"
    (broken / "run.json").write_text("{")
    with pytest.raises(DamagedError, match=r"train1 seed 0 has an unreadable .*run\.json"):
        reproduction_page([page], Records(tmp_path / "records"), {})


def test_the_committed_page_follows_from_the_committed_records(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for part in ("config", "docs", "records", "src"):
        shutil.copytree(REPOSITORY / part, project / part)
    committed = (project / "docs/reproduction.md").read_text()
    answer = run(project, "-m", "scratchbook.cli", "reproduction")
    assert answer.returncode == 0, answer.stderr
    assert (project / "docs/reproduction.md").read_text() == committed

"""What the readers of results/ make of files that are not as they were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from result_trees import COUNTS, make_run, make_spec
from scratchbook.results.errors import DamagedError, MissingError, readable
from scratchbook.results.hdf5 import open_predictions, read_cam, write_cam
from scratchbook.results.paths import Results, RunFiles, StateFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import is_outdated, read_history, read_metrics, read_record
from scratchbook.results.records import CamMaps


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    files = Results(tmp_path).run("halves", "wide", 1)
    make_run(files.folder, make_spec(), 1, classes=("a", "b"), counts=COUNTS, accuracy=0.7)
    return files


def read_answers(run: RunFiles) -> None:
    with open_predictions(run.predictions) as said:
        said.read("best", "test")


READERS: dict[str, Callable[[RunFiles], Any]] = {
    "run.json": read_record,
    "history.csv": read_history,
    "metrics.json": read_metrics,
    "predictions.h5": read_answers,
}


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_told_with_its_experiment_and_seed(run: RunFiles, name: str) -> None:
    (run.folder / name).unlink()
    with pytest.raises(MissingError, match=rf"^wide seed 1 .*there is no .*/wide/seed1/{name}$"):
        READERS[name](run)
    assert readable(READERS[name], run) is None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b"text\n", b"\x00\xff", b"[" * 9**5]
)
def test_a_damaged_file_is_told_in_one_line(run: RunFiles, name: str, content: bytes) -> None:
    (run.folder / name).write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        READERS[name](run)
    message = str(caught.value)
    assert message.startswith(f"wide seed 1 has an unreadable {run.folder / name}: ")
    assert "again" in message
    assert "\n" not in message + caught.value.brief


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_its_place_is_not_said_to_be_made_again(run: RunFiles, name: str) -> None:
    (run.folder / name).unlink()
    (run.folder / name).mkdir()
    with pytest.raises(DamagedError) as caught:
        READERS[name](run)
    assert "directory" in str(caught.value)
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"best_epoch": "2"}, {"epochs": 2.5}, {"data": {}}, {"layers": [{"name": 1}]}, {"seed": None}],
)
def test_a_record_of_another_form_is_refused(run: RunFiles, change: dict[str, Any]) -> None:
    record = json.loads(run.record.read_text())
    run.record.write_text(json.dumps(record | change))
    with pytest.raises(DamagedError, match=next(iter(change))):
        read_record(run)


def test_a_spec_of_another_version_is_no_damage_but_outdated(run: RunFiles) -> None:
    record = json.loads(run.record.read_text())
    assert not is_outdated(run, record["spec"])
    old = {key: value for key, value in record["spec"].items() if key != "augment"}
    run.record.write_text(json.dumps(record | {"spec": old | {"schedule": {"warmup": 1}}}))
    assert read_record(run)["spec"] != record["spec"]
    assert is_outdated(run, record["spec"])


@pytest.mark.parametrize(
    ("before", "after"),
    [("0.001,", "0.0x1,"), ("\n2,", "\n3,"), ("\n2,", "\nnan,"), ("\n1,", '\n"1,')],
)
def test_a_history_with_one_odd_cell_is_refused(run: RunFiles, before: str, after: str) -> None:
    text = run.history.read_text()
    assert before in text
    run.history.write_text(text.replace(before, after, 1))
    with pytest.raises(DamagedError, match=r"history\.csv"):
        read_history(run)


def test_maps_come_back_as_they_were_written(tmp_path: Path) -> None:
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    cam = CamMaps(
        maps=maps, epochs=np.array([0, 4]), images=np.arange(3), labels=np.zeros(3, int),
        probability=np.full((2, 3, 2), 0.5), names=["a", "é", "c"], random_head=None,
        layer="conv", method="gradcam", target="label", grid=(2, 2), input_size=(8, 8),
        class_names=["x", "ÿ"], flags=[],
    )  # fmt: skip
    run = RunFiles(tmp_path)
    write_cam(run.cam, cam)
    back = read_cam(run)
    for name, value in vars(cam).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)


@pytest.mark.parametrize("attribute", ["class_names", "notes", "duplicates", "title"])
def test_prepared_data_with_a_damaged_attribute_are_refused(tmp_path: Path, attribute: str) -> None:
    data = Results(tmp_path).data("shapes")
    data.parent.mkdir()
    with h5py.File(data, "w") as file:
        file["images"] = np.zeros((2, 4, 4, 3), np.uint8)
        file["labels"], file["split"] = np.zeros(2, np.int64), np.zeros(2, np.uint8)
        texts = {"dataset": "shapes", "title": "Shapes", "source": "", "sha256": ""}
        file.attrs.update(arrays_sha256="", preparing=1)
        file.attrs.update(texts | {"class_names": "[]", "notes": "[]", "duplicates": "[]"})
    prepared = Prepared(data)
    with pytest.raises(DamagedError, match=r"^shapes has an unreadable .*shapes\.h5"):
        prepared.names_of(np.array([0]))  # there are none
    with h5py.File(data, "r+") as file:
        if attribute == "title":
            del file.attrs[attribute]
        else:
            file.attrs[attribute] = "{[]"
    with pytest.raises(DamagedError, match=r"shapes\.h5"):
        Prepared(data)


def test_what_only_looks_like_a_run_is_none(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("halves/wide/seed10", "halves/wide/seed2", "halves/wide/seeds", "halves/figures"):
        (tmp_path / name).mkdir(parents=True)
    assert [run.seed for run in results.runs("halves", "wide")] == [2, 10]


def test_the_newest_state_stands_first(tmp_path: Path) -> None:
    state = StateFiles(tmp_path)
    for epoch in (9, 10, 100):
        state.epoch(epoch).touch()
    assert state.epochs() == [state.epoch(100), state.epoch(10), state.epoch(9)]


@pytest.mark.parametrize(
    ("file", "who"),
    [("seed1/compare.csv", "compare"), ("seedlings/compare.csv", "compare"), ("data/cam.h5", "cam"),
     ("data/predictions.h5", "predictions")],
)  # fmt: skip
def test_a_notebook_or_data_set_is_not_taken_for_a_run_by_its_name(file: str, who: str) -> None:
    path = Path("results") / file
    assert str(MissingError(path)) == f"{who} is missing: there is no {path}"
    assert str(DamagedError(path, "x")).endswith("remove it, and it is made again")

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
from scratchbook.provenance import mixtures
from scratchbook.results.errors import DamagedError, LeftOutError, MissingError, readable
from scratchbook.results.hdf5 import leave_out_cam, open_predictions, read_cam, write_cam
from scratchbook.results.paths import Records, Results, RunFiles, StateFiles, seed_of
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_history, read_metrics, read_record, read_runs
from scratchbook.results.records import CamMaps

KEY = "shapes-3f9a0c61d2e8"


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    files = Results(tmp_path).run(f"{KEY}/seed1")
    make_run(files.folder, make_spec(), 1, classes=("a", "b"), counts=COUNTS, accuracy=0.7)
    return files


def read_answers(run: RunFiles) -> None:
    with open_predictions(run.predictions) as said:
        said.read("best", "test")


READERS: dict[str, Callable[[RunFiles], Any]] = {
    "run.json": read_record,
    "history.csv": read_history,
    "derived/metrics.json": read_metrics,
    "predictions.h5": read_answers,
}
CURES = {
    "trained": "put back what was written, or have the run trained again by `scratchbook retrain`",
    "derived": "remove it, and it is made again",
}


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_told_with_its_key_and_seed(run: RunFiles, name: str) -> None:
    (run.folder / name).unlink()
    told = rf"^{KEY} seed 1 (.*): there is no .*/runs/{KEY}/seed1/{name}$"
    with pytest.raises(MissingError, match=told) as caught:
        READERS[name](run)
    what = {"run.json": "was not trained", "derived/metrics.json": "was not evaluated"}
    assert caught.value.brief.startswith(what.get(name, "is not whole"))
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
    assert message.startswith(f"{KEY} seed 1 has an unreadable {run.folder / name}: ")
    # What was trained is nothing to be made anew at will.
    derived = name.startswith("derived/")
    assert message.endswith(f"; {CURES['derived' if derived else 'trained']}")
    assert "\n" not in message + caught.value.brief


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_its_place_is_not_said_to_be_made_again(run: RunFiles, name: str) -> None:
    (run.folder / name).unlink()
    (run.folder / name).mkdir()
    with pytest.raises(DamagedError) as caught:
        READERS[name](run)
    assert "directory" in str(caught.value)
    assert not [cure for cure in CURES.values() if cure in str(caught.value)]


@pytest.mark.parametrize(
    "change",
    [{"best_epoch": "2"}, {"epochs": 2.5}, {"data": {}}, {"layers": [{"name": 1}]}, {"seed": None}],
)
def test_a_record_of_another_form_is_refused(run: RunFiles, change: dict[str, Any]) -> None:
    record = json.loads(run.record.read_text())
    run.record.write_text(json.dumps(record | change))
    with pytest.raises(DamagedError, match=next(iter(change))):
        read_record(run)


def test_a_spec_of_another_version_is_no_damage(run: RunFiles) -> None:
    record = json.loads(run.record.read_text())
    old = {key: value for key, value in record["spec"].items() if key != "augment"}
    old |= {"schedule": {"warmup": 1}}
    run.record.write_text(json.dumps(record | {"spec": old}))
    assert read_record(run) == record | {"spec": old}


def test_a_run_that_diverged_at_once_has_no_epoch_but_a_record(tmp_path: Path) -> None:
    for epoch in (0, 1):
        run = Results(tmp_path).run(f"{KEY}/seed{epoch}")
        make_run(
            run.folder, make_spec(), epoch, classes=("a", "b"), counts=COUNTS, accuracy=0.7,
            diverged=epoch,
        )  # fmt: skip
        assert read_record(run)["diverged"] == epoch
        assert read_metrics(run)["diverged"] == epoch
        with pytest.raises(DamagedError, match="no column or row of epoch"):
            read_history(run)
        with open_predictions(run.predictions) as said:
            assert (said.diverged, said.is_empty) == (epoch, True)


@pytest.mark.parametrize(
    "content", ["experiment,seed,run\na,1,b\n", "experiment,seed,run,fold\na,x,b,\n"]
)
def test_a_damaged_table_of_runs_is_named(tmp_path: Path, content: str) -> None:
    file = Results(tmp_path).notebook("halves").runs
    with pytest.raises(MissingError, match=r"^runs is missing: there is no .*/halves/runs\.csv$"):
        read_runs(file)
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(DamagedError, match=r"^runs has an unreadable .*/halves/runs\.csv: "):
        read_runs(file)


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
        class_names=["x", "ÿ"], flags=[], missing=[2], diverged=5,
    )  # fmt: skip
    file = RunFiles(tmp_path).cam("41c09be01f5a")
    write_cam(file, cam)
    back = read_cam(file)
    for name, value in vars(cam).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)


def test_maps_that_were_left_out_are_neither_missing_nor_damaged(run: RunFiles) -> None:
    file = run.cam("41c09be01f5a")
    with pytest.raises(
        MissingError, match=r"^cam-41c09be01f5a is missing: there is no .*/derived/"
    ):
        read_cam(file)
    leave_out_cam(file, "its data are gone")
    with pytest.raises(LeftOutError, match=r"has no Grad-CAM: its data are gone$") as caught:
        read_cam(file)
    assert caught.value.why == "its data are gone"
    assert readable(read_cam, file) is None
    file.write_bytes(b"text")
    cure = f"; {CURES['derived']}$"
    with pytest.raises(DamagedError, match=rf"^cam-41c09be01f5a has an unreadable .*{cure}"):
        read_cam(file)


@pytest.mark.parametrize("attribute", ["class_names", "notes", "duplicates", "source"])
def test_prepared_data_with_a_damaged_attribute_are_refused(tmp_path: Path, attribute: str) -> None:
    data = Results(tmp_path).data("shapes")
    data.parent.mkdir()
    with h5py.File(data, "w") as file:
        file["images"] = np.zeros((2, 4, 4, 3), np.uint8)
        file["labels"], file["split"] = np.zeros(2, np.int64), np.zeros(2, np.uint8)
        texts = {"dataset": "shapes", "source": "", "sha256": ""}
        file.attrs.update(arrays_sha256="", preparing=1)
        file.attrs.update(texts | {"class_names": "[]", "notes": "[]", "duplicates": "[]"})
    prepared = Prepared(data)
    with pytest.raises(DamagedError, match=r"^shapes has an unreadable .*shapes\.h5"):
        prepared.names_of(np.array([0]))  # there are none
    with h5py.File(data, "r+") as file:
        if attribute == "source":
            del file.attrs[attribute]
        else:
            file.attrs[attribute] = "{[]"
    with pytest.raises(DamagedError, match=r"shapes\.h5"):
        Prepared(data)


def test_what_only_looks_like_a_run_is_none(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for name in ("halves/wide/seed10", "halves/wide/seed2", "halves/wide/seeds", "halves/figures"):
        (tmp_path / name).mkdir(parents=True)
    assert [run.seed for run in records.runs("halves", "wide")] == [2, 10]
    names = ("seed3", "20261128T120000Z-seed3", "seed", "seed-3", "seed3.order.json", "xseed3", "3")
    assert [seed_of(name) for name in names] == [3, 3, *[None] * 5]


def test_the_newest_state_stands_first(tmp_path: Path) -> None:
    state = StateFiles(tmp_path)
    for epoch in (9, 10, 100):
        state.epoch(epoch).touch()
    assert state.epochs() == [state.epoch(100), state.epoch(10), state.epoch(9)]


@pytest.mark.parametrize(
    ("file", "who"),
    [("seed1/compare.csv", "compare"), ("seedlings/compare.csv", "compare"), ("data/cam.h5", "cam"),
     ("data/predictions.h5", "predictions"), ("data/derived/metrics.json", "metrics"),
     ("derived/metrics.json", "metrics"), ("seed1/derived/compare.csv", "compare")],
)  # fmt: skip
def test_a_notebook_or_data_set_is_not_taken_for_a_run_by_its_name(file: str, who: str) -> None:
    path = Path("results") / file
    assert str(MissingError(path)) == f"{who} is missing: there is no {path}"
    assert str(DamagedError(path, "x")).endswith("remove it, and it is made again")


# what answered


def record_of(run: RunFiles, **changes: Any) -> Any:
    return {**read_record(run), **changes}


def test_runs_that_were_made_alike_mix_nothing(run: RunFiles) -> None:
    other = record_of(run, seed=9, wall_seconds=1.0, git={"commit": None, "dirty": None})
    assert mixtures({"one": read_record(run), "other": other}) == []
    assert mixtures({"one": read_record(run)}) == mixtures({}) == []


def test_what_runs_mix_is_told_with_who_has_what(run: RunFiles) -> None:
    data = read_record(run)["data"]
    runs = {
        "a seed 0": read_record(run),
        "a seed 1": record_of(run, precision="mixed_bfloat16", device="NVIDIA H200"),
        "b seed 0": record_of(run, backend="jax", packages={"jax": "1.0"}),
        "b seed 1": record_of(run, data=data | {"arrays_sha256": "ef" * 32}),
    }
    assert mixtures(runs) == [
        "precision: float32 (a seed 0, b seed 0, b seed 1), mixed_bfloat16 (a seed 1)",
        "backend: tensorflow (a seed 0, a seed 1, b seed 1), jax (b seed 0)",
        "Keras: 3.15.1 (a seed 0, a seed 1, b seed 1), unknown (b seed 0)",
        "device: a CPU (a seed 0, b seed 0, b seed 1), NVIDIA H200 (a seed 1)",
        "prepared data: cdcdcdc (a seed 0, a seed 1, b seed 0), efefefe (b seed 1)",
    ]


def test_a_number_of_our_code_is_mixed_only_among_the_runs_that_used_the_feature(
    run: RunFiles,
) -> None:
    runs = {
        "old": record_of(run, training={"loop": 1, "schedules": 1}),
        "new": record_of(run, training={"loop": 2, "schedules": 1, "augmentation": 4}),
        "plain": record_of(run, training={"loop": 2}),
    }
    assert mixtures(runs) == ["our code for loop: 1 (old), 2 (new, plain)"]


def test_of_very_many_runs_a_few_are_named(run: RunFiles) -> None:
    runs = {f"r{i}": record_of(run, device="A" if i < 7 else "B") for i in range(8)}
    assert mixtures(runs) == ["device: A (r0, r1, r2, r3 and 3 more), B (r7)"]

"""Each diagnosis is given on its evidence, withheld without it, and can be changed and muted."""

from __future__ import annotations

import inspect
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects import REPOSITORY
from result_trees import made_key, make_page, make_results, make_spec, run_files
from scratchbook.comparison import compare
from scratchbook.comparison.tables import Comparison
from scratchbook.comparison.verdict import COVERS_IMAGES
from scratchbook.config.diagnoses import DIAGNOSES, Diagnoses, Diagnosis, Thresholds
from scratchbook.diagnoses import (
    RULES,
    ExperimentSeen,
    Finding,
    NotebookSeen,
    Prior,
    RunSeen,
    Shown,
    count_classes,
    diagnose,
    diagnose_recorded,
    diagnose_run,
    finds,
    leak,
    learning_rate_too_high,
    not_a_number,
    overfit,
    prior_collapse,
    saturated,
    seed_noise,
    small_test,
    undertrained,
)
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import write_metrics
from scratchbook.language import mark, speaking
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.reading import read_history
from scratchbook.results.records import History

LIMITS = Thresholds()
RECORDS = REPOSITORY / "records"


def history(
    loss: list[float],
    val_loss: list[float],
    accuracy: list[float] | None = None,
    val_accuracy: list[float] | None = None,
    learning_rate: list[float] | None = None,
) -> RunSeen:
    n = len(loss)
    columns = {
        "epoch": np.arange(1.0, n + 1),
        "loss": np.array(loss),
        "val_loss": np.array(val_loss),
        "accuracy": np.array(accuracy or [0.5] * n),
        "val_accuracy": np.array(val_accuracy or [0.5] * n),
        "learning_rate": np.array(learning_rate or [0.01] * n),
    }
    return RunSeen(history=History(columns))


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


def found_in(page: dict[str, Any], root: Path, **more: Any) -> list[Finding]:
    results = Results(root)
    return diagnose(page, results, compare(page, results), **more)


def noisy_in(comparison: Comparison, limits: Thresholds) -> set[str]:
    rows = {row["experiment"]: row for row in comparison.rows.to_dict("records")}
    return {name for name in rows if seed_noise(ExperimentSeen(name, rows, comparison), limits)}


# what the notebooks of 2019 wrote down


@pytest.mark.parametrize(
    ("recorded", "classes", "expected"),
    [
        ({"val_loss": 0.6722687927484512, "val_accuracy": 0.602}, 2, ["PRIOR-COLLAPSE"]),
        ({"val_loss": 0.6723102186620236, "val_accuracy": 0.602}, 2, ["PRIOR-COLLAPSE"]),
        ({"val_loss": 6.4281, "val_accuracy": 0.599}, 2, ["SATURATED"]),
        ({"train_accuracy": 0.92, "val_accuracy": 0.76}, 10, ["OVERFIT"]),
        ({"train_accuracy": 0.79, "val_accuracy": 0.8245}, 10, []),
        ({"val_loss": 0.5381553820371627, "val_accuracy": 0.757}, 2, []),
        ({"val_loss": 0.48447739620506763, "val_accuracy": 0.787}, 2, []),
        ({"val_loss": 0.3976273346829694, "val_accuracy": 0.825}, 2, []),
        ({"val_loss": 0.3565030818, "val_accuracy": 0.858}, 2, []),
        ({"val_loss": 0.2540596631398621, "val_accuracy": 0.902}, 2, []),
        ({"val_loss": 0.42879582741776356, "val_accuracy": 0.909}, 2, []),
        ({"val_accuracy": None, "epoch": 3}, 2, []),
    ],
)
def test_recorded_figures_tell_what_went_wrong(
    recorded: dict[str, Any], classes: int, expected: list[str]
) -> None:
    found = diagnose_recorded("train1", recorded, classes=classes)
    assert codes(found) == expected
    assert all(one.recorded for one in found)


def test_a_recorded_collapse_is_certain_only_where_the_class_shares_are_known() -> None:
    good = {"val_loss": 0.3255, "val_accuracy": 0.9}  # 0.3251 is the entropy of nine to one
    (guessed,) = diagnose_recorded("train1", good, classes=2)
    assert "if the largest class had 90.0% of the images: the net may" in guessed.message
    assert diagnose_recorded("train1", good, classes=2, prior=Prior(0.693, 0.51)) == []
    (known,) = diagnose_recorded("train1", good, classes=2, prior=Prior(0.325, 0.9))
    assert "has learnt nothing from the images" in known.message


def test_recorded_figures_are_held_against_the_measured_class_shares(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    equal, unequal = page["experiments"][:2]
    equal["recorded"] = {"val_loss": math.log(3), "val_accuracy": 1 / 3}
    unequal["recorded"] = {"val_loss": 1.068, "val_accuracy": 0.453}  # the made validation images
    (found,) = found_in(page, tmp_path)
    assert found.experiment == equal["name"]
    assert "the net may answer" in found.message
    make_results(tmp_path, page)
    after = found_in(page, tmp_path)
    (found,) = [one for one in after if one.code == "PRIOR-COLLAPSE"]
    assert (found.experiment, found.recorded) == (unequal["name"], True)
    assert "(1.0675, largest class 45.3%)" in found.message


# the rules


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12))
def test_a_net_that_answers_the_prior_has_collapsed(counts: list[int]) -> None:
    prior = np.array(counts) / sum(counts)
    entropy = float(-(prior * np.log(prior)).sum())
    majority = float(prior.max())

    def collapsed(loss: float, accuracy: float) -> bool:
        figures = {"val_loss": loss, "val_accuracy": accuracy}
        run = RunSeen(figures, len(counts), Prior(entropy, majority))
        return prior_collapse(run, LIMITS) is not None

    assert collapsed(entropy, majority)
    assert not collapsed(entropy, majority + 0.1)
    assert not collapsed(entropy * 0.9, majority)


def test_equal_classes_collapse_at_the_logarithm_of_their_number() -> None:
    figures = {"val_loss": 2.3026, "val_accuracy": 0.1}
    assert codes(diagnose_recorded("train1", figures, classes=10)) == ["PRIOR-COLLAPSE"]


def test_a_confident_good_net_is_not_saturated() -> None:
    figures = {"val_loss": 0.14, "val_accuracy": 0.99}  # 14 nats an error, but few errors
    assert saturated(RunSeen(figures, 10), LIMITS) is None


def test_a_net_that_collapsed_is_not_called_saturated_too() -> None:
    eager = Thresholds(prior_loss_recorded=9, saturated_loss=1)
    figures = {"val_loss": 2.5, "val_accuracy": 0.1}
    assert saturated(RunSeen(figures, 10), Thresholds(saturated_loss=1)) is not None
    assert codes(diagnose_recorded("train1", figures, classes=10, limits=eager)) == [
        "PRIOR-COLLAPSE"
    ]


def test_overfit_needs_a_growing_gap_and_a_rising_validation_loss() -> None:
    val_loss = [1.0, 0.7, 0.6, 0.65, 0.75, 0.9]
    train, flat = [0.6, 0.75, 0.8, 0.86, 0.92, 0.96], [0.6, 0.7, 0.72, 0.72, 0.72, 0.72]
    loss = [1.0, 0.7, 0.5, 0.4, 0.3, 0.2]
    found = overfit(history(loss, val_loss, train, flat), LIMITS)
    assert found is not None
    assert found.evidence["epoch"] == 3
    assert found.evidence["rise"] == pytest.approx((0.65 + 0.75 + 0.9) / 3 / 0.6 - 1)
    assert overfit(history(loss, val_loss, flat, flat), LIMITS) is None
    steady = [1.0, 0.7, 0.6, 0.6, 0.6, 0.61]
    assert overfit(history(loss, steady, train, flat), LIMITS) is None


def test_undertrained_is_still_improving_at_the_last_epoch() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert undertrained(history(falling, falling), LIMITS) is not None
    level = [1.0, 0.6, 0.5, 0.5, 0.5, 0.4999]
    assert undertrained(history(level, level), LIMITS) is None
    assert undertrained(history([1.0], [1.0]), LIMITS) is None


def test_a_learning_rate_is_too_high_where_training_loss_jumps_or_zigzags() -> None:
    for loss in ([2.0, 1.0, 2.5, 1.0, 0.9], [2.0, 2.1, 1.9, 2.0, 1.9, 2.0]):
        found = learning_rate_too_high(history(loss, loss), LIMITS)
        assert found is not None
        message = Finding("LR-TOO-HIGH", "train1", *found).message
        assert re.search(r"learning rate (of up to )?0\.01 ", message)
    smooth = [2.0, 1.0, 0.5, 0.51, 0.4, 0.3]
    assert learning_rate_too_high(history(smooth, smooth), LIMITS) is None
    tiny = [1.0, 0.1, 0.01, 0.001, 0.004, 0.001, 0.001]  # noise of a loss that is almost zero
    assert learning_rate_too_high(history(tiny, tiny), LIMITS) is None


def test_the_rate_that_is_named_is_that_of_the_epochs_that_went_wrong() -> None:
    jump, zigzag = [2.0, 1.0, 0.9, 2.5, 1.0, 0.9], [2.0, 1.9, 2.1, 1.9, 2.2, 1.5]
    warm_up = [1e-5, 1e-3, 0.01, 0.1, 0.05, 1.0]
    jumped, risen = (
        Finding("LR-TOO-HIGH", "train1", *shown)
        for loss in (jump, zigzag)
        if (shown := learning_rate_too_high(history(loss, loss, learning_rate=warm_up), LIMITS))
    )
    assert "learning rate 0.1 training loss jumps" in jumped.message
    assert "up to 0.05 training loss rises in 2 of 5" in risen.message
    assert [one.evidence["rate"] for one in (jumped, risen)] == [0.1, 0.05]


def test_a_loss_that_flickers_near_zero_has_no_learning_rate_too_high() -> None:
    flicker = [1.0, 0.1, 0.0040, 0.0047, 0.0041, 0.0046, 0.0040, 0.0047, 0.0042, 0.0046]
    assert learning_rate_too_high(history(flicker, flicker), LIMITS) is None
    for file in RECORDS.glob("dogs3-augmented/long/seed*/history.csv"):
        run = RunSeen(history=read_history(RunFiles(file.parent)))
        assert learning_rate_too_high(run, LIMITS) is None, file


def test_not_a_number_names_the_epoch() -> None:
    found = not_a_number(history([1.0, np.nan], [1.0, np.nan]), LIMITS)
    assert found is not None
    assert found.evidence == {"epoch": 2}
    assert not_a_number(history([1.0], [1.0]), LIMITS) is None


def test_only_copies_across_splits_are_a_leak(tmp_path: Path) -> None:
    across = ["a.png", "train", "b.png", "test"]
    within = ["c.png", "test", "d.png", "test"]
    page = make_page()
    comparison = compare(page, Results(tmp_path))
    found = leak(NotebookSeen(page, comparison, [across, within]), LIMITS)
    assert found is not None
    message = Finding("LEAK", "", *found).message
    assert "1 image is in two splits, first a.png (train) and b.png (test)" in message
    assert leak(NotebookSeen(page, comparison, [within]), LIMITS) is None


def test_a_leak_is_between_what_is_trained_on_and_what_is_measured(tmp_path: Path) -> None:
    train_val = ["a.png", "train", "b.png", "validation"]
    val_test = ["c.png", "validation", "d.png", "test"]
    train_test = ["e.png", "train", "f.png", "test"]
    pairs = [train_val, val_test, train_test]
    for validation, leaks in (
        ("validation", [train_val, train_test]),
        ("test", [val_test, train_test]),  # trained on train and validation
    ):
        page = make_page()
        for one in page["experiments"]:
            one["spec"]["validation"] = validation
        found = found_in(page, tmp_path, duplicates=pairs)
        (one,) = [one for one in found if one.code == "LEAK"]
        assert one.evidence["pairs"] == leaks


def test_small_test_and_seed_noise_need_differences_within_the_noise(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page, accuracy={"train1": 0.75, "train2": 0.75, "train3": 0.755})
    alike = compare(page, Results(tmp_path))
    assert small_test(NotebookSeen(page, alike), LIMITS) is not None
    gains = alike.rows.set_index("experiment")["test_accuracy"]
    assert noisy_in(alike, Thresholds(seed_noise_ratio=0)) == {
        child
        for child, parent in (("train2", "train1"), ("train3", "train2"))
        if gains[child] > gains[parent]
    }
    make_results(tmp_path, page, accuracy={"train1": 0.3, "train2": 0.6, "train3": 0.9})
    apart = compare(page, Results(tmp_path))
    assert small_test(NotebookSeen(page, apart), LIMITS) is None
    assert noisy_in(apart, LIMITS) == set()


def test_small_test_asks_for_seeds_where_no_number_of_images_would_do(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page, accuracy={"train1": 0.75, "train2": 0.75, "train3": 0.755})
    alike = compare(page, Results(tmp_path))

    def told(**columns: Any) -> Finding:
        changed = replace(alike, pairs=alike.pairs.assign(**columns))
        shown = small_test(NotebookSeen(page, changed), LIMITS)
        assert shown is not None
        return Finding("SMALL-TEST", "", *shown)

    found = told(images_needed=np.inf)
    assert "200 test images and these seeds show differences" in found.message
    assert found.advice.startswith("Run more seeds (more images would not do)")
    found = told(images_needed=900.0, covers=COVERS_IMAGES)
    assert "200 test images show differences" in found.message
    assert found.advice.startswith("Measure on more images")


# a notebook


def test_a_notebook_chosen_on_its_test_images_says_so_even_without_runs(tmp_path: Path) -> None:
    page = make_page()
    for one in page["experiments"]:
        one["spec"] = make_spec(validation="test")
    found = found_in(page, tmp_path)
    assert codes(found) == ["CHERRY-PICKED"]


def test_a_run_that_collapsed_is_found_with_its_seeds(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page)
    for seed in (0, 1):
        run = run_files(tmp_path, "train2", seed)
        with h5py.File(run.predictions, "r+") as file:
            for split in file["best"].values():
                prior = np.bincount(split["labels"][...], minlength=3) / len(split["labels"])
                split["logits"][...] = np.log(prior)
        write_metrics(run.predictions, run.metrics)
    found = found_in(page, tmp_path)
    (collapsed,) = [one for one in found if one.code == "PRIOR-COLLAPSE"]
    assert (collapsed.experiment, collapsed.seeds) == ("train2", (0, 1))
    assert collapsed.advice
    assert collapsed.page == "docs/diagnoses.md#prior-collapse"


def test_a_diverged_run_without_metrics_is_found_in_its_history(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page)
    run = run_files(tmp_path, "train1")
    run.metrics.unlink()
    text = run.history.read_text().splitlines()
    text[-1] = "8,nan,0.1,nan,0.1,0.001,1.0"
    run.history.write_text("\n".join(text) + "\n")
    found = found_in(page, tmp_path)
    (broken,) = [one for one in found if one.code == "NAN"]
    assert (broken.experiment, broken.evidence) == ("train1", {"epoch": 8})


def test_a_run_that_diverged_is_told_its_epoch_alone(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page, diverged={("train2", 0): 6, ("train3", 0): 1, ("train3", 1): 1})
    found = found_in(page, tmp_path)
    broken = [one for one in found if one.code == "NAN"]
    assert [(one.experiment, one.seeds, one.evidence) for one in broken] == [
        ("train2", (0,), {"epoch": 6}),
        ("train3", (0, 1), {"epoch": 1}),
    ]
    assert "not a number from epoch 6 on; the run diverged" in broken[0].message
    # It is no longer judged by what its last whole epochs were on the way to.
    judged = diagnose_run("train2", run_files(tmp_path, "train2", 0), LIMITS)
    assert codes(judged) == ["NAN"]
    assert "UNDERTRAINED" in codes(diagnose_run("train2", run_files(tmp_path, "train2", 1), LIMITS))


def test_a_run_that_inherits_its_end_names_the_run_it_starts_from(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page, diverged={("train2", 0): 0})
    (broken,) = [one for one in found_in(page, tmp_path) if one.code == "NAN"]
    assert broken.experiment == "train2"
    assert broken.message == "The run whose weights it starts from diverged."
    with speaking("zh"):
        assert re.search("[\u4e00-\u9fff]", broken.message)


def test_a_recorded_finding_is_kept_beside_a_run_that_does_not_show_it(tmp_path: Path) -> None:
    page = make_page()
    page["experiments"][0]["recorded"] = {"train_accuracy": 0.92, "val_accuracy": 0.76}
    make_results(tmp_path, page)
    found = found_in(page, tmp_path)
    (one,) = [one for one in found if one.code == "OVERFIT"]
    assert one.recorded


def test_a_code_is_muted_everywhere_or_for_one_experiment(tmp_path: Path) -> None:
    page = make_page()
    for one in page["experiments"]:
        one["recorded"] = {"train_accuracy": 0.92, "val_accuracy": 0.76}

    def found(**wanted: Any) -> list[Finding]:
        return found_in(page | {"diagnoses": Diagnoses(**wanted).model_dump()}, tmp_path)

    assert codes(found()) == ["OVERFIT"] * 3
    assert found(mute=["OVERFIT"]) == []
    some = found(mute=["OVERFIT:train2"])
    assert [one.experiment for one in some] == ["train1", "train3"]
    assert found(thresholds={"overfit_gap_recorded": 0.2}) == []


def test_classes_are_the_last_units() -> None:
    assert count_classes(make_spec()) == 3
    unit = [{"class_name": "Dense", "config": {"units": 1, "activation": "sigmoid"}}]
    assert count_classes(make_spec(layers=unit)) == 2


def test_the_docs_have_a_section_a_code_and_every_threshold_with_its_default() -> None:
    text = (Path(__file__).parent.parent / "docs" / "diagnoses.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(DIAGNOSES)
    for code, section in sections.items():
        documented = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", section, re.MULTILINE)
        assert {name: float(value) for name, value in documented} == {
            name: Thresholds.model_fields[name].default for name in DIAGNOSES[code].thresholds
        }


# the declarations


def test_every_threshold_is_one_diagnosis_own_and_its_rule_reads_just_those() -> None:
    assert set(RULES) == set(DIAGNOSES)
    claimed = [name for one in DIAGNOSES.values() for name in one.thresholds]
    assert sorted(claimed) == sorted(Thresholds.model_fields)
    for code, one in DIAGNOSES.items():
        read = re.findall(r"limits\.(\w+)", inspect.getsource(RULES[code]))
        assert set(read) == set(one.thresholds), code


def test_a_diagnosis_is_added_by_its_declaration_and_its_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = make_page()
    make_results(tmp_path, page)
    before = found_in(page, tmp_path)
    short = Diagnosis("SHORT", "run", mark("Only {epochs} epochs."), mark("Wait."))
    with pytest.raises(ValueError, match="'SHORT' is no diagnosis"):
        Diagnoses(mute=["SHORT"])
    monkeypatch.setitem(DIAGNOSES, "SHORT", short)
    monkeypatch.setitem(RULES, "SHORT", None)  # so that it is taken out again

    @finds("SHORT")
    def _(run: RunSeen, limits: Thresholds) -> Shown | None:
        return Shown({"epochs": len(run.history)}) if run.history else None

    found = found_in(page, tmp_path)
    new = [one for one in found if one.code == "SHORT"]
    assert [one for one in found if one not in new] == before
    assert [(one.experiment, one.seeds) for one in new] == [
        (name, (0, 1)) for name in ("train1", "train2", "train3")
    ]
    assert (new[0].message, new[0].advice) == ("Only 8 epochs.", "Wait.")
    muted = page | {"diagnoses": Diagnoses(mute=["SHORT"]).model_dump()}
    assert found_in(muted, tmp_path) == before


def test_a_finding_is_plain_data_that_speaks_the_language_it_is_shown_in(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page, accuracy={"train1": 0.75, "train2": 0.75, "train3": 0.755})
    page["experiments"][0]["recorded"] = {"train_accuracy": 0.92, "val_accuracy": 0.76}
    pairs = [["a.png", "train", "b.png", "test"]]
    with speaking("zh"):
        found = found_in(page, tmp_path, duplicates=pairs)
    assert {"LEAK", "SMALL-TEST", "OVERFIT", "UNDERTRAINED"} <= set(codes(found))
    for one in found:
        assert json.loads(json.dumps(one.evidence, allow_nan=False)) == one.evidence
        assert not re.search("[\u4e00-\u9fff]", one.message + one.advice), one
        with speaking("zh"):
            assert re.search("[\u4e00-\u9fff]", one.message), one
            assert re.search("[\u4e00-\u9fff]", one.advice), one
    said = {one.code: one for one in found}
    assert "a gap of 16 points" in said["OVERFIT"].message  # from 0.92 to 0.76
    assert "train" in said["LEAK"].message
    with speaking("zh"):
        assert "train" not in said["LEAK"].message


@pytest.mark.parametrize("file", ["history.csv", "derived/metrics.json"])
def test_a_damaged_file_is_named_and_a_missing_one_passed_over(tmp_path: Path, file: str) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page)
    run = run_files(tmp_path, "train1")
    damaged = run.folder / file
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(ScratchbookError, match=rf"{made_key('train1')} seed 0 .*{re.escape(file)}"):
        diagnose_run("train1", run, LIMITS)
    damaged.unlink()
    diagnose_run("train1", run, LIMITS)


def test_only_the_runs_that_the_page_names_are_judged(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1))
    make_results(tmp_path, page)
    assert {one.seeds for one in found_in(page, tmp_path) if one.code == "UNDERTRAINED"} == {(0, 1)}
    for one in page["experiments"]:
        one |= {"runs": {1: one["runs"][1]}, "left_out": [0]}
    assert {one.seeds for one in found_in(page, tmp_path) if one.code == "UNDERTRAINED"} == {(1,)}
    for one in page["experiments"]:
        one["runs"] = {1: f"shapes-{7:012x}/seed1"}  # of other settings, and not trained
    assert "UNDERTRAINED" not in codes(found_in(page, tmp_path))

"""Each diagnosis is given on its evidence, withheld without it, and can be changed and muted."""

from __future__ import annotations

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
from result_trees import make_page, make_results, make_spec
from scratchbook.comparison import compare
from scratchbook.comparison.verdict import COVERS_IMAGES
from scratchbook.diagnoses import (
    CODES,
    Thresholds,
    count_classes,
    diagnose,
    diagnose_recorded,
    leak,
    learning_rate_too_high,
    not_a_number,
    overfit,
    prior_collapse,
    read_history,
    saturated,
    seed_noise,
    small_test,
    undertrained,
)
from scratchbook.evaluation import write_metrics

LIMITS = Thresholds()
RECORDS = REPOSITORY / "records"


def history(
    loss: list[float],
    val_loss: list[float],
    accuracy: list[float] | None = None,
    val_accuracy: list[float] | None = None,
) -> dict[str, np.ndarray]:
    n = len(loss)
    return {
        "epoch": np.arange(1.0, n + 1),
        "loss": np.array(loss),
        "val_loss": np.array(val_loss),
        "accuracy": np.array(accuracy or [0.5] * n),
        "val_accuracy": np.array(val_accuracy or [0.5] * n),
        "learning_rate": np.full(n, 0.01),
    }


def codes(found: list[Any]) -> list[str]:
    return [one.code for one in found]


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
    assert diagnose_recorded("train1", good, classes=2, entropy=0.693, majority=0.51) == []
    (known,) = diagnose_recorded("train1", good, classes=2, entropy=0.325, majority=0.9)
    assert "has learnt nothing from the images" in known.message


def test_recorded_figures_are_held_against_the_measured_class_shares(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    equal, unequal = page["experiments"][:2]
    equal["recorded"] = {"val_loss": math.log(3), "val_accuracy": 1 / 3}
    unequal["recorded"] = {"val_loss": 1.068, "val_accuracy": 0.453}  # the made validation images
    (found,) = diagnose(page, tmp_path, compare(page, tmp_path))
    assert found.experiment == equal["name"]
    assert "the net may answer" in found.message
    make_results(tmp_path, page)
    after = diagnose(page, tmp_path, compare(page, tmp_path))
    (found,) = [one for one in after if one.code == "PRIOR-COLLAPSE"]
    assert (found.experiment, found.recorded) == (unequal["name"], True)
    assert "(1.0675, largest class 45.3%)" in found.message


# the rules


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12))
def test_a_net_that_answers_the_prior_has_collapsed(counts: list[int]) -> None:
    prior = np.array(counts) / sum(counts)
    entropy = float(-(prior * np.log(prior)).sum())
    figures = {"val_loss": entropy, "val_accuracy": float(prior.max())}
    known = {"entropy": entropy, "majority": float(prior.max())}
    found = prior_collapse("train1", figures, len(counts), LIMITS, **known)
    assert found is not None
    better = figures | {"val_accuracy": float(prior.max()) + 0.1}
    assert prior_collapse("train1", better, len(counts), LIMITS, **known) is None
    lower = figures | {"val_loss": entropy * 0.9}
    assert prior_collapse("train1", lower, len(counts), LIMITS, **known) is None


def test_equal_classes_collapse_at_the_logarithm_of_their_number() -> None:
    figures = {"val_loss": 2.3026, "val_accuracy": 0.1}
    assert codes(diagnose_recorded("train1", figures, classes=10)) == ["PRIOR-COLLAPSE"]


def test_a_confident_good_net_is_not_saturated() -> None:
    figures = {"val_loss": 0.14, "val_accuracy": 0.99}  # 14 nats an error, but few errors
    assert saturated("train1", figures, 10, LIMITS) is None


def test_overfit_needs_a_growing_gap_and_a_rising_validation_loss() -> None:
    val_loss = [1.0, 0.7, 0.6, 0.65, 0.75, 0.9]
    train, flat = [0.6, 0.75, 0.8, 0.86, 0.92, 0.96], [0.6, 0.7, 0.72, 0.72, 0.72, 0.72]
    loss = [1.0, 0.7, 0.5, 0.4, 0.3, 0.2]
    found = overfit("train1", history(loss, val_loss, train, flat), LIMITS)
    assert found is not None
    assert found.evidence["epoch"] == 3
    assert found.evidence["val_loss_rise"] == pytest.approx((0.65 + 0.75 + 0.9) / 3 / 0.6 - 1)
    assert overfit("train1", history(loss, val_loss, flat, flat), LIMITS) is None
    steady = [1.0, 0.7, 0.6, 0.6, 0.6, 0.61]
    assert overfit("train1", history(loss, steady, train, flat), LIMITS) is None


def test_undertrained_is_still_improving_at_the_last_epoch() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert undertrained("train1", history(falling, falling), LIMITS) is not None
    level = [1.0, 0.6, 0.5, 0.5, 0.5, 0.4999]
    assert undertrained("train1", history(level, level), LIMITS) is None
    assert undertrained("train1", history([1.0], [1.0]), LIMITS) is None


def test_a_learning_rate_is_too_high_where_training_loss_jumps_or_zigzags() -> None:
    for loss in ([2.0, 1.0, 2.5, 1.0, 0.9], [2.0, 2.1, 1.9, 2.0, 1.9, 2.0]):
        found = learning_rate_too_high("train1", history(loss, loss), LIMITS)
        assert found is not None
        assert re.search(r"learning rate (of up to )?0\.01 ", found.message)
    smooth = [2.0, 1.0, 0.5, 0.51, 0.4, 0.3]
    assert learning_rate_too_high("train1", history(smooth, smooth), LIMITS) is None
    tiny = [1.0, 0.1, 0.01, 0.001, 0.004, 0.001, 0.001]  # noise of a loss that is almost zero
    assert learning_rate_too_high("train1", history(tiny, tiny), LIMITS) is None


def test_the_rate_that_is_named_is_that_of_the_epochs_that_went_wrong() -> None:
    jump, zigzag = [2.0, 1.0, 0.9, 2.5, 1.0, 0.9], [2.0, 1.9, 2.1, 1.9, 2.2, 1.5]
    warm_up = {"learning_rate": np.array([1e-5, 1e-3, 0.01, 0.1, 0.05, 1.0])}
    jumped = learning_rate_too_high("train1", history(jump, jump) | warm_up, LIMITS)
    assert jumped is not None
    assert "learning rate 0.1 training loss jumps" in jumped.message
    risen = learning_rate_too_high("train1", history(zigzag, zigzag) | warm_up, LIMITS)
    assert risen is not None
    assert "up to 0.05 training loss rises in 2 of 5" in risen.message
    assert [one.evidence["learning_rate"] for one in (jumped, risen)] == [0.1, 0.05]


def test_a_loss_that_flickers_near_zero_has_no_learning_rate_too_high() -> None:
    flicker = [1.0, 0.1, 0.0040, 0.0047, 0.0041, 0.0046, 0.0040, 0.0047, 0.0042, 0.0046]
    assert learning_rate_too_high("train1", history(flicker, flicker), LIMITS) is None
    for file in RECORDS.glob("dogs3-augmented/long/seed*/history.csv"):
        assert learning_rate_too_high("long", read_history(file), LIMITS) is None, file


def test_not_a_number_names_the_epoch() -> None:
    found = not_a_number("train1", history([1.0, np.nan], [1.0, np.nan]), LIMITS)
    assert found is not None
    assert found.evidence == {"epoch": 2}
    assert not_a_number("train1", history([1.0], [1.0]), LIMITS) is None


def test_only_copies_across_splits_are_a_leak() -> None:
    across = ["a.png", "train", "b.png", "test"]
    (found,) = leak([across, ["c.png", "test", "d.png", "test"]], LIMITS)
    assert "1 image is in two splits, first a.png (train) and b.png (test)" in found.message
    assert leak([["c.png", "test", "d.png", "test"]], LIMITS) == []


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
        found = diagnose(page, tmp_path, compare(page, tmp_path), duplicates=pairs)
        (one,) = [one for one in found if one.code == "LEAK"]
        assert one.evidence["pairs"] == leaks


def test_small_test_and_seed_noise_need_differences_within_the_noise(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page, accuracy={"train1": 0.75, "train2": 0.75, "train3": 0.755})
    alike = compare(page, tmp_path)
    assert codes(small_test(alike, LIMITS)) == ["SMALL-TEST"]
    gains = alike.rows.set_index("experiment")["test_accuracy"]
    noisy = {one.experiment for one in seed_noise(alike, Thresholds(seed_noise_ratio=0))}
    assert noisy == {
        child
        for child, parent in (("train2", "train1"), ("train3", "train2"))
        if gains[child] > gains[parent]
    }
    make_results(tmp_path, page, accuracy={"train1": 0.3, "train2": 0.6, "train3": 0.9})
    apart = compare(page, tmp_path)
    assert small_test(apart, LIMITS) == []
    assert seed_noise(apart, LIMITS) == []


def test_small_test_asks_for_seeds_where_no_number_of_images_would_do(tmp_path: Path) -> None:
    page = make_page(seeds=(0, 1, 2))
    make_results(tmp_path, page, accuracy={"train1": 0.75, "train2": 0.75, "train3": 0.755})
    alike = compare(page, tmp_path)
    by_seeds = replace(alike, pairs=alike.pairs.assign(images_needed=np.inf))
    (found,) = small_test(by_seeds, LIMITS)
    assert "200 test images and these seeds show differences" in found.message
    assert found.advice.startswith("Run more seeds (more images would not do)")
    by_images = alike.pairs.assign(images_needed=900.0, covers=COVERS_IMAGES)
    (found,) = small_test(replace(alike, pairs=by_images), LIMITS)
    assert "200 test images show differences" in found.message
    assert found.advice.startswith("Measure on more images")


# a notebook


def test_a_notebook_chosen_on_its_test_images_says_so_even_without_runs(tmp_path: Path) -> None:
    page = make_page()
    for one in page["experiments"]:
        one["spec"] = make_spec("shapes", one["name"], validation="test")
    found = diagnose(page, tmp_path, compare(page, tmp_path))
    assert codes(found) == ["CHERRY-PICKED"]


def test_a_run_that_collapsed_is_found_with_its_seeds(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page)
    for seed in (0, 1):
        folder = tmp_path / f"shapes/train2/seed{seed}"
        with h5py.File(folder / "predictions.h5", "r+") as file:
            for split in file["best"].values():
                prior = np.bincount(split["labels"][...], minlength=3) / len(split["labels"])
                split["logits"][...] = np.log(prior)
        write_metrics(folder / "predictions.h5", folder / "metrics.json")
    found = diagnose(page, tmp_path, compare(page, tmp_path))
    (collapsed,) = [one for one in found if one.code == "PRIOR-COLLAPSE"]
    assert (collapsed.experiment, collapsed.seeds) == ("train2", (0, 1))
    assert collapsed.advice
    assert collapsed.page == "docs/diagnoses.md#prior-collapse"


def test_a_diverged_run_without_metrics_is_found_in_its_history(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page)
    folder = tmp_path / "shapes/train1/seed0"
    (folder / "metrics.json").unlink()
    text = (folder / "history.csv").read_text().splitlines()
    text[-1] = "8,nan,0.1,nan,0.1,0.001,1.0"
    (folder / "history.csv").write_text("\n".join(text) + "\n")
    found = diagnose(page, tmp_path, compare(page, tmp_path))
    (broken,) = [one for one in found if one.code == "NAN"]
    assert (broken.experiment, broken.evidence) == ("train1", {"epoch": 8})


def test_a_recorded_finding_is_kept_beside_a_run_that_does_not_show_it(tmp_path: Path) -> None:
    page = make_page()
    page["experiments"][0]["recorded"] = {"train_accuracy": 0.92, "val_accuracy": 0.76}
    make_results(tmp_path, page)
    found = diagnose(page, tmp_path, compare(page, tmp_path))
    (one,) = [one for one in found if one.code == "OVERFIT"]
    assert one.recorded


def test_a_code_is_muted_everywhere_or_for_one_experiment(tmp_path: Path) -> None:
    page = make_page()
    for one in page["experiments"]:
        one["recorded"] = {"train_accuracy": 0.92, "val_accuracy": 0.76}
    comparison = compare(page, tmp_path)
    assert codes(diagnose(page, tmp_path, comparison)) == ["OVERFIT"] * 3
    assert diagnose(page | {"diagnoses": {"mute": ["OVERFIT"]}}, tmp_path, comparison) == []
    one_muted = page | {"diagnoses": {"mute": ["OVERFIT:train2"]}}
    some = diagnose(one_muted, tmp_path, comparison)
    assert [one.experiment for one in some] == ["train1", "train3"]
    higher = page | {"diagnoses": {"thresholds": {"overfit_gap_recorded": 0.2}}}
    assert diagnose(higher, tmp_path, comparison) == []


def test_classes_are_the_last_units() -> None:
    assert count_classes(make_spec("n", "a")) == 3
    unit = [{"class_name": "Dense", "config": {"units": 1, "activation": "sigmoid"}}]
    assert count_classes(make_spec("n", "a", layers=unit)) == 2


def test_the_docs_have_a_section_a_code_and_every_threshold_with_its_default() -> None:
    text = (Path(__file__).parent.parent / "docs" / "diagnoses.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.+)$", text, re.MULTILINE)) >= set(CODES)
    documented = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE))
    assert {name: float(value) for name, value in documented.items()} == {
        name: field.default for name, field in Thresholds.model_fields.items()
    }

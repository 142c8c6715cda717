"""Comparisons against independent computations, by simulation, and as tables a reader gets."""

from __future__ import annotations

import io
import json
import math
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from result_trees import (
    copy_experiment,
    experiment_folder,
    make_page,
    make_results,
    make_spec,
    run_files,
)
from scratchbook.changes import layer_diff
from scratchbook.comparison import (
    changes,
    compare,
    latex,
    markdown,
    resolve_claim,
    write_comparison,
)
from scratchbook.comparison.statistics import (
    accuracies_interval,
    accuracy_interval,
    bca_interval,
    detectable,
    difference,
    difference_p,
    holm,
    images_needed,
    mcnemar,
    seed_spreads,
    summarise,
)
from scratchbook.comparison.verdict import COVERS_BOTH, COVERS_IMAGES, pair_verdict
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import wilson
from scratchbook.results.paths import NotebookFiles, Results
from scratchbook.results.reading import read_runs


def simulate(
    rng: np.random.Generator, seeds: int, images: int, spread: float, skill: list[float]
) -> list[np.ndarray]:
    """Right answers of nets that share hard images, each bool (seeds, images).

    An answer is right where image, seed and chance together, all normal, stay below `skill`.
    """
    hard = rng.standard_normal(images)
    return [
        math.sqrt(0.7) * hard + math.sqrt(0.3) * rng.standard_normal((seeds, images))
        < one + spread * rng.standard_normal((seeds, 1))
        for one in skill
    ]


def true_accuracy(skill: float, spread: float) -> float:
    return float(stats.norm.cdf(skill / math.sqrt(1 + spread**2)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_results(tmp_path, make_page())
    return tmp_path


# statistics


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p)), multipletests(p, method="holm")[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_mcnemar_agrees_with_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 1, 50)) < rng.random((2, 1, 1))
    both = (first & second).sum(), (first & ~second).sum()
    neither = (~first & second).sum(), (~first & ~second).sum()
    expected = statsmodels_mcnemar([both, neither], exact=True).pvalue
    assert mcnemar(*summarise([first, second])) == pytest.approx(expected)


def test_bca_interval_agrees_with_scipy_for_one_seed() -> None:
    first, second = simulate(np.random.default_rng(3), 1, 400, 0, [0.8, 1.0])
    off = second[0].astype(float) - first[0]
    expected = stats.bootstrap(
        (off,), np.mean, method="BCa", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    found = difference(*summarise([first, second]))
    low, high = bca_interval(found, np.random.default_rng(0), 9999)
    # one image more or less, and the resampling's own noise
    assert low == pytest.approx(expected.low, abs=0.004)
    assert high == pytest.approx(expected.high, abs=0.004)


def test_seed_variance_is_that_of_a_two_way_analysis_of_variance() -> None:
    answers = simulate(np.random.default_rng(0), 4, 300, 0.3, [0.5])[0].astype(float)
    seeds, images = answers.shape
    off = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=0) + answers.mean()
    residual = (off**2).sum() / ((seeds - 1) * (images - 1))
    between = images * answers.mean(axis=1).var(ddof=1)
    expected = (between - residual) / images / seeds  # of the mean over the seeds
    assert summarise([answers.astype(bool)])[0].seed_variance == pytest.approx(expected)


def test_p_of_one_paired_difference_is_the_t_test_where_only_images_vary() -> None:
    answers = simulate(np.random.default_rng(8), 2, 300, 0, [0.5, 0.6])
    same = [np.stack([one[0], one[0]]) for one in answers]  # two seeds that agree
    found = difference(*summarise(same))
    expected = stats.ttest_rel(same[1][0].astype(float), same[0][0].astype(float)).pvalue
    assert difference_p(found) == pytest.approx(expected)


def test_interval_of_one_seed_is_wilsons() -> None:
    answers = simulate(np.random.default_rng(2), 1, 200, 0, [0.5])[0]
    np.testing.assert_allclose(
        accuracy_interval(summarise([answers])[0]), wilson(answers.mean(), 200)
    )


def test_an_experiment_with_wild_seeds_keeps_its_own_variance() -> None:
    calm = [[0.80, 0.81, 0.805], [0.82, 0.815, 0.81], [0.79, 0.80, 0.795]]
    spreads = seed_spreads([*calm, [0.2, 0.8, 0.5], [0.8]])
    assert [one.shared for one in spreads] == [True, True, True, False, True]
    assert spreads[3].variance == pytest.approx(np.var([0.2, 0.8, 0.5], ddof=1))
    units = [np.mean(x) * (1 - np.mean(x)) for x in calm]
    pooled = np.mean([np.var(x, ddof=1) / unit for x, unit in zip(calm, units, strict=True)])
    assert [one.variance for one in spreads[:3]] == pytest.approx(pooled * np.array(units))
    assert spreads[4].degrees == 6  # one seed alone borrows the others'


def test_a_perfect_experiment_among_others_keeps_an_interval() -> None:
    others = simulate(np.random.default_rng(2), 2, 100, 0.2, [0.5, 0.8])
    answers = summarise([*others, np.ones((2, 100), bool)])
    np.testing.assert_allclose(accuracy_interval(answers[2]), wilson(1.0, 100))
    found = difference(answers[0], answers[2])
    low, high = bca_interval(found, np.random.default_rng(0), 1000)
    assert low < found.value < high


@settings(max_examples=150, deadline=None)
@example(seed=2, seeds=(4, 2), images=2)
@given(
    seed=st.integers(0, 9999),
    seeds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    images=st.integers(1, 60),
)
def test_a_difference_is_inside_its_interval_and_turns_with_its_sides(
    seed: int, seeds: tuple[int, int], images: int
) -> None:
    rng = np.random.default_rng(seed)
    answers = [rng.random((count, images)) < rng.random() for count in seeds]
    first, second = summarise(answers)
    found, turned = difference(first, second), difference(second, first)
    assert found.value == pytest.approx(answers[1].mean() - answers[0].mean())
    assert turned.value == pytest.approx(-found.value)
    assert difference_p(turned) == pytest.approx(difference_p(found))
    low, high = bca_interval(found, np.random.default_rng(seed), 500)
    assert -1 <= low <= found.value + 1e-9
    assert found.value - 1e-9 <= high <= 1
    assert 0 <= mcnemar(first, second) <= 1
    assert detectable(found) > 0


def test_the_same_seed_gives_the_same_interval() -> None:
    found = difference(*summarise(simulate(np.random.default_rng(0), 2, 200, 0.1, [0.5, 0.7])))
    one = bca_interval(found, np.random.default_rng(1), 1000)
    assert one == bca_interval(found, np.random.default_rng(1), 1000)
    assert one != bca_interval(found, np.random.default_rng(2), 1000)


def test_images_needed_shows_the_difference_it_was_computed_for() -> None:
    found = difference(*summarise(simulate(np.random.default_rng(0), 1, 500, 0, [0.5, 0.52])))
    share = images_needed(found) / found.images
    assert detectable(found) / math.sqrt(share) == pytest.approx(abs(found.value))


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    shown = []
    for _ in range(400):
        answers = summarise(simulate(rng, 1, 1000, 0, [0.84, 1.0]))
        found = difference(*answers)
        truth = true_accuracy(1.0, 0) - true_accuracy(0.84, 0)
        power = stats.norm.cdf(truth / math.sqrt(found.image_variance) - 1.96)
        shown.append((mcnemar(*answers) < 0.05, power))
    found_share, expected = np.mean(shown, axis=0)
    assert found_share == pytest.approx(expected, abs=0.06)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "spread"), [(1, 0.0), (2, 0.05), (2, 0.15), (3, 0.05), (3, 0.15), (5, 0.05)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    """2,000 notebooks of three experiments, 500 test images; spread 0.05 is 1.4 points a seed."""
    rng = np.random.default_rng([seeds, round(spread * 100)])
    skill = [0.84, 0.84, 1.0]
    truth = [true_accuracy(one, spread) for one in skill]
    paired, single, false = [], [], []
    for _ in range(2000):
        answers = summarise(simulate(rng, seeds, 500, spread, skill))
        for one, right in zip(answers, truth, strict=True):
            low, high = accuracy_interval(one)
            single.append(low <= right <= high)
        for i, j in ((0, 1), (1, 2)):
            found = difference(answers[i], answers[j])
            low, high = bca_interval(found, rng, 2000)
            paired.append(low <= truth[j] - truth[i] <= high)
            if i == 0:
                known = found.seeds_known
                p = difference_p(found) if known else mcnemar(answers[0], answers[1])
                false.append(p < 0.05 and (low > 0 or high < 0))
    assert 0.93 <= np.mean(paired) <= 0.97
    assert 0.93 <= np.mean(single) <= 0.97
    # 5 %, and three standard errors of 2,000 simulated notebooks, as six settings are tried
    assert np.mean(false) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.long
def test_intervals_from_the_seeds_accuracies_alone_are_not_too_narrow() -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(1000):
        answers = simulate(rng, 3, 500, 0.05, [0.84, 0.84, 1.0])
        values = [one.mean(axis=1) for one in answers]
        low, high = accuracies_interval(values[0], 500, seed_spreads(values)[0])
        covered.append(low <= true_accuracy(0.84, 0.05) <= high)
    assert np.mean(covered) >= 0.93


@pytest.mark.long
def test_identical_experiments_in_a_notebook_get_no_verdict_19_times_in_20() -> None:
    """Five equal experiments, three seeds: one false "better" among ten pairs is a failure."""
    rng = np.random.default_rng(11)
    failures = 0
    for _ in range(1000):
        answers = summarise(simulate(rng, 3, 300, 0.05, [0.84] * 5))
        pairs = [(a, b) for i, a in enumerate(answers) for b in answers[:i]]
        p = np.array([difference_p(difference(a, b)) for a, b in pairs])
        failures += bool((holm(p) < 0.05).any())
    assert failures / 1000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


# verdicts


def say(
    difference: float, low: float, high: float, p: float, comparisons: int = 1, **changed: object
) -> str:
    pair = {"first": "train1", "second": "train2", "difference": difference, "low": low,
            "high": high, "p_holm": p, "images": 1000, "first_seeds": 2, "second_seeds": 2,
            "covers": COVERS_BOTH, "images_needed": 8734.0}  # fmt: skip
    return pair_verdict(pair | changed, comparisons)


def test_verdicts_read_as_plain_sentences() -> None:
    assert say(0.041, 0.029, 0.053, 0.001) == "train2 is better: +4.1 points [2.9, 5.3]"
    assert say(-0.041, -0.053, -0.029, 0.001) == "train1 is better: +4.1 points [2.9, 5.3]"
    assert say(0.007, -0.01, 0.02, 0.5) == (
        "no difference that 1,000 images and 2 seeds could show; about 8,800 images would be needed"
    )
    assert "more seeds are needed" in say(0.007, -0.01, 0.02, 0.5, images_needed=math.inf)
    assert "among 10 comparisons" in say(0.02, 0.001, 0.04, 0.3, comparisons=10)
    assert "it may be the seed" in say(0.041, 0.029, 0.053, 0.001, covers=COVERS_IMAGES)
    assert "one of them has no result" in say(math.nan, math.nan, math.nan, math.nan)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.floats(1, 1e9))
def test_a_verdict_claims_a_winner_only_where_interval_and_p_both_do(
    value: float, below: float, above: float, p: float, needed: float
) -> None:
    low, high = value - below, value + above
    said = say(value, low, high, p, images_needed=needed)
    assert (" is better:" in said) == ((low > 0 or high < 0) and p < 0.05)


# tables


def test_a_row_is_the_mean_over_its_seeds_with_every_value(tree: Path) -> None:
    found = compare(make_page(), Results(tree))
    row = found.rows.set_index("experiment").loc["train2"]
    values = [
        json.loads(run_files(tree, "train2", seed).metrics.read_text())["splits"]["test"]
        for seed in (0, 1)
    ]
    measured = [one["accuracy"]["value"] for one in values]
    assert row["test_accuracy"] == pytest.approx(np.mean(measured))
    assert [float(x) for x in row["test_accuracy_values"].split(";")] == pytest.approx(measured)
    assert row["seeds"] == 2
    assert row["test_accuracy_low"] < row["test_accuracy"] < row["test_accuracy_high"]
    assert row["interval_covers"] == "images and seeds"
    assert row["gap"] == pytest.approx(row["train_accuracy"] - row["val_accuracy"])
    assert row["changes"] == "optimizer: Adam: learning_rate 0.01 → 0.005"
    assert row["recorded_difference"] == pytest.approx(row["val_accuracy"] - 0.75)
    assert row["id"] == "shapes-1030"


def test_a_row_tells_the_arithmetic_of_the_training_and_until_the_accuracy_to_reach(
    tree: Path,
) -> None:
    histories = [
        pd.read_csv(run_files(tree, "train2", seed).history)["val_accuracy"] for seed in (0, 1)
    ]
    reach = float(min(history.max() for history in histories))
    row = compare(make_page(reach=reach), Results(tree)).rows.set_index("experiment").loc["train2"]
    run = json.loads(run_files(tree, "train2").record.read_text())
    forward = sum(layer["multiply_adds"] for layer in run["layers"])
    assert row["multiply_adds"] == forward > 0
    an_epoch = 2 * 3 * forward * run["data"]["counts"]["train"]
    assert row["training_flops"] == pytest.approx(an_epoch * run["epochs"])
    first = [1 + int((history >= reach).idxmax()) for history in histories]
    assert row["reached_epoch"] == pytest.approx(np.mean(first))
    assert row["reached_flops"] == pytest.approx(an_epoch * np.mean(first))


def test_an_accuracy_that_one_seed_never_reaches_has_no_epoch(tree: Path) -> None:
    file = run_files(tree, "train2", 1).history
    history = pd.read_csv(file)
    reach = float(history["val_accuracy"].max())
    history["val_accuracy"] -= 0.01
    history.to_csv(file, index=False)
    row = compare(make_page(reach=reach), Results(tree)).rows.set_index("experiment").loc["train2"]
    assert math.isnan(row["reached_epoch"])
    assert math.isnan(row["reached_flops"])


def test_rows_are_sorted_by_the_metric_and_compared_with_the_baseline(tree: Path) -> None:
    found = compare(make_page(baseline="train2"), Results(tree))
    rows = found.rows.set_index("experiment")
    assert found.rows["test_accuracy"].is_monotonic_decreasing
    assert math.isnan(rows.loc["train2", "baseline_difference"])
    for name in ("train1", "train3"):
        row = rows.loc[name]
        gain = row["test_accuracy"] - rows.loc["train2", "test_accuracy"]
        assert row["baseline_difference"] == pytest.approx(gain)
        assert row["baseline_difference_low"] <= gain <= row["baseline_difference_high"]


def test_every_pair_has_a_row_with_what_it_was_measured_on(tree: Path) -> None:
    pairs = compare(make_page(), Results(tree)).pairs
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [
        ("train1", "train2"),
        ("train1", "train3"),
        ("train2", "train3"),
    ]
    assert set(pairs["images"]) == {200}
    gain = (pairs["only_second"] - pairs["only_first"]) / pairs["images"]
    np.testing.assert_allclose(gain, pairs["difference"])
    assert (pairs["p_holm"] >= pairs["p"]).all()


def test_nets_that_answer_alike_tie_and_a_worse_one_does_not(tmp_path: Path) -> None:
    page = make_page(seeds=(0,))
    make_results(tmp_path, page, accuracy={"train1": 0.8, "train2": 0.8, "train3": 0.3})
    one, other = (run_files(tmp_path, name) for name in ("train1", "train2"))
    shutil.copy(one.predictions, other.predictions)
    shutil.copy(one.metrics, other.metrics)
    found = compare(page, Results(tmp_path))
    assert dict(zip(found.rows["experiment"], found.rows["tie"], strict=True)) == {
        "train1": True,
        "train2": True,
        "train3": False,
    }
    assert found.pairs["verdict"][0].startswith("no difference: train1 and train2 got equally many")
    assert found.rows["interval_covers"][0] == "images (one seed)"


def test_missing_and_failed_runs_leave_rows_that_say_so(tree: Path) -> None:
    shutil.rmtree(experiment_folder(tree, "train1"))
    run_files(tree, "train2", 1).metrics.unlink()
    with h5py.File(run_files(tree, "train3").predictions, "r+") as file:
        file["best/test/logits"][5] = np.nan
    found = compare(make_page(), Results(tree))
    status = found.rows.set_index("experiment")["status"]
    assert status["train1"].startswith("failed: seed 0 was not trained (no run.json); seed 1")
    assert status["train2"] == "incomplete: seed 1 was not evaluated (no metrics.json)"
    assert "1 of 200 images are NaN" in status["train3"]
    assert len(found.pairs) == 1
    assert found.rows["experiment"].iloc[-1] == "train1"
    assert "train1" in markdown(found)


def test_a_run_is_its_keys_whatever_the_spec_that_its_record_holds(tree: Path) -> None:
    before = compare(make_page(), Results(tree))
    page = make_page()
    page["experiments"][1]["spec"]["batch_size"] = 7  # as where a default was written otherwise
    found = compare(page, Results(tree))
    assert (found.rows["status"] == "complete").all()
    pd.testing.assert_frame_equal(found.pairs, before.pairs)
    page["experiments"][1]["runs"] = {seed: f"shapes-{7:012x}/seed{seed}" for seed in (0, 1)}
    status = compare(page, Results(tree)).rows.set_index("experiment")["status"]
    assert status["train2"].startswith("failed: seed 0 was not trained (no run.json); seed 1")


def test_a_diverged_seed_is_left_out_of_the_figures_and_its_row_says_so(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page, diverged={("train2", 0): 3, ("train3", 0): 1, ("train3", 1): 0})
    found = compare(page, Results(tmp_path))
    rows = found.rows.set_index("experiment")
    assert rows.loc["train2", "status"] == "incomplete: seed 0 diverged in epoch 3"
    assert rows.loc["train3", "status"] == (
        "diverged: seed 0 diverged in epoch 1; seed 1 diverged, as the run that it starts from did"
    )
    only = json.loads(run_files(tmp_path, "train2", 1).metrics.read_text())["splits"]["test"]
    assert rows.loc["train2", "test_accuracy"] == only["accuracy"]["value"]
    assert rows.loc["train2", "seeds"] == 1
    assert math.isnan(rows.loc["train3", "test_accuracy"])
    assert list(found.pairs[["first", "second", "second_seeds"]].itertuples(index=False)) == [
        ("train1", "train2", 1)
    ]


def test_a_seed_that_the_notebook_leaves_out_is_not_missed_and_its_row_names_it(
    tree: Path,
) -> None:
    page = make_page()
    for experiment, rest in zip(page["experiments"], ((0,), (1,), (0, 1)), strict=True):
        experiment["left_out"] = [seed for seed in (0, 1) if seed not in rest]
        experiment["runs"] = {seed: experiment["runs"][seed] for seed in rest}
    run_files(tree, "train2", 1).metrics.unlink()
    rows = compare(page, Results(tree)).rows.set_index("experiment")
    assert rows["status"].to_dict() == {
        "train1": "complete; seed 1 left out",
        "train2": "failed: seed 1 was not evaluated (no metrics.json); seed 0 left out",
        "train3": "complete",
    }
    assert rows["seeds"].to_dict() == {"train1": 1, "train2": 0, "train3": 2}


def test_experiments_that_are_the_same_runs_are_counted_once(tree: Path) -> None:
    page = make_page(experiments=("train1", "train2", "again"), baseline="again")
    page["experiments"][2]["runs"] = page["experiments"][0]["runs"]
    found = compare(page, Results(tree))
    rows = found.rows.set_index("experiment")
    # The baseline stands for both, though it is declared last.
    assert rows["status"].to_dict() == {
        "train1": "complete; the same run as again",
        "train2": "complete",
        "again": "complete",
    }
    assert list(found.pairs[["first", "second"]].itertuples(index=False)) == [("train2", "again")]

    # They count once as well for what a seed changes, and for how many are compared.
    alone = compare(make_page(experiments=("train1", "train2")), Results(tree))
    pair, expected = found.pairs.iloc[0], alone.pairs.iloc[0]
    assert pair["p_holm"] == expected["p_holm"]
    assert pair["difference"] == -expected["difference"]
    figures = [name for name in rows if name.startswith(("test_", "val_", "tie"))]
    for name, same in (("again", "train1"), ("train1", "train1"), ("train2", "train2")):
        row = alone.rows.set_index("experiment").loc[same, figures]
        pd.testing.assert_series_equal(rows.loc[name, figures], row, check_names=False)


def test_the_best_experiment_does_not_tie_with_its_own_runs(tree: Path) -> None:
    page = make_page(experiments=("train1", "train3", "again"))
    page["experiments"][2]["runs"] = page["experiments"][1]["runs"]
    for position, accuracy in enumerate((0.3, 0.9)):
        one = page | {"experiments": [page["experiments"][position]]}
        make_results(tree, one, accuracy=dict.fromkeys(("train1", "train3"), accuracy))
    assert compare(page, Results(tree)).rows["tie"].to_dict() == {0: False, 1: False, 2: False}


def test_runs_csv_says_which_run_is_whose(tree: Path, tmp_path: Path) -> None:
    page = make_page(experiments=("train1", "nan"))
    page["experiments"][1]["runs"] = {1: page["experiments"][0]["runs"][1]}
    files = NotebookFiles(tmp_path / "made")
    write_comparison(compare(page, Results(tree)), files)
    one = page["experiments"][0]["runs"]
    assert files.runs.read_text().splitlines() == [
        "experiment,seed,run,fold",
        f"train1,0,{one[0]},",
        f"train1,1,{one[1]},",
        f"nan,1,{one[1]},",
    ]
    assert read_runs(files.runs) == [
        {"experiment": name, "seed": seed, "run": one[seed], "fold": ""}
        for name, seed in (("train1", 0), ("train1", 1), ("nan", 1))
    ]


def test_a_notebook_without_any_run_is_still_a_table(tmp_path: Path) -> None:
    found = compare(make_page(), Results(tmp_path))
    assert len(found.rows) == 3
    assert found.pairs.empty
    write_comparison(found, NotebookFiles(tmp_path))


def test_runs_measured_on_different_images_are_refused_and_both_named(tmp_path: Path) -> None:
    page = make_page()
    make_results(tmp_path, page)
    other = tmp_path / "other"
    make_results(other, page, counts={"test": 150})
    shutil.rmtree(experiment_folder(tmp_path, "train2"))
    shutil.copytree(experiment_folder(other, "train2"), experiment_folder(tmp_path, "train2"))
    message = r"train1/seed0 and train2/seed0 .*200 and 150 images"
    with pytest.raises(ScratchbookError, match=message):
        compare(page, Results(tmp_path))
    status = compare(page, Results(tmp_path), partial=True).rows.set_index("experiment")["status"]
    assert "train1/seed0 and train2/seed0 cannot be compared" in status["train2"]
    assert (status.drop("train2") == "complete").all()


def test_images_in_another_order_are_the_same_images(tree: Path) -> None:
    before = compare(make_page(), Results(tree))
    with h5py.File(run_files(tree, "train2").predictions, "r+") as file:
        group = file["best/test"]
        for name in ("logits", "labels", "index"):
            group[name][...] = group[name][...][::-1]
    pd.testing.assert_frame_equal(compare(make_page(), Results(tree)).pairs, before.pairs)


def test_val_accuracy_is_the_test_split_where_the_page_chose_on_it(tmp_path: Path) -> None:
    page = make_page(metric="val_accuracy")
    for one in page["experiments"]:
        one["spec"] = make_spec(validation="test")
    make_results(tmp_path, page)
    found = compare(page, Results(tmp_path))
    assert set(found.pairs["split"]) == {"test"}
    np.testing.assert_array_equal(found.rows["val_accuracy"], found.rows["test_accuracy"])


def test_more_than_fifty_experiments_are_compared_with_the_baseline_only(tmp_path: Path) -> None:
    names = tuple(f"t{i:02}" for i in range(52))
    make_results(tmp_path, make_page(experiments=names[:2], seeds=(0,)))
    page = make_page(experiments=names, seeds=(0,))
    for experiment in page["experiments"][2:]:
        source, folder = (experiment_folder(tmp_path, x) for x in ("t01", experiment["name"]))
        copy_experiment(source, folder, experiment["spec"])
    pairs = compare(page, Results(tmp_path), resamples=100).pairs
    assert len(pairs) == 51
    assert set(pairs["first"]) == {"t00"}


def test_all_five_tables_are_written_and_the_csv_reads_back(tree: Path) -> None:
    found = compare(make_page(), Results(tree))
    files = NotebookFiles(tree / "shapes")
    write_comparison(found, files)
    assert {path.name for path in files.folder.iterdir() if path.is_file()} == {
        "compare.csv",
        "comparisons.csv",
        "compare.md",
        "compare.tex",
        "runs.csv",
    }
    back = pd.read_csv(files.compare, keep_default_na=False, na_values=[""])
    np.testing.assert_array_equal(back["test_accuracy"], found.rows["test_accuracy"])
    assert list(back.columns) == list(found.rows.columns)


def test_latex_and_markdown_escape_what_would_break_them(tree: Path) -> None:
    found = compare(make_page(), Results(tree))
    rows = found.rows.copy()
    rows.loc[0, "changes"] = "a|b 50% & _x_ → y < z"
    edited = replace(found, rows=rows)
    assert r"a\textbar{}b 50\% \& \_x\_ $\rightarrow$ y \textless{} z" in latex(edited)
    assert r"a\|b" in markdown(edited)
    lines = markdown(edited).splitlines()
    assert len(pd.read_csv(io.StringIO("\n".join(lines)), sep=r"(?<!\\)\|", engine="python")) == 4


# changes


def test_changes_name_keys_and_layers() -> None:
    old = make_spec()
    new = make_spec(
        layers=[
            {"class_name": "Conv2D", "config": {"filters": 16, "kernel_size": 3}},
            {"class_name": "Dropout", "config": {"rate": 0.5}},
            *old["layers"][1:],
        ],
        optimizer={"class_name": "SGD", "config": {"learning_rate": 0.1}},
        batch_size=64,
        augment=[{"class_name": "RandomFlip", "config": {}}],
    )
    assert changes(old, new) == [
        "Conv2D: filters 8 → 16, activation relu → none",
        "+ Dropout(rate=0.5)",
        "augment: + RandomFlip",
        "batch_size: 32 → 64",
        "optimizer: Adam(learning_rate=0.01) → SGD(learning_rate=0.1)",
    ]
    assert changes(old, make_spec()) == []


def test_a_schedule_and_a_warm_start_are_changes() -> None:
    new = make_spec(
        schedule={"warm_up": 0, "decay": "step", "every": 5, "factor": 0.1},
        initial_weights={"experiment": "a", "checkpoint": 3},
    )  # fmt: skip
    assert changes(make_spec(), new) == [
        "initial_weights: none → experiment=a, checkpoint=3",
        "schedule: none → warm_up=0, decay=step, every=5, factor=0.1",
    ]


def test_a_layer_with_other_arguments_is_one_change() -> None:
    old = make_spec()
    wider = {"class_name": "Dense", "config": {"units": 5, "activation": "softmax", "name": "x"}}
    new = make_spec(layers=[*old["layers"][:2], wider])
    assert changes(old, new) == ["Dense: units 3 → 5"]


def test_a_change_inside_a_residual_block_is_told_alone() -> None:
    def block(rate: float, *more: dict) -> dict:
        layers = [{"class_name": "Dropout", "config": {"rate": rate}}, *more]
        return make_spec(layers=[{"class_name": "Residual", "config": {"layers": layers}}])

    flatten = {"class_name": "Flatten", "config": {}}
    assert changes(block(0.1), block(0.5, flatten)) == [
        "Residual: layers (Dropout: rate 0.1 → 0.5; + Flatten)"
    ]


ENTRIES = st.lists(
    st.builds(
        lambda name, rate: {"class_name": name, "config": {"rate": rate}},
        st.sampled_from(["Dense", "Dropout", "Flatten"]),
        st.integers(0, 2),
    ),
    max_size=8,
)


@given(before=ENTRIES, after=ENTRIES)
def test_a_diff_holds_every_layer_of_both_once_and_in_order(before: list, after: list) -> None:
    rows = layer_diff(before, after)
    assert [old for _, old, _ in rows if old] == before
    assert [new for _, _, new in rows if new] == after
    assert all((mark == "=") == (old == new) for mark, old, new in rows)
    assert (changes(make_spec(layers=before), make_spec(layers=after)) == []) == (before == after)


# claims


def table(**values: float) -> pd.DataFrame:
    return pd.DataFrame([{"experiment": "train2", "status": "complete", **values}])


def test_a_claim_is_filled_in_and_agrees_within_rounding() -> None:
    claim = resolve_claim("best {train2.val_accuracy:.2f}", table(val_accuracy=0.8261), 0.83)
    assert (claim.text, claim.status) == ("best 0.83", "measured")


def test_a_claim_that_differs_says_both_figures() -> None:
    claim = resolve_claim("best {train2.val_accuracy:.2f}", table(val_accuracy=0.8245), 0.83)
    assert (claim.status, claim.message) == (
        "differs from recorded",
        "recorded 0.83, measured 0.82",
    )


def test_a_percentage_is_held_against_a_recorded_fraction() -> None:
    claim = resolve_claim("{train2.val_accuracy:.1%}", table(val_accuracy=0.8251), 0.825)
    assert (claim.text, claim.status) == ("82.5%", "measured")


def test_a_figure_that_no_run_measured_is_said_not_shown() -> None:
    claim = resolve_claim("best {train2.val_accuracy:.2f}", table(val_accuracy=math.nan), 0.83)
    assert claim.status == "not measured"
    assert claim.text == "best not measured"


def test_a_number_that_is_typed_in_is_unbound_and_named() -> None:
    claim = resolve_claim("best 0.83, {train2.test_accuracy:.2f} before", table(test_accuracy=0.8))
    assert (claim.status, claim.message) == ("unbound", "0.83 bound to no run")
    assert resolve_claim("a rate of 0.01", table(), settings={0.01}).status == "words"
    assert resolve_claim("same padding helps", table()).status == "words"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{train3.val_accuracy}", "train2"),
        ("{train2.val_acuracy}", "val_accuracy"),
        ("{train2.val_accuracy:.2x}", "number format"),
        ("{train2}", "no binding"),
    ],
)
def test_an_unusable_binding_is_named_with_what_would_do(text: str, expected: str) -> None:
    with pytest.raises(ScratchbookError, match=expected):
        resolve_claim(text, table(val_accuracy=0.5))


@given(st.floats(0, 1), st.integers(1, 4))
def test_a_figure_always_agrees_with_its_own_rounding(value: float, digits: int) -> None:
    text = f"{{train2.val_accuracy:.{digits}f}}"
    recorded = float(f"{value:.{digits}f}")
    claim = resolve_claim(text, table(val_accuracy=value), recorded)
    assert claim.status == "measured"


@pytest.mark.long
@pytest.mark.parametrize(("experiments", "pairs"), [(50, 1225), (1000, 999)])
def test_very_many_experiments_are_compared_within_a_minute_and_two_gigabytes(
    tmp_path: Path, experiments: int, pairs: int
) -> None:
    """10,000 test images and three seeds each; thirty prediction files, linked a hundredfold."""
    names, seeds = tuple(f"t{i:03}" for i in range(experiments)), (0, 1, 2)
    page = make_page(experiments=names, seeds=seeds)
    few = page | {"experiments": page["experiments"][:10]}
    make_results(tmp_path, few, counts={"train": 50, "validation": 50, "test": 10_000})
    for i, one in enumerate(page["experiments"][10:]):
        source, folder = (experiment_folder(tmp_path, x) for x in (names[i % 10], one["name"]))
        copy_experiment(source, folder, one["spec"])
    start = time.perf_counter()
    found = compare(page, Results(tmp_path))
    assert time.perf_counter() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2e6  # kilobytes
    assert (len(found.rows), len(found.pairs)) == (experiments, pairs)

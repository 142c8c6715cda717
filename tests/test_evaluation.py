"""Every figure of metrics.json against an independent computation, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, mannwhitneyu
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)
from statsmodels.stats.proportion import proportion_confint

from result_trees import write_split
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import (
    calibration,
    evaluate,
    evaluate_split,
    wilson,
    write_metrics,
)
from scratchbook.results.records import SplitPredictions


def random_split(n: int, classes: int, seed: int = 0) -> SplitPredictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1
    return SplitPredictions(logits, labels, np.arange(n))


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def write_predictions(
    path: Path, splits: dict[str, SplitPredictions], classes: int, **told: Any
) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["class_names"] = json.dumps(names(classes))
        file.attrs["validation"] = "validation"
        file.attrs.update(told)
        for when, epoch in (("best", 3), ("last", 5)):
            group = file.create_group(when)
            group.attrs["epoch"] = epoch
            for split, one in splits.items():
                write_split(group.create_group(split), one.logits, one.labels, one.index)
    return path


def test_four_images_worked_by_hand() -> None:
    logits = np.log([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9]])
    found = evaluate_split(
        SplitPredictions(logits, np.array([0, 0, 1, 1]), np.arange(4)), ["cat", "dog"]
    )
    assert found["accuracy"]["value"] == 0.75
    assert found["confusion"] == [[1, 1], [0, 2]]
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert found["brier"] == pytest.approx((0.2**2 + 0.6**2 + 0.3**2 + 0.1**2) / 4)
    assert found["auroc"] == 1.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    dog = found["per_class"][1]
    assert (dog["precision"], dog["recall"], dog["support"]) == (pytest.approx(2 / 3), 1.0, 2)
    assert found["majority"] == {"class": "cat", "accuracy": 0.5}
    assert found["prior_entropy"] == pytest.approx(np.log(2))


def test_figures_agree_with_other_routes_to_them() -> None:
    split = random_split(300, 12)
    found = evaluate_split(split, names(12))
    probability = softmax(split.logits)
    every = np.arange(12)
    confusion = np.array(found["confusion"])
    hits = confusion.diagonal()
    f1 = 2 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1))
    assert found["log_loss"] == pytest.approx(log_loss(split.labels, probability, labels=every))
    squares = (probability - np.eye(12)[split.labels]) ** 2
    assert found["brier"] == pytest.approx(squares.sum(axis=1).mean())
    assert found["top5"]["value"] == pytest.approx(
        top_k_accuracy_score(split.labels, split.logits, k=5, labels=every)
    )
    assert found["accuracy"]["value"] == pytest.approx(hits.sum() / confusion.sum())
    assert found["macro_f1"] == pytest.approx(f1.mean())
    assert found["prior_entropy"] == pytest.approx(entropy(confusion.sum(axis=1)))
    assert found["chance"] == 1 / 12


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 60),
    classes=st.integers(2, 12),
    met=st.integers(1, 12),
    levels=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:.*class")
def test_figures_agree_with_scikit_learns_with_ties_and_classes_that_are_never_met(
    n: int, classes: int, met: int, levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, min(met, classes), n)
    logits = rng.integers(0, levels, (n, classes)).astype(float)
    answer, every = logits.argmax(axis=1), np.arange(classes)
    found = evaluate_split(SplitPredictions(logits, labels, np.arange(n)), names(classes))

    assert found["confusion"] == confusion_matrix(labels, answer, labels=every).tolist()
    expected = precision_recall_fscore_support(labels, answer, labels=every, zero_division=0.0)
    for figure, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [one[figure] for one in found["per_class"]] == pytest.approx(list(values)), figure
    if classes > 2:
        expected_brier = brier_score_loss(labels, softmax(logits), labels=every)
        assert found["brier"] == pytest.approx(expected_brier)
    elif len(set(labels)) == 2:
        score = logits[:, 1] - logits[:, 0]
        assert found["brier"] == pytest.approx(brier_score_loss(labels, softmax(logits)[:, 1]))
        assert found["auroc"] == pytest.approx(roc_auc_score(labels, score))
        assert found["average_precision"] == pytest.approx(average_precision_score(labels, score))


def test_auroc_is_the_share_of_pairs_ranked_right() -> None:
    split = random_split(200, 2)
    score = split.logits[:, 1] - split.logits[:, 0]
    dogs, cats = score[split.labels == 1], score[split.labels == 0]
    expected = mannwhitneyu(dogs, cats).statistic / (len(dogs) * len(cats))
    assert evaluate_split(split, names(2))["auroc"] == pytest.approx(expected)


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    split = random_split(100, 2)
    order = np.argsort(split.logits[:, 0] - split.logits[:, 1])
    hits = split.labels[order] == 1
    at = np.cumsum(hits) / np.arange(1, 101)
    found = evaluate_split(split, names(2))
    assert found["average_precision"] == pytest.approx(at[hits].mean())


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 10), (8245, 10000)])
def test_wilson_interval_agrees_with_statsmodels(successes: int, n: int) -> None:
    expected = proportion_confint(successes, n, method="wilson")
    np.testing.assert_allclose(wilson(successes / n, n), expected, atol=1e-12)


def test_calibration_error_agrees_with_a_loop_over_the_bins() -> None:
    rng = np.random.default_rng(1)
    confidence, correct = rng.random(500), rng.random(500) < 0.6
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    found, bins = calibration(confidence, correct)
    assert found == pytest.approx(expected)
    assert sum(one["n"] for one in bins) == 500


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    classes=st.integers(2, 13),
    seed=st.integers(0, 99),
    scale=st.floats(0, 50),
)
def test_figures_stay_in_their_ranges_and_ignore_the_order_of_the_images(
    n: int, classes: int, seed: int, scale: float
) -> None:
    one = random_split(n, classes, seed)
    split = SplitPredictions(one.logits * scale, one.labels, one.index)
    found = evaluate_split(split, names(classes))
    for figure in ("macro_f1", "ece"):
        assert 0 <= found[figure] <= 1
    accuracy = found["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert found["log_loss"] >= 0
    assert np.sum(found["confusion"]) == n
    turned = np.random.default_rng(seed).permutation(n)
    again = evaluate_split(
        SplitPredictions(split.logits[turned], split.labels[turned], split.index[turned]),
        names(classes),
    )
    assert again["confusion"] == found["confusion"]
    assert again["log_loss"] == pytest.approx(found["log_loss"])
    json.dumps(found, allow_nan=False)


def test_a_split_of_one_class_has_no_auroc_and_says_why() -> None:
    split = random_split(20, 2)
    found = evaluate_split(SplitPredictions(split.logits, np.zeros(20, int), split.index), names(2))
    assert found["auroc"] is None
    assert found["undefined"]["auroc"] == "the split holds one class only"


def test_best_and_last_epoch_are_both_reported(tmp_path: Path) -> None:
    split = random_split(30, 3)
    found = evaluate(write_predictions(tmp_path / "p.h5", {"train": split, "test": split}, 3))
    assert (found["epoch"], found["last"]["epoch"]) == (3, 5)
    assert list(found["splits"]) == ["train", "test"]
    assert found["last"]["splits"]["test"]["accuracy"] == pytest.approx(
        found["splits"]["test"]["accuracy"]["value"]
    )


def test_nan_logits_leave_the_other_splits_figures_and_say_how_many_and_where(
    tmp_path: Path,
) -> None:
    good, bad = random_split(40, 3), random_split(30, 3)
    bad.logits[[4, 7], 1] = np.nan
    found = evaluate(write_predictions(tmp_path / "p.h5", {"train": good, "test": bad}, 3))
    assert list(found["splits"]) == list(found["last"]["splits"]) == ["train"]
    assert "best/test: the logits of 2 of 30 images are NaN" in found["trouble"][0]
    assert "(first: image 4)" in found["trouble"][0]
    assert found["last"]["trouble"][0].startswith("last/test")
    json.dumps(found, allow_nan=False)


def test_a_run_whose_last_epoch_diverged_keeps_the_figures_of_its_best(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.h5", {"test": random_split(30, 3)}, 3)
    with h5py.File(path, "r+") as file:
        file["last/test/logits"][0] = np.inf
    found = evaluate(path)
    assert "trouble" not in found
    assert found["splits"]["test"]["n"] == 30
    assert found["last"]["splits"] == {}


def test_a_run_that_diverged_has_the_figures_of_its_last_whole_epochs_and_says_when(
    tmp_path: Path,
) -> None:
    splits = {"train": random_split(40, 3), "test": random_split(30, 3)}
    whole = evaluate(write_predictions(tmp_path / "whole.h5", splits, 3))
    found = evaluate(write_predictions(tmp_path / "p.h5", splits, 3, diverged=6))
    assert found == whole | {"diverged": 6}
    assert "diverged" not in whole


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_diverged_at_once_has_no_figure_and_says_when(
    tmp_path: Path, epoch: int
) -> None:
    path, output = tmp_path / "predictions.h5", tmp_path / "metrics.json"
    with h5py.File(path, "w") as file:
        file.attrs["class_names"], file.attrs["validation"] = json.dumps(names(3)), "test"
        file.attrs["diverged"] = epoch
    write_metrics(path, output)
    assert json.loads(output.read_text()) == {
        "epoch": 0, "validation": "test", "class_names": names(3), "splits": {},
        "diverged": epoch, "last": {"epoch": 0, "splits": {}},
    }  # fmt: skip
    with h5py.File(path, "r+") as file:
        del file.attrs["diverged"]  # without which it is no result but a damage
    with pytest.raises(ScratchbookError, match="no group 'best'"):
        evaluate(path)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.h5", {"test": random_split(0, 3)}, 3)
    with pytest.raises(ScratchbookError, match="best/test holds no image"):
        evaluate(path)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.h5", {"test": random_split(9, 4)}, 3)
    with pytest.raises(ScratchbookError, match=r"logits \(9, 4\).* 3 class names"):
        evaluate(path)


@pytest.mark.parametrize("text", [None, b"not hdf5"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "predictions.h5"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ScratchbookError, match=r"predictions\.h5"):
        evaluate(path)


def test_a_refused_run_leaves_the_old_metrics_and_nothing_else(tmp_path: Path) -> None:
    split = random_split(9, 3)
    output = tmp_path / "out" / "metrics.json"
    write_metrics(write_predictions(tmp_path / "p.h5", {"test": split}, 3), output)
    before = output.read_bytes()
    with pytest.raises(ScratchbookError):
        write_metrics(write_predictions(tmp_path / "p.h5", {"test": split}, 4), output)
    assert output.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]


def test_evaluation_does_not_import_tensorflow() -> None:
    code = "import sys, scratchbook.evaluation; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_a_run_of_cifar_10s_size_is_evaluated_within_two_seconds(tmp_path: Path) -> None:
    splits = {"train": random_split(50_000, 10), "test": random_split(10_000, 10)}
    predictions = write_predictions(tmp_path / "predictions.h5", splits, 10)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from scratchbook.evaluation import evaluate\n"
        "evaluate(Path(sys.argv[1]))\n"
        "print(time.process_time())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    seconds = [  # processor time, since other jobs on the machine are no fault of ours
        float(
            subprocess.check_output([sys.executable, "-c", program, predictions], env=environment)
        )
        for _ in range(3)  # the first may compile what was just installed
    ]
    assert min(seconds) < 2

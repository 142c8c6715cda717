"""The shipped notebooks, and what an experiment may say of warm starts and schedules."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from projects import NOTEBOOK, REPOSITORY
from scratchbook.config.notebooks import Notebook
from scratchbook.config.project import load_project, notebook_names
from scratchbook.training.optimizers import scheduled_rate

RECORDED = {
    "dogs3": [109_082_179, 1_607_299],
    "cifar10": [1_602_058, 1_602_058, 11_018_058],
    "cifar100": [712_868, 5_735_844],
    "pcam": [912_642, 793_922, 811_490, 811_490, 775_874, *[15_895_874] * 4],
}


def test_every_recorded_total_stands_in_its_notebook() -> None:
    names = notebook_names(REPOSITORY / "config/notebooks")
    project = load_project({"notebooks": names}, REPOSITORY)
    for name, totals in RECORDED.items():
        written = [e.recorded.parameters for e in project.notebooks[name].experiments.values()]
        assert [total for total in written if total] == totals


def notebook(**changes: dict[str, Any]) -> Notebook:
    values = yaml.safe_load(NOTEBOOK)
    for name, keys in changes.items():
        values["experiments"][name] |= keys
    return Notebook.model_validate(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wide": {"initial_weights": {"experiment": "wide"}}}, "circle: wide → wide"),
        ({"wide": {"initial_weights": {"experiment": "narrow"}},
          "narrow": {"initial_weights": {"experiment": "wide"}}}, "goes in a circle"),
        ({"wide": {"initial_weights": {"experiment": "narow"}}}, "no experiment 'narow'"),
        ({"wide": {"initial_weights": {"experiment": "narrow", "checkpoint": 3}}},
         "is epoch 3, but narrow is trained for 2"),
        ({"wide": {"schedule": {"decay": "step", "every": 2}}}, "needs `every` and `factor`"),
        ({"wide": {"schedule": {"decay": "cosine", "every": 2}}}, "are for `decay: step`"),
        ({"wide": {"schedule": {}}}, "the same rate"),
        ({"wide": {"schedule": {"decay": "cosine"}, "callbacks": ["ReduceLROnPlateau"]}},
         "and so does ReduceLROnPlateau"),
    ],
)  # fmt: skip
def test_a_warm_start_or_schedule_that_cannot_be_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        notebook(**changes)


def test_the_weights_that_a_warm_start_needs_are_kept() -> None:
    declared = notebook(wide={"initial_weights": {"experiment": "narrow", "checkpoint": 2}})
    assert declared.kept_epochs("narrow") == {1: ["cam"], 2: ["warm start"]}
    assert declared.kept_epochs("wide") == {1: ["cam"]}
    assert declared.spec("wide")["initial_weights"] == {"experiment": "narrow", "checkpoint": 2}
    assert "initial_weights" not in declared.spec("narrow")


def test_label_smoothing_is_inherited_and_can_be_taken_back() -> None:
    declared = notebook(
        narrow={"label_smoothing": 0.1}, wide={"parent": "narrow", "label_smoothing": 0}
    )
    assert declared.spec("narrow")["label_smoothing"] == 0.1
    assert "label_smoothing" not in declared.spec("wide")
    inherited = notebook(narrow={"label_smoothing": 0.1}, wide={"parent": "narrow"})
    assert inherited.spec("wide")["label_smoothing"] == 0.1
    with pytest.raises(ValidationError, match="less than 1"):
        notebook(wide={"label_smoothing": 1})


def test_a_flip_at_test_time_is_inherited_and_can_be_taken_back() -> None:
    flip = {"test_time_flip": "horizontal"}
    declared = notebook(narrow=flip, wide={"parent": "narrow", "test_time_flip": None})
    assert declared.spec("narrow")["test_time_flip"] == "horizontal"
    assert "test_time_flip" not in declared.spec("wide")
    inherited = notebook(narrow=flip, wide={"parent": "narrow"})
    assert inherited.spec("wide")["test_time_flip"] == "horizontal"
    with pytest.raises(ValidationError, match="horizontal_and_vertical"):
        notebook(wide={"test_time_flip": "sideways"})


@given(
    epochs=st.integers(1, 12),
    cam=st.lists(st.integers(1, 14), min_size=1, max_size=6),
    keep=st.integers(1, 9),
)
def test_more_checkpoints_than_keep_allows_are_refused_and_no_fewer(
    epochs: int, cam: list[int], keep: int
) -> None:
    values = yaml.safe_load(NOTEBOOK) | {"cam": {"epochs": cam}}
    values["defaults"] |= {"epochs": epochs, "keep": keep}
    most = max(  # of all the epochs that may turn out the last and the best
        len({best, last, *(epoch for epoch in cam if epoch <= last)})
        for last in range(1, epochs + 1)
        for best in range(1, last + 1)
    )
    if most <= keep:
        Notebook.model_validate(values)
    else:
        with pytest.raises(ValidationError, match=f"give `keep: {most}`, or ask for fewer"):
            Notebook.model_validate(values)


def test_checkpoints_of_every_epoch_are_kept_only_on_request() -> None:
    values = yaml.safe_load(NOTEBOOK) | {"cam": {"epochs": ["1-30"]}}
    values["defaults"] |= {"epochs": 30}
    with pytest.raises(ValidationError, match=r"allows 20 .* up to 30 are needed: of the best"):
        Notebook.model_validate(values)
    values["defaults"] |= {"keep": 30}
    assert Notebook.model_validate(values).kept_epochs("wide").keys() == set(range(1, 31))


def test_the_rate_warms_up_and_then_falls_as_declared() -> None:
    cosine = {"warm_up": 2, "decay": "cosine", "every": None, "factor": None}
    rates = [scheduled_rate(0.1, cosine, epoch, 6) for epoch in range(1, 7)]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.0853553, 0.05, 0.0146447], abs=1e-6)
    step = {"warm_up": 0, "decay": "step", "every": 2, "factor": 0.1}
    rates = [scheduled_rate(1.0, step, epoch, 5) for epoch in range(1, 6)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])

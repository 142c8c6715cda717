"""Training: what each epoch sees, the losses' true values, and a resumed run equal to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchbook import models
from scratchbook.config.errors import ScratchbookError
from scratchbook.training.batches import epoch_order, sample_rows
from scratchbook.training.run import RunFiles, train_run

DENSE = {
    "class_name": "Dense",
    "config": {"units": 3, "activation": "softmax", "name": "predictions"},
}
NET: list[dict[str, Any]] = [
    {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "activation": "relu"}},
    {"class_name": "Dropout", "config": {"rate": 0.3}},
    {"class_name": "Flatten", "config": {}},
    DENSE,
]
SPEC: dict[str, Any] = {
    "dataset": "noise", "layers": NET, "augment": [], "loss": "categorical_crossentropy",
    "optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.01}}, "batch_size": 8,
    "epochs": 4, "train_samples": None, "callbacks": [], "validation": "validation",
    "recorded_parameters": None, "recorded_trainable": None,
}  # fmt: skip


class Data(SimpleNamespace):
    """Prepared data in memory: 60 noise images of three classes."""

    def indices(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.split == ["train", "validation", "test"].index(split))


@pytest.fixture
def data() -> Data:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 128, (60, 8, 8, 3), dtype=np.uint8) + (labels * 40)[
        :, None, None, None
    ].astype(np.uint8)
    split = np.repeat([0, 1, 2], [40, 10, 10]).astype(np.uint8)
    return Data(images=images, labels=labels, split=split, class_names=["a", "b", "c"], sha256="0")


def train(
    folder: Path, data: Data, spec: dict[str, Any], *, precision: str = "float32",
    stop_after: int | None = None, lines: list[str] | None = None, threads: int = 1,
) -> dict[str, Any] | None:  # fmt: skip
    """One run into `folder`; with `stop_after` it dies in the epoch after that one."""

    class Killed(Exception):
        pass

    told = lines if lines is not None else []

    def on_batch(done: int, _total: int) -> None:
        epochs_done = sum(line.startswith("epoch ") for line in told)
        if stop_after is not None and epochs_done == stop_after and done == 2:
            raise Killed

    files = RunFiles(*(folder / n for n in ("history.csv", "checkpoints", "predictions.h5",
                                            "run.json", "state")))  # fmt: skip
    try:
        train_run(
            spec, 3, data, files,
            identity={"notebook": "n", "experiment": "e"}, keep_epochs={2}, precision=precision,
            hardware={"threads": threads}, code=folder, say=told.append, on_batch=on_batch,
        )  # fmt: skip
    except Killed:
        return None
    return json.loads(files.run.read_text())


def outcome(folder: Path) -> tuple:
    """All that two equal runs share: weights, history but for times, predictions."""
    run = json.loads((folder / "run.json").read_text())
    history = [row.split(",")[:-1] for row in (folder / "history.csv").read_text().splitlines()]
    with h5py.File(folder / "predictions.h5") as file:
        logits = [file[f"{w}/{s}/logits"][()].tobytes() for w in ("best", "last")
                  for s in ("train", "validation", "test")]  # fmt: skip
    return run["weights_sha256"], history, logits, run["checkpoints"]


@given(st.integers(1, 200), st.integers(0, 2**31 - 1), st.integers(1, 100))
def test_an_epochs_order_is_a_permutation_that_depends_on_seed_and_epoch_alone(
    n: int, seed: int, epoch: int
) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    assert (order == epoch_order(n, seed, epoch)).all()


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in range(1, 20)}
    assert len(orders) == 38


@given(st.integers(1, 90), st.integers(0, 1000))
def test_a_training_sample_keeps_the_classes_shares(count: int, seed: int) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    rows = sample_rows(labels, np.arange(90), count, seed)
    assert len(set(rows)) == count
    shares = np.bincount(labels[rows], minlength=3)
    assert (abs(shares - np.array([50, 30, 10]) * count / 90) < 1).all()


def test_binary_crossentropy_on_a_softmax_has_its_true_value() -> None:
    from scratchbook.training.losses import loss_function

    logits = np.array([[3.0, -1.5], [0.2, 0.9], [-4.0, 1.0]], dtype=np.float32)
    labels = np.array([[1], [0], [1]])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(3), labels[:, 0]])  # both units' terms are −ln p(true)
    value = np.asarray(loss_function("binary_crossentropy", "softmax")(labels, logits))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # Compiled, where TensorFlow could look behind the softmax, it is the same.
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Activation("linear")])
    model.compile(loss=loss_function("binary_crossentropy", "softmax"))
    assert model.test_on_batch(logits, labels) == pytest.approx(expected.mean(), rel=1e-5)


def test_a_saturated_softmax_is_clipped_as_keras_defines_it() -> None:
    from scratchbook.training.losses import loss_function

    loss = loss_function("binary_crossentropy", "softmax")
    value = float(np.mean(np.asarray(loss(np.array([[1]]), np.array([[1000.0, -1000.0]])))))
    assert value == pytest.approx(np.mean([-np.log(1e-7), -np.log(1.19e-7)]), rel=1e-3)


def test_decay_lowers_the_rate_by_the_rule_of_keras_2_and_leaves_the_rate_settable() -> None:
    import keras

    from scratchbook.training.optimizers import make_optimizer

    optimizer = make_optimizer(
        {"class_name": "SGD", "config": {"learning_rate": 0.5, "decay": 0.25}}
    )
    variable = keras.Variable(np.zeros(1, dtype=np.float32))
    optimizer.build([variable])
    steps = []
    for _ in range(4):
        before = float(np.asarray(variable)[0])
        optimizer.apply([keras.ops.ones(1)], [variable])
        steps.append(before - float(np.asarray(variable)[0]))
    np.testing.assert_allclose(steps, [0.5 / (1 + 0.25 * t) for t in range(4)], rtol=1e-6)
    optimizer.learning_rate = 0.1
    assert float(np.asarray(optimizer.learning_rate)) == pytest.approx(0.1)


AUGMENTED = SPEC | {
    "augment": [
        {"class_name": "RandomFlip", "config": {"mode": "horizontal"}},
        {"class_name": "RandomRotation", "config": {"factor": 0.1}},
    ]
}
PLATEAU = SPEC | {
    "epochs": 6,
    "optimizer": {
        "class_name": "SGD",
        "config": {"learning_rate": 0.1, "momentum": 0.9, "decay": 1e-3},
    },
    "callbacks": [
        {"class_name": "ReduceLROnPlateau", "config": {"patience": 1, "min_delta": 10.0}},
        {"class_name": "EarlyStopping", "config": {"patience": 4, "min_delta": 10.0}},
    ],
}


@pytest.mark.parametrize(
    ("spec", "precision"),
    [(SPEC, "float32"), (AUGMENTED, "float32"), (PLATEAU, "float32"), (SPEC, "mixed_bfloat16")],
    ids=["dropout", "augmentation", "plateau", "bf16"],
)
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_to_the_bit(
    tmp_path: Path, data: Data, spec: dict, precision: str
) -> None:
    train(tmp_path / "whole", data, spec, precision=precision)
    lines: list[str] = []
    for epoch in (1, 2, 3):
        assert (
            train(
                tmp_path / "killed", data, spec, precision=precision, stop_after=epoch, lines=lines
            )
            is None
        )
    train(tmp_path / "killed", data, spec, precision=precision, lines=lines)
    assert "going on after epoch 3" in lines
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert not (tmp_path / "killed/state").exists()


def test_a_callback_that_stops_early_is_obeyed(tmp_path: Path, data: Data) -> None:
    run = train(tmp_path, data, PLATEAU)
    assert run is not None
    assert run["epochs"] == 5
    rates = [row.split(",")[5] for row in (tmp_path / "history.csv").read_text().splitlines()[1:]]
    assert float(rates[-1]) < float(rates[0])


def test_a_damaged_state_falls_back_an_epoch_and_says_so(tmp_path: Path, data: Data) -> None:
    train(tmp_path / "whole", data, SPEC)
    lines: list[str] = []
    train(tmp_path / "killed", data, SPEC, stop_after=3, lines=lines)
    newest = max((tmp_path / "killed/state").glob("epoch-*.npz"))
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    train(tmp_path / "killed", data, SPEC, lines=lines)
    assert any("is damaged" in line for line in lines)
    assert "going on after epoch 2" in lines
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a state"])
def test_states_beyond_repair_start_anew(tmp_path: Path, data: Data, damage: bytes) -> None:
    train(tmp_path / "whole", data, SPEC)
    lines: list[str] = []
    train(tmp_path / "killed", data, SPEC, stop_after=2, lines=lines)
    for state in (tmp_path / "killed/state").glob("epoch-*.npz"):
        state.write_bytes(damage)
    train(tmp_path / "killed", data, SPEC, lines=lines)
    assert not any(line.startswith("going on") for line in lines)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("what", ["precision", "spec", "threads", "data"])
def test_a_state_of_another_run_is_not_gone_on_with(tmp_path: Path, data: Data, what: str) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    changed = {"spec": SPEC | {"batch_size": 4}}.get(what, SPEC)
    if what == "data":
        data.sha256 = "1"
    train(
        tmp_path, data, changed, lines=lines, threads=2 if what == "threads" else 1,
        precision="mixed_bfloat16" if what == "precision" else "float32",
    )  # fmt: skip
    assert any(line.startswith("starting anew") and what in line for line in lines)
    assert not any(line.startswith("going on") for line in lines)


def test_the_best_last_and_wanted_weights_are_kept_and_nothing_else(
    tmp_path: Path, data: Data
) -> None:
    run = train(tmp_path, data, SPEC | {"epochs": 5})
    assert run is not None
    epochs = {entry["epoch"] for entry in run["checkpoints"]}
    assert epochs == {run["best_epoch"], 5, 2}
    assert {f.name for f in (tmp_path / "checkpoints").iterdir()} == {
        entry["file"] for entry in run["checkpoints"]
    }
    model = models.build(SPEC, (8, 8, 3))
    best = next(e for e in run["checkpoints"] if "best" in e["kept_for"])
    model.load_weights(tmp_path / "checkpoints" / best["file"])


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path: Path, data: Data) -> None:
    wild = SPEC | {"optimizer": {"class_name": "SGD", "config": {"learning_rate": 1e30}}}
    with pytest.raises(ScratchbookError, match=r"epoch \d+, batch \d+ of 5; a lower learning rate"):
        train(tmp_path, data, wild)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_samples": 41}, "train_samples is 41, but there are only 40 training images"),
        ({"batch_size": 41}, "batch_size is 41, more than the 40 training images"),
        ({"recorded_parameters": 7}, "recorded.parameters is 7, but this network has 547"),
        ({"layers": [*NET[:-1], {**DENSE, "config": {**DENSE["config"], "units": 4}}]},
         "has 4 units, but the data set has 3 classes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(
    tmp_path: Path, data: Data, change: dict, said: str
) -> None:
    with pytest.raises(ScratchbookError, match=said):
        train(tmp_path, data, SPEC | change)


def test_validating_on_the_test_images_trains_on_all_others(tmp_path: Path, data: Data) -> None:
    run = train(tmp_path, data, SPEC | {"validation": "test", "epochs": 1})
    assert run is not None
    assert run["data"]["counts"] == {"train": 50, "validation": 0, "test": 10}
    with h5py.File(tmp_path / "predictions.h5") as file:
        assert set(file["best"]) == {"train", "test"}
        assert set(file["best/train/index"][()]).isdisjoint(file["best/test/index"][()])


def test_one_sigmoid_unit_classifies_two_classes(tmp_path: Path, data: Data) -> None:
    data.labels = data.labels % 2
    data.class_names = ["even", "odd"]
    unit = {"class_name": "Dense", "config": {"units": 1, "activation": "sigmoid"}}
    train(tmp_path, data, SPEC | {"layers": [*NET[:-1], unit], "loss": "binary_crossentropy"})
    with h5py.File(tmp_path / "predictions.h5") as file:
        logits = file["best/validation/logits"][()]
        assert logits.shape == (10, 2)
        accuracy = np.mean(logits.argmax(axis=1) == file["best/validation/labels"][()])
    rows = (tmp_path / "history.csv").read_text().splitlines()[1:]
    best = max(float(row.split(",")[4]) for row in rows)
    assert accuracy == pytest.approx(best)

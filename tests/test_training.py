"""Training: what each epoch sees, the losses' true values, and a resumed run equal to the bit."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook import models
from scratchbook.config.keras_api import keras_api
from scratchbook.data.rows import run_rows, sample_rows
from scratchbook.errors import ScratchbookError
from scratchbook.evaluation import evaluate
from scratchbook.keys import digits_of
from scratchbook.models.whitening import whitening_filters
from scratchbook.results.hdf5 import open_predictions
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record
from scratchbook.training.loop import epoch_order, measure, penalty, predict_logits
from scratchbook.training.losses import loss_function
from scratchbook.training.numbers import TRAINING
from scratchbook.training.order import Listener, Order
from scratchbook.training.run import train_run
from scratchbook.training.state import RunState, Snapshot, check_space

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

    @property
    def arrays_sha256(self) -> str:
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()

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
    return Data(
        images=images, labels=labels, split=split, class_names=["a", "b", "c"], sha256="0",
        preparing=1,
    )  # fmt: skip


class Told(Listener):
    """What a training says and tells; with `stop_after` it dies in the epoch after that one."""

    class Killed(Exception):
        pass

    def __init__(self, lines: list[str], stop_after: int | None = None) -> None:
        self.lines, self.stop_after = lines, stop_after
        self.told: list[dict[str, Any]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, done: int, total: int) -> None:
        epochs_done = sum(line.startswith("epoch ") for line in self.lines)
        if self.stop_after is not None and epochs_done == self.stop_after and done == 2:
            raise self.Killed

    def tell(self, **told: Any) -> None:
        self.told.append(told)


def train(
    folder: Path, data: Data, spec: dict[str, Any], *, precision: str = "float32",
    stop_after: int | None = None, lines: list[str] | None = None, threads: int = 1, seed: int = 3,
    initial_run: RunFiles | None = None, cpu: str = "a CPU", console: Told | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """One run into `folder`; with `stop_after` it dies in the epoch after that one."""
    console = console or Told(lines if lines is not None else [], stop_after)
    hardware = {"cpu": cpu, "cores": 1, "memory_gb": None, "gpus": [], "threads": threads,
                "platform": "a platform"}  # fmt: skip
    order = Order(
        f"noise-{digits_of(spec)}", "n", "e", spec, seed, precision, "tensorflow", threads,
        keep_epochs={2: ["cam"]}, data="noise-0-p1",
        initial=initial_run and f"{read_record(initial_run)['key']}/seed{seed}",
    )  # fmt: skip
    try:
        train_run(
            order,
            data,
            RunFiles(folder),
            folder / "state",
            hardware=hardware,
            code=folder,
            pretrained=Path(),
            initial_run=initial_run,
            console=console,
        )
    except Told.Killed:
        return None
    return json.loads(RunFiles(folder).record.read_text())


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


@given(st.integers(3, 90), st.integers(0, 1000))
def test_a_training_sample_keeps_the_classes_shares(count: int, seed: int) -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    rows = sample_rows(labels, np.arange(90), count, seed)
    assert len(set(rows)) == count
    shares = np.bincount(labels[rows], minlength=3)
    assert (abs(shares - np.array([50, 30, 10]) * count / 90) < 1).all()
    assert shares.all()


@pytest.mark.parametrize(
    ("count", "shares"),
    [(4, [1, 1, 1, 1]), (5, [1, 1, 1, 2]), (8, [1, 2, 2, 3]), (100, [10, 20, 30, 40])],
)
def test_no_class_is_left_out_of_a_training_sample(count: int, shares: list[int]) -> None:
    labels = np.repeat([0, 1, 2, 3], [10, 20, 30, 40])
    rows = sample_rows(labels, np.arange(100), count, seed=0)
    assert np.bincount(labels[rows], minlength=4).tolist() == shares


def test_binary_crossentropy_on_a_softmax_has_its_true_value() -> None:
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


@pytest.mark.parametrize(
    ("name", "activation"),
    [("categorical_crossentropy", "softmax"), ("binary_crossentropy", "softmax"),
     ("binary_crossentropy", "sigmoid")],
)  # fmt: skip
def test_label_smoothing_is_keras_own(name: str, activation: str) -> None:
    import keras

    rng = np.random.default_rng(0)
    units = 1 if activation == "sigmoid" else 4
    logits = rng.normal(0, 2, (6, units)).astype(np.float32)
    labels = rng.integers(0, max(units, 2), (6, 1))
    theirs = {
        "categorical_crossentropy": keras.losses.categorical_crossentropy,
        "binary_crossentropy": keras.losses.binary_crossentropy,
    }[name]
    targets, answers = labels.astype(np.float32), 1 / (1 + np.exp(-logits))
    if units > 1:
        targets = np.eye(units, dtype=np.float32)[labels[:, 0]]
        answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    value = loss_function(name, activation, 0.1)(labels, logits)
    expected = np.mean(theirs(targets, answers, label_smoothing=0.1))
    assert float(np.mean(np.asarray(value))) == pytest.approx(float(expected), rel=1e-5)


def test_a_saturated_softmax_is_clipped_as_keras_defines_it() -> None:
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
        {"class_name": "RandomColorJitter", "config": {"hue_factor": 0.2}},  # of several generators
        {"class_name": "RandomCrop", "config": {"height": 6, "width": 7}},
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
SCHEDULED = SPEC | {
    "epochs": 6,
    "schedule": {"warm_up": 2, "decay": "cosine", "every": None, "factor": None},
    "label_smoothing": 0.1,
}

WATCHING_ACCURACY = PLATEAU | {
    "callbacks": [
        {"class_name": name, "config": {"monitor": "val_accuracy", "patience": patience}}
        for name, patience in (("ReduceLROnPlateau", 1), ("EarlyStopping", 5))
    ]
    + [{"class_name": "ReduceLROnPlateau", "config": {"monitor": "loss", "min_delta": 10.0}}],
}
FLIPPED = SPEC | {"test_time_flip": "horizontal_and_vertical"}
WHITENED = SPEC | {
    "layers": [
        {"class_name": "Whitening", "config": {"kernel_size": 2, "name": "whitening"}},
        *SPEC["layers"],
    ]
}


@pytest.mark.parametrize(
    ("flip", "mirrored"),
    [
        ("horizontal", [np.s_[:, :, ::-1]]),
        ("vertical", [np.s_[:, ::-1]]),
        ("horizontal_and_vertical", [np.s_[:, :, ::-1], np.s_[:, ::-1], np.s_[:, ::-1, ::-1]]),
    ],
)
def test_a_flip_at_test_time_takes_the_mean_of_an_image_and_its_mirror_images(
    data: Data, flip: str, mirrored: list
) -> None:
    from scratchbook import models

    model = models.start(SPEC, data, "float32", seed=0, pretrained=Path(), initial_run=None)
    rows = np.arange(5, 12)
    plain = [predict_logits(model, view, rows) for view in
             (data.images, *(data.images[view] for view in mirrored))]  # fmt: skip
    found = predict_logits(model, data.images, rows, flip, batch_size=4)
    np.testing.assert_allclose(found, np.mean(plain, axis=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, plain[0], atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "precision"),
    [(SPEC, "float32"), (AUGMENTED, "float32"), (PLATEAU, "float32"),
     (WATCHING_ACCURACY, "float32"), (SCHEDULED, "float32"),
     (WHITENED, "float32"), (FLIPPED, "float32"), (SPEC, "mixed_bfloat16")],
    ids=["dropout", "augmentation", "plateau", "accuracy", "schedule", "whitening",
         "test-time flip", "bf16"],
)  # fmt: skip
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


def test_the_state_outlives_the_run_whose_files_are_written_from_it_again(
    tmp_path: Path, data: Data
) -> None:
    train(tmp_path, data, SPEC)
    whole = outcome(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    for name in ("run.json", "history.csv", "predictions.h5"):
        (tmp_path / name).unlink()
    lines: list[str] = []
    assert train(tmp_path, data, SPEC, lines=lines) is not None
    assert "going on after epoch 4" in lines
    assert not any(line.startswith("epoch ") for line in lines)
    assert outcome(tmp_path) == whole


def test_a_killed_and_resumed_warm_start_equals_the_uninterrupted_one_to_the_bit(
    tmp_path: Path, data: Data
) -> None:
    train(tmp_path / "first", data, SPEC)
    start = {"initial_weights": {"experiment": "first", "checkpoint": "last"}}
    spec, first = SCHEDULED | start, RunFiles(tmp_path / "first")
    train(tmp_path / "whole", data, spec, initial_run=first)
    train(tmp_path / "cold", data, SCHEDULED)
    lines: list[str] = []
    for epoch in (1, 3):
        train(tmp_path / "killed", data, spec, initial_run=first, stop_after=epoch, lines=lines)
    train(tmp_path / "killed", data, spec, initial_run=first, lines=lines)
    assert "going on after epoch 3" in lines
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert outcome(tmp_path / "whole")[0] != outcome(tmp_path / "cold")[0]


def test_a_state_is_not_gone_on_with_once_its_warm_start_has_other_weights(
    tmp_path: Path, data: Data
) -> None:
    spec = SPEC | {"initial_weights": {"experiment": "first", "checkpoint": "last"}}
    lines: list[str] = []
    for seed in (3, 4):
        train(tmp_path / "first", data, SPEC, seed=seed)
        train(
            tmp_path / "second", data, spec, initial_run=RunFiles(tmp_path / "first"),
            stop_after=2, lines=lines,
        )  # fmt: skip
        shutil.rmtree(tmp_path / "first")
    assert any(line.startswith("starting anew") and "initial" in line for line in lines)


def test_a_learning_rate_near_its_floor_goes_on_as_if_uninterrupted(
    tmp_path: Path, data: Data
) -> None:
    """From 0.1 by halves to 0.02 in steps of two epochs; replayed at the restored rate of 0.025,
    the first step would reach the floor, and the second would not be counted."""
    plateau = {"patience": 2, "min_delta": 10.0, "factor": 0.5, "min_lr": 0.02}
    spec = PLATEAU | {
        "epochs": 8,
        "callbacks": [{"class_name": "ReduceLROnPlateau", "config": plateau}],
    }
    train(tmp_path / "whole", data, spec)
    lines: list[str] = []
    for epoch in range(1, 8):
        train(tmp_path / "killed", data, spec, stop_after=epoch, lines=lines)
    train(tmp_path / "killed", data, spec, lines=lines)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_callback_that_stops_early_is_obeyed(tmp_path: Path, data: Data) -> None:
    run = train(tmp_path, data, PLATEAU)
    assert run is not None
    assert run["epochs"] == 5
    rates = [row.split(",")[5] for row in (tmp_path / "history.csv").read_text().splitlines()[1:]]
    assert float(rates[-1]) < float(rates[0])


def _stored(file: Path) -> list[tuple[int, ...]]:
    """The shapes of all arrays in a file."""
    found: list[tuple[int, ...]] = []
    with h5py.File(file) as opened:
        opened.visititems(
            lambda _, item: found.append(item.shape) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_a_checkpoint_holds_the_weights_and_no_optimizer(tmp_path: Path, data: Data) -> None:
    run = train(tmp_path, data, SPEC)
    assert run is not None
    for entry in run["checkpoints"]:
        file = tmp_path / "checkpoints" / entry["file"]
        assert sum(math.prod(shape) for shape in _stored(file)) == run["parameters"]["total"]


def test_logits_that_are_no_numbers_are_wrong_answers() -> None:
    logits = np.array([[np.nan, np.nan], [np.nan, 1.0], [2.0, 1.0], [np.inf, 0.0]], np.float32)
    labels = np.zeros(4, np.int64)
    loss = loss_function("categorical_crossentropy", "softmax")
    assert measure(loss, logits, labels)[1] == 0.25
    loss = loss_function("binary_crossentropy", "sigmoid")
    assert measure(loss, np.array([[np.nan], [-1.0]], np.float32), labels[:2])[1] == 0.5


def test_the_validation_loss_has_the_penalty_that_the_training_loss_has(
    tmp_path: Path, data: Data
) -> None:
    def losses(name: str, **last: Any) -> dict[str, float]:
        *hidden, head = SPEC["layers"]
        frozen = {"optimizer": {"class_name": "SGD", "config": {"learning_rate": 1e-30}}}
        layers = [*hidden, head | {"config": head["config"] | last}]
        train(tmp_path / name, data, SPEC | frozen | {"layers": layers, "epochs": 1})
        header, row = (tmp_path / name / "history.csv").read_text().splitlines()
        return dict(zip(header.split(","), map(float, row.split(",")), strict=True))

    plain, penalised = losses("plain"), losses("penalised", kernel_regularizer="l2")
    added = penalised["loss"] - plain["loss"]
    assert added > 0.01
    assert penalised["val_loss"] - plain["val_loss"] == pytest.approx(added, rel=1e-3)


ARGUMENTS: dict[str, dict[str, Any]] = {  # that a layer needs, or by which it can be one of many
    "Activation": {"activation": "tanh"}, "AveragePooling2D": {"pool_size": 1},
    "Conv2D": {"filters": 4, "kernel_size": 1}, "Dense": {"units": 4},
    "DepthwiseConv2D": {"kernel_size": 1}, "Dropout": {"rate": 0.3},
    "GaussianNoise": {"stddev": 0.3}, "GlobalAveragePooling2D": {"keepdims": True},
    "GlobalMaxPooling2D": {"keepdims": True}, "GroupNormalization": {"groups": 2},
    "MaxPooling2D": {"pool_size": 1}, "Normalization": {"mean": 0.1, "variance": 2.0},
    "Rescaling": {"scale": 2.0}, "SeparableConv2D": {"filters": 4, "kernel_size": 1},
    "SpatialDropout2D": {"rate": 0.3},
}  # fmt: skip


def test_the_validation_loss_is_keras_own_whatever_the_layers_add_to_it(data: Data) -> None:
    layers = []
    *names, flatten = sorted(keras_api()["layer"], key=lambda name: (name == "Flatten", name))
    for name in names:
        added = {key: "l2" for key in keras_api()["layer"][name] if "regularizer" in key}
        layers.append({"class_name": name, "config": ARGUMENTS.get(name, {}) | added})
    spec = SPEC | {"layers": [*layers, {"class_name": flatten, "config": {}}, DENSE]}
    model = models.start(spec, data, seed=0, pretrained=Path(), initial_run=None)
    loss = loss_function("categorical_crossentropy", "softmax")
    model.compile(loss=loss)
    logits = predict_logits(model, data.images, np.arange(60))
    expected = model.evaluate(data.images, data.labels[:, None], batch_size=60, verbose=0)
    found = measure(loss, logits, data.labels)[0] + penalty(model)
    assert found == pytest.approx(expected, rel=1e-5)
    assert penalty(model) > 0.1


def test_whitening_learns_from_the_images_that_are_trained_on_alone(
    tmp_path: Path, data: Data
) -> None:
    few = WHITENED | {"train_samples": 10}
    rows = run_rows(few, data, seed=3)["train"]
    assert len(rows) == 10
    model = models.start(few, data, seed=3, pretrained=Path(), initial_run=None)
    kernel, _ = model.get_layer("whitening").get_weights()
    np.testing.assert_array_equal(kernel, whitening_filters(data.images, rows, 2)[0])


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


def test_a_state_with_any_bit_flipped_is_what_was_written_or_is_not_used(tmp_path: Path) -> None:
    arrays = [np.arange(12, dtype=np.float32), np.array(5), np.ones((3, 4), dtype=np.float32)]
    state = RunState(tmp_path / "state", {}, lambda line: None)
    for epoch in (1, 2):
        state.save(Snapshot(epoch=epoch), arrays)
    newest = state.folder / "epoch-000002.npz"
    written = newest.read_bytes()
    for position, bit in itertools.product(range(len(written)), range(8)):
        flipped = bytearray(written)
        flipped[position] ^= 1 << bit
        newest.write_bytes(flipped)
        found = state.load()
        assert found is not None
        snapshot, restored = found
        assert snapshot == Snapshot(epoch=2 if newest.exists() else 1), (position, bit)
        assert all((a == b).all() for a, b in zip(arrays, restored, strict=True)), (position, bit)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=50, deadline=None)
def test_a_state_cut_off_anywhere_falls_back_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    state = RunState(tmp_path_factory.mktemp("state"), {}, print)
    for epoch in (1, 2):
        state.save(Snapshot(epoch=epoch), [np.arange(12, dtype=np.float32)])
    newest = state.folder / "epoch-000002.npz"
    os.truncate(newest, int(share * newest.stat().st_size))
    found = state.load()
    assert found is not None
    assert found[0].epoch == 1


def test_a_damaged_key_starts_anew(tmp_path: Path, data: Data) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    (tmp_path / "state/key.json").write_bytes(b"\xff{")
    assert train(tmp_path, data, SPEC, lines=lines) is not None
    assert any(line.startswith("starting anew") for line in lines)


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


@pytest.mark.parametrize("what", ["precision", "key", "seed", "threads", "data"])
def test_a_state_of_another_run_is_not_gone_on_with(tmp_path: Path, data: Data, what: str) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    changed = {"key": SPEC | {"batch_size": 4}}.get(what, SPEC)
    if what == "data":  # of the same source and shape, but decoded in another way
        data.images = data.images[..., ::-1]
    train(
        tmp_path, data, changed, lines=lines, threads=2 if what == "threads" else 1,
        precision="mixed_bfloat16" if what == "precision" else "float32",
        seed=4 if what == "seed" else 3,
    )  # fmt: skip
    assert any(line.startswith("starting anew") and what in line for line in lines)
    assert not any(line.startswith("going on") for line in lines)


def test_the_best_last_and_wanted_weights_are_kept_and_nothing_else(
    tmp_path: Path, data: Data
) -> None:
    run = train(tmp_path, data, SPEC | {"epochs": 5})
    assert run is not None
    kept = {entry["epoch"]: set(entry["kept_for"]) for entry in run["checkpoints"]}
    wanted = {"best": run["best_epoch"], "last": 5, "cam": 2}
    assert kept == {
        epoch: {reason for reason in wanted if wanted[reason] == epoch} for epoch in wanted.values()
    }
    assert {f.name for f in (tmp_path / "checkpoints").iterdir()} == {
        entry["file"] for entry in run["checkpoints"]
    }
    model = models.build(SPEC, (8, 8, 3))
    best = next(e for e in run["checkpoints"] if "best" in e["kept_for"])
    model.load_weights(tmp_path / "checkpoints" / best["file"])


def wild(epoch: int, rate: float = 1e30) -> dict[str, Any]:
    """A spec whose loss becomes no number in that epoch."""
    before = {"warm_up": 0, "decay": "step", "every": epoch - 1, "factor": rate / 0.01}
    return SPEC | {
        "optimizer": {
            "class_name": "SGD",
            "config": {"learning_rate": rate if epoch == 1 else 0.01, "momentum": 0.9},
        },
        **({"schedule": before} if epoch > 1 else {}),
    }


def test_a_run_that_diverges_is_what_it_was_after_its_last_whole_epoch(
    tmp_path: Path, data: Data
) -> None:
    lines: list[str] = []
    run = train(tmp_path / "wild", data, wild(4), lines=lines)
    tame = train(tmp_path / "tame", data, wild(4) | {"epochs": 3})
    assert run is not None
    assert tame is not None
    assert (run["diverged"], run["epochs"]) == (4, 3)
    assert "diverged" not in tame
    assert any("in epoch 4, batch " in x and "the run diverged; a lower" in x for x in lines)
    assert outcome(tmp_path / "wild") == outcome(tmp_path / "tame")
    model = models.build(SPEC, (8, 8, 3))
    for entry in run["checkpoints"]:
        model.load_weights(tmp_path / "wild/checkpoints" / entry["file"])
        assert all(np.isfinite(weights).all() for weights in model.get_weights())
    with open_predictions(tmp_path / "wild/predictions.h5") as said:
        assert (said.diverged, said.epoch("last"), said.is_empty) == (4, 3, False)
    assert evaluate(tmp_path / "wild/predictions.h5")["diverged"] == 4


@pytest.mark.parametrize("stops", [[1], [1, 2], [3]])
def test_a_run_is_resumed_through_its_divergence_to_the_bit(
    tmp_path: Path, data: Data, stops: list[int]
) -> None:
    train(tmp_path / "whole", data, wild(4))
    for epoch in stops:
        train(tmp_path / "killed", data, wild(4), stop_after=epoch)
    run = train(tmp_path / "killed", data, wild(4))
    assert run is not None
    assert run["diverged"] == 4
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_run_that_diverged_is_written_again_from_its_state_without_training(
    tmp_path: Path, data: Data
) -> None:
    first = train(tmp_path, data, wild(3))
    whole = outcome(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    lines: list[str] = []
    again = train(tmp_path, data, wild(3), lines=lines)
    assert first is not None
    assert again is not None
    assert first["diverged"] == again["diverged"] == 3
    assert outcome(tmp_path) == whole
    assert not any("the loss became" in line for line in lines)


def test_a_run_that_diverges_in_its_first_epoch_is_whole_and_empty(
    tmp_path: Path, data: Data
) -> None:
    run = train(tmp_path, data, wild(1))
    assert run is not None
    assert (run["diverged"], run["epochs"], run["best_epoch"]) == (1, 0, 0)
    assert run["weights_sha256"] == {"best": "", "final": ""}
    assert run["checkpoints"] == list((tmp_path / "checkpoints").iterdir()) == []
    assert read_record(RunFiles(tmp_path)) == run
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1
    with open_predictions(tmp_path / "predictions.h5") as said:
        assert (said.is_empty, said.diverged, said.class_names) == (True, 1, ["a", "b", "c"])
        assert said.arrays() == {}
    metrics = evaluate(tmp_path / "predictions.h5")
    assert (metrics["diverged"], metrics["splits"]) == (1, {})


def test_a_run_that_starts_from_one_that_diverged_is_finished_as_diverged_and_trains_nothing(
    tmp_path: Path, data: Data
) -> None:
    for epoch in (1, 3):  # with and without weights to start from
        first, second = tmp_path / f"first{epoch}", tmp_path / f"second{epoch}"
        before = train(first, data, wild(epoch))
        assert before is not None
        lines: list[str] = []
        start = {"initial_weights": {"experiment": "first", "checkpoint": "last"}}
        run = train(second, data, SPEC | start, initial_run=RunFiles(first), lines=lines)
        assert run is not None
        assert (run["diverged"], run["epochs"], run["checkpoints"]) == (0, 0, [])
        assert run["spec"] == SPEC | start
        assert run["initial"]["run"] == f"{before['key']}/seed3"
        assert any("diverged" in line and before["key"] in line for line in lines)
        assert not any(line.startswith("epoch ") for line in lines)
        assert read_record(RunFiles(second)) == run
        with open_predictions(second / "predictions.h5") as said:
            assert (said.is_empty, said.diverged) == (True, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_samples": 41}, "train_samples is 41, but there are only 40 training images"),
        ({"train_samples": 2}, "train_samples is 2, but there are 3 classes, .* give 3 or more"),
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


@contextmanager
def disk_that_fills_up(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, which fails in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_is_said_and_resumed_from(tmp_path: Path, data: Data) -> None:
    train(tmp_path / "whole", data, SPEC)
    lines: list[str] = []
    train(tmp_path / "full", data, SPEC, stop_after=2, lines=lines)
    with disk_that_fills_up(6_000), pytest.raises(ScratchbookError, match="cannot write under"):
        train(tmp_path / "full", data, SPEC, lines=lines)
    assert not (tmp_path / "full/run.json").exists()
    train(tmp_path / "full", data, SPEC, lines=lines)
    assert lines.count("going on after epoch 2") == 2
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")


def test_a_disk_that_fills_up_while_a_state_is_written_leaves_the_one_before(
    tmp_path: Path,
) -> None:
    state = RunState(tmp_path, {}, print)
    arrays = [np.ones(4000, dtype=np.float32)]
    state.save(Snapshot(epoch=1), arrays)
    with disk_that_fills_up(6_000), pytest.raises(OSError, match="too large"):
        state.save(Snapshot(epoch=2), arrays)
    found = state.load()
    assert found is not None
    assert found[0].epoch == 1
    assert not list(tmp_path.glob(".partial-*"))


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        with pytest.raises(ScratchbookError, match=r"state: Read-only file system; .* start again"):
            train(tmp_path, data, SPEC)
    assert train(tmp_path, data, SPEC) is not None


def test_the_disk_that_a_run_needs_is_said_and_must_be_free(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    train(tmp_path / "roomy", data, SPEC, lines=lines)
    need = next(line for line in lines if line.startswith("disk: "))
    assert "up to 3 checkpoints of 2.2 kB, and states of 6.6 kB" in need  # 547 float32; Adam ×3
    kept = list((tmp_path / "roomy/checkpoints").iterdir())
    assert len(kept) <= 3
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, used=10**9, free=1000)
    )
    with pytest.raises(ScratchbookError, match=r"has 1\.\d kB for a run that takes 35\.\d kB"):
        train(tmp_path / "tight", data, SPEC)


def test_the_largest_network_of_the_seeds_does_not_fill_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """109,082,179 parameters in 115 epochs, with Adam: 50 GB if every epoch were kept."""
    weights = 4 * 109_082_179
    disk = SimpleNamespace(total=10**11, used=0, free=5 * 10**10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    lines: list[str] = []
    check_space(tmp_path, weights, 3 * weights, 115, 7, lines.append)
    assert lines == [
        "disk: 12.2 GB at most: up to 9 checkpoints of 436.3 MB, and states of 1.3 GB; 50.0 GB free"
    ]
    with pytest.raises(ScratchbookError, match=r"50\.0 GB for a run that takes 104\.7 GB at most"):
        check_space(tmp_path, weights, 3 * weights, 115, 115, print)


def test_a_clock_that_goes_backwards_changes_nothing(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", data, SPEC)
    now = iter(range(10**9, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))  # the counters of time only rise
    lines: list[str] = []
    train(tmp_path / "back", data, SPEC, stop_after=2, lines=lines)
    run = train(tmp_path / "back", data, SPEC, lines=lines)
    assert outcome(tmp_path / "back") == outcome(tmp_path / "whole")
    assert run is not None
    assert min(run["wall_seconds"], run["training_seconds"], run["images_per_second"]) > 0
    seconds = [row.split(",")[-1] for row in (tmp_path / "back/history.csv").open()][1:]
    assert all(float(value) > 0 for value in seconds)
    assert not any("-" in line.split("images/s")[-1] for line in lines)


def test_the_times_of_a_resumed_run_are_of_all_its_attempts(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks whenever it is looked at, and starts elsewhere in each process."""

    def attempt(folder: str, hour: int, **how: Any) -> dict[str, Any] | None:
        ticks = itertools.count(1000 * hour)
        clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
        date = datetime(2026, 11, 21, hour, tzinfo=UTC)
        for module in ("run", "loop", "record"):
            monkeypatch.setattr(f"scratchbook.training.{module}.time", clock)
        monkeypatch.setattr(
            "scratchbook.training.run.datetime", SimpleNamespace(now=lambda _: date)
        )
        return train(tmp_path / folder, data, SPEC, **how)

    whole = attempt("whole", 5)
    lines: list[str] = []
    attempt("killed", 5, stop_after=1, lines=lines)
    attempt("killed", 7, stop_after=3, lines=lines)
    killed = attempt("killed", 9, lines=lines)
    assert whole is not None
    assert killed is not None
    assert killed["started"] == whole["started"] == "2026-11-21T05:00:00+00:00"
    assert killed["training_seconds"] == whole["training_seconds"] == 4  # a tick an epoch
    assert killed["images_per_second"] == whole["images_per_second"] == 40
    assert killed["wall_seconds"] == whole["wall_seconds"]


def test_a_training_tells_its_epochs_figures_and_pace_and_goes_on_telling_when_resumed(
    tmp_path: Path, data: Data
) -> None:
    lines: list[str] = []
    killed, resumed = Told(lines, stop_after=2), Told(lines)
    train(tmp_path, data, SPEC, console=killed)
    train(tmp_path, data, SPEC, console=resumed)
    assert killed.told[0] == {"epoch": 0, "epochs": 4, "done": 0, "total": 5}
    assert resumed.told[0] == {"epoch": 2, "epochs": 4, "done": 0, "total": 5}
    after = [told for told in (*killed.told, *resumed.told) if "figures" in told]
    assert [told["epoch"] for told in after] == [1, 2, 3, 4]
    with (tmp_path / "history.csv").open() as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    for told, row in zip(after, rows, strict=True):
        seconds = sorted(each["seconds"] for each in rows if each["epoch"] <= row["epoch"])
        usual = seconds[len(seconds) // 2]
        names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        assert told["figures"] == {name: row[name] for name in names}
        assert told["epoch_seconds"] == usual
        assert told["seconds_left"] == (4 - row["epoch"]) * usual
        assert 40 / row["seconds"] <= told["images_per_second"]
        assert (told["epochs"], told["done"], told["total"]) == (4, 0, 5)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path, data: Data) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    hold = (
        "import filelock, sys\nlock = filelock.FileLock(sys.argv[1])\n"
        "lock.acquire(); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "state/lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(ScratchbookError, match="another process is training into"):
        train(tmp_path, data, SPEC, lines=lines)
    other.kill()  # and with the process ends its lock
    other.wait()
    assert train(tmp_path, data, SPEC, lines=lines) is not None
    assert "going on after epoch 2" in lines


def test_run_json_tells_what_the_run_was_made_from(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = SPEC | {"epochs": 1}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    def record(name: str, **changes: Any) -> dict[str, Any]:
        run = train(tmp_path / name, data, short | changes.pop("spec", {}), **changes)
        assert run is not None
        return run

    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-q", "-m", "code")
    for folder in ("first", "other"):
        (tmp_path / folder).mkdir()
    first = record("first")
    assert first["git"]["dirty"] is False
    assert len(first["git"]["commit"]) == 40

    (tmp_path / "code.py").write_text("2")
    assert record("other")["git"] == {**first["git"], "dirty": True}
    git("commit", "-q", "-a", "-m", "more")
    later = record("other")
    assert later["git"]["commit"] != first["git"]["commit"]
    assert later["weights_sha256"] == first["weights_sha256"]

    seeded = record("other", seed=4)
    assert (first["seed"], seeded["seed"]) == (3, 4)
    assert seeded["weights_sha256"] != first["weights_sha256"]
    assert record("other", threads=2)["hardware"]["threads"] == 2
    assert record("other", precision="mixed_bfloat16")["precision"] == "mixed_bfloat16"
    assert record("other", spec={"batch_size": 4})["spec"]["batch_size"] == 4

    data.sha256 = "1"
    assert (first["data"]["sha256"], record("other")["data"]["sha256"]) == ("0", "1")
    pixels = first["data"]["arrays_sha256"]
    assert pixels == data.arrays_sha256
    assert (first["data"]["file"], first["preparing"]) == ("noise-0-p1", 1)
    assert first["key"] == f"noise-{digits_of(short)}"
    assert (first["device"], first["backend"]) == ("a CPU", "tensorflow")
    assert first["training"].items() <= TRAINING.items()
    assert "augmentation" not in first["training"]
    whitened = record("other", spec={"layers": WHITENED["layers"], "train_samples": 20})
    assert whitened["training"].keys() - first["training"].keys() == {"whitening", "samples"}
    assert "initial" not in first
    start = {"initial_weights": {"experiment": "first", "checkpoint": "last"}}
    warm = record("other", spec=start, initial_run=RunFiles(tmp_path / "first"))
    (kept,) = (tmp_path / "first/checkpoints").iterdir()
    assert warm["initial"] == {
        "run": f"{first['key']}/seed3", "epoch": 1,
        "weights_sha256": hashlib.sha256(kept.read_bytes()).hexdigest(),
    }  # fmt: skip
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "0.0" if n == "h5py" else version(n))
    assert first["packages"]["h5py"] == version("h5py")
    assert record("other")["packages"]["h5py"] == "0.0"


def test_a_state_made_by_other_code_is_not_gone_on_with(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=1, lines=lines)
    monkeypatch.setitem(TRAINING, "schedules", TRAINING["schedules"] + 1)  # which it has none of
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    assert lines.count("going on after epoch 1") == 1
    monkeypatch.setitem(TRAINING, "loop", TRAINING["loop"] + 1)
    train(tmp_path, data, SPEC, lines=lines)
    assert any(line.startswith("starting anew") and "code" in line for line in lines)


def test_going_on_with_what_another_machine_has_begun_is_said(tmp_path: Path, data: Data) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=1, lines=lines, cpu="an old one")
    train(tmp_path, data, SPEC, stop_after=2, lines=lines, cpu="an old one")
    assert not any("another machine" in line for line in lines)
    train(tmp_path, data, SPEC, lines=lines, cpu="a new one")
    assert any("another machine (an old one, GPUs []; this one: a new one" in x for x in lines)


def test_a_state_made_with_another_version_of_keras_is_not_gone_on_with(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    train(tmp_path, data, SPEC, stop_after=2, lines=lines)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "0.0" if n == "keras" else version(n))
    train(tmp_path, data, SPEC, lines=lines)
    assert any(line.startswith("starting anew") and "packages" in line for line in lines)

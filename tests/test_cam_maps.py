"""Class activation maps: closed forms, awkward networks, all three backends, and one job a run.

The file runs on whatever KERAS_BACKEND says; its last tests run it again on the other backends.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from scipy.stats import spearmanr

from scratchbook import models
from scratchbook.cam import measures
from scratchbook.cam.drift import write_drift
from scratchbook.cam.maps import Layer, choose_layer, head_layers, mapper
from scratchbook.cam.run import explain_epochs
from scratchbook.errors import ScratchbookError
from scratchbook.results.errors import DamagedError, LeftOutError
from scratchbook.results.hdf5 import leave_out_cam, maps_missing, read_cam, write_cam
from scratchbook.results.reading import read_drift

keras = pytest.importorskip("keras")
layers = keras.layers

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["gradcam", "hirescam"]


@pytest.fixture(autouse=True)
def fixed_weights():
    keras.utils.set_random_seed(0)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(5, 12, 12, 3)).astype(np.float32)


LABELS = np.array([0, 1, 2, 1, 0])


def network(*tail, side=12):
    """Convolutions with an 8×8 grid at `conv`, then what is given."""
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.Conv2D(4, 3, name="conv"),
            *tail,
        ]
    )


def pooled(units=3, **dense):
    return network(layers.GlobalAveragePooling2D(), layers.Dense(units, name="logits", **dense))


def features(model, images, name="conv"):
    trunk = keras.Model(model.inputs, model.get_layer(name).output)
    return trunk.predict(images, verbose=0)  # (batch, h, w, channels)


def explain(model, images, labels=LABELS, layer="conv", method="gradcam", **options):
    return mapper(model, layer, method, **options)(images, labels)


# ------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("method", METHODS)
def test_under_global_average_pooling_both_methods_equal_cam_over_the_grid(images, method):
    model = pooled()
    weights = model.get_layer("logits").get_weights()[0]  # (channels, classes)
    expected = np.einsum("bhwc,cb->bhw", features(model, images), weights[:, LABELS]) / (8 * 8)
    maps, logits = explain(model, images, method=method)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    np.testing.assert_allclose(logits, model.predict(images, verbose=0), atol=1e-5)
    assert maps.dtype == logits.dtype == np.float32


def test_under_flatten_hirescam_adds_up_to_the_logit_and_gradcam_averages_the_weights(images):
    model = network(layers.Flatten(), layers.Dense(3, name="logits", bias_initializer="ones"))
    weights = model.get_layer("logits").get_weights()[0].reshape(8, 8, 4, 3)[..., LABELS]
    found = features(model, images)
    hires, logits = explain(model, images, method="hirescam")
    np.testing.assert_allclose(hires, np.einsum("bhwc,hwcb->bhw", found, weights), atol=1e-5)
    np.testing.assert_allclose(hires.sum((1, 2)) + 1, logits[range(5), LABELS], atol=1e-4)
    averaged = np.einsum("bhwc,cb->bhw", found, weights.mean(axis=(0, 1)))
    np.testing.assert_allclose(explain(model, images)[0], averaged, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_beside_a_skip_connection_is_explained_by_its_own_part(images, method):
    inputs = keras.Input((12, 12, 3))
    skip = layers.Conv2D(4, 3, name="skip")(inputs)
    branch = layers.Conv2D(4, 3, padding="same", name="branch")(skip)
    pooled = layers.GlobalAveragePooling2D()(keras.ops.relu(skip) + 2 * branch)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(pooled))
    weights = model.get_layer("logits").get_weights()[0][:, LABELS]
    found = features(model, images, "branch")
    expected = 2 * np.einsum("bhwc,cb->bhw", found, weights) / found[0, ..., 0].size
    maps, _ = explain(model, images, layer="branch", method=method)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    assert [layer.name for layer in head_layers(model, "branch")] == ["logits"]


# --------------------------------------------------------------------------- awkward networks


@pytest.mark.parametrize("method", METHODS)
def test_flat_and_nested_vgg16_have_equal_maps(method):
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    tail = [layers.Flatten(), layers.Dense(2)]
    nested = keras.Sequential([keras.Input((32, 32, 3)), base, *tail])
    x = base.output
    for layer in tail:
        x = layer(x)
    flat = keras.Model(base.inputs, x)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    labels = np.array([1, 0])
    maps = [
        explain(flat, images, labels, "block3_conv3", method)[0],
        explain(nested, images, labels, "block3_conv3", method)[0],
        explain(nested, images, labels, "vgg16/block3_conv3", method)[0],
    ]
    assert maps[0].shape == (2, 8, 8)
    assert np.abs(maps[0]).max() > 0
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-4, atol=1e-6 * np.abs(maps[0]).max())
    assert choose_layer(nested) == Layer("vgg16/block3_conv3", (8, 8))


def test_one_sigmoid_unit_is_explained_for_either_class(images):
    model = pooled(units=1)
    ones, logits = explain(model, images, np.ones(5, int))
    zeros, _ = explain(model, images, np.zeros(5, int))
    weights = model.get_layer("logits").get_weights()[0][:, 0]
    np.testing.assert_allclose(ones, features(model, images) @ weights / 64, atol=1e-6)
    np.testing.assert_allclose(zeros, -ones, atol=1e-7)
    z = model.predict(images, verbose=0)
    np.testing.assert_allclose(logits, np.concatenate([0 * z, z], axis=1), atol=1e-6)


def test_a_softmax_pair_has_a_map_of_its_own_for_each_class(images):
    model = pooled(units=2)
    weights = model.get_layer("logits").get_weights()[0]
    for label in (0, 1):
        maps, _ = explain(model, images, np.full(5, label))
        np.testing.assert_allclose(
            maps, features(model, images) @ weights[:, label] / 64, atol=1e-6
        )


def test_no_image_depends_on_the_others_of_its_batch_nor_on_dropout_and_augmentation(images):
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    explain_all = mapper(model, "conv", "gradcam")
    together, _ = explain_all(images, LABELS)
    again, _ = explain_all(images, LABELS)
    np.testing.assert_array_equal(again, together)
    for i in range(len(images)):
        alone, _ = explain_all(images[i : i + 1], LABELS[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)
    in_batches, _ = explain(model, images, batch_size=2)
    np.testing.assert_allclose(in_batches, together, atol=1e-6)


def test_a_map_with_nothing_positive_stays_negative_and_counts_as_empty(images):
    model = pooled(kernel_initializer=keras.initializers.Constant(-1.0))
    conv = model.get_layer("conv")
    conv.set_weights([np.zeros(conv.kernel.shape), np.full(conv.bias.shape, 2.0)])
    maps, _ = explain(model, images)
    np.testing.assert_allclose(maps, -1 * 2 * 4 / 64, atol=1e-6)
    assert measures.empty(maps).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_saturated_softmax_still_has_its_map(images, method):
    model = pooled()
    plain, _ = explain(model, images, method=method)
    head = model.get_layer("logits")
    head.set_weights([weights * 1e6 for weights in head.get_weights()])
    saturated, logits = explain(model, images, method=method)
    assert (np.abs(np.diff(np.sort(logits)[:, -2:])) > 100).all()  # softmax: exactly 1 and 0
    np.testing.assert_allclose(saturated, plain * 1e6, rtol=1e-3, atol=1)


def test_a_network_that_ends_in_a_softmax_is_refused():
    with pytest.raises(ValueError, match="must return logits"):
        mapper(pooled(activation="softmax"), "conv")


def test_a_dead_relu_network_has_empty_maps_and_no_nan(images):
    model = network(layers.Activation("relu", name="relu"), layers.Flatten(), layers.Dense(3))
    conv = model.get_layer("conv")
    conv.set_weights([np.zeros(conv.kernel.shape), np.full(conv.bias.shape, -1.0)])
    for layer in ("conv", "relu"):
        maps, logits = explain(model, images, layer=layer)
        assert (maps == 0).all()
        assert np.isfinite(logits).all()
        assert measures.empty(maps).all()


def test_the_predicted_class_is_explained_on_request(images):
    model = pooled()
    predicted = model.predict(images, verbose=0).argmax(axis=1)
    wanted, _ = explain(model, images, predicted)
    found, _ = explain(model, images, np.full(5, -1))
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_new_weights_are_followed_without_compiling_again(images):
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch runs eagerly: there is nothing to compile")
    calls = []

    class Counted(layers.Layer):
        def call(self, x):
            calls.append(1)
            return x

    model = network(Counted(), layers.GlobalAveragePooling2D(), layers.Dense(3))
    explain_all = mapper(model, "conv", "gradcam")
    first, _ = explain_all(images, LABELS)
    traced = len(calls)
    head = model.layers[-1]
    head.set_weights([2 * weights for weights in head.get_weights()])
    second, _ = explain_all(images, LABELS)
    np.testing.assert_allclose(second, 2 * first, atol=1e-6)
    assert len(calls) == traced


def test_an_unknown_method_is_named():
    with pytest.raises(ScratchbookError, match="did you mean 'gradcam'"):
        mapper(pooled(), "conv", "gradcamm")


# ----------------------------------------------------------------------------- which layer


def test_the_deepest_layer_with_at_least_seven_cells_a_side_is_chosen():
    model = network(
        layers.Dropout(0.5),
        layers.MaxPooling2D(),  # 4×4: too small
        layers.Conv2D(3, 1),
        layers.Flatten(),
        layers.Dense(3),
    )
    assert choose_layer(model) == Layer("conv", (8, 8))


def test_without_such_a_grid_the_largest_is_taken_and_a_small_one_is_flagged():
    model = network(layers.Flatten(), layers.Dense(3), side=8)  # first 6×6, conv 4×4
    assert choose_layer(model) == Layer("first", (6, 6))
    assert choose_layer(model, "conv") == Layer("conv", (4, 4), ("GRID-TOO-SMALL",))


def test_a_layer_that_cannot_be_explained_is_named():
    with pytest.raises(ScratchbookError, match=r"no layer 'convv'; did you mean 'conv'"):
        choose_layer(pooled(), "convv")
    with pytest.raises(ScratchbookError, match="'logits' has no grid"):
        choose_layer(pooled(), "logits")


def test_a_layer_that_is_used_twice_has_no_one_map():
    twice = layers.Conv2D(3, 3, padding="same", name="twice")
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(twice(twice(inputs)))
    with pytest.raises(ScratchbookError, match="used 2 times"):
        choose_layer(keras.Model(inputs, x), "twice")


# ------------------------------------------------------------------------ one job for a run

SPEC = {
    "layers": [
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "name": "conv"}},
        {"class_name": "BatchNormalization", "config": {}},
        {"class_name": "Activation", "config": {"activation": "relu"}},
        {"class_name": "GlobalAveragePooling2D", "config": {}},
        {"class_name": "Dense", "config": {"units": 3, "activation": "softmax"}},
    ],
    "augment": [{"class_name": "RandomFlip", "config": {}}],
}
PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
ROWS = np.array([9, 7, 5, 3, 1])
CHOICES = {"epochs": [], "images": 5, "layer": None, "method": "gradcam", "target": "label"}


def trained(folder, epochs=(1, 3), precision="mixed_bfloat16"):
    """Checkpoints as a run in bf16 leaves them, their weights made up."""
    checkpoints = {}
    for epoch in epochs:
        model = models.build(SPEC, (12, 12, 3), precision, seed=100 + epoch)
        checkpoints[epoch] = folder / f"{epoch:02d}.weights.h5"
        model.save_weights(checkpoints[epoch])
    return checkpoints


def record(folder, checkpoints, build=None, seed=0):
    """What cam.h5 says once it is written in `folder`; PHOTOS are every other row of the data."""
    images, labels = np.zeros((10, 12, 12, 3), np.uint8), np.full(10, 2)
    images[ROWS], labels[ROWS] = PHOTOS, LABELS
    names, classes = [f"{row}.png" for row in range(10)], ["cat", "dog", "鸟"]
    data = SimpleNamespace(images=images, labels=labels, names=names, class_names=classes)
    build = build or (lambda: models.build(SPEC, (12, 12, 3)))
    write_cam(folder / "cam.h5", explain_epochs(build, checkpoints, data, ROWS, CHOICES, seed))
    return read_cam(folder / "cam.h5")


def test_cam_h5_holds_every_epoch_of_a_bf16_run_in_float32_and_the_network_is_built_once(tmp_path):
    built = []

    def build():
        built.append(models.build(SPEC, (12, 12, 3)))
        return built[-1]

    checkpoints = trained(tmp_path)
    found = record(tmp_path, checkpoints, build)
    assert len(built) == 1
    assert found.epochs.tolist() == [0, 1, 3]
    assert found.maps.shape == found.random_head.shape == (3, 5, 10, 10)
    assert found.maps.dtype == np.float32
    assert found.images.tolist() == [9, 7, 5, 3, 1]
    assert found.labels.tolist() == LABELS.tolist()
    assert found.names == ["9.png", "7.png", "5.png", "3.png", "1.png"]
    assert found.class_names == ["cat", "dog", "鸟"]
    assert (found.grid, found.input_size) == ((10, 10), (12, 12))
    assert (found.method, found.target, found.flags) == ("gradcam", "label", [])
    assert (found.missing, found.diverged) == ([], None)
    with h5py.File(tmp_path / "cam.h5") as file:
        assert dict(file.attrs) == {
            "layer": found.layer, "method": "gradcam", "target": "label", "grid": "[10, 10]",
            "input_size": "[12, 12]", "class_names": '["cat", "dog", "鸟"]', "flags": "[]",
            "missing": "[]",
        }  # fmt: skip
    for at, epoch in enumerate([0, 1, 3]):
        model = models.build(SPEC, (12, 12, 3))
        if epoch:
            model.load_weights(checkpoints[epoch])
        maps, logits = explain(model, PHOTOS, layer=found.layer)
        np.testing.assert_allclose(found.maps[at], maps, atol=1e-6)
        odds = np.exp(logits)
        expected = odds / odds.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.probability[at], expected, atol=1e-6)


def test_a_network_that_trains_on_crops_is_explained_on_the_middle_that_it_sees(tmp_path):
    crop = {"class_name": "RandomCrop", "config": {"height": 9, "width": 7}}
    cropping = models.build(SPEC | {"augment": [crop]}, (12, 12, 3))
    plain = models.build(SPEC | {"augment": []}, (9, 7, 3))
    plain.set_weights(cropping.get_weights())
    found = record(tmp_path, {}, lambda: cropping)
    assert (found.grid, found.input_size) == ((7, 5), (9, 7))
    maps, _ = explain(plain, PHOTOS[:, 1:10, 2:9], layer=found.layer)
    np.testing.assert_allclose(found.maps[0], maps, atol=1e-6)


def test_a_random_head_keeps_the_trunk_and_forgets_the_rest(tmp_path):
    found = record(tmp_path, trained(tmp_path), seed=1)
    build = lambda: models.build(SPEC, (12, 12, 3))  # noqa: E731
    names = [layer.name for layer in head_layers(build(), "conv")]
    assert names == ["batch_normalization_1", "dense_1"]
    assert np.abs(found.random_head - found.maps).max() > 0
    again = record(tmp_path, trained(tmp_path), seed=1)
    np.testing.assert_array_equal(again.random_head, found.random_head)
    other = record(tmp_path, trained(tmp_path), seed=2)
    assert np.abs(other.random_head - found.random_head).max() > 0
    np.testing.assert_array_equal(other.maps, found.maps)


def test_drift_is_measured_with_another_seed_as_baseline_and_written_where_it_is_told(tmp_path):
    mine, theirs = tmp_path / "seed0", tmp_path / "seed1"
    mine.mkdir()
    theirs.mkdir()
    record(theirs, trained(theirs))
    record(mine, trained(mine))
    write_drift(mine / "cam.h5", tmp_path / "drift.csv", [theirs / "cam.h5"])
    table = read_drift(tmp_path / "drift.csv").set_index("epoch")
    assert table.index.tolist() == [0, 1, 3]
    assert (table["spearman_other_seed_median"] == 1).all()
    for folder in (mine, theirs):
        assert {path.suffix for path in folder.iterdir()} == {".h5"}


def test_maps_that_were_left_out_are_no_baseline_and_have_no_drift(tmp_path):
    record(tmp_path, {})
    gone = tmp_path / "gone.h5"
    leave_out_cam(gone, "shapes.h5 holds other pixels")
    assert maps_missing(gone) == ("shapes.h5 holds other pixels", [])
    with pytest.raises(LeftOutError, match=r"shapes\.h5 holds other pixels"):
        read_cam(gone)
    write_drift(tmp_path / "cam.h5", tmp_path / "drift.csv", [gone])
    table = read_drift(tmp_path / "drift.csv")
    assert table["spearman_other_seed_median"].isna().all()
    write_drift(gone, tmp_path / "drift.csv", [tmp_path / "cam.h5"])
    assert (tmp_path / "drift.csv").read_text() == "epoch\n"
    with pytest.raises(DamagedError, match="no epoch"):
        read_drift(tmp_path / "drift.csv")


def test_what_is_missing_and_that_a_run_diverged_stay_with_the_maps(tmp_path):
    cam = record(tmp_path, {})
    write_cam(tmp_path / "cam.h5", replace(cam, missing=[4, 7], diverged=0))
    found = read_cam(tmp_path / "cam.h5")
    assert (found.missing, found.diverged) == ([4, 7], 0)
    assert maps_missing(tmp_path / "cam.h5") == ("", [4, 7])


def test_weights_of_another_network_are_named_and_leave_no_file(tmp_path):
    pooled().save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ScratchbookError, match=r"other\.weights\.h5 cannot be loaded into"):
        record(tmp_path, {4: tmp_path / "other.weights.h5"})
    assert [path.name for path in tmp_path.iterdir()] == ["other.weights.h5"]


# ----------------------------------------------------------------- other backends and libraries


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_all_this_holds_on_the_other_backends(backend):
    if backend == keras.backend.backend():
        pytest.skip("this is the backend that the tests above ran on")
    if os.environ.get("SCRATCHBOOK_TEST_BACKEND"):
        pytest.skip("already in such a run")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "SCRATCHBOOK_TEST_BACKEND": "1"}
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            "not pytorch",
            "-p",
            "no:cacheprovider",
            __file__,
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tail", ["flatten", "pooling"])
def test_maps_agree_with_pytorch_grad_cam_on_the_same_weights(method, tail, monkeypatch):
    # PyTorch would load triton, whose copy of LLVM aborts a process that holds TensorFlow's.
    monkeypatch.setitem(sys.modules, "triton", None)
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from cam import pytorch_maps, torch_twin

    squash = layers.Flatten() if tail == "flatten" else layers.GlobalAveragePooling2D()
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            squash,
            layers.Dense(16, activation="relu"),
            layers.Dense(3),
        ]
    )
    images = np.random.default_rng(0).uniform(size=(6, 24, 24, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    ours, logits = explain(model, images, labels, method=method)
    twin, target = torch_twin(model, "conv")
    theirs, their_logits = pytorch_maps(twin, target, images, labels, method)
    np.testing.assert_allclose(their_logits, logits, atol=1e-4)
    for mine, other in zip(ours, theirs, strict=True):  # signed; maps that are empty count too
        assert spearmanr(mine, other, axis=None).statistic >= 0.999

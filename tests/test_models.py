"""Networks: built as declared, backbones and residual blocks included, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from result_trees import COUNTS, make_run, make_spec
from scratchbook import models
from scratchbook.config.keras_api import keras_api
from scratchbook.config.layers import layer_object
from scratchbook.errors import ScratchbookError
from scratchbook.models.kernels import layer_class
from scratchbook.models.weights import weights_files
from scratchbook.models.whitening import whitening_filters
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record
from scratchbook.training.loop import seed_epoch

HEAD = ["GlobalAveragePooling2D", {"Dense": {"units": 2, "activation": "softmax"}}]
SIZE = (32, 32, 3)


def spec(*entries: Any) -> dict[str, Any]:
    return {
        "dataset": "d", "augment": [], "layers": [layer_object(e) for e in (*entries, *HEAD)],
        "recorded_parameters": None, "recorded_trainable": None,
        "validation": "validation", "train_samples": None,
    }  # fmt: skip


def mobilenet(**arguments: Any) -> dict[str, Any]:
    return spec({"Backbone": {"application": "MobileNet", "weights": "none", **arguments}})


def images(n: int = 2, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_a_residual_block_adds_what_reaches_it_to_what_its_layers_make() -> None:
    block = {"layers": [{"Conv2D": {"filters": 3, "kernel_size": 3, "padding": "same",
                                    "kernel_initializer": "zeros"}}]}  # fmt: skip
    plain = models.build(spec(), SIZE)
    with_block = models.build(spec({"Residual": block}), SIZE)
    with_block.layers[-1].set_weights(plain.layers[-1].get_weights())
    x = images()
    np.testing.assert_allclose(with_block.predict_on_batch(x), plain.predict_on_batch(x), rtol=1e-6)


def test_a_residual_blocks_table_has_its_layers_its_shortcut_and_the_sum() -> None:
    wide = {"filters": 8, "strides": 2, "padding": "same"}
    declared = spec(
        {"Residual": {
            "layers": [{"Conv2D": {**wide, "kernel_size": 3}}],
            "shortcut": [{"Conv2D": {**wide, "kernel_size": 1}}],
            "activation": "relu",
        }}
    )  # fmt: skip
    table = models.layer_table(declared, models.build(declared, SIZE))
    assert [(r["name"], r["class_name"], r["parameters"]) for r in table[:4]] == [
        ("conv2d_1", "Conv2D", 224),
        ("conv2d_2", "Conv2D", 32),
        ("residual_1", "Add", 0),
        ("residual_1_activation", "Activation", 0),
    ]
    assert table[2]["output_shape"] == [None, 16, 16, 8]


def test_a_block_whose_ways_differ_in_shape_is_refused_with_both_shapes() -> None:
    block = {"Residual": [{"Conv2D": {"filters": 8, "kernel_size": 3, "strides": 2}}]}
    with pytest.raises(ScratchbookError, match=r"15 × 15 × 8.*32 × 32 × 3.*shortcut"):
        models.build(spec(block), SIZE)


@pytest.mark.parametrize(
    ("freeze", "trainable"),
    [("none", 15_895_362), ("all", 1_180_674), ({"last_trainable": 8}, 14_159_874),
     ({"up_to": "block3_pool"}, 14_159_874 ), ({"last_trainable": 0}, 1_180_674)],
)  # fmt: skip
def test_vgg16_has_the_recorded_parameters_however_it_is_frozen(
    freeze: Any, trainable: int
) -> None:
    declared = spec()
    declared["layers"] = [
        layer_object(entry)
        for entry in (
            {"Backbone": {"application": "VGG16", "weights": "imagenet", "freeze": freeze}},
            "Flatten",
            {"Dense": {"units": 256, "use_bias": False}},
            "BatchNormalization",
            {"Activation": "relu"},
            {"Dropout": 0.5},
            {"Dense": {"units": 2, "activation": "softmax"}},
        )
    ]
    model = models.build(declared, (96, 96, 3))
    assert models.count_parameters(model) == {
        "total": 15_895_874, "trainable": trainable, "non_trainable": 15_895_874 - trainable
    }  # fmt: skip
    row = models.layer_table(declared, model)[0]
    assert (row["name"], row["class_name"], row["parameters"]) == (
        "vgg16", "Functional", 14_714_688
    )  # fmt: skip
    assert row["output_shape"] == [None, 3, 3, 512]
    # 15,346,630,656 at 224 px are VGG16's, its own fully connected layers left out.
    assert row["multiply_adds"] == 15_346_630_656 * 96**2 // 224**2


def test_multiply_adds_are_those_of_the_kernels_at_every_position() -> None:
    declared = spec(
        {"Conv2D": {"filters": 8, "kernel_size": 3, "padding": "same", "strides": 2}},
        "BatchNormalization",
        {"DepthwiseConv2D": {"kernel_size": 3}},
        {"SeparableConv2D": {"filters": 6, "kernel_size": 3, "padding": "same"}},
        {"Conv2D": {"filters": 6, "kernel_size": 1, "groups": 3}},
        "PReLU",
    )
    table = models.layer_table(declared, models.build(declared, SIZE))
    assert [row["multiply_adds"] for row in table[:6]] == [
        16 * 16 * 3 * 3 * 3 * 8,
        0,
        14 * 14 * 3 * 3 * 8,
        14 * 14 * (3 * 3 * 8 + 8 * 6),
        14 * 14 * (6 // 3) * 6,
        0,
    ]
    head = table[-1]
    assert head["multiply_adds"] == head["parameters"] - 2  # its weights once, without the biases


def test_a_backbone_sees_its_own_preprocessing_and_not_a_division_by_255() -> None:
    model = models.build(mobilenet(output_layer="conv_pw_1_relu"), SIZE)
    x = images()
    inner = model.get_layer("mobilenet")
    features = inner.predict_on_batch(x.astype(np.float32) / 127.5 - 1.0)  # (n, h, w, c)
    pooled = features.mean(axis=(1, 2))
    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(model.predict_on_batch(x), pooled @ kernel + bias, atol=1e-4)


def test_a_backbone_is_float32_where_it_must_be_and_bf16_where_it_may() -> None:
    import keras

    model = models.build(mobilenet(output_layer="conv_pw_1_relu"), SIZE, "mixed_bfloat16")
    assert model.get_layer("mobilenet").get_layer("conv1").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the weights of MobileNet up to conv_pw_1_relu."""
    model = models.build(mobilenet(output_layer="conv_pw_1_relu"), SIZE, seed=5)
    model.get_layer("mobilenet").save_weights(tmp_path / "cut.weights.h5")
    return tmp_path


def test_weights_of_a_file_are_loaded_and_only_where_a_folder_is_given(folder: Path) -> None:
    declared = mobilenet(output_layer="conv_pw_1_relu", weights="cut.weights.h5")
    stored = models.build(mobilenet(output_layer="conv_pw_1_relu"), SIZE, seed=5)
    loaded = models.build(declared, SIZE, seed=1, pretrained=folder)
    random = models.build(declared, SIZE, seed=1)

    def kernel(model: Any) -> np.ndarray:
        return model.get_layer("mobilenet").get_layer("conv1").get_weights()[0]

    np.testing.assert_array_equal(kernel(loaded), kernel(stored))
    assert not np.array_equal(kernel(random), kernel(stored))
    assert weights_files(declared["layers"], folder) == [folder / "cut.weights.h5"]


def test_weights_that_do_not_fit_or_are_not_there_are_refused(folder: Path) -> None:
    def message(**arguments: Any) -> str:
        with pytest.raises(ScratchbookError) as caught:
            models.build(mobilenet(**arguments), SIZE, pretrained=folder)
        return str(caught.value)

    other = message(weights="cut.weights.h5", output_layer="conv_pw_2_relu")
    assert "cut.weights.h5 holds 3,712 parameters, but MobileNet has" in other
    assert f"there is no file {folder / 'absent.h5'}" in message(weights="absent.h5")
    (folder / "half.weights.h5").write_bytes((folder / "cut.weights.h5").read_bytes()[:5000])
    assert "half.weights.h5 is no whole weights file" in message(weights="half.weights.h5")


def test_imagenet_weights_that_cannot_be_downloaded_name_file_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    make = keras.applications.MobileNet

    def offline(weights: str | None = "imagenet", **arguments: Any) -> Any:
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://example.org/a/mobilenet_no_top.h5: None")
        return make(weights=weights, **arguments)

    offline.__module__ = make.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(ScratchbookError) as caught:
        models.build(mobilenet(weights="imagenet"), SIZE, pretrained=tmp_path)
    assert "https://example.org/a/mobilenet_no_top.h5" in str(caught.value)
    assert str(tmp_path / "mobilenet_no_top.h5") in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_layer": "conv_pw_1_rely"}, "no layer 'conv_pw_1_rely'.*'conv_pw_1_relu'"),
        ({"freeze": {"last_trainable": 500}}, "last_trainable is 500, but mobilenet has only 86"),
        ({"freeze": {"up_to": "conv9"}}, "freeze.up_to: mobilenet has no layer 'conv9'"),
    ],
)
def test_a_backbone_that_cannot_be_cut_or_frozen_so_is_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ScratchbookError, match=said):
        models.build(mobilenet(**arguments), SIZE)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"Backbone": "VGG61"}, "Backbone: application: unknown application 'VGG61'.*did you mean"),
        ({"Backbone": {"application": "VGG16", "freez": "all"}}, "unknown key 'freez'.*'freeze'"),
        ({"Backbone": {"application": "VGG16", "freeze": "some"}}, "Backbone: freeze"),
        ({"Residual": []}, "Residual: layers"),
        ({"Residual": [{"Conv2d": 2}]}, r"Residual.layers\[0\]: unknown layer 'Conv2d'"),
        ({"Residual": [{"Backbone": "VGG16"}]}, "a Backbone takes images, so it stands first"),
        ({"Residual": ["Whitening"]}, "Whitening takes images, so it stands first"),
        ({"Whitening": 6}, "Whitening: kernel_size"),
        ({"Dense": {"units": 2, "kernel_initializer": {"class_name": "x"}}}, "takes a number"),
    ],
)
def test_a_layer_that_cannot_be_is_refused_before_keras_is_imported(entry: Any, said: str) -> None:
    with pytest.raises(PydanticCustomError, match=said):
        layer_object(entry)


def whitened(pixels: np.ndarray, kernel_size: int, precision: str) -> np.ndarray:
    """What a Whitening layer makes of the images that it was made from: (n, h, w, filters)."""
    import keras

    prepared: Any = SimpleNamespace(images=pixels, indices=lambda split: np.arange(len(pixels)))
    model = models.start(
        spec({"Whitening": kernel_size}, "ReLU"), prepared, precision,
        seed=0, pretrained=Path(), initial_run=None,
    )  # fmt: skip
    layer = model.get_layer("whitening")
    assert model.count_params() == layer.count_params() + 2 * layer.filters + 2
    assert not layer.trainable_weights
    return np.asarray(keras.Model(model.input, layer.output).predict_on_batch(pixels))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_whitening_makes_of_patches_uncorrelated_numbers_in_both_signs(
    kernel_size: int, precision: str
) -> None:
    coarse = images(30, 16).astype(float)
    pixels = ((coarse + np.roll(coarse, 1, 1) + np.roll(coarse, 1, 2)) / 3).astype(np.uint8)
    answers = whitened(pixels, kernel_size, precision)
    assert answers.shape[-1] == 2 * 3 * kernel_size**2
    np.testing.assert_allclose(answers[..., ::2], -answers[..., 1::2], atol=1e-4)
    before = (kernel_size - 1) // 2  # the padding is no patch of any image
    valid = slice(before, 16 - (kernel_size - 1 - before))
    components = answers[:, valid, valid, ::2].reshape(-1, 3 * kernel_size**2)
    np.testing.assert_allclose(components.mean(axis=0), 0, atol=1e-3)
    covariance = np.cov(components.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)
    assert (np.diag(covariance) <= 1.001).all()
    assert np.diag(covariance)[0] > 0.98  # the largest is hardly touched by what is added to each


@pytest.mark.parametrize(
    ("size", "kernel_size", "said"), [(16, 2, "of one colour"), (2, 3, "2 × 2 pixels")]
)
def test_what_cannot_be_whitened_is_refused(size: int, kernel_size: int, said: str) -> None:
    pixels = np.full((4, size, size, 3), 90, np.uint8)
    with pytest.raises(ScratchbookError, match=said):
        whitening_filters(pixels, np.arange(4), kernel_size)


def test_augmentation_sees_pixels_of_0_to_255() -> None:
    declared = spec()
    declared["augment"] = [
        {"class_name": "RandomBrightness", "config": {"factor": [0.5, 0.5]}}
    ]  # its default value_range is 0..255
    model = models.build(declared, SIZE)
    black = np.zeros((1, *SIZE), np.uint8)
    brighter = np.asarray(model(black, training=True))
    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(brighter[0], 0.5 * kernel.sum(axis=0) + bias, rtol=1e-3)
    json.dumps(models.layer_table(declared, model))


AUGMENTATION: dict[str, dict[str, Any]] = {  # strong enough for each image to show it
    "RandomBrightness": {"factor": 0.5}, "RandomContrast": {"factor": 0.5},
    "RandomColorJitter": {"brightness_factor": 0.5, "hue_factor": 0.5},
    "RandomCrop": {"height": 5, "width": 6}, "RandomErasing": {"factor": 1.0},
    "RandomFlip": {"mode": "horizontal_and_vertical"}, "RandomGrayscale": {"factor": 0.5},
    "RandomHue": {"factor": 0.5}, "RandomRotation": {"factor": 0.5},
    "RandomSaturation": {"factor": 0.9}, "RandomSharpness": {"factor": 0.9},
    "RandomShear": {"x_factor": 0.5}, "RandomTranslation": {"height_factor": 0.5,
    "width_factor": 0.5}, "RandomZoom": {"height_factor": 0.5},
}  # fmt: skip


def augmented(*entries: tuple[str, dict[str, Any]], size: tuple[int, int] = (8, 8)) -> Any:
    """Networks whose layers depend on the size that reaches them: whole, and up to the pixels."""
    import keras

    declared = spec()
    declared["layers"][0] = layer_object("Flatten")
    declared["augment"] = [{"class_name": name, "config": config} for name, config in entries]
    model = models.build(declared, (*size, 3))
    return model, keras.Model(model.input, model.get_layer("rescale").output)


def pixels_of(model: Any, batch: np.ndarray, training: bool) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(model(batch, training=training)) * 255


def tensor(numbers: np.ndarray) -> Any:
    import keras

    return keras.ops.convert_to_tensor(numbers, "float32")


@pytest.mark.parametrize("name", keras_api()["augmentation layer"])
def test_augmentation_is_of_each_image_in_training_and_of_none_in_inference(name: str) -> None:
    model, pixels = augmented((name, AUGMENTATION[name]))
    batch = np.repeat(images(1, size=8), 16, axis=0)
    seen = batch[:, 1:6, 1:7] if name == "RandomCrop" else batch
    np.testing.assert_allclose(pixels_of(pixels, batch, training=False), seen, atol=1e-3)
    assert model.predict_on_batch(batch).shape == (16, 2)
    seed_epoch(model, 0, epoch=1)
    drawn = pixels_of(pixels, batch, training=True)
    assert drawn.shape == seen.shape
    assert len(np.unique(drawn, axis=0)) > 1
    assert (drawn != pixels_of(pixels, batch, training=True)).any()
    seed_epoch(model, 0, epoch=1)
    np.testing.assert_array_equal(drawn, pixels_of(pixels, batch, training=True))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    over=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    count=st.integers(1, 7),
)
@settings(max_examples=25, deadline=None)
def test_a_crop_is_a_window_of_its_image_and_its_middle_in_inference(
    size: tuple[int, int], over: tuple[int, int], count: int
) -> None:
    (height, width), (beside, above) = size, (over[1], over[0])
    rows, columns = height + above, width + beside
    # Each pixel tells its image and its place.
    places = np.stack(np.meshgrid(*map(np.arange, (count, rows, columns)), indexing="ij"), axis=-1)
    batch = tensor(places)
    crop = layer_class("RandomCrop")(height, width, dtype="float32")
    drawn = np.asarray(crop(batch, training=True)).astype(int)
    assert drawn.shape == (count, height, width, 3)
    for image, window in enumerate(drawn):
        _, top, left = window[0, 0]
        np.testing.assert_array_equal(
            window, places[image, top : top + height, left : left + width]
        )
    top, left = above // 2, beside // 2
    np.testing.assert_array_equal(
        np.asarray(crop(batch)), places[:, top : top + height, left : left + width]
    )


def test_a_crop_is_drawn_for_each_image_evenly_from_every_place() -> None:
    crop = layer_class("RandomCrop")(2, 3, seed=0)
    rows, columns = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    places = tensor(np.repeat(np.stack([rows, columns], axis=-1)[None], 6000, axis=0))
    drawn = np.asarray(crop(places, training=True))[:, 0, 0]
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 3 * 2
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_a_crop_of_a_crop_is_what_the_network_sees_and_goes_with_its_config() -> None:
    import keras

    crops = [("RandomCrop", {"height": 7, "width": 6}), ("RandomCrop", {"height": 5, "width": 4})]
    model, _ = augmented(*crops, size=(8, 10))
    assert models.seen_size(model) == (5, 4)
    assert models.seen_size(augmented(size=(8, 10))[0]) == (8, 10)
    twin = keras.Model.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(twin.predict_on_batch(batch), model.predict_on_batch(batch))


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (8, 9, "of shape 8 × 8 × 3: the images are smaller than 8 × 9; give a smaller height and"),
        (0, 5, "height is a whole number of pixels, 1 or more, not 0"),
        (5, 2.5, r"width is a whole number of pixels, 1 or more, not 2\.5"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(height: Any, width: Any, said: str) -> None:
    with pytest.raises(ScratchbookError, match=rf"^augment\[0\]: RandomCrop .*{said}"):
        augmented(("RandomCrop", {"height": height, "width": width}))


def kept_run(folder: Path, declared: dict[str, Any], seed: int = 7) -> RunFiles:
    """A run of five epochs of which the third was the best, and what its weights were then."""
    run, whole = RunFiles(folder), make_spec(layers=declared["layers"], epochs=5)
    make_run(folder, whole, 0, classes=("x", "y"), counts=COUNTS, accuracy=0.5)
    run.checkpoints.mkdir()
    models.build(declared, SIZE, seed=seed).save_weights(run.weights(read_record(run))[3])
    return run


@pytest.mark.parametrize("checkpoint", ["best", 3])
def test_a_warm_start_takes_over_the_weights_of_a_checkpoint(
    tmp_path: Path, checkpoint: str | int
) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}})
    model = models.build(declared, SIZE, seed=1)
    run = kept_run(tmp_path, declared)
    models.load_checkpoint(model, {"experiment": "a", "checkpoint": checkpoint}, run)
    for ours, theirs in zip(
        model.get_weights(), models.build(declared, SIZE, seed=7).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_warm_start_that_cannot_be_is_refused(tmp_path: Path) -> None:
    declared = spec({"Conv2D": {"filters": 4, "kernel_size": 3}})
    run = kept_run(tmp_path, declared)
    other = models.build(spec({"Conv2D": {"filters": 5, "kernel_size": 3}}), SIZE)
    with pytest.raises(ScratchbookError, match=r"3×3×3×4.*where.*3×3×3×5"):
        models.load_checkpoint(other, {"experiment": "a", "checkpoint": "best"}, run)
    same = models.build(declared, SIZE)
    with pytest.raises(ScratchbookError, match="a kept no weights of epoch 9, only of 3"):
        models.load_checkpoint(same, {"experiment": "a", "checkpoint": 9}, run)


@pytest.mark.parametrize(
    ("source", "ours", "theirs"),
    [
        ([{"Conv2D": {"filters": 4, "kernel_size": 3}}],
         "layer 'conv2d_1' of shape 3×3×3×5, 5", "layer 'conv2d_1' of shape 3×3×3×4, 4"),
        ([{"Conv2D": {"filters": 5, "kernel_size": 3}}, {"Dense": 5}],
         "layer 'dense_1' of shape 5×2, 2", "layer 'dense_1' of shape 5×5, 5"),
        ([], "layer 'conv2d_1' of shape 3×3×3×5, 5", "layer 'dense_1' of shape 3×2, 2"),
        ([{"Backbone": {"application": "MobileNet", "weights": "none"}}],
         "layer 'conv2d_1' of shape 3×3×3×5, 5", "layer 'mobilenet/conv1' of shape 3×3×3×32"),
    ],
)  # fmt: skip
def test_a_warm_start_from_other_shapes_is_refused_before_any_training(
    source: list, ours: str, theirs: str
) -> None:
    specs = {
        "b": spec({"Conv2D": {"filters": 5, "kernel_size": 3}})
        | {"initial_weights": {"experiment": "a", "checkpoint": "best"}},
        "a": spec(*source),
    }
    assert models.survey_networks(specs, SIZE[:2])[1] == [
        f"experiments.b.initial_weights: this network has {ours} where 'a', whose weights it is "
        f"to take over, has {theirs}; make the layers equal"
    ]


def test_a_warm_start_may_freeze_and_drop_out_differently() -> None:
    frozen = {"Backbone": {"application": "MobileNet", "weights": "none", "freeze": "all"}}
    thawed = {"Backbone": {"application": "MobileNet", "weights": "none"}}
    specs = {
        "a": spec(frozen, {"Dropout": 0.5}),
        "b": spec(thawed) | {"initial_weights": {"experiment": "a", "checkpoint": "best"}},
    }
    networks, mistakes = models.survey_networks(specs, SIZE[:2])
    assert (set(networks), mistakes) == ({"a", "b"}, [])


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_dropout_drops_its_rate_and_scales_what_is_left(rate: float, precision: str) -> None:
    import keras

    layer = layer_class("Dropout")(rate, seed=1, dtype=precision)
    ones = np.ones((3, 333_333), np.float32)  # an odd number of units
    first, second = (
        keras.ops.convert_to_numpy(keras.ops.cast(layer(ones, training=True), "float32"))
        for _ in range(2)
    )
    share = (first == 0).mean()
    assert abs(share - rate) < 6 * np.sqrt(rate * (1 - rate) / ones.size)
    assert set(np.unique(first)) <= {0, first.max()}
    assert first.max() == pytest.approx(1 / (1 - rate), rel=0.01 if "16" in precision else 1e-6)
    both = ((first == 0) & (second == 0)).mean()
    assert both == pytest.approx(rate**2, abs=0.005)  # each call draws anew
    assert (keras.ops.convert_to_numpy(layer(ones, training=False)) == 1).all()


@given(
    maps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    padding=st.sampled_from(["same", "valid"]),
    strides=st.sampled_from([1, 1, 1, 2]),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
@example(maps=(4, 4), kernel=(3, 3), padding="same", strides=1, seed=0)
@example(maps=(2, 3), kernel=(5, 4), padding="same", strides=1, seed=0)  # wider than the map
def test_convolution_is_keras_own_by_another_operation(
    maps: tuple[int, int], kernel: tuple[int, int], padding: str, strides: int, seed: int
) -> None:
    """Of whole numbers below 256, which bfloat16 holds, so that both must be equal to the bit."""
    import keras
    import tensorflow as tf

    assume(padding == "same" or all(k <= m for k, m in zip(kernel, maps, strict=True)))
    arguments = {"filters": 3, "kernel_size": kernel, "padding": padding, "strides": strides}
    rng = np.random.default_rng(seed)
    pixels = tf.constant(rng.integers(-1, 2, (2, *maps, 3)), tf.bfloat16)
    weights = rng.integers(-1, 2, (*kernel, 3, 3))
    found = []
    for convolution in (layer_class("Conv2D"), keras.layers.Conv2D):
        layer = convolution(**arguments, dtype="mixed_bfloat16")
        layer.build(pixels.shape)
        layer.kernel.assign(weights)
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels)
        of_outputs = tf.constant(
            np.random.default_rng(seed).integers(-1, 2, outputs.shape), tf.bfloat16
        )
        gradients = tape.gradient(outputs, [pixels, layer.kernel.value], of_outputs)
        found.append([np.asarray(tf.cast(x, tf.float32)) for x in (outputs, *gradients)])
    # TensorFlow leaves what was in memory as the gradient of weights that see nothing but padding.
    sees = np.ones(kernel, bool)
    if padding == "same":
        sees = np.outer(*(seen_by(k, m, strides) for k, m in zip(kernel, maps, strict=True)))
    ours, theirs = ([*one[:2], np.where(sees[..., None, None], one[2], 0)] for one in found)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our, their)
    if strides == 1 and padding == "same":
        assert not found[0][2][~sees].any()


def seen_by(size: int, pixels: int, stride: int) -> np.ndarray:
    """Which positions of a kernel see a pixel along one axis of a `same` convolution."""
    outputs = -(-pixels // stride)
    before = max((outputs - 1) * stride + size - pixels, 0) // 2
    places = np.arange(outputs)[:, None] * stride + np.arange(size) - before
    return ((places >= 0) & (places < pixels)).any(axis=0)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("arguments", [{}, {"scale": False, "momentum": 0.5}, {"center": False}])
def test_batch_normalization_is_keras_own_by_another_operation(
    arguments: dict[str, Any], precision: str
) -> None:
    import keras

    ours = layer_class("BatchNormalization")(**arguments, dtype=precision)
    theirs = keras.layers.BatchNormalization(**arguments, dtype=precision)
    rng = np.random.default_rng(0)
    for layer in (ours, theirs):
        layer.build((None, 5, 4, 3))
    for variable, value in zip(ours.variables, theirs.variables, strict=True):
        start = rng.uniform(0.5, 2, variable.shape).astype("float32")
        variable.assign(start)
        value.assign(start)
    close = {"rtol": 0.02, "atol": 0.02} if "16" in precision else {"rtol": 1e-4, "atol": 1e-5}
    for _ in range(3):
        maps = rng.normal(3, 2, (7, 5, 4, 3)).astype("float32")
        for training in (True, False):
            outputs = [
                keras.ops.convert_to_numpy(
                    keras.ops.cast(layer(maps, training=training), "float32")
                )
                for layer in (ours, theirs)
            ]
            np.testing.assert_allclose(*outputs, **close)
    for variable, value in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(
            variable.numpy(), value.numpy(), rtol=1e-2 if "16" in precision else 1e-5
        )
    ours.trainable = False  # frozen, it normalises by its moving averages in training too
    before = [variable.numpy() for variable in ours.variables]
    frozen = ours(maps, training=True)
    np.testing.assert_array_equal(frozen, ours(maps, training=False))
    for variable, value in zip(ours.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)

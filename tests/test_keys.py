"""A run's key says what was asked for: no word of it, no default and no order changes it, and every
other value does. Keras is told each frozen default, so that it answers what the key says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook import keys, models
from scratchbook.config.keras_api import ALLOWED, describe_defaults, keras_api
from scratchbook.config.layers import COMPOSITES, layer_object
from scratchbook.config.notebooks import Notebook
from scratchbook.keys import cam_key, digits_in, digits_of, frozen, run_key
from scratchbook.training.loop import replayed_callbacks, seed_epoch
from scratchbook.training.optimizers import make_optimizer

PAIRS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("keys.json").read_text(encoding="utf-8")
)
"""What a notebook writes, what is asked beside it, and the key that this has had from the first."""
HEAD: list[Any] = [
    {"Conv2D": {"filters": 8, "kernel_size": 3}},
    "Flatten",
    {"Dense": {"units": 3, "activation": "softmax"}},
]
BESIDE: dict[str, Any] = {
    "data": "da7a00000000", "precision": "auto", "backend": "auto", "threads": 1,
    "pretrained": {}, "initial": None,
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {  # the arguments that a class cannot do without
    "Activation": {"activation": "tanh"}, "AveragePooling2D": {"pool_size": 2},
    "Backbone": {"application": "MobileNet", "weights": "none"},
    "Conv2D": {"filters": 4, "kernel_size": 3}, "Dense": {"units": 4},
    "DepthwiseConv2D": {"kernel_size": 3}, "Dropout": {"rate": 0.3},
    "GaussianNoise": {"stddev": 0.3}, "GroupNormalization": {"groups": 3},
    "Normalization": {"mean": 0.1, "variance": 2.0}, "RandomBrightness": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2}, "RandomCrop": {"height": 9, "width": 8},
    "RandomHue": {"factor": 0.2}, "RandomRotation": {"factor": 0.1},
    "RandomSaturation": {"factor": 0.4}, "RandomSharpness": {"factor": 0.4},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2}, "Rescaling": {"scale": 2.0},
    "Residual": {"layers": ["ReLU"]}, "SeparableConv2D": {"filters": 4, "kernel_size": 3},
    "SpatialDropout2D": {"rate": 0.3},
}  # fmt: skip
KINDS = {name: kind for kind, (_, names) in ALLOWED.items() for name in names} | dict.fromkeys(
    COMPOSITES, "layer"
)


def spec_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The resolved spec of an experiment, beside which there is another one to start from."""
    page = {
        "goal": "?", "dataset": "shapes", "cam": None, **entry.get("notebook", {}),
        "defaults": entry.get("defaults", {}),
        "experiments": {"other": {"layers": HEAD, "epochs": 9}, "it": entry["experiment"]},
    }  # fmt: skip
    return dict(Notebook.model_validate(page).spec("it"))


def key_of(entry: dict[str, Any]) -> str:
    """The key of an entry of keys.json."""
    return run_key(spec_of(entry), **BESIDE | entry.get("beside", {}))


def key_with(class_name: str, config: dict[str, Any]) -> str:
    """The key of a run that has an object with these arguments."""
    spec = spec_of({"experiment": {"layers": HEAD}})
    entry = {"class_name": class_name, "config": config}
    match KINDS[class_name]:
        case "layer":
            spec["layers"] = [entry, *spec["layers"]]
        case "augmentation layer":
            spec["augment"] = [entry]
        case "optimizer":
            spec["optimizer"] = entry
        case "callback":
            spec["callbacks"] = [entry]
    return run_key(spec, **BESIDE)


# ------------------------------------------------------------------------------- frozen for good


@pytest.mark.parametrize("name", PAIRS)
def test_what_was_asked_once_has_the_key_that_it_had(name: str) -> None:
    assert key_of(PAIRS[name]) == PAIRS[name]["key"], f"{name}: its runs would be trained again"


def test_fifty_keys_are_frozen_and_only_other_words_for_the_same_share_one() -> None:
    assert len(PAIRS) >= 50
    shared: dict[str, list[str]] = {}
    for name, entry in PAIRS.items():
        shared.setdefault(entry["key"], []).append(name)
    assert [names for names in shared.values() if len(names) > 1] == [
        [
            "a small network", "strides of 1 in so many words", "strides of 1 as a pair",
            "a kernel as a pair", "Adam at its own rate",
        ],
        ["strides of 2", "strides of 2 as a pair"],
        ["padding and activation", "by defaults of the notebook"],
        ["pooling by name alone", "pooling, its defaults given"],
        ["a backbone as Keras gives it", "a backbone, its defaults given"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_key_is_that_of_the_spec_which_a_run_keeps_as_json(name: str) -> None:
    kept = json.loads(json.dumps(spec_of(PAIRS[name])))
    assert run_key(kept, **BESIDE | PAIRS[name].get("beside", {})) == PAIRS[name]["key"]


def test_maps_have_the_key_that_their_choices_had() -> None:
    choices: Any = {
        "epochs": ["best", "last"], "images": 6, "layer": None, "method": "gradcam",
        "target": "label",
    }  # fmt: skip
    assert cam_key(choices) == "778a1c40501f"
    assert cam_key(dict(reversed(choices.items()))) == "778a1c40501f"
    assert cam_key({**choices, "method": "hirescam"}) != "778a1c40501f"


# ------------------------------------------------------------------------------ what is no change


def shuffled(value: Any, draw: Callable[[Any], Any]) -> Any:
    """The same value, the keys of each of its objects in another order."""
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: shuffled(value[name], draw) for name in names}
    return [shuffled(one, draw) for one in value] if isinstance(value, list) else value


@given(st.data(), st.sampled_from(sorted(PAIRS)))
def test_the_order_of_keys_is_no_part_of_a_key(data: st.DataObject, name: str) -> None:
    beside = BESIDE | PAIRS[name].get("beside", {})
    spec = shuffled(spec_of(PAIRS[name]), data.draw)
    assert run_key(spec, **shuffled(beside, data.draw)) == PAIRS[name]["key"]


def test_words_names_and_recorded_figures_are_no_part_of_a_key() -> None:
    page: dict[str, Any] = {
        "goal": "Which?", "dataset": "shapes", "cam": None,
        "experiments": {
            "one": {"layers": HEAD, "batch_size": 8},
            "two": {"layers": HEAD, "initial_weights": {"experiment": "one"}},
        },
    }  # fmt: skip
    told: dict[str, Any] = {
        "title": "Words", "goal": "Why?", "dataset": "shapes2", "notes": ["a thought"],
        "seeds": [5], "reach": 0.5, "leave_out": {"uno": [5]}, "baseline": "due",
        "cam": {"epochs": [1, 2]}, "key_results": [{"text": "{due.epochs}", "recorded": 3}],
        "experiments": {
            "uno": {
                "layers": HEAD, "batch_size": 8, "title": "a net", "notes": ["well"], "keep": 9,
                "recorded": {"parameters": 7, "trainable": 5, "val_accuracy": 0.5},
            },
            "due": {"parent": "uno", "batch_size": 32, "initial_weights": {"experiment": "uno"}},
        },
    }  # fmt: skip
    plain, wordy = Notebook.model_validate(page), Notebook.model_validate(told)
    beside = BESIDE | {"initial": "0123456789ab"}
    for ours, theirs in (("one", "uno"), ("two", "due")):
        assert plain.spec(ours) != wordy.spec(theirs)
        assert run_key(plain.spec(ours), **beside) == run_key(wordy.spec(theirs), **beside)


@given(st.dictionaries(st.from_regex(r"recorded_[a-z_]{1,9}", fullmatch=True), st.integers()))
def test_whatever_was_recorded_is_no_part_of_a_key(recorded: dict[str, int]) -> None:
    spec: Any = spec_of(PAIRS["a small network"]) | recorded
    assert run_key(spec, **BESIDE) == PAIRS["a small network"]["key"]


@given(st.data(), st.sampled_from(sorted(frozen())))
def test_a_frozen_default_in_so_many_words_is_no_change(
    data: st.DataObject, class_name: str
) -> None:
    config = {}
    for name, value in frozen()[class_name].items():
        if data.draw(st.booleans(), label=name):
            config[name] = value
            if isinstance(value, list) and value and len({*map(str, value)}) == 1:
                config[name] = data.draw(st.sampled_from([value, tuple(value), value[0]]))
            if isinstance(value, float) and value.is_integer():
                config[name] = data.draw(st.sampled_from([value, int(value)]))
    assert key_with(class_name, config) == key_with(class_name, {})


SETTINGS = [
    "augment", "batch_size", "callbacks", "epochs", "label_smoothing", "loss", "optimizer",
    "train_samples", "validation",
]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_a_spec_does_not_know_yet_is_what_it_was_when_it_was_introduced(
    name: str,
) -> None:
    spec = spec_of(PAIRS["a small network"])
    for absent in (name, "schedule", "test_time_flip"):
        spec.pop(absent, None)
    assert run_key(spec, **BESIDE) == PAIRS["a small network"]["key"]


# ------------------------------------------------------------------------------ what is a change

VALUES = [None, True, False, 0, 1, 2, 0.5, -1, "relu", "same", [], [1, 2], [2, 2],
          {"up_to": "x"}]  # fmt: skip


def said_alike(one: Any, other: Any) -> bool:
    """Whether two values of YAML mean the same, but for a pair of which one number is written."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(said_alike, one, other))
    return bool(one == other)


def means(value: Any, default: Any) -> bool:
    """Whether a value means the default."""
    if isinstance(default, list) and default and not isinstance(value, list):
        return all(said_alike(value, part) for part in default)
    return said_alike(value, default)


@given(st.data(), st.sampled_from(sorted(name for name in frozen() if frozen()[name])))
@settings(max_examples=300)
def test_any_value_but_the_default_is_a_change(data: st.DataObject, class_name: str) -> None:
    name = data.draw(st.sampled_from(sorted(frozen()[class_name])))
    default = frozen()[class_name][name]
    value = data.draw(st.sampled_from(VALUES) | st.integers() | st.floats(allow_nan=False))
    changed = key_with(class_name, {name: value}) != key_with(class_name, {})
    assert changed is not means(value, default)


@given(st.data(), st.sampled_from(sorted(frozen())))
def test_two_values_of_which_none_is_the_default_are_two_keys(
    data: st.DataObject, class_name: str
) -> None:
    name = data.draw(st.sampled_from(keras_api()[KINDS[class_name]].get(class_name) or ["name"]))
    one, other = (data.draw(st.sampled_from(VALUES) | st.integers()) for _ in range(2))
    if not said_alike(one, other) and not any(
        name in frozen()[class_name] and means(value, frozen()[class_name][name])
        for value in (one, other)
    ):
        assert key_with(class_name, {name: one}) != key_with(class_name, {name: other})


@pytest.mark.parametrize(
    "change",
    [
        {"data": "c0ffee000000"}, {"precision": "float32"}, {"backend": "tensorflow"},
        {"threads": 2}, {"pretrained": {"imagenet": "a"}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_is_asked_beside_the_spec_is_part_of_a_key(change: dict[str, Any]) -> None:
    spec = spec_of(PAIRS["a small network"])
    assert run_key(spec, **BESIDE | change) != run_key(spec, **BESIDE)


def test_a_warm_start_is_known_by_the_run_and_the_checkpoint_and_not_by_a_name() -> None:
    spec = spec_of(PAIRS["from the best of another"])
    beside = BESIDE | {"initial": "0123456789ab"}
    renamed = spec | {"initial_weights": {"experiment": "its new name", "checkpoint": "best"}}
    last = spec | {"initial_weights": {"experiment": "other", "checkpoint": "last"}}
    found = {
        run_key(spec, **beside), run_key(renamed, **beside), run_key(last, **beside),
        run_key(spec, **BESIDE | {"initial": "ba9876543210"}),
        run_key(spec_of(PAIRS["a small network"]), **BESIDE),
    }  # fmt: skip
    assert len(found) == 4


def test_the_order_of_layers_is_part_of_a_key_and_so_are_those_within_a_block() -> None:
    relu, drop = {"Activation": "relu"}, {"Dropout": 0.5}
    networks = [
        [relu, drop, *HEAD], [drop, relu, *HEAD],
        [{"Residual": [relu, drop]}, *HEAD], [{"Residual": [drop, relu]}, *HEAD],
        [{"Residual": {"layers": [relu], "shortcut": [drop]}}, *HEAD],
        [{"Residual": [{"Residual": [relu, drop]}]}, *HEAD],
    ]  # fmt: skip
    assert len({key_of({"experiment": {"layers": layers}}) for layers in networks}) == len(networks)


def test_the_data_sets_name_stands_before_the_digits_for_people_alone() -> None:
    assert digits_in("digits-of-mine-3f9a0c61d2e8") == "3f9a0c61d2e8"
    assert digits_of({"a": 1.0, "b": (1, 2)}) == digits_of({"b": [1, 2], "a": 1})


# ------------------------------------------------------------------------- the list that only grows


def test_what_was_frozen_stays_and_what_is_new_is_added() -> None:
    before = copy.deepcopy(frozen())
    before["Conv2D"]["padding"] = "once"  # as if Keras's own default had changed since
    before["Conv2D"]["gone"] = 5  # an argument that Keras knows no more
    before["Gone"] = {"factor": 2}
    del before["Conv2D"]["groups"], before["LeakyReLU"]
    given = copy.deepcopy(before)
    found = describe_defaults(before)
    assert before == given
    for class_name, defaults in before.items():
        assert found[class_name] | defaults == found[class_name]
    assert (found["Conv2D"]["groups"], found["LeakyReLU"]) == (1, frozen()["LeakyReLU"])


def test_a_layer_of_our_own_takes_what_is_frozen_for_it_unless_told_otherwise() -> None:
    for name in COMPOSITES:
        needed = {"Backbone": {"application": "VGG16"}, "Residual": {"layers": ["ReLU"]}}
        config = layer_object({name: needed.get(name, {})})["config"]
        assert {key: config.get(key) for key in frozen()[name]} == frozen()[name]


def test_each_default_of_an_argument_that_a_notebook_may_give_is_frozen() -> None:
    assert describe_defaults(frozen()) == frozen()
    assert frozen().keys() == KINDS.keys()
    for kind, classes in keras_api().items():
        for name, arguments in classes.items():
            if kind != "application":
                assert {*arguments} >= frozen()[name].keys(), name
                unfrozen = {*arguments} - frozen()[name].keys() - {"name"}
                assert unfrozen <= NEEDED.get(name, {}).keys() | {"pool_size"}, name


# --------------------------------------------------------------------------- what Keras is told


@pytest.fixture
def refreeze(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Other values in place of frozen ones, as Keras's own would be after a release."""

    def refreeze(class_name: str, **values: Any) -> None:
        others = {**keys.frozen(), class_name: keys.frozen()[class_name] | values}
        monkeypatch.setattr(keys, "frozen", lambda: others)

    return refreeze


def network(*layers: Any, **experiment: Any) -> Any:
    spec: Any = spec_of({"experiment": {"layers": [*layers, *HEAD], **experiment}})
    return models.build(spec, (12, 12, 3), seed=3)


def test_a_network_has_the_frozen_default_whatever_keras_has(refreeze: Callable[..., None]) -> None:
    refreeze("Conv2D", padding="same", use_bias=False)
    refreeze("RandomFlip", mode="vertical")
    model = network(augment=["RandomFlip"])
    convolution, flip = model.get_layer("conv2d_1"), model.get_layer("random_flip_1")
    assert (convolution.padding, convolution.use_bias, flip.mode) == ("same", False, "vertical")
    given = network({"Residual": [{"Conv2D": {"filters": 3, "kernel_size": 1, "use_bias": True}}]})
    assert given.get_layer("conv2d_1").use_bias
    assert given.get_layer("conv2d_1").padding == "same"


@pytest.mark.parametrize("class_name", ALLOWED["optimizer"][1])
def test_an_optimizer_has_the_frozen_default_whatever_keras_has(
    class_name: str, refreeze: Callable[..., None]
) -> None:
    refreeze(class_name, learning_rate=0.25, clipnorm=2.0)
    optimizer = make_optimizer({"class_name": class_name, "config": {}})
    assert (float(np.asarray(optimizer.learning_rate)), optimizer.clipnorm) == (0.25, 2.0)
    optimizer = make_optimizer({"class_name": class_name, "config": {"clipnorm": 1.0}})
    assert (float(np.asarray(optimizer.learning_rate)), optimizer.clipnorm) == (0.25, 1.0)


@pytest.mark.parametrize("class_name", ALLOWED["callback"][1])
def test_a_callback_has_the_frozen_default_whatever_keras_has(
    class_name: str, refreeze: Callable[..., None]
) -> None:
    refreeze(class_name, patience=77, min_delta=0.5)
    model = network()
    model.compile(optimizer="sgd", loss="mse")
    entry: Any = {"class_name": class_name, "config": {"patience": 5}}
    (given,) = replayed_callbacks([entry], model, [])
    (bare,) = replayed_callbacks([entry | {"config": {}}], model, [])
    assert (given.patience, bare.patience, abs(given.min_delta)) == (5, 77, 0.5)


SIDE = 96  # of an image of which a backbone leaves a map for the convolution


def answers(layers: list[Any], augment: list[Any]) -> tuple[Any, list[np.ndarray]]:
    """The arguments of all layers that a network became, and what it says, training and not."""
    import keras

    keras.utils.clear_session()  # the names of layers within a backbone are counted
    spec: Any = spec_of({"experiment": {"layers": HEAD}}) | {"layers": layers, "augment": augment}
    model = models.build(spec, (SIDE, SIDE, 3), seed=3)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    seed_epoch(model, 1, 1)
    said = [np.asarray(model(images, training=training)) for training in (True, False)]
    return {layer.name: layer.get_config() for layer in model.layers}, said


@pytest.mark.parametrize(
    "class_name",
    [name for name, kind in KINDS.items() if kind in ("layer", "augmentation layer")],
)
def test_a_network_is_the_same_with_its_frozen_defaults_in_so_many_words(class_name: str) -> None:
    needed = NEEDED.get(class_name, {})
    head = spec_of({"experiment": {"layers": HEAD}})["layers"]
    if class_name == "Flatten" or class_name.startswith("Global"):
        head = head[2:]  # there is no map for the convolution
    found = []
    for config in (needed, frozen()[class_name] | needed):
        entry = {"class_name": class_name, "config": config}
        if class_name in COMPOSITES:
            entry = layer_object({class_name: config})
        is_layer = KINDS[class_name] == "layer"
        found.append(answers([entry, *head] if is_layer else head, [] if is_layer else [entry]))
    (built, said), (spelled, again) = found
    assert built == spelled
    for ours, theirs in zip(said, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("class_name", ALLOWED["optimizer"][1])
def test_an_optimizer_is_keras_own_with_its_frozen_defaults_in_so_many_words(
    class_name: str,
) -> None:
    import keras

    told = [{}, frozen()[class_name]]
    ours, spelled = (make_optimizer({"class_name": class_name, "config": one}) for one in told)
    theirs = getattr(keras.optimizers, class_name)()
    one, two, three = (each.get_config() | {"name": ""} for each in (ours, spelled, theirs))
    assert one == two == three


@pytest.mark.parametrize("class_name", ALLOWED["callback"][1])
def test_a_callback_is_keras_own_with_its_frozen_defaults_in_so_many_words(class_name: str) -> None:
    import keras

    model = network()
    model.compile(optimizer="sgd", loss="mse")
    bare, spelled = (
        replayed_callbacks([{"class_name": class_name, "config": config}], model, [])[0]
        for config in ({}, frozen()[class_name])
    )
    theirs = getattr(keras.callbacks, class_name)()
    for name in {*frozen()[class_name]} - {"mode"}:  # which is resolved without Keras's metrics
        ours = getattr(bare, name)
        assert ours == getattr(spelled, name), name
        assert abs(ours) == abs(getattr(theirs, name)) if name == "min_delta" else True, name
        assert name == "min_delta" or ours == getattr(theirs, name), name


# -------------------------------------------------------------------------------- published weights


@pytest.mark.long
@pytest.mark.parametrize("application", keras_api()["application"])
def test_the_weights_that_keras_fetches_by_name_are_those_whose_hashes_are_in_keys(
    application: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    class Asked(Exception):
        pass

    asked: list[str | None] = []

    def get_file(*_: Any, file_hash: str | None = None, md5_hash: str | None = None, **__: Any):
        asked.append(file_hash or md5_hash)
        raise Asked

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    side = 331 if application == "NASNetLarge" else 224
    with pytest.raises(Asked):
        getattr(keras.applications, application)(
            weights="imagenet", include_top=False, input_shape=(side, side, 3)
        )
    published = json.loads(
        Path(models.__file__).with_name("published_weights.json").read_text(encoding="utf-8")
    )
    assert published.get(application) == asked[0]

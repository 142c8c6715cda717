"""The measures of drift: hand-computed cases, bounds, symmetry, scale, and what is undefined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scratchbook.cam import measures
from scratchbook.cam.choices import choose_images, resolve_epochs
from scratchbook.cam.drift import MEASURES, drift, write_drift
from scratchbook.errors import ScratchbookError
from scratchbook.results.hdf5 import write_cam
from scratchbook.results.paths import RunFiles
from scratchbook.results.records import CamMaps

RANGES = {"spearman": (-1, 1), "pearson": (-1, 1), "iou": (0, 1), "shift": (0, 1), "jsd": (0, 1)}
SAME = {"spearman": 1, "pearson": 1, "iou": 1, "shift": 0, "jsd": 0}

# Wide-ranging float32 values, as cam.h5 holds them, with plenty of ties and zeros.
cells = st.one_of(
    st.floats(-(2.0**100), 2.0**100, width=32), st.integers(-3, 3).map(float), st.just(0.0)
)
grids = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@st.composite
def pairs(draw):
    shape = draw(grids)
    return tuple(draw(arrays(np.float32, shape, elements=cells)) for _ in range(2))


def compare(name, a, b):
    return getattr(measures, name)(a, b)


@given(pairs())
def test_every_measure_stays_in_its_range_or_is_nan(pair):
    for name, (low, high) in RANGES.items():
        values = compare(name, *pair)
        assert values.shape == (len(pair[0]),)
        defined = values[~np.isnan(values)]
        assert ((defined >= low) & (defined <= high)).all(), name
    for maps in pair:
        values = measures.focus(maps)
        assert ((values >= -1e-9) & (values <= 1 + 1e-9) | np.isnan(values)).all()


@given(pairs())
def test_every_measure_is_symmetric(pair):
    for name in MEASURES:
        forward, backward = compare(name, *pair), compare(name, *pair[::-1])
        np.testing.assert_allclose(forward, backward, atol=1e-12, err_msg=name)


@given(pairs())
def test_a_map_has_not_drifted_from_itself(pair):
    for maps in pair:
        constant = (maps == maps[:, :1, :1]).all(axis=(1, 2))
        for name, same in SAME.items():
            values = compare(name, maps, maps)
            nothing = measures.empty(maps)
            if name in ("spearman", "pearson"):
                nothing = nothing | constant
            assert np.isnan(values[nothing]).all(), name
            np.testing.assert_allclose(values[~nothing], same, atol=1e-9, err_msg=name)


@given(pairs(), st.sampled_from([0.125, 0.5, 4.0, 1024.0]))
def test_a_positive_scale_changes_nothing(pair, scale):
    a, b = (maps.astype(np.float64) for maps in pair)
    for name in MEASURES:
        np.testing.assert_allclose(
            compare(name, a * scale, b), compare(name, a, b), atol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(measures.focus(a * scale), measures.focus(a), atol=1e-9)


@given(pairs())
def test_an_empty_map_is_never_silently_zero(pair):
    a, b = pair
    empty_a, empty_b = measures.empty(a), measures.empty(b)
    one, both = empty_a ^ empty_b, empty_a & empty_b
    assert (measures.iou(a, b)[one] == 0).all()
    assert (measures.jsd(a, b)[one] == 1).all()
    for name in MEASURES:
        assert np.isnan(compare(name, a, b)[both]).all(), name
    for name in ("spearman", "pearson", "shift"):
        assert np.isnan(compare(name, a, b)[one | both]).all(), name
    assert np.isnan(measures.focus(a)[empty_a]).all()


def test_spearman_and_pearson_by_hand():
    a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    b = np.array([[[1.0, 2.0], [4.0, 30.0]]])  # the same order
    c = np.array([[[1.0, 3.0], [2.0, 4.0]]])  # ranks differ by 0, 1, −1, 0
    assert measures.spearman(a, b) == pytest.approx(1)
    assert measures.spearman(a, c) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert measures.spearman(a, -b + 31) == pytest.approx(-1)
    # deviations −1.5, −0.5, 0.5, 1.5 and −1.5, 0.5, −0.5, 1.5: r = 4 / 5
    assert measures.pearson(a, c) == pytest.approx(0.8)


def test_the_sign_of_a_map_counts_for_the_correlation():
    a = np.array([[[1.0, -1.0, -2.0]]])
    b = np.array([[[1.0, -2.0, -1.0]]])  # the same positive part, the negative one reversed
    assert measures.spearman(a, b) == pytest.approx(0.5)
    assert measures.jsd(a, b) == pytest.approx(0)


def test_the_top_fifth_of_ten_cells_is_two_cells():
    a = np.arange(1.0, 11).reshape(1, 2, 5)  # top: cells 8 and 9
    b = a.copy()
    b[0, 0, 0] = 20  # top: cells 0 and 9
    assert measures.iou(a, b) == pytest.approx(1 / 3)


def test_the_top_fifth_holds_positive_cells_only():
    a, b = -np.ones((1, 2, 5)), -np.ones((1, 2, 5))
    a[0, 0, 0] = b[0, 0, 0] = 1
    assert measures.iou(a, b) == pytest.approx(1)
    b[0, 0, 0], b[0, 0, 1] = -1, 1
    assert measures.iou(a, b) == pytest.approx(0)


def test_a_spot_that_moves_from_corner_to_corner_shifts_by_its_share_of_the_diagonal():
    a, b = np.zeros((1, 3, 4)), np.zeros((1, 3, 4))
    a[0, 0, 0] = b[0, 2, 3] = 1
    np.testing.assert_allclose(measures.centre(a), [[0.5, 0.5]])
    assert measures.shift(a, b) == pytest.approx(np.hypot(2, 3) / 5)
    assert measures.jsd(a, b) == pytest.approx(1)


def test_negative_cells_have_no_mass():
    a = np.array([[[1.0, -100.0], [1.0, -100.0]]])
    np.testing.assert_allclose(measures.centre(a), [[1.0, 0.5]])


def test_focus_is_0_for_an_even_map_1_for_a_single_cell_and_a_half_in_between():
    even, single, half = np.ones((1, 4, 4)), np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    single[0, 1, 2] = 3
    half[0, 0] = 7  # 4 of 16 cells: ln 4 / ln 16 = 1/2
    assert measures.focus(even) == pytest.approx(0)
    assert measures.focus(single) == pytest.approx(1)
    assert measures.focus(half) == pytest.approx(0.5)


def test_divergence_by_hand():
    a = np.array([[[1.0, 0.0]]])
    b = np.array([[[1.0, 1.0]]])
    # m = (3/4, 1/4): ½ log₂(4/3) + ½ (½ log₂(2/3) + ½ log₂ 2)
    expected = 0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3) + 0.25
    assert measures.jsd(a, b) == pytest.approx(expected)


def test_a_map_settles_at_the_first_epoch_from_which_rho_stays_high():
    rho = np.array(
        [
            [0.9, 0.9, 0.1, 0.8, np.nan],
            [0.2, np.nan, 0.2, 0.8, np.nan],
            [0.8, 0.9, 0.3, 0.8, np.nan],
            [1.0, 1.0, 1.0, 1.0, np.nan],
        ]
    )
    assert measures.settled(rho).tolist() == [2, 2, 3, 0, -1]


def record(maps, epochs, **more):
    images = maps.shape[1]
    usual = {
        "images": np.arange(images), "names": [f"{row}.png" for row in range(images)],
        "labels": np.zeros(images, int), "class_names": ["cat", "dog"],
        "probability": np.full((len(maps), images, 2), 0.5, np.float32), "random_head": None,
        "layer": "conv", "method": "gradcam", "target": "label",
        "grid": (8, 8), "input_size": (16, 16), "flags": [], "missing": [], "diverged": None,
    }  # fmt: skip
    return CamMaps(maps=maps.astype(np.float32), epochs=np.array(epochs), **(usual | more))


def random_maps(epochs=3, images=6, seed=0):
    return np.random.default_rng(seed).normal(size=(epochs, images, 8, 8))


def test_drift_compares_with_the_listed_epoch_before_the_final_one_and_the_untrained_one():
    maps = random_maps()
    maps[2] = maps[1] * 3  # epoch 9 looks where epoch 4 looked
    table = drift(record(maps, [0, 4, 9])).set_index("epoch")
    assert table.loc[9, "previous"] == 4
    assert table.loc[9, "spearman_previous_median"] == pytest.approx(1)
    assert table.loc[4, "spearman_final_median"] == pytest.approx(1)
    expected = np.median(measures.spearman(maps[1], maps[0]))
    assert table.loc[4, "spearman_previous_median"] == pytest.approx(expected)
    assert table.loc[9, "spearman_untrained_median"] == pytest.approx(expected)
    assert table.loc[0, "valid_untrained"] == table.loc[0, "valid_previous"] == 0
    assert table["settled"].tolist() == [0, 1, 1]
    assert (table["settled_epoch"] == 4).all()


def test_drift_counts_empty_maps_and_leaves_undefined_cells_empty():
    maps = random_maps()
    maps[1] = -1  # nothing of epoch 1 is positive
    table = drift(record(maps, [0, 1, 2])).set_index("epoch")
    assert table["empty"].tolist() == [0, 6, 0]
    assert table.loc[1, "valid_final"] == 0
    assert np.isnan(table.loc[1, "spearman_final_median"])
    assert np.isnan(table.loc[1, "focus_median"])
    assert table.loc[1, "iou_final_median"] == 0
    assert table.loc[1, "jsd_final_median"] == 1


def test_a_network_that_looks_at_one_place_in_every_image_does_not_seem_faithful():
    maps = np.repeat(random_maps(images=1), 6, axis=1)  # all images have the same map
    table = drift(record(maps, [0, 1, 2]))
    np.testing.assert_allclose(table["spearman_other_images_median"], 1)
    assert table["valid_other_images"].tolist() == [15] * 3  # 6 · 5 / 2 pairs


def test_the_other_seed_is_compared_epoch_by_epoch_and_only_where_it_has_that_epoch():
    mine, theirs = random_maps(), random_maps(seed=1)
    theirs[0] = mine[1]
    table = drift(record(mine, [0, 3, 7]), [record(theirs[:2], [3, 5])]).set_index("epoch")
    assert table["valid_other_seed"].tolist() == [0, 6, 0]
    assert table.loc[3, "spearman_other_seed_median"] == pytest.approx(1)


def test_the_random_head_is_compared_with_the_same_epoch():
    maps = random_maps()
    table = drift(record(maps, [0, 1, 2], random_head=maps.astype(np.float32)))
    np.testing.assert_allclose(table["spearman_random_head_median"], 1)


def test_without_a_baseline_its_columns_are_there_and_empty():
    table = drift(record(random_maps(), [0, 1, 2]))
    assert (table["valid_other_seed"] == 0).all()
    assert table["spearman_other_seed_median"].isna().all()
    for against in ("previous", "final", "other_images", "other_seed", "untrained", "random_head"):
        for name in MEASURES:
            for part in ("median", "q25", "q75"):
                assert f"{name}_{against}_{part}" in table


def test_drift_csv_has_one_row_an_epoch_and_no_leftover_beside_it(tmp_path):
    maps, made = tmp_path / "cam.h5", tmp_path / "drift/wide/seed0.csv"
    write_cam(maps, record(random_maps(), [0, 1, 2]))
    write_drift(maps, made)
    assert pd.read_csv(made)["epoch"].tolist() == [0, 1, 2]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [maps, made]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"layer": "pool"}, r"layer is pool, but .*seed0/derived/cam-7\.h5 has conv"),
        ({"grid": (4, 4)}, "grid is"),
        ({"images": np.arange(1, 7)}, "images is"),
    ],
)
def test_maps_of_another_layer_are_no_baseline(tmp_path, changed, told):
    mine, other = (RunFiles(tmp_path / f"seed{seed}").cam("7") for seed in (0, 1))
    write_cam(mine, record(random_maps(), [0, 1, 2]))
    write_cam(other, record(random_maps(), [0, 1, 2], **changed))
    with pytest.raises(ScratchbookError, match=rf"seed1/derived/cam-7\.h5: its {told}"):
        write_drift(mine, tmp_path / "drift.csv", [other])


# ------------------------------------------------------------------ which images, which epochs


@given(st.integers(0, 50), st.integers(1, 40), st.integers(2, 6), st.integers(0, 3))
def test_images_are_a_fixed_balanced_sample_of_the_test_split(seed, count, classes, extra):
    labels = np.arange(60 + extra) % classes
    split = np.where(np.arange(60 + extra) < 30, 0, 2)
    rows = choose_images(labels, split, count, seed)
    assert (rows == choose_images(labels, split, count, seed)).all()
    assert len(rows) == len(set(rows)) == min(count, 30 + extra)
    assert (split[rows] == 2).all()
    if count <= 20:  # no class is used up
        amounts = np.bincount(labels[rows], minlength=classes)
        assert amounts.max() - amounts.min() <= 1
    few = choose_images(labels, split, max(1, count // 2), seed)
    assert (rows[: len(few)] == few).all()


def test_without_a_test_split_the_images_come_from_validation():
    rows = choose_images(np.arange(10) % 2, np.array([0, 1] * 5), 4, seed=0)
    assert (rows % 2 == 1).all()


def test_named_images_are_found_by_row_name_and_end_of_path():
    names = ["dogs/a.jpg", "dogs/b.jpg", "cats/a.jpg"]
    found = choose_images(np.zeros(3, int), np.zeros(3, int), [2, "dogs/b.jpg", "b.jpg"], 0, names)
    assert found.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (7, "row 7 of 3"),
        (-1, "row -1"),
        ("a.jpg", "names 2 images"),
        ("dogs/c.jpg", "did you mean"),
    ],
)
def test_an_image_that_is_not_there_is_named(wanted, message):
    names = ["dogs/a.jpg", "dogs/b.jpg", "cats/a.jpg"]
    with pytest.raises(ScratchbookError, match=message):
        choose_images(np.zeros(3, int), np.zeros(3, int), [wanted], 0, names)


def test_epochs_are_numbers_ranges_best_and_last():
    assert resolve_epochs([1, 3, "5-9", "last", "best"], best=12, last=20) == [
        *(1, 3, 5, 6, 7, 8, 9, 12, 20)
    ]
    assert resolve_epochs(["last", 3, 0, "2-90", 3], best=2, last=3) == [0, 2, 3]


@pytest.mark.parametrize("entry", ["first", "9-5", "-3", -3, 1.5, True, "5-"])
def test_anything_else_is_no_epoch(entry):
    with pytest.raises(ScratchbookError, match=r"cam\.epochs"):
        resolve_epochs([entry], best=1, last=9)

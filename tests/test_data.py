"""What preparing a data set makes of it: splits, samples, conversions, the reader."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from scratchbook.config import datasets
from scratchbook.config.datasets import Dataset, Datasets
from scratchbook.data import division
from scratchbook.data.content import Sources
from scratchbook.data.image import to_rgb
from scratchbook.data.numbers import preparing_number
from scratchbook.data.prepare import prepare
from scratchbook.data.source import OPENED
from scratchbook.errors import ScratchbookError
from scratchbook.results.prepared import Prepared, hash_arrays
from scratchbook.results.records import SPLITS

DECLARED = Path(__file__).parents[1] / "config/datasets.yaml"


def spec(*sources, size=(4, 4), **more):
    """A data set as the config hands it on: checked, defaults filled in."""
    given = {"title": "Things", "size": list(size), "sources": list(sources), **more}
    return Dataset.model_validate(given)


def folder_spec(**more):
    return spec({"kind": "folder", "path": "things"}, **more)


def noise(seed, size=(4, 4)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_classes(folder, counts, size=(4, 4), start=0):
    """Distinct lossless images, so many a class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            start += 1
            Image.fromarray(noise(start, size)).save(folder / name / f"{i:03d}.png")


def prepared(dataset, data_dir, **more):
    """Prepare quietly; the reader and the lines that were said."""
    said = []
    output = data_dir / "out" / "things.h5"
    prepare("things", dataset, data_dir, output, say=said.append, **more)
    assert [path.name for path in output.parent.iterdir()] == ["things.h5"]
    return Prepared(output), said


def digest(data):
    arrays = (np.asarray(data.images), data.labels, data.split)
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays] + data.names


@pytest.fixture
def things(tmp_path):
    write_classes(tmp_path / "things", {"cat": 20, "dog": 40})
    return tmp_path


# --- splits and samples ---------------------------------------------------------------------------


def test_a_source_without_splits_is_divided_class_by_class(things):
    data, _ = prepared(folder_spec(split={"validation": 0.1, "test": 0.2}), things)
    assert data.class_names == ["cat", "dog"]
    assert data.counts == {"train": 42, "validation": 6, "test": 12}
    for split, (cats, dogs) in {"train": (14, 28), "validation": (2, 4), "test": (4, 8)}.items():
        labels = data.labels[data.indices(split)]
        assert (np.sum(labels == 0), np.sum(labels == 1)) == (cats, dogs)


def test_every_image_keeps_its_pixels_label_and_name(things, monkeypatch):
    monkeypatch.setattr("scratchbook.data.prepare._BLOCK_IMAGES", 3)  # so that many are in flight
    data, _ = prepared(folder_spec(), things)
    for image, label, name in zip(data.images, data.labels, data.names, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(things / "things" / name)))
        assert data.class_names[label] == name.split("/")[0]


def test_the_same_source_gives_the_same_bytes_and_another_seed_other_splits(things):
    first, _ = prepared(folder_spec(), things)
    once = digest(first)
    again, _ = prepared(folder_spec(), things)
    assert digest(again) == once
    other, _ = prepared(folder_spec(split={"seed": 1}), things)
    assert not np.array_equal(other.split, first.split)


def test_a_source_with_train_and_test_has_validation_carved_out_of_train(tmp_path):
    write_classes(tmp_path / "things/fit", {"a": 20, "b": 20})
    write_classes(tmp_path / "things/held", {"a": 5, "b": 5}, start=1000)
    source = {"kind": "folder", "path": "things", "splits": {"train": "fit", "test": "held"}}
    data, said = prepared(spec(source, split={"validation": 0.1}), tmp_path)
    assert data.counts == {"train": 36, "validation": 4, "test": 10}
    test = {data.names[i] for i in data.indices("test")}
    assert test == {name for name in data.names if name.startswith("test/")}  # not held/
    assert any("validation 10% of the source's train images" in line for line in said)


def test_a_source_with_all_three_splits_keeps_them(tmp_path):
    for i, split in enumerate(SPLITS):
        write_classes(tmp_path / "things" / split, {"a": i + 1, "b": i + 1}, start=100 * i)
    source = {"kind": "folder", "path": "things", "splits": {split: split for split in SPLITS}}
    data, _ = prepared(spec(source), tmp_path)
    assert data.counts == {"train": 2, "validation": 4, "test": 6}


def test_identical_images_never_fall_into_two_splits_that_we_make(tmp_path):
    write_classes(tmp_path / "things", {"a": 12, "b": 12})
    for i in range(12):  # each image of class a once more
        copy = tmp_path / f"things/a/copy{i:03d}.png"
        copy.write_bytes((tmp_path / f"things/a/{i:03d}.png").read_bytes())
    data, said = prepared(folder_spec(split={"validation": 0.25, "test": 0.25}), tmp_path)
    split_of = dict(zip(data.names, data.split.tolist(), strict=True))
    for i in range(12):
        assert split_of[f"a/{i:03d}.png"] == split_of[f"a/copy{i:03d}.png"]
    assert data.counts == {"train": 18, "validation": 9, "test": 9}
    assert data.duplicates == []
    assert any("12 images with the same pixels as an earlier one" in line for line in said)


@pytest.mark.parametrize("seed", range(5))
def test_repeated_images_are_trained_on_and_the_shares_stay_exact(seed):
    labels = np.repeat([0, 1], 20)
    pixels = [f"{i} {max(j - 5, 0)}" for i in range(2) for j in range(20)]  # one of them six times
    twins = division.first_twins([each.encode() for each in pixels])
    shares = {"validation": 0.1, "test": 0.2}
    split = division.divide(labels, None, twins, shares, seed, ["a", "b"])
    assert np.bincount(split).tolist() == [28, 4, 8]
    assert np.all(split[[0, 20]] == SPLITS.index("train"))


def test_identical_images_in_the_sources_own_splits_are_recorded_or_refused(tmp_path):
    write_classes(tmp_path / "things/train", {"a": 4, "b": 4})
    write_classes(tmp_path / "things/test", {"a": 2, "b": 2}, start=100)
    (tmp_path / "things/test/a/leak.png").write_bytes(
        (tmp_path / "things/train/a/000.png").read_bytes()
    )
    source = {"kind": "folder", "path": "things", "splits": {"train": "train", "test": "test"}}
    data, said = prepared(spec(source), tmp_path)
    ((name_a, split_a, name_b, split_b),) = data.duplicates
    assert (name_a, name_b, split_b) == ("train/a/000.png", "test/a/leak.png", "test")
    assert split_a in ("train", "validation")
    assert any(line.startswith("warning: 1 image with") for line in said)
    with pytest.raises(ScratchbookError, match=r"identical images in different splits.*\n.*leak"):
        prepare("things", spec(source, duplicates="refuse"), tmp_path, tmp_path / "x.h5", print)
    assert not (tmp_path / "x.h5").exists()


def test_one_image_under_two_labels_is_said_and_stays_in_one_split(tmp_path):
    write_classes(tmp_path / "things", {"a": 6, "b": 6})
    (tmp_path / "things/b/same.png").write_bytes((tmp_path / "things/a/000.png").read_bytes())
    data, said = prepared(folder_spec(), tmp_path)
    split_of = dict(zip(data.names, data.split.tolist(), strict=True))
    assert split_of["b/same.png"] == split_of["a/000.png"]
    assert any("another label" in line for line in said)


def test_a_sample_keeps_the_shares_of_the_classes(things):
    data, said = prepared(folder_spec(sample=30), things)
    assert np.bincount(data.labels).tolist() == [10, 20]
    assert any("sample: 30 of 60 images" in line for line in said)


def test_a_limit_leaves_every_class_in_every_split_however_small(things):
    data, _ = prepared(folder_spec(), things, limit=1)
    for split in SPLITS:
        assert set(data.labels[data.indices(split)]) == {0, 1}
    assert len(data.labels) == 6


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=120),
    st.floats(0.01, 0.48),
    st.floats(0.01, 0.48),
    st.integers(0, 5),
)
def test_any_division_keeps_twins_together_and_every_class_everywhere(
    images, validation, test, seed
):
    # Three images of its own for each class, then any that repeat each other, labels and all.
    rows = [(label, f"{label} {i}") for label in range(4) for i in range(3)]
    rows += [(label, f"{label} x{pixels}") for label, pixels in images]
    labels = np.array([row[0] for row in rows])
    twins = division.first_twins([row[1].encode() for row in rows])
    shares = {"validation": validation, "test": test}
    split = division.divide(labels, None, twins, shares, seed, list("abcd"))
    assert np.array_equal(split, split[twins])
    assert division.twins_across(twins, split) == []
    assert all(set(labels[split == code]) == {0, 1, 2, 3} for code in range(3))


@given(st.integers(1, 200), st.lists(st.integers(3, 60), min_size=2, max_size=6))
@example(count=30, sizes=[60, 3, 3, 3, 3, 3])
def test_any_sample_is_of_the_size_asked_for_unless_the_classes_need_more(count, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = division.choose(labels, None, count, seed=0)
    assert np.array_equal(rows, np.unique(rows))
    assert len(rows) == max(3 * len(sizes), min(count, sum(sizes)))
    kept = np.bincount(labels[rows], minlength=len(sizes))
    assert kept.min() >= 3
    assert np.all(kept <= sizes)
    exact = np.array(sizes) * min(1, count / sum(sizes))
    if np.all(exact >= 3):
        assert np.all(np.abs(exact - kept) < 1)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.integers(1, 600))
@example(sizes=[10, 20, 30, 40], count=4)
def test_a_class_has_an_image_wherever_there_are_enough_and_more_the_larger_it_is(sizes, count):
    share = division.apportion(np.array(sizes), count, least=1)
    assert share.sum() == max(len(sizes), min(count, sum(sizes)))
    assert np.all((share >= 1) & (share <= sizes))
    for few, many in itertools.permutations(range(len(sizes)), 2):
        assert sizes[few] >= sizes[many] or share[few] <= share[many]


# --- the six kinds of source ----------------------------------------------------------------------


def pack(folder, archive, seed=None):
    """Pack a folder as the archive's name says, by name or in an order drawn from the seed."""
    paths = [path for path in sorted(folder.rglob("*")) if path != archive]
    if seed is not None:
        paths = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in paths:
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as file:
            for path in paths:
                file.add(path, f"./{path.relative_to(folder)}", recursive=False)


@pytest.mark.parametrize("archive", ["things.zip", "things.tar", "things.tar.gz"])
@pytest.mark.parametrize("packed", ["things", "."])
@pytest.mark.parametrize("shuffled", [False, True])
def test_an_archive_gives_the_arrays_of_the_folder_it_was_made_from(
    things, archive, packed, shuffled, monkeypatch
):
    monkeypatch.setattr("scratchbook.data.prepare._BLOCK_IMAGES", 7)
    write_classes(things / "things", {"cat-2": 9}, start=500)  # sorts before cat/, as a name
    (things / "things/cat/Thumbs.db").write_text("no image")
    options = {"split": {"validation": 0.2}, "sample": 60}
    plain, _ = prepared(folder_spec(**options), things)
    folder = digest(plain), plain.arrays_sha256, plain.sha256
    for path in (things / "out").iterdir():
        path.unlink()
    (things / "out").rmdir()
    inner = things / "things" if packed == "things" else things  # with or without the outer folder
    place = things.parent / f"{things.name}-{archive}"
    pack(inner, place, seed=3 if shuffled else None)
    (things / "things").rename(things.parent / f"{things.name}-away")
    data, _ = prepared(spec({"kind": "archive", "path": str(place)}, **options), things)
    assert (digest(data), data.arrays_sha256, data.sha256) == folder
    assert data.names == sorted(data.names)
    assert data.names[0] == "cat-2/000.png"


@pytest.mark.parametrize("archive", ["things.tar", "things.tar.gz"])
def test_links_in_a_tar_are_the_images_that_they_lead_to(things, archive):
    pool = things / "things/dog"
    for i in range(5):
        os.link(pool / f"{i:03d}.png", things / f"things/cat/hard{i}.png")  # packed as a link
        (things / f"things/cat/soft{i}.png").symlink_to(f"../dog/{i + 5:03d}.png")
    (things / "things/cat/chain.png").symlink_to("soft0.png")
    (things / "things/newest").symlink_to("dog")
    pack(things / "things", things / archive)
    with tarfile.open(things / archive) as file:
        kinds = [member.type for member in file]
    assert (kinds.count(tarfile.LNKTYPE), kinds.count(tarfile.SYMTYPE)) == (5, 7)
    data, said = prepared(spec({"kind": "archive", "path": archive}), things)
    assert data.class_names == ["cat", "dog"]
    assert len(data.names) == 60 + 11
    for image, label, name in zip(data.images, data.labels, data.names, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(things / "things" / name)))
        assert data.class_names[label] == name.split("/")[0]
    assert any("skipped: 1 file not an image (newest)" in line for line in said)


def test_an_image_that_a_compressed_tar_links_to_is_unpacked_once(things, monkeypatch):
    for i in range(20):
        (things / f"things/cat/soft{i}.png").symlink_to("../dog/000.png")
    pack(things / "things", things / "things.tar.gz")
    unpacked = []
    extractfile = tarfile.TarFile.extractfile
    monkeypatch.setattr(
        tarfile.TarFile,
        "extractfile",
        lambda archive, member: unpacked.append(member.offset) or extractfile(archive, member),
    )
    prepared(spec({"kind": "archive", "path": "things.tar.gz"}), things)
    assert len(unpacked) == 60
    assert unpacked == sorted(unpacked)  # never back to the start


def test_a_csv_table_names_classes_in_its_own_order_and_may_hold_the_split(tmp_path):
    (tmp_path / "kaggle/train").mkdir(parents=True)
    lines = ["id,label,part"]
    for i in range(12):
        Image.fromarray(noise(i)).save(tmp_path / f"kaggle/train/i{i}.png")
        lines.append(f"i{i},{i % 2},{SPLITS[i // 4]}")
    (tmp_path / "kaggle/labels.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    source = {
        "kind": "csv",
        "path": "kaggle",
        "labels": "labels.csv",
        "image": "train/{id}.png",
        "label": "label",
        "split": "part",
        "class_names": {1: "ill", 0: "well"},
    }
    data, _ = prepared(spec(source), tmp_path)
    assert data.class_names == ["ill", "well"]
    for image, label, split, name in zip(
        data.images, data.labels, data.split, data.names, strict=True
    ):
        i = int(name.removeprefix("train/i").removesuffix(".png"))
        assert np.array_equal(image, noise(i))
        assert data.class_names[label] == ("ill" if i % 2 else "well")
        assert split == i // 4


def test_csv_labels_that_are_numbers_sort_as_numbers(tmp_path):
    (tmp_path / "kaggle").mkdir()
    lines = ["file,class"]
    for i in range(36):
        Image.fromarray(noise(i)).save(tmp_path / f"kaggle/{i}.png")
        lines.append(f"{i}.png,{i % 12}")
    (tmp_path / "kaggle/t.csv").write_text("\n".join(lines))
    source = {
        "kind": "csv",
        "path": "kaggle",
        "labels": "t.csv",
        "image": "{file}",
        "label": "class",
    }
    data, _ = prepared(spec(source), tmp_path)
    assert data.class_names == [str(i) for i in range(12)]


def test_hdf5_files_are_read_the_way_patchcamelyon_stores_them(tmp_path):
    pairs = {}
    images = {
        split: np.stack([noise(100 * k + i) for i in range(6)]) for k, split in enumerate(SPLITS)
    }
    for split in SPLITS:
        pairs[split] = {"images": f"{split}_x.h5", "labels": f"{split}_y.h5"}
        with h5py.File(tmp_path / f"{split}_x.h5", "w") as file:
            file["x"] = images[split]
        with h5py.File(tmp_path / f"{split}_y.h5", "w") as file:
            file["y"] = np.arange(6).reshape(6, 1, 1, 1) % 2
    source = {"kind": "hdf5", "splits": pairs, "class_names": ["normal", "tumour"]}
    data, _ = prepared(spec(source), tmp_path)
    for split in SPLITS:
        assert np.array_equal(data.images[data.indices(split)], images[split])
        assert data.labels[data.indices(split)].tolist() == [0, 1, 0, 1, 0, 1]


def test_keras_data_sets_bring_train_and_test(tmp_path, monkeypatch):
    x = np.stack([noise(i)[..., 0] for i in range(24)])  # grey, as mnist is
    y = np.arange(24) % 2
    parts = ((x[:16], y[:16, None]), (x[16:], y[16:, None]))
    fake = SimpleNamespace(datasets=SimpleNamespace(mnist=SimpleNamespace(load_data=lambda: parts)))
    monkeypatch.setitem(sys.modules, "keras", fake)
    source = {"kind": "keras", "name": "mnist", "class_names": ["even", "odd"]}
    data, said = prepared(spec(source, split={"validation": 0.25}), tmp_path)
    assert data.counts == {"train": 12, "validation": 4, "test": 8}
    assert np.array_equal(data.images[..., 2], x)
    assert any("24 images grey" in line for line in said)


def test_the_digits_ship_with_a_package_and_need_no_heavy_import(tmp_path):
    code = (
        "import sys, yaml; from pathlib import Path\n"
        "from scratchbook.config.datasets import Datasets\n"
        "from scratchbook.data.prepare import prepare\n"
        f"text = Path({str(DECLARED)!r}).read_text()\n"
        "sets = Datasets.model_validate(yaml.safe_load(text)).root\n"
        f"prepare('digits', sets['digits'], Path('nowhere'), Path({str(tmp_path / 'd.h5')!r}))\n"
        "print([m for m in ('keras', 'tensorflow', 'pandas', 'sklearn') if m in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    data = Prepared(tmp_path / "d.h5")
    assert data.images.shape == (5000, 28, 28, 3)
    assert np.bincount(data.labels).tolist() == [500] * 10
    assert data.counts == {"train": 3500, "validation": 500, "test": 1000}


def test_the_first_source_that_is_there_is_used(things):
    missing = {"kind": "archive", "path": "things.zip"}
    data, _ = prepared(spec(missing, {"kind": "folder", "path": "things"}), things)
    assert data.source == "folder things"


def test_files_that_are_no_images_are_skipped_and_counted(things):
    for name in ("things/cat/Thumbs.db", "things/README.txt", "things/cat/.hidden.png"):
        (things / name).write_text("no image")
    (things / "things/__MACOSX/cat").mkdir(parents=True)
    (things / "things/__MACOSX/cat/._000.png").write_bytes(b"resource fork")
    data, said = prepared(folder_spec(), things)
    assert len(data.names) == 60
    assert data.class_names == ["cat", "dog"]
    assert any("skipped: 4 files" in line for line in said)
    assert data.notes == said[:-1]


def test_a_prepared_file_says_what_it_holds_and_of_what(things):
    data, _ = prepared(folder_spec(), things)
    with h5py.File(data.path) as file:
        assert hash_arrays(file) == data.arrays_sha256
    found = Sources(things / "sources.json").content(folder_spec(), things, lambda _: False)
    assert data.sha256 == found.sha256
    assert data.preparing == preparing_number(folder_spec()) == 1
    for key in ("images", "labels", "split", "names"):
        with h5py.File(data.path, "r+") as file:
            before = file[key][3]
            file[key][3] = b"other" if key == "names" else before ^ 1
            assert hash_arrays(file) != data.arrays_sha256, key
            file[key][3] = before


@pytest.mark.parametrize("sample", [None, 30])
def test_data_that_are_not_those_that_were_ordered_are_refused(things, sample):
    dataset = folder_spec(sample=sample)
    ordered = Sources(things / "sources.json").content(dataset, things, lambda _: False).sha256
    prepared(dataset, things, content=ordered)
    Image.fromarray(noise(999)).save(things / "things/cat/new.png")
    with pytest.raises(ScratchbookError, match=r"not those that were ordered.*changed meanwhile"):
        prepare("things", dataset, things, things / "x.h5", lambda _: None, content=ordered)
    assert not (things / "x.h5").exists()


def test_the_source_that_was_ordered_is_used_though_a_better_one_is_there(things):
    write_classes(things / "better", {"cat": 8, "dog": 8}, start=900)
    both = spec({"kind": "folder", "path": "better"}, {"kind": "folder", "path": "things"})
    data, _ = prepared(both, things, index=1)
    assert len(data.names) == 60
    elsewhere = spec({"kind": "folder", "path": "elsewhere"}, both.sources[1].model_dump())
    with pytest.raises(ScratchbookError, match=r"the source it needs is not there(?s:.*)elsewhere"):
        prepare("things", elsewhere, things, things / "x.h5", lambda _: None, index=0)


# --- one image ------------------------------------------------------------------------------------


def encoded(image, suffix, tmp_path, **more):
    path = tmp_path / f"image.{suffix}"
    image.save(path, **more)
    return path.read_bytes()


def test_every_colour_model_becomes_rgb_and_is_named(tmp_path):
    grey = Image.fromarray(np.full((2, 2), 100, np.uint8))
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 51))  # a fifth of black over white: 204
    palette = Image.new("RGB", (2, 2), (10, 20, 30)).quantize(4)
    deep = Image.fromarray(np.array([[0, 257], [25700, 65535]], np.uint16))
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))  # red
    cases = [
        (grey, "png", [100, 100, 100], "grey"),
        (clear, "png", [255, 255, 255], "transparency"),
        (half, "png", [204, 204, 204], "transparency"),
        (palette, "png", [10, 20, 30], "palette"),
        (cmyk, "tif", [255, 0, 0], "CMYK"),
    ]
    for image, suffix, colour, word in cases:
        pixels, done = to_rgb(encoded(image, suffix, tmp_path), (2, 2), "bilinear", "stretch")
        assert pixels.dtype == np.uint8
        assert pixels.reshape(-1, 3).tolist() == [colour] * 4, word
        assert any(word in what for what in done)
    for suffix in ("png", "tif"):
        pixels, done = to_rgb(encoded(deep, suffix, tmp_path), (2, 2), "bilinear", "stretch")
        assert pixels[..., 0].tolist() == [[0, 1], [100, 255]]  # scaled, not clipped
        assert any("16 bits" in what for what in done)


def test_greymaps_of_any_depth_are_scaled_to_8_bits(tmp_path):
    values = np.array([0, 2048, 4095], ">u2").tobytes()
    deep = np.array([0, 25700, 65535], ">u2").tobytes()
    for most, raw, scaled in ((4095, values, [0, 128, 255]), (65535, deep, [0, 100, 255])):
        pixels, done = to_rgb(b"P5\n3 1\n%d\n" % most + raw, (1, 3), "bilinear", "stretch")
        assert pixels[0, :, 0].tolist() == scaled
        assert any("16 bits" in what for what in done)


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    image = Image.fromarray(np.repeat(np.array([[0, 0], [255, 255]], np.uint8), 8).reshape(4, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    raw = encoded(image.convert("RGB"), "jpg", tmp_path, exif=exif, quality=100)
    pixels, done = to_rgb(raw, (4, 8), "bilinear", "stretch")
    assert pixels[0].mean() > 200 > 50 > pixels[-1].mean()
    assert any("EXIF" in what for what in done)


def test_fit_stretches_crops_or_pads(tmp_path):
    image = np.zeros((2, 6, 3), np.uint8)
    image[:, 2:4] = 200  # the middle third is light
    stretched = to_rgb(image, (2, 2), "box", "stretch")[0]
    cropped = to_rgb(image, (2, 2), "box", "crop")[0]
    padded = to_rgb(image, (6, 6), "nearest", "pad")[0]
    assert stretched[..., 0].tolist() == [[67, 67], [67, 67]]
    assert cropped[..., 0].tolist() == [[200, 200], [200, 200]]
    assert padded[..., 0].max(axis=1).tolist() == [0, 0, 200, 200, 0, 0]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["stretch", "crop", "pad"]))
def test_any_size_becomes_the_one_asked_for(height, width, fit):
    pixels, _ = to_rgb(noise(0, (height, width)), (5, 3), "bicubic", fit)
    assert (pixels.shape, pixels.dtype) == ((5, 3, 3), np.uint8)


# --- the reader -----------------------------------------------------------------------------------


def test_the_images_stay_on_disk_and_cannot_be_written(things):
    data, _ = prepared(folder_spec(), things)
    assert isinstance(data.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 0
    with h5py.File(data.path) as file:
        assert np.array_equal(file["images"][()], data.images)
        assert file["images"].chunks is None
        assert file["labels"].dtype == np.int64


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_a_file_that_is_no_whole_prepared_data_set_is_named(things, damage):
    data, _ = prepared(folder_spec(), things)
    path = data.path
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = 1
    else:
        path.unlink()
    with pytest.raises(ScratchbookError, match=re.escape(str(path))):
        Prepared(path)


# --- the config -----------------------------------------------------------------------------------


def test_the_data_sets_that_come_with_the_project_are_valid():
    sets = Datasets.model_validate(yaml.safe_load(DECLARED.read_text())).root
    assert {"digits", "cifar10", "cifar100", "dogs3", "pcam"} <= set(sets)
    names = sets["cifar100"].sources[-1].class_names
    assert len(names) == 100
    assert names == sorted(names)


def test_every_kind_of_source_can_be_declared_found_and_opened():
    models = get_args(get_args(datasets.Source)[0])
    declared = {get_args(model.model_fields["kind"].annotation)[0] for model in models}
    assert declared == OPENED.keys()


def test_a_job_takes_a_declaration_up_from_plain_values_as_it_was():
    for declared in Datasets.model_validate(yaml.safe_load(DECLARED.read_text())).root.values():
        plain = declared.model_dump(mode="json")
        assert json.loads(json.dumps(plain)) == plain
        assert Dataset.model_validate(plain) == declared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sizes": [4, 4]}, "sizes"),
        ({"size": [4]}, "size"),
        ({"size": ["4", 4]}, "size"),
        ({"sources": []}, "sources"),
        ({"sources": [{"kind": "ftp", "path": "x"}]}, "ftp"),
        ({"sources": [{"kind": "folder", "path": "x", "label": "y"}]}, "label"),
        ({"split": {"validation": 0.5, "test": 0.5}}, "nothing to train on"),
        ({"resize": {"method": "cubic"}}, "bicubic"),
        ({"sample": 0}, "sample"),
    ],
)
def test_a_wrong_data_set_is_refused(change, told):
    right = {"title": "T", "size": [4, 4], "sources": [{"kind": "folder", "path": "x"}]}
    Dataset.model_validate(right)
    with pytest.raises(ValidationError, match=told):
        Dataset.model_validate({**right, **change})


@pytest.mark.parametrize("name", ["../x", "a b", "", "A", "-a", "a" * 65])
def test_a_data_sets_name_is_a_safe_file_name(name):
    right = {"title": "T", "size": [4, 4], "sources": [{"kind": "folder", "path": "x"}]}
    Datasets.model_validate({"a" * 64: right})
    with pytest.raises(ValidationError, match="pattern"):
        Datasets.model_validate({name: right})


def test_every_key_of_a_data_set_is_described():
    schema = Datasets.model_json_schema()
    for model in [*schema["$defs"].values()]:
        for key, value in model["properties"].items():
            assert value.get("description"), (model["title"], key)


def test_a_bundled_table_may_be_packed_or_not(tmp_path, monkeypatch):
    package = tmp_path / "pixels"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    table = "\n".join(f"{i},{i + 1},{i + 2},{i + 3},{i % 2}" for i in range(12))
    (package / "t.csv").write_text(table)
    (package / "t.csv.gz").write_bytes(gzip.compress(table.encode()))
    monkeypatch.syspath_prepend(tmp_path)
    for file in ("t.csv", "t.csv.gz"):
        source = {
            "kind": "bundled",
            "package": "pixels",
            "file": file,
            "shape": [2, 2],
            "class_names": ["even", "odd"],
        }
        data, _ = prepared(spec(source, size=(2, 2)), tmp_path)
        assert data.images[5, ..., 0].tolist() == [[5, 6], [7, 8]]
        assert data.labels[5] == 1

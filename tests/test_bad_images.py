"""What is wrong with a data set is said in one message, and no file is left behind."""

from __future__ import annotations

import errno
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from scratchbook.config.datasets import Dataset
from scratchbook.data import prepare as prepare_module
from scratchbook.data.content import Sources
from scratchbook.data.prepare import prepare
from scratchbook.data.source import Source
from scratchbook.errors import ScratchbookError


def spec(*sources, **more):
    given = {"title": "Things", "size": [8, 8], "sources": list(sources), **more}
    return Dataset.model_validate(given)


FOLDER = {"kind": "folder", "path": "things"}
ARCHIVE = {"kind": "archive", "path": "things.zip"}
TABLE = {
    "kind": "csv",
    "path": "things",
    "labels": "labels.csv",
    "image": "train/{id}.png",
    "label": "label",
}


def image_bytes(seed, kind="PNG", size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_classes(folder, counts, start=0):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            start += 1
            write(folder / name / f"{i:03d}.png", image_bytes(start))


def refusal(dataset, data_dir: Path) -> str:
    """The message with which a data set is refused; it leaves nothing where the file would be."""
    output = data_dir / "out/things.h5"
    with pytest.raises(ScratchbookError) as caught:
        prepare("things", dataset, data_dir, output, say=lambda line: None)
    assert not output.parent.exists() or list(output.parent.iterdir()) == []
    return str(caught.value)


@pytest.fixture
def things(tmp_path):
    """Two classes of five images, all right so far."""
    write_classes(tmp_path / "things", {"cat": 5, "dog": 5})
    return tmp_path


# --- nothing there --------------------------------------------------------------------------------


def test_missing_data_name_every_place_and_what_to_do(tmp_path):
    dataset = spec({**ARCHIVE, "download": "https://example.org/things"}, FOLDER)
    with pytest.raises(ScratchbookError) as caught:
        Sources(tmp_path / "sources.json").content(dataset, tmp_path, lambda _: False)
    for message in (refusal(dataset, tmp_path), str(caught.value)):
        assert f"archive: nothing at {tmp_path / 'things.zip'}" in message
        assert f"folder: nothing at {tmp_path / 'things'}" in message
        assert "https://example.org/things" in message
        assert "--config data_dir=" in message


def test_half_of_an_hdf5_pair_names_the_file_that_is_missing(tmp_path):
    write(tmp_path / "x.h5", b"")
    pair = {"images": "x.h5", "labels": "y.h5"}
    dataset = spec({"kind": "hdf5", "splits": {"train": pair}, "class_names": ["a", "b"]})
    message = refusal(dataset, tmp_path)
    assert "y.h5" in message
    assert "x.h5" not in message


def test_an_archive_where_a_folder_was_meant_is_said(tmp_path):
    write(tmp_path / "things", b"")
    assert "use `kind: archive`" in refusal(spec(FOLDER), tmp_path)


def test_a_folder_where_an_archive_was_meant_is_said(tmp_path):
    (tmp_path / "things.zip").mkdir()
    message = refusal(spec(ARCHIVE), tmp_path)
    assert "things.zip is a folder, not a file (use `kind: folder`)" in message


def test_a_package_that_is_not_installed_is_named(tmp_path):
    source = {
        "kind": "bundled",
        "package": "no_such_package",
        "file": "t.csv",
        "shape": [8, 8],
        "class_names": ["a", "b"],
    }
    assert "no_such_package" in refusal(spec(source), tmp_path)


def test_a_folder_without_images_says_what_was_expected(tmp_path):
    write(tmp_path / "things/cat/readme.txt", b"none here")
    message = refusal(spec(FOLDER), tmp_path)
    assert "no images found" in message
    assert "<class>/<image>" in message


# --- images that cannot be read -------------------------------------------------------------------


def test_a_truncated_jpeg_is_named(things):
    whole = image_bytes(99, "JPEG", size=64)
    write(things / "things/cat/cut.jpg", whole[: len(whole) * 3 // 4])
    message = refusal(spec(FOLDER), things)
    assert "cannot read 1 image:\n" in message
    assert "cat/cut.jpg: " in message
    assert "truncated" in message


def test_a_text_file_named_png_is_named(things):
    write(things / "things/dog/notes.png", b"buy milk")
    message = refusal(spec(FOLDER), things)
    assert "dog/notes.png: not an image (it begins with b'buy milk')" in message


def test_an_empty_file_is_named(things):
    write(things / "things/dog/nothing.png", b"")
    assert "dog/nothing.png: the file is empty" in refusal(spec(FOLDER), things)


def test_all_unreadable_images_are_counted_and_ten_named(things):
    for i in range(13):
        write(things / f"things/cat/bad{i:02d}.png", b"x")
    message = refusal(spec(FOLDER), things)
    assert "cannot read 13 images:\n" in message
    assert "bad09.png" in message
    assert "bad10.png" not in message
    assert "… and 3 more" in message


def test_pixels_without_an_agreed_range_are_refused(things):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(things / "things/cat/float.tif")
    message = refusal(spec(FOLDER), things)
    assert "cat/float.tif: pixels of 32 bits have no agreed range" in message


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("low", [0, -5])
def test_whole_numbers_of_32_bits_are_refused_whatever_their_values(things, low, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.arange(low, low + 64, dtype=np.int32).reshape(8, 8))
    image.save(things / "things/cat/deep.tif", exif=exif)
    message = refusal(spec(FOLDER), things)
    assert "cat/deep.tif: pixels of 32 bits have no agreed range" in message


@pytest.mark.parametrize(("bits", "sign"), [(12, 1), (16, 2)])
def test_tiffs_of_12_bits_or_with_a_sign_are_refused(things, bits, sign):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(
        things / "things/cat/odd.tif", tiffinfo={339: sign}
    )
    path = things / "things/cat/odd.tif"
    entry = struct.pack("<HHLH", 258, 3, 1, 16)  # BitsPerSample
    assert path.read_bytes().count(entry) == 1
    path.write_bytes(path.read_bytes().replace(entry, struct.pack("<HHLH", 258, 3, 1, bits)))
    assert "cat/odd.tif: pixels of 32 bits have no agreed range (nor" in refusal(
        spec(FOLDER), things
    )


def test_links_of_a_folder_that_lead_to_nothing_are_named(things):
    (things / "things/cat/gone.png").symlink_to("../pool/gone.png")
    (things / "things/bird").symlink_to("/mnt/not/here")
    (things / "things/cat/.lock").symlink_to("somebody@host")  # as Emacs does it
    message = refusal(spec(FOLDER), things)
    assert f"{things / 'things'}: 2 links lead to nothing:" in message
    assert "cat/gone.png → ../pool/gone.png" in message
    assert "bird → /mnt/not/here" in message
    assert ".lock" not in message


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "cat/../../evil.png", "C:\\e.png"]
)
def test_an_archive_with_members_outside_of_itself_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "things.zip", "w") as file:
        file.writestr("cat/1.png", image_bytes(1))
        file.writestr(name, image_bytes(2))
    message = refusal(spec(ARCHIVE), tmp_path)
    assert "names files outside of itself" in message
    assert repr(name) in message


@pytest.mark.parametrize("name", ["things.zip", "things.tar.gz"])
def test_a_truncated_archive_is_named_and_no_other_source_used(things, name):
    with zipfile.ZipFile(things / "things.zip", "w") as file:
        for i in range(9):
            file.writestr(f"cat/{i}.png", image_bytes(i))
    whole = (things / "things.zip").read_bytes()
    write(things / name, whole[: len(whole) // 2])
    message = refusal(spec({"kind": "archive", "path": name}, FOLDER), things)
    assert str(things / name) in message
    assert f"{len(whole) // 2:,} bytes" in message
    assert "Fetch it again" in message


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "things.zip", "w") as file:
        for i in range(12):
            file.writestr(f"{'cat' if i % 2 else 'dog'}/{i}.png", image_bytes(i))
    content = bytearray((tmp_path / "things.zip").read_bytes())
    at = content.find(image_bytes(7)) + 60  # stored, not deflated: found as it is
    content[at] ^= 255
    (tmp_path / "things.zip").write_bytes(content)
    assert "cat/7.png: Bad CRC-32" in refusal(spec(ARCHIVE), tmp_path)


def tar_bytes(name, links=()):
    """Twelve images of 1,024 bytes in a tar of the kind that the name says, and then links."""
    buffer = io.BytesIO()
    suffix = name.rpartition(".")[2]
    with tarfile.open(fileobj=buffer, mode="w" if suffix == "tar" else f"w:{suffix}") as file:
        for i in range(12):
            member = tarfile.TarInfo(f"{'cat' if i % 2 else 'dog'}/{i}.png")
            member.size = 1024
            file.addfile(member, io.BytesIO(image_bytes(i).ljust(1024, b"\0")))
        for link, kind, target in links:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = kind, target
            file.addfile(member)
    return buffer.getvalue()


TAR = {"kind": "archive", "path": "things.tar"}
MEMBER = 512 + 1024


@pytest.mark.parametrize("cut", [MEMBER * 9, MEMBER * 9 + 100, MEMBER * 12, MEMBER * 12 + 511])
def test_a_tar_that_is_cut_between_its_images_is_refused(tmp_path, cut):
    write(tmp_path / "things.tar", tar_bytes("things.tar")[:cut])
    message = refusal(spec(TAR), tmp_path)
    assert f"{tmp_path / 'things.tar'}: not a whole .zip or .tar file" in message
    assert f"after {cut // MEMBER} members the header at byte {cut // MEMBER * MEMBER:,}" in message
    assert "Fetch it again" in message


def test_a_flipped_bit_in_a_header_of_a_tar_is_refused(tmp_path):
    content = bytearray(tar_bytes("things.tar"))
    content[MEMBER * 9] ^= 1
    write(tmp_path / "things.tar", content)
    assert "the header at byte 13,824 is cut off or damaged" in refusal(spec(TAR), tmp_path)


def test_a_tar_with_more_behind_its_end_is_refused(tmp_path):
    write(tmp_path / "things.tar", 2 * tar_bytes("things.tar"))
    message = refusal(spec(TAR), tmp_path)
    assert "more follows its end mark at byte 18,432" in message
    assert "tar --ignore-zeros" in message


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("name", ["things.tar.gz", "things.tar.bz2", "things.tar.xz"])
def test_a_damaged_compressed_tar_is_refused(tmp_path, name, damage):
    content = bytearray(tar_bytes(name))
    if damage == "cut":
        del content[len(content) * 3 // 4 :]
    else:
        content[len(content) * 3 // 4] ^= 1
    write(tmp_path / name, content)
    message = refusal(spec({"kind": "archive", "path": name}), tmp_path)
    assert f"{tmp_path / name}: not a whole .zip or .tar file" in message


def test_links_of_a_tar_that_lead_to_nothing_are_named(tmp_path):
    links = [
        ("cat/a.png", tarfile.SYMTYPE, "../pool/a.png"),
        ("cat/b.png", tarfile.LNKTYPE, "pool/b.png"),
        ("cat/c.png", tarfile.SYMTYPE, "c.png"),
        ("cat/d.png", tarfile.SYMTYPE, "/etc/d.png"),
    ]
    write(tmp_path / "things.tar", tar_bytes("things.tar", links))
    message = refusal(spec(TAR), tmp_path)
    assert "things.tar: 4 links lead to nothing:" in message
    for name, _, target in links:
        assert f"{name} → {target}\n" in message
    assert "tar --dereference" in message


def test_an_image_of_a_tar_that_links_to_a_folder_is_named(tmp_path):
    links = [("cat/a.png", tarfile.SYMTYPE, "../dog")]
    write(tmp_path / "things.tar", tar_bytes("things.tar", links))
    assert "cat/a.png: it is a link to a folder" in refusal(spec(TAR), tmp_path)


# --- classes --------------------------------------------------------------------------------------


def test_an_empty_class_is_named(things):
    (things / "things/bird").mkdir()
    assert "class 'bird' has no images" in refusal(spec(FOLDER), things)


def test_an_empty_class_in_a_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "things.zip", "w") as file:
        for i in range(12):
            file.writestr(f"{'cat' if i % 2 else 'dog'}/{i}.png", image_bytes(i))
        file.mkdir("bird")
    assert "class 'bird' has no images" in refusal(spec(ARCHIVE), tmp_path)


def test_a_class_in_one_split_only_is_named(tmp_path):
    write_classes(tmp_path / "things/train", {"cat": 5, "dog": 5})
    write_classes(tmp_path / "things/test", {"cat": 5}, start=50)
    dataset = spec({**FOLDER, "splits": {"train": "train", "test": "test"}})
    assert "class 'dog' has images in train but none in test" in refusal(dataset, tmp_path)


def test_a_class_with_one_image_is_named_with_its_count(things):
    write_classes(things / "things", {"bird": 1}, start=50)
    message = refusal(spec(FOLDER), things)
    assert "class 'bird' has 1 image, too few to be in train, validation and test" in message


def test_a_class_of_copies_of_one_image_is_named_with_its_count(things):
    for i in range(5):
        write(things / f"things/bird/{i}.png", image_bytes(50))
    assert "class 'bird' has 1 different image, too few" in refusal(spec(FOLDER), things)


def test_one_class_is_no_data_set(tmp_path):
    write_classes(tmp_path / "things", {"cat": 9})
    assert "there is one class only (cat)" in refusal(spec(FOLDER), tmp_path)


def test_split_folders_are_not_taken_for_classes(tmp_path):
    write_classes(tmp_path / "things/train", {"cat": 5, "dog": 5})
    write_classes(tmp_path / "things/test", {"cat": 5, "dog": 5}, start=50)
    assert "splits: {train: train, test: test}" in refusal(spec(FOLDER), tmp_path)


def test_a_split_whose_folder_is_not_there_is_named_and_not_made_up(tmp_path):
    write_classes(tmp_path / "things/train", {"cat": 5, "dog": 5})
    write_classes(tmp_path / "things/test", {"cat": 5, "dog": 5}, start=50)
    dataset = spec({**FOLDER, "splits": {"train": "train", "test": "tset"}})
    message = refusal(dataset, tmp_path)
    assert "no images for test below 'tset'; the folders at the top are test, train" in message


def test_images_outside_of_class_folders_are_named(things):
    write(things / "things/stray.png", image_bytes(50))
    message = refusal(spec(FOLDER), things)
    assert "1 image in no class folder" in message
    assert "stray.png" in message


# --- tables ---------------------------------------------------------------------------------------


def write_table(folder, text, images=range(12)):
    for i in images:
        write(folder / f"things/train/i{i}.png", image_bytes(i))
    write(folder / "things/labels.csv", text.encode())


ROWS = "id,label\n" + "".join(f"i{i},{i % 2}\n" for i in range(12))


def test_a_row_without_its_image_is_named(tmp_path):
    write_table(tmp_path, ROWS + "gone,1\n")
    message = refusal(spec(TABLE), tmp_path)
    assert "1 row without its image" in message
    assert "train/gone.png (line 14)" in message


def test_an_image_without_its_row_is_named(tmp_path):
    write_table(tmp_path, ROWS, images=range(13))
    message = refusal(spec(TABLE), tmp_path)
    assert "1 image without a row" in message
    assert "train/i12.png" in message


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write_table(tmp_path, ROWS.replace("label", "class"))
    assert "no column 'label'; its columns are id, class" in refusal(spec(TABLE), tmp_path)


def test_a_table_that_is_not_there_is_named(tmp_path):
    write_table(tmp_path, ROWS)
    dataset = spec({**TABLE, "labels": "label.csv"})
    message = refusal(dataset, tmp_path)
    assert "there is no label.csv in it" in message
    assert "'labels.csv'" in message


def test_a_row_without_a_label_is_named(tmp_path):
    write_table(tmp_path, ROWS.replace("i3,1", "i3, "))
    message = refusal(spec(TABLE), tmp_path)
    assert "1 row without a label" in message
    assert "line 5: train/i3.png" in message


def test_an_image_in_two_rows_is_named(tmp_path):
    write_table(tmp_path, ROWS + "i3,0\n")
    assert "lines 5 and 14: train/i3.png" in refusal(spec(TABLE), tmp_path)


def test_a_label_that_has_no_name_is_named(tmp_path):
    write_table(tmp_path, ROWS.replace("i3,1", "i3,2"))
    dataset = spec({**TABLE, "class_names": {"0": "well", "1": "ill"}})
    assert "column 'label' holds '2', which is not in `class_names`" in refusal(dataset, tmp_path)


def test_a_named_class_without_rows_is_named(tmp_path):
    write_table(tmp_path, ROWS)
    dataset = spec({**TABLE, "class_names": {"0": "well", "1": "ill", "2": "dead"}})
    assert "class 'dead' has no images" in refusal(dataset, tmp_path)


def test_a_table_that_is_no_text_is_named(tmp_path):
    write_table(tmp_path, ROWS)
    write(tmp_path / "things/labels.csv", b"\xff\xfe\x00binary")
    assert "labels.csv: cannot be read as UTF-8 text" in refusal(spec(TABLE), tmp_path)


# --- arrays ---------------------------------------------------------------------------------------


def hdf5_spec(tmp_path, x, y, key="x"):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[key], file["y"] = x, y
    pair = {"images": "a.h5", "labels": "a.h5"}
    return spec({"kind": "hdf5", "splits": {"train": pair}, "class_names": ["a", "b"]})


def test_arrays_that_do_not_fit_are_described(tmp_path):
    images = np.zeros((6, 8, 8, 3), np.uint8)
    labels = np.arange(6) % 2
    short = hdf5_spec(tmp_path, images, labels[:5])
    assert "[6, 8, 8, 3] and its labels are [5]" in refusal(short, tmp_path)
    floats = hdf5_spec(tmp_path, images / 1.0, labels)
    assert "'x' is float64" in refusal(floats, tmp_path)
    unnamed = hdf5_spec(tmp_path, images, labels + 1)
    assert "the label of image 1 is 2" in refusal(unnamed, tmp_path)
    other_key = hdf5_spec(tmp_path, images, labels, key="data")
    assert "there is no array 'x'" in refusal(other_key, tmp_path)


def test_a_compressed_hdf5_file_is_to_be_unpacked_first(tmp_path):
    write(tmp_path / "x.h5.gz", b"\x1f\x8b")
    pair = {"images": "x.h5.gz", "labels": "x.h5.gz"}
    dataset = spec({"kind": "hdf5", "splits": {"train": pair}, "class_names": ["a", "b"]})
    assert "run gunzip" in refusal(dataset, tmp_path)


# --- a machine that fails -------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_noticed_before_decoding(things, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(prepare_module, "_decode", None)
    message = refusal(spec(FOLDER), things)
    assert "could not be written" in message
    assert "Free some space" in message


@pytest.mark.parametrize("where", ["image", "end"])
def test_a_disk_that_fills_up_leaves_no_file(things, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "image":
        monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    message = refusal(spec(FOLDER), things)
    assert "things.h5: could not be written: No space left on device" in message


def test_ctrl_c_leaves_no_file_and_keeps_the_old_one(things, monkeypatch):
    output = things / "out/things.h5"
    write(output, b"the old one")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "_split_notes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("things", spec(FOLDER), things, output, say=lambda line: None)
    assert [path.name for path in output.parent.iterdir()] == ["things.h5"]
    assert output.read_bytes() == b"the old one"


def test_a_huge_file_is_refused_before_it_fills_the_memory(things, monkeypatch):
    monkeypatch.setattr("scratchbook.data.files._LARGEST_FILE", 1000)
    write(things / "things/cat/huge.png", image_bytes(50) + bytes(1000))
    assert "cat/huge.png" in refusal(spec(FOLDER), things)


def test_a_download_that_fails_says_what_would_do(tmp_path, monkeypatch):
    import sys
    from types import SimpleNamespace

    def load_data() -> Source:
        raise OSError("URL fetch failure")

    fake = SimpleNamespace(datasets=SimpleNamespace(mnist=SimpleNamespace(load_data=load_data)))
    monkeypatch.setitem(sys.modules, "keras", fake)
    dataset = spec({"kind": "keras", "name": "mnist", "class_names": ["a", "b"]})
    message = refusal(dataset, tmp_path)
    assert "keras.datasets.mnist could not be loaded: URL fetch failure" in message
    assert "data_dir" in message

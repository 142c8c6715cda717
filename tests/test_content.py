"""What data are known by: contents that travel between containers, what is remembered of them,
identities and numbers of what is prepared."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from scratchbook.config import datasets
from scratchbook.config.datasets import Dataset
from scratchbook.data import content as content_module
from scratchbook.data import files as files_module
from scratchbook.data import layout
from scratchbook.data.content import DECIDING, PLACES, Content, Sources, data_identity
from scratchbook.data.numbers import KINDS, PREPARING, preparing_number
from scratchbook.data.prepare import prepare
from scratchbook.errors import ScratchbookError
from scratchbook.results.prepared import Prepared

FOLDER = {"kind": "folder", "path": "things"}
TABLE = {
    "kind": "csv",
    "path": "things",
    "labels": "labels.csv",
    "image": "train/{id}.png",
    "label": "label",
}
KERAS = {"kind": "keras", "name": "mnist", "class_names": ["a", "b"]}
FILES = {f"{label}/{i}.png": f"{label} {i}".encode() for label in ("cat", "dog") for i in range(5)}


def spec(*sources, **more):
    given = {"title": "Things", "size": [4, 4], "sources": list(sources), **more}
    return Dataset.model_validate(given)


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)


def write_tar(path, files):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            with tempfile.TemporaryFile() as source:
                source.write(content)
                source.seek(0)
                file.addfile(member, source)


def found(dataset, data_dir, memory=None, prepared=False):
    """The content, as a start of the workflow finds it."""
    sources = Sources(memory or data_dir / "nowhere.json")
    content = sources.content(dataset, data_dir, lambda _: prepared)
    if memory:
        sources.save()
    return content


def sha256(source, data_dir):
    return found(spec(source), data_dir).sha256


@pytest.fixture
def things(tmp_path):
    write(tmp_path / "things", FILES)
    return tmp_path


@pytest.fixture
def later(monkeypatch):
    """All that was written so far lies some seconds back."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 10_000_000_000)
    monkeypatch.setattr(content_module, "time", clock)


@pytest.fixture
def read(monkeypatch):
    """The files that are read as a whole, and the archives that are opened."""
    names = []
    sha256_file, open_files = files_module.sha256_file, content_module.open_files

    def counted(path):
        names.append(path.name)
        return sha256_file(path)

    def opened(path, *arguments, **more):
        if path.is_file():
            names.append(path.name)
        return open_files(path, *arguments, **more)

    monkeypatch.setattr(content_module, "sha256_file", counted)
    monkeypatch.setattr(content_module, "open_files", opened)
    return names


# --- what leaves a content as it is, and what changes it ------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "dogs3/"])
@pytest.mark.parametrize("container", ["folder", "x.zip", "x.tar", "x.tar.gz"])
def test_whatever_holds_the_images_their_content_is_the_same(things, container, wrapper):
    before = sha256(FOLDER, things)
    shuffled = {wrapper + name: FILES[name] for name in sorted(FILES, key=lambda name: name[::-1])}
    junk = dict.fromkeys(
        (".DS_Store", "readme.txt", "cat/Thumbs.db", "__MACOSX/cat/._1.png", "cat/.1.png"), b"?"
    )
    more = shuffled | {wrapper + name: content for name, content in junk.items()}
    if container == "folder":
        write(things / "other", more)
        assert sha256({"kind": "folder", "path": "other"}, things) == before
    else:
        (write_zip if container == "x.zip" else write_tar)(things / container, more)
        assert sha256({"kind": "archive", "path": container}, things) == before


def test_touching_and_moving_leave_a_content_as_it_is(things):
    before = sha256(FOLDER, things)
    for path in (things / "things").rglob("*.png"):
        os.utime(path, (1, 1))
    (things / "things").rename(things / "moved")
    assert sha256({"kind": "folder", "path": str(things / "moved")}, things) == before


def test_what_is_linked_counts_as_what_it_leads_to(things):
    before = sha256(FOLDER, things)
    (things / "things/cat").rename(things / "pool")
    (things / "things/cat").symlink_to(things / "pool")
    (things / "things/dog/0.png").rename(things / "pool.png")
    (things / "things/dog/0.png").symlink_to(things / "pool.png")
    assert sha256(FOLDER, things) == before


def changed(files, change):
    files = dict(files)
    if change == "byte":
        files["cat/3.png"] = b"cat 4"
    elif change == "class renamed":
        files = {name.replace("dog", "wolf"): content for name, content in files.items()}
    elif change == "image renamed":
        files["cat/9.png"] = files.pop("cat/3.png")
    elif change == "added":
        files["cat/9.png"] = b"cat 3"
    elif change == "removed":
        del files["cat/3.png"]
    elif change == "swapped":
        files["cat/3.png"], files["dog/3.png"] = files["dog/3.png"], files["cat/3.png"]
    return files


CHANGES = ["byte", "class renamed", "image renamed", "added", "removed", "swapped"]


@pytest.mark.parametrize("container", ["folder", "x.zip", "x.tar.gz"])
def test_each_change_of_the_images_gives_a_content_of_its_own(tmp_path, container):
    seen = []
    for i, change in enumerate(["none", *CHANGES]):
        files = changed(FILES, change)
        if container == "folder":
            write(tmp_path / str(i), files)
            source = {"kind": "folder", "path": str(i)}
        else:
            (write_zip if container == "x.zip" else write_tar)(tmp_path / container, files)
            source = {"kind": "archive", "path": container}
        seen.append(sha256(source, tmp_path))
    assert len(set(seen)) == len(seen)


def test_two_images_that_swap_places_are_noticed_though_sizes_and_times_are_as_before(
    things, later
):
    memory = things / "results/sources.json"
    before = found(spec(FOLDER), things, memory)
    cat, dog = things / "things/cat/0.png", things / "things/dog/0.png"
    for path in (cat, dog):
        os.utime(path, ns=(1, 1))
    assert found(spec(FOLDER), things, memory) == before
    cat.rename(things / "t"), dog.rename(cat), (things / "t").rename(dog)
    assert cat.stat().st_mtime_ns == dog.stat().st_mtime_ns == 1
    assert cat.stat().st_size == dog.stat().st_size
    assert found(spec(FOLDER), things, memory) != before


def test_an_image_that_is_overwritten_in_place_is_noticed_though_its_time_is_set_back(
    things, later
):
    memory = things / "sources.json"
    image = things / "things/cat/0.png"
    os.utime(image, ns=(1, 1))
    before = found(spec(FOLDER), things, memory)
    time.sleep(0.05)  # a tick of the file system's clock
    image.write_bytes(b"cat 1")
    os.utime(image, ns=(1, 1))
    assert found(spec(FOLDER), things, memory) != before


def test_folders_that_swap_names_are_noticed_though_all_times_are_the_same(
    things, later, monkeypatch
):
    def stat(path):
        status = os.stat(path)  # noqa: PTH116
        return SimpleNamespace(
            st_size=status.st_size, st_ino=status.st_ino, st_mtime_ns=1, st_ctime_ns=1
        )

    monkeypatch.setattr(
        content_module, "os", SimpleNamespace(stat=stat, path=os.path, sep=os.sep, fspath=os.fspath)
    )
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    cat, dog = things / "things/cat", things / "things/dog"
    cat.rename(things / "t"), dog.rename(cat), (things / "t").rename(dog)
    assert found(spec(FOLDER), things, memory) != before


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=6,
).filter(lambda name: name.strip(".") and name[0] != "." and name != "__MACOSX")
trees = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b", "é"]), names).map(lambda pair: f"{'/'.join(pair)}.png"),
    st.binary(max_size=20),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(trees, st.randoms(use_true_random=False))
def test_any_images_have_one_content_in_any_container(tree, random):
    order = list(tree)
    random.shuffle(order)
    shuffled = {name: tree[name] for name in order}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder / "f", tree)
        write_zip(folder / "z.zip", shuffled)
        write_tar(folder / "t.tar", {f"./w/{name}": content for name, content in shuffled.items()})
        kept = sha256({"kind": "folder", "path": "f"}, folder)
        assert sha256({"kind": "archive", "path": "z.zip"}, folder) == kept
        assert sha256({"kind": "archive", "path": "t.tar"}, folder) == kept
        name = order[0]
        (folder / "f" / name).write_bytes(tree[name] + b"!")
        assert sha256({"kind": "folder", "path": "f"}, folder) != kept


def test_the_names_of_the_folders_of_splits_are_no_part_of_a_content(tmp_path):
    for train, test, place in (("train", "test", "a"), ("w/fit", "w/held", "b")):
        write(tmp_path / place / train, FILES)
        write(tmp_path / place / test, changed(FILES, "byte"))
    a = {"kind": "folder", "path": "a", "splits": {"train": "train", "test": "test"}}
    b = {"kind": "folder", "path": "b", "splits": {"train": "w/fit", "test": "w/held"}}
    other = {"kind": "folder", "path": "b", "splits": {"train": "w/held", "test": "w/fit"}}
    assert sha256(a, tmp_path) == sha256(b, tmp_path) != sha256(other, tmp_path)
    content = Content(0, "0" * 64, True)
    assert data_identity(spec(a), content) == data_identity(spec(b), content)


def test_of_a_table_its_bytes_and_the_images_that_it_names_count(tmp_path):
    rows = "id,label\n" + "".join(f"i{i},{i % 2}\n" for i in range(6))
    files = {f"train/i{i}.png": bytes([i]) for i in range(6)} | {"labels.csv": rows.encode()}
    write(tmp_path / "things", files)
    before = sha256(TABLE, tmp_path)
    write_zip(tmp_path / "k.zip", files)
    write_tar(tmp_path / "k.tar.gz", dict(reversed(files.items())))
    for archive in ("k.zip", "k.tar.gz"):
        assert sha256({**TABLE, "path": archive}, tmp_path) == before
    write(tmp_path / "things", {"test/i9.png": b"not named", "readme.md": b"?"})
    assert sha256(TABLE, tmp_path) == before
    write(tmp_path / "things", {"labels.csv": rows.replace("i3,1", "i3,0").encode()})
    relabelled = sha256(TABLE, tmp_path)
    write(tmp_path / "things", {"labels.csv": rows.encode(), "train/i3.png": b"other"})
    assert len({before, relabelled, sha256(TABLE, tmp_path)}) == 3


def test_arrays_are_known_by_their_files_and_roles(tmp_path):
    write(tmp_path, {"a.h5": b"a", "b.h5": b"b", "moved/x.h5": b"a", "moved/y.h5": b"b"})

    def of(images, labels, split="train"):
        pair = {"images": images, "labels": labels}
        return sha256(
            {"kind": "hdf5", "splits": {split: pair}, "class_names": ["a", "b"]}, tmp_path
        )

    assert of("a.h5", "b.h5") == of("moved/x.h5", "moved/y.h5")
    assert len({of("a.h5", "b.h5"), of("b.h5", "a.h5"), of("a.h5", "b.h5", "test")}) == 3


def test_a_bundled_table_is_known_by_its_bytes(tmp_path, monkeypatch):
    write(tmp_path / "pixels", {"__init__.py": b"", "t.csv": b"1,2,3,4,0\n"})
    monkeypatch.syspath_prepend(tmp_path)
    source = {
        "kind": "bundled", "package": "pixels", "file": "t.csv", "shape": [2, 2],
        "class_names": ["a", "b"],
    }  # fmt: skip
    before = sha256(source, tmp_path)
    assert before == sha256(source, tmp_path / "elsewhere")
    write(tmp_path / "pixels", {"t.csv": b"1,2,3,4,1\n"})
    assert sha256(source, tmp_path) != before


def test_what_keras_downloads_is_known_by_the_hash_that_keras_publishes(tmp_path, monkeypatch):
    place = importlib.util.find_spec("keras").submodule_search_locations[0]
    for name in ("cifar10", "cifar100", "mnist"):
        text = (Path(place) / f"src/datasets/{name}.py").read_text()
        assert re.findall(r'file_hash=\(?[^"]*"([0-9a-f]{64})"', text) == [layout._PUBLISHED[name]]
    declared = get_args(datasets.KerasSource.model_fields["name"].annotation)
    assert set(declared) == set(layout._PUBLISHED)
    monkeypatch.setattr("builtins.open", None)  # nothing is read
    contents = {sha256({**KERAS, "name": name}, tmp_path) for name in declared}
    assert len(contents) == len(declared)


# --- what is remembered ---------------------------------------------------------------------------


def test_what_is_as_it_was_is_not_read_again(things, read, later):
    memory = things / "results/sources.json"
    write_zip(things / "things.zip", FILES)
    archive = spec({"kind": "archive", "path": "things.zip"})
    first = found(spec(FOLDER), things, memory), found(archive, things, memory)
    assert (len(read), read[-1]) == (len(FILES) + 1, "things.zip")
    read.clear()
    write(things / "things", {"cat/0.png": b"cat 7"})
    again = found(spec(FOLDER), things, memory), found(archive, things, memory)
    assert read == ["0.png"]
    assert again[0] != first[0]
    assert again[1] == first[1]
    os.utime(things / "things.zip")
    assert found(archive, things, memory) == first[1]
    assert read == ["0.png", "things.zip"]


@pytest.mark.parametrize("container", ["folder", "archive"])
def test_what_was_changed_just_now_is_read_again(things, read, container):
    write_zip(things / "things.zip", FILES)
    path = "things" if container == "folder" else "things.zip"
    for _ in range(2):
        read.clear()
        found(spec({"kind": container, "path": path}), things, things / "sources.json")
        assert len(read) == (len(FILES) if container == "folder" else 1)


def test_an_archive_that_is_declared_in_another_way_is_read_again(tmp_path, later):
    files = {f"{split}/{name}": FILES[name] for split in ("x", "y") for name in FILES}
    write_zip(tmp_path / "k.zip", files | {"y/cat/0.png": b"other"})
    memory = tmp_path / "sources.json"
    seen = {
        found(spec({"kind": "archive", "path": "k.zip", "splits": splits}), tmp_path, memory).sha256
        for splits in ({"train": "x", "test": "y"}, {"train": "y", "test": "x"}, {"train": "x"})
    }
    assert len(seen) == 3


def test_files_that_are_gone_are_forgotten(things, later):
    memory = things / "sources.json"
    found(spec(FOLDER), things, memory)
    assert "4.png" in memory.read_text()
    for label in ("cat", "dog"):
        (things / f"things/{label}/4.png").unlink()
    found(spec(FOLDER), things, memory)
    assert "4.png" not in memory.read_text()
    assert "3.png" in memory.read_text()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"files": 3}',
        '{"files": {}, "archives": {}, "seen": {"a": {"b": 1}}}',
        "[" * 100_000,
        "\udc80",
    ],
)
def test_a_damaged_memory_is_an_empty_one(things, damage, later):
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    whole = memory.read_bytes()
    memory.write_bytes(damage.encode("utf-8", "surrogateescape"))
    assert found(spec(FOLDER), things, memory) == before
    assert json.loads(memory.read_bytes()) == json.loads(whole)


def test_no_entry_of_a_damaged_memory_is_taken_for_a_hash(things, later):
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    memory.write_text(re.sub(r"[0-9a-f]{20}\"", '"', memory.read_text()))
    assert found(spec(FOLDER), things, memory) == before
    memory.write_text(re.sub(r"[0-9a-f]{20}\"", '"', memory.read_text()))
    (things / "things").rename(things / "gone")
    with pytest.raises(ScratchbookError, match="none of its sources is there"):
        found(spec(FOLDER), things, memory)


def test_a_memory_that_cannot_be_written_stops_nobody(things, monkeypatch):
    (things / "file").write_text("")
    assert found(spec(FOLDER), things, things / "file/sources.json").there
    assert found(spec(FOLDER), things, things).there  # a folder


def test_what_two_processes_found_out_is_kept_of_both(things, read, later):
    memory = things / "sources.json"
    write(things / "others", {name: content[::-1] for name, content in FILES.items()})
    others = spec({"kind": "folder", "path": "others"})
    one, two = Sources(memory), Sources(memory)
    one.content(spec(FOLDER), things, lambda _: False)
    two.content(others, things, lambda _: False)
    one.save(), two.save()
    read.clear()
    found(spec(FOLDER), things, memory), found(others, things, memory)
    assert read == []
    (things / "things").rename(things / "gone")
    assert not found(spec(FOLDER), things, memory).there


def test_of_two_contents_that_were_seen_the_later_one_counts(things, later):
    memory = things / "sources.json"
    slow = Sources(memory)
    slow.content(spec(FOLDER), things, lambda _: False)
    found(spec(FOLDER), things, memory)
    write(things / "things", {"cat/0.png": b"relabelled"})
    latest = found(spec(FOLDER), things, memory)
    slow.save()
    (things / "things").rename(things / "gone")
    assert found(spec(FOLDER), things, memory).sha256 == latest.sha256


def test_nothing_new_is_not_written_down(things, later):
    memory = things / "sources.json"
    found(spec(FOLDER), things, memory)
    os.utime(memory, (1, 1))
    found(spec(FOLDER), things, memory)
    assert memory.stat().st_mtime == 1


def test_names_that_are_no_utf_8_are_remembered(things, read, later):
    (things / "things/cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"1")
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    read.clear()
    assert found(spec(FOLDER), things, memory) == before
    assert read == []


def test_a_single_file_is_known_by_its_bytes_and_by_what_was_seen_of_it(things, read, later):
    memory, weights = things / "sources.json", things / "w.h5"
    sources = Sources(memory)
    assert sources.file_sha256(weights) is None
    weights.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sources.file_sha256(str(weights)) == sources.file_sha256(weights) == known
    assert read == ["w.h5"]
    sources.save()
    weights.unlink()
    assert Sources(memory).file_sha256(weights) == sources.file_sha256(weights) == known
    weights.mkdir()
    with pytest.raises(ScratchbookError, match=re.escape(str(weights))):
        sources.file_sha256(weights)


# --- which content counts -------------------------------------------------------------------------


def test_where_no_source_is_there_the_content_last_seen_counts(things):
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    elsewhere = things / "elsewhere"
    with pytest.raises(ScratchbookError, match="none of its sources is there"):
        found(spec(FOLDER), elsewhere)
    gone = found(spec(FOLDER), elsewhere, memory)
    assert (gone.sha256, gone.index, gone.there) == (before.sha256, 0, False)
    words = {"title": "Other", "citation": "Who", "duplicates": "refuse"}
    assert found(spec({**FOLDER, "download": "there"}, **words), elsewhere, memory) == gone
    more = found(spec({"kind": "archive", "path": "new.zip"}, FOLDER), elsewhere, memory)
    assert (more.sha256, more.index, more.there) == (before.sha256, 1, False)
    for other in (
        spec({**FOLDER, "path": "others"}),
        spec({**FOLDER, "splits": {"train": "cat"}}),
        spec(FOLDER, size=[5, 5]),
        spec(FOLDER, split={"seed": 1}),
    ):
        with pytest.raises(ScratchbookError, match="none of its sources is there"):
            found(other, elsewhere, memory)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_source_that_is_gone_gives_way_to_no_other(things, prepared):
    memory = things / "sources.json"
    dataset = spec(FOLDER, KERAS)
    before = found(dataset, things, memory)
    (things / "things").rename(things / "gone")
    after = found(dataset, things, memory, prepared)
    assert (after.sha256, after.index, after.there) == (before.sha256, 0, False)
    assert found(dataset, things).index == 1  # as one finds it who has seen nothing


def test_a_source_that_is_gone_gives_way_to_one_with_the_same_images(things):
    memory = things / "sources.json"
    write_zip(things / "things.zip", FILES)
    dataset = spec({"kind": "archive", "path": "things.zip"}, FOLDER, KERAS)
    before = found(dataset, things, memory)
    (things / "things.zip").unlink()
    after = found(dataset, things, memory)
    assert (after.sha256, after.index, after.there) == (before.sha256, 1, True)


def test_a_better_source_that_appears_later_waits_while_the_old_one_is_prepared(things):
    memory = things / "sources.json"
    dataset = spec(FOLDER, KERAS)
    before = found(dataset, things / "elsewhere", memory)
    assert before.index == 1
    asked = []
    sources = Sources(memory)
    held = sources.content(dataset, things, lambda hex: asked.append(hex) or True, limit=9)
    assert held == before
    assert asked == [data_identity(dataset, before, 9)]
    better = found(dataset, things, memory, prepared=False)
    assert (better.index, better.there) == (0, True)
    assert better.sha256 != before.sha256
    assert found(dataset, things, memory, prepared=True) == better


def test_a_better_source_that_is_damaged_does_no_harm_while_it_waits(things):
    memory = things / "sources.json"
    dataset = spec({"kind": "archive", "path": "things.zip"}, FOLDER)
    before = found(dataset, things, memory)
    (things / "things.zip").write_bytes(b"PK half of it")
    assert found(dataset, things, memory, prepared=True) == before
    with pytest.raises(ScratchbookError, match="not a whole"):
        found(dataset, things, memory, prepared=False)


def test_the_source_in_use_waits_for_nobody_once_it_is_changed_by_hand(things):
    memory = things / "sources.json"
    write(things / "better", {name: content[::-1] for name, content in FILES.items()})
    dataset = spec({"kind": "folder", "path": "good"}, FOLDER)
    before = found(dataset, things, memory)
    (things / "better").rename(things / "good")
    assert found(dataset, things, memory, prepared=True) == before
    write(things / "things", {"cat/0.png": b"relabelled"})
    assert found(dataset, things, memory, prepared=True).index == 0


def test_a_change_of_the_source_in_use_is_always_noticed(things):
    memory = things / "sources.json"
    before = found(spec(FOLDER), things, memory)
    write(things / "things", {"cat/0.png": b"other"})
    assert found(spec(FOLDER), things, memory, prepared=True).sha256 != before.sha256


# --- damage ---------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_named(things):
    write_zip(things / "x.zip", FILES)
    (things / "x.zip").write_bytes((things / "x.zip").read_bytes()[:200])
    with pytest.raises(ScratchbookError, match=r"x\.zip: not a whole"):
        sha256({"kind": "archive", "path": "x.zip"}, things)
    with zipfile.ZipFile(things / "y.zip", "w") as file:
        file.writestr("cat/a.png", b"pixels of a cat")
        file.writestr("dog/b.png", b"pixels of a dog")
    raw = (things / "y.zip").read_bytes()
    (things / "y.zip").write_bytes(raw.replace(b"pixels of a cat", b"pixels of a rat"))
    with pytest.raises(ScratchbookError, match=r"cannot read 1 image:\n  cat/a\.png: Bad CRC"):
        sha256({"kind": "archive", "path": "y.zip"}, things)
    (things / "things/cat/0.png").unlink()
    (things / "things/cat/0.png").symlink_to("nowhere")
    with pytest.raises(ScratchbookError, match="1 link leads to nothing"):
        sha256(FOLDER, things)


WHOLE = {}
with tempfile.TemporaryDirectory() as _place:
    for _name, _write in (("x.zip", write_zip), ("x.tar", write_tar), ("x.tar.gz", write_tar)):
        _write(Path(_place) / _name, FILES)
        WHOLE[_name] = (Path(_place) / _name).read_bytes()


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    st.floats(0, 1),
)
@example("x.zip", [(0.140625, 8), (0.1640625, 128)], 1.0)  # a name that is said to be UTF-8
def test_no_damage_of_an_archive_ends_in_a_traceback(name, flips, cut):
    content = bytearray(WHOLE[name])
    for where, value in flips:
        content[int(where * len(content))] = value
    if cut < 0.5:
        del content[int(2 * cut * len(content)) :]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(content)
        with contextlib.suppress(ScratchbookError):
            sha256({"kind": "archive", "path": name}, Path(place))


def test_a_compressed_tar_is_unpacked_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    # Of all lengths, so that some end where a block and a buffer do; noise cannot be compressed.
    sizes = [512 * i if i % 3 else 512 * i + 100 for i in range(40)] + [300_000]
    files = {f"{'ab'[i % 2]}/{i}.png": rng.bytes(size) for i, size in enumerate(sizes)}
    write_tar(tmp_path / "x.tar.gz", files)
    read = []
    raw_read = gzip._GzipReader.read

    def counted(reader, *arguments):
        block = raw_read(reader, *arguments)
        read.append(len(block))
        return block

    monkeypatch.setattr(gzip._GzipReader, "read", counted)
    write(tmp_path / "f", files)
    folder = sha256({"kind": "folder", "path": "f"}, tmp_path)
    assert sha256({"kind": "archive", "path": "x.tar.gz"}, tmp_path) == folder
    assert sum(read) < 1.05 * sum(sizes) + (1 << 16)


# --- identities -----------------------------------------------------------------------------------

SOME = Content(0, "ab" * 32, True)


def test_a_folder_and_its_zip_have_one_identity():
    archive = {"kind": "archive", "path": "x.zip", "download": "there"}
    assert data_identity(spec(FOLDER), SOME) == data_identity(spec(archive), SOME)
    second = Content(1, SOME.sha256, False)
    assert data_identity(spec(KERAS, FOLDER), second) == data_identity(spec(FOLDER), SOME)


def test_words_and_places_decide_nothing_and_all_else_does():
    plain = spec(TABLE)
    same = [
        spec(TABLE, title="Other", citation="Who", duplicates="refuse"),
        spec({**TABLE, "path": "k.zip", "labels": "t.csv", "download": "there"}),
        spec(TABLE, resize={"method": "bilinear", "fit": "stretch"}),
        spec(TABLE, split={"validation": 0.1, "test": 0.2, "seed": 0}),
        spec(TABLE, KERAS),
    ]
    assert {data_identity(each, SOME) for each in same} == {data_identity(plain, SOME)}
    others = [
        spec(TABLE, size=[4, 5]),
        spec(TABLE, size=[5, 4]),
        spec(TABLE, resize={"method": "bicubic"}),
        spec(TABLE, resize={"fit": "crop"}),
        spec(TABLE, split={"validation": 0.2}),
        spec(TABLE, split={"test": 0.1}),
        spec(TABLE, split={"seed": 1}),
        spec(TABLE, sample=9),
        spec({**TABLE, "label": "id"}),
        spec({**TABLE, "split": "part"}),
        spec({**TABLE, "image": "{id}"}),
        spec({**TABLE, "class_names": {"0": "well", "1": "ill"}}),
        spec({**TABLE, "class_names": {"1": "ill", "0": "well"}}),
        spec(FOLDER),
        spec({**FOLDER, "splits": {"train": "train"}}),
        spec({**FOLDER, "splits": {"train": "train", "test": "test"}}),
        spec(KERAS),
        spec({**KERAS, "class_names": ["b", "a"]}),
    ]
    identities = [data_identity(each, SOME) for each in [plain, *others]]
    identities += [data_identity(plain, SOME, 9), data_identity(plain, Content(0, "cd" * 32, True))]
    assert len(set(identities)) == len(identities)
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in identities)


# Never to be changed: results lie under these names.
SPLIT = {**FOLDER, "splits": {"train": "a", "test": "b"}}
ALL = {"size": [8, 9], "resize": {"method": "box", "fit": "pad"}, "sample": 7}
FROZEN = {
    "folder": (spec(FOLDER), None),
    "limit": (spec(FOLDER), 100),
    "splits": (spec(SPLIT), None),
    "all": (spec(FOLDER, split={"validation": 0.2, "test": 0.3, "seed": 4}, **ALL), None),
    "csv": (spec({**TABLE, "split": "part", "class_names": {1: "ill", 0: "well"}}), None),
    "keras": (spec(KERAS), None),
}
IDENTITIES = {
    "folder": "10fa46d3051a",
    "limit": "a5ac283b2d0c",
    "splits": "364816e18a27",
    "all": "42f62424201b",
    "csv": "e2c4bbe3ea53",
    "keras": "7ba7b2ad299a",
}


def test_identities_stay_what_they_were():
    now = {name: data_identity(each, SOME, limit) for name, (each, limit) in FROZEN.items()}
    assert now == IDENTITIES


def test_contents_stay_what_they_were(things):
    assert [sha256(source, things)[:12] for source in (FOLDER, KERAS)] == [
        "a6570b1abbeb",
        "4b6ee5bcb7fb",
    ]


def test_every_field_of_a_declaration_decides_or_is_known_not_to():
    words = {
        "dataset": {"title", "citation", "duplicates", "sources", "resize", "split"},
        "resize": set(),
        "split": set(),
    }
    models = {"dataset": Dataset, "resize": datasets.Resize, "split": datasets.Split}
    kinds = {model.model_fields["kind"].annotation: model for model in get_args(SOURCES)}
    for part, model in models.items():
        assert set(model.model_fields) == set(DECIDING[part]) | words[part], part
    for literal, model in kinds.items():
        kind = KINDS.get(get_args(literal)[0], get_args(literal)[0])
        known = {"kind", "download", *DECIDING[kind], *PLACES[kind]}
        assert set(model.model_fields) == known, kind
        models[kind] = model
    for part, fields in DECIDING.items():
        for name, default in fields.items():
            if default is not content_module._ALWAYS:
                # One that is changed in the model alone would give the old identity to new data.
                assert models[part].model_fields[name].default == default, (part, name)
            else:
                assert models[part].model_fields[name].is_required(), (part, name)


SOURCES = get_args(datasets.Source)[0]


# --- numbers of the code --------------------------------------------------------------------------


def test_a_prepared_file_has_the_number_of_what_made_it(monkeypatch):
    assert set(PREPARING.values()) == {1}
    cases = {
        "folder": spec(FOLDER),
        "sampled": spec(FOLDER, sample=9),
        "given": spec({**FOLDER, "splits": {"train": "a", "validation": "b", "test": "c"}}),
        "keras": spec(KERAS),
        "both": spec(FOLDER, KERAS),
    }
    used = {name: set() for name in cases}
    for feature in PREPARING:
        monkeypatch.setitem(PREPARING, feature, 3)
        for name, each in cases.items():
            number = preparing_number(each)
            assert number in (1, 3)
            if number == 3:
                used[name].add(feature)
        monkeypatch.setitem(PREPARING, feature, 1)
    files = {"decoding", "resizing", "class folders"}
    assert used == {
        "folder": files | {"splitting"},
        "sampled": files | {"splitting", "sampling"},
        "given": files,
        "keras": {"resizing", "splitting", "keras"},
        "both": files | {"splitting", "keras"},
    }
    monkeypatch.setitem(PREPARING, "keras", 2)
    monkeypatch.setitem(PREPARING, "sampling", 4)
    assert [preparing_number(cases["both"], index) for index in (None, 0, 1)] == [2, 1, 2]
    assert preparing_number(cases["both"], 1, limit=9) == 5


def png(seed, size=(6, 4)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    with tempfile.SpooledTemporaryFile() as file:
        Image.fromarray(pixels).save(file, "PNG")
        file.seek(0)
        return file.read()


GOLDEN = {
    "class folders": (
        spec(FOLDER, size=[6, 4]),
        "03793cff1b357483cf01d19427d94b6842b8cbbffc3eea1e624ff37395655ebf",
    ),
    "sampled": (
        spec(FOLDER, size=[6, 4], sample=12, split={"seed": 3}),
        "2893566d79ef50ff940f9ad5f7aac3982ea5e7ed3d7ba7a38a6bfb270a2ddc60",
    ),
    "resized": (
        spec(FOLDER, size=[3, 3], resize={"method": "bicubic", "fit": "crop"}),
        "d000e94d9f28be12e529607260a38fa6a4047dbf352f97a9c29d0c1f0815372f",
    ),
    "csv": (
        spec({**TABLE, "path": "table"}, size=[6, 4]),
        "452f187939a9b66974ec521784702d7c5935709c501c9992a2a544deceb56def",
    ),
    "hdf5": (
        spec(
            {
                "kind": "hdf5",
                "splits": {"train": {"images": "a.h5", "labels": "a.h5"}},
                "class_names": ["a", "b"],
            },
        ),
        "4bee990f951a8f2b74889153216ee4fb5844381447636278d5ba90e53c1837ab",
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_what_is_prepared_is_what_was_prepared_before(tmp_path, case):
    """Where this fails, and ought to, raise the feature's number and take over the new hash."""
    write(tmp_path / "things", {f"{'ab'[i % 2]}/{i:02d}.png": png(i) for i in range(24)})
    rows = "id,label\n" + "".join(f"{i},{i % 3}\n" for i in range(24))
    write(tmp_path / "table", {f"train/{i}.png": png(i) for i in range(24)})
    write(tmp_path / "table", {"labels.csv": rows.encode()})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
        file["y"] = np.arange(24) % 2
    dataset, expected = GOLDEN[case]
    prepare("things", dataset, tmp_path, tmp_path / "x.h5", say=lambda _: None)
    assert Prepared(tmp_path / "x.h5").arrays_sha256 == expected


def test_asking_for_a_content_imports_the_standard_library_only():
    code = (
        "import sys, scratchbook.data.content\n"
        "print([m for m in ('numpy', 'h5py', 'keras', 'PIL', 'pydantic') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"

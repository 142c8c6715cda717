"""`scratchbook cam`: where a trained network looks on a photo of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects import scratchbook
from scratchbook.cam.photos import read_photos
from scratchbook.config.datasets import Dataset
from scratchbook.errors import ScratchbookError

DATASET = Dataset.model_validate({
    "title": "T", "size": [12, 10], "resize": {"fit": "crop"},
    "sources": [{"kind": "folder", "path": "x"}],
})  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of another size than the data set's."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.jpg")
    return tmp_path / "mine.jpg"


def test_a_photo_is_explained_in_every_kept_epoch(finished: Path, photo: Path) -> None:
    picture = photo.with_name("cam.svg")
    answer = scratchbook(
        finished, "cam", "halves", "wide", "--image", str(photo), "--class", "top",
        "--output", str(picture),
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "gradcam of top at layer" in answer.stdout
    told = re.findall(r"epoch +(\d+): predicts \w+ \((0\.\d+)\), top (0\.\d+)", answer.stdout)
    assert [int(epoch) for epoch, _, _ in told] == [1, 2]
    assert all(float(of_top) <= float(most) for _, most, of_top in told)
    svg = picture.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "epoch 1" in svg
    assert "epoch 2" in svg


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["halves", "wide", "--image", "nowhere.jpg"], "--image nowhere.jpg: No such file"),
        (["halves", "wide", "--image", "Snakefile"], "--image Snakefile: not an image"),
        (["halves", "wdie", "--image", "Snakefile"], "halves has no 'wdie'; did you mean 'wide'"),
        (["halves", "wide", "--image", "Snakefile", "--seed", "7"], "no run with seed 7"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    finished: Path, arguments: list[str], told: str
) -> None:
    answer = scratchbook(finished, "cam", *arguments)
    assert answer.returncode == 1
    (line,) = [line for line in answer.stderr.splitlines() if line.strip()][-1:]
    assert told in line
    assert "Traceback" not in answer.stderr


def test_photos_are_made_what_the_network_was_trained_on(photo: Path) -> None:
    photos = read_photos([photo, photo], DATASET)
    assert photos.shape == (2, 12, 10, 3)
    assert photos.dtype == np.uint8


def test_a_truncated_photo_is_refused(photo: Path) -> None:
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScratchbookError, match=r"--image .*mine\.jpg: .*truncated"):
        read_photos([photo], DATASET)

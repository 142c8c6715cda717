"""Made data in the layouts of the shipped notebooks' data sets: a folder in, zips of noise out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from scratchbook.config.project import load_project

DOGS = ["beagle", "labrador_retriever", "siberian_husky"]


def make_data(folder: Path, repository: Path) -> None:
    """cifar10.zip, cifar100.zip, dogs3.zip and pcam10k.zip, a few images a class, for `data_dir`.

    The class names of CIFAR are those that `repository` declares for Keras's copy of it.
    """
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    datasets = load_project({"notebooks": ["cifar10"]}, repository).datasets
    for name, in_train, in_test in (("cifar10", 6, 2), ("cifar100", 2, 1)):
        classes = next(s for s in datasets[name].sources if s.kind == "keras").class_names
        files = {
            f"{split}/{label}/{number}.png": _image(noise, (32, 32), "PNG")
            for split, count in (("train", in_train), ("test", in_test))
            for label in classes
            for number in range(count)
        }
        _write_zip(folder / f"{name}.zip", files)
    photos = {f"{dog}/{n}.jpg": _image(noise, (250, 230), "JPEG") for dog in DOGS for n in range(8)}
    _write_zip(folder / "dogs3.zip", photos)
    patches = {f"{n:040x}": n % 2 for n in range(60)}
    table = "id,label\n" + "".join(f"{patch},{label}\n" for patch, label in patches.items())
    _write_zip(
        folder / "pcam10k.zip",
        {f"train/{patch}.jpg": _image(noise, (96, 96), "JPEG") for patch in patches}
        | {"train_labels.csv": table.encode()},
    )


def _image(noise: np.random.Generator, size: tuple[int, int], form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file, form)
    return file.getvalue()


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)

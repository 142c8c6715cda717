"""The data sets' models: config/datasets.yaml, as parsed YAML, in; checked values out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    field_validator,
    model_validator,
)

from scratchbook.errors import nearest

from .strict import Name, Strict, unusable

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ClassNames = Annotated[list[Text], Field(min_length=2)]
SplitName = Literal["train", "validation", "test"]


class _Section(Strict):
    model_config = ConfigDict(strict=True)


class _Source(_Section):
    takes: ClassVar[Literal["file", "folder", "either"]] = "file"
    instead: ClassVar[str] = ""  # what to write for the other

    download: Text | None = None
    """Where to get it; shown when the data are not there."""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        """Where its files lie, by role; a path that is absolute stays so."""
        return {}


class _ClassFolders(_Source):
    splits: dict[SplitName, Text] | None = None
    """Folder of each split that it comes with, e.g. `{train: train, test: test}`; each holds one
    folder a class. Without it the class folders lie at the top."""


class FolderSource(_ClassFolders):
    """A folder on disk with one folder of images a class."""

    takes = "folder"
    instead = " (for a zip or tar use `kind: archive`)"

    kind: Literal["folder"]
    """`folder`: one folder of images a class."""
    path: Text
    """The folder, relative to `data_dir` unless absolute."""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        return {"path": data_dir / self.path}


class ArchiveSource(_ClassFolders):
    """A zip or tar with one folder of images a class, read without unpacking."""

    instead = " (use `kind: folder`)"

    kind: Literal["archive"]
    """`archive`: a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, read without unpacking."""
    path: Text
    """The archive, relative to `data_dir` unless absolute."""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        return {"path": data_dir / self.path}


class CsvSource(_Source):
    """A table of labels beside images, in a folder or an archive (Kaggle's way)."""

    takes = "either"

    kind: Literal["csv"]
    """`csv`: a table of labels beside the images."""
    path: Text
    """Folder or archive with table and images, relative to `data_dir` unless absolute."""
    labels: Text
    """The table inside `path`: a CSV file with a header line."""
    image: Text
    """Where a row's image lies inside `path`; `{column}` stands for that column's value, e.g.
    `train/{id}.jpg`."""
    label: Text
    """The column that holds the class."""
    split: Text | None = None
    """The column that holds `train`, `validation` or `test`, if there is one."""
    class_names: dict[Text, Text] | None = None
    """A readable name for each value of the label column, in the order of the classes. Without it
    the values name themselves, sorted."""

    @field_validator("class_names", mode="before")
    @classmethod
    def _values_are_text(cls, names: Any) -> Any:
        """`{0: normal}` is what one writes, and YAML makes a number of the 0."""
        if not isinstance(names, dict):
            return names
        return {str(k) if type(k) is int else k: name for k, name in names.items()}

    def paths(self, data_dir: Path) -> dict[str, Path]:
        return {"path": data_dir / self.path}


class Hdf5Pair(_Section):
    """The two files of one split."""

    images: Text
    """The .h5 file of the images."""
    labels: Text
    """The .h5 file of the labels; it may be the same one."""


class Hdf5Source(_Source):
    """Arrays in .h5 files, a pair of files a split (PatchCamelyon's way)."""

    kind: Literal["hdf5"]
    """`hdf5`: arrays in .h5 files."""
    splits: dict[SplitName, Hdf5Pair] = Field(min_length=1)
    """The files of each split, relative to `data_dir` unless absolute."""
    images: Text = "x"
    """The images' array in its file: uint8 [n, height, width(, channels)]."""
    labels: Text = "y"
    """The labels' array in its file: n whole numbers from 0."""
    class_names: ClassNames
    """The classes' names, in the order of their numbers."""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        return {
            f"{split} {role}": data_dir / file
            for split, pair in self.splits.items()
            for role, file in (("images", pair.images), ("labels", pair.labels))
        }


class KerasSource(_Source):
    """A data set that Keras downloads and caches."""

    kind: Literal["keras"]
    """`keras`: downloaded by `keras.datasets`."""
    name: Literal["cifar10", "cifar100", "fashion_mnist", "mnist"]
    """Its name in `keras.datasets`; it comes with train and test."""
    class_names: ClassNames
    """The classes' names, in the order of their numbers."""


class BundledSource(_Source):
    """A table of pixels that ships inside an installed package: works offline."""

    kind: Literal["bundled"]
    """`bundled`: ships inside an installed package."""
    package: Text
    """The package's import name."""
    file: Text
    """The table inside the package: a CSV file (.gz or not) without a header, one image a row, its
    grey values 0 to 255 row by row and then its class as a number."""
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    """Height and width of the images in the table."""
    class_names: ClassNames
    """The classes' names, in the order of their numbers."""

    def paths(self, data_dir: Path) -> dict[str, Path]:
        package = find_spec(self.package)  # finds it without importing it
        places = package.submodule_search_locations if package else None
        return {"path": Path(next(iter(places or [self.package]))) / self.file}


_KINDS: dict[str, type[_Source]] = {
    "folder": FolderSource,
    "archive": ArchiveSource,
    "csv": CsvSource,
    "hdf5": Hdf5Source,
    "keras": KerasSource,
    "bundled": BundledSource,
}


def _of_its_kind(source: Any) -> Any:
    """The model of its kind: its errors name keys of the file alone, a union's the kind as well."""
    if not isinstance(source, dict):
        return source
    kind = source.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        what = f"unknown kind {kind!r}" if "kind" in source else "`kind` is missing"
        raise unusable(f"{what}; {nearest(kind, _KINDS)}")
    return _KINDS[kind].model_validate(source)


Source = Annotated[
    FolderSource | ArchiveSource | CsvSource | Hdf5Source | KerasSource | BundledSource,
    Field(discriminator="kind"),
    BeforeValidator(_of_its_kind),
]


class Resize(_Section):
    """How an image of another size becomes one of `size`."""

    method: Literal["bilinear", "bicubic", "lanczos", "nearest", "box"] = "bilinear"
    """Pillow's resampling filter (antialiased, `nearest` apart)."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """`stretch` to the size, `crop` the centre, or `pad` with black; the last two keep the shape of
    things."""


class Split(_Section):
    """How the splits that the source does not come with are made."""

    validation: Fraction = 0.1
    """Share of the images for validation. If the source comes with splits but not this one, it is a
    share of its train images; if it comes with this one, that is used."""
    test: Fraction = 0.2
    """The same for the test split."""
    seed: int = Field(0, ge=0)
    """Seed of the splits and of the sample."""

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Split:
        if self.validation + self.test >= 1:
            raise unusable(
                f"validation ({self.validation:g}) and test ({self.test:g}) leave nothing to "
                "train on; together they must stay below 1"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Of each split that can be carved."""
        return {"validation": self.validation, "test": self.test}


class Dataset(_Section):
    """One data set: where it comes from and what is made of it."""

    title: Text
    """What the report calls it."""
    size: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=2, max_length=2)]
    """Height and width of every prepared image, in pixels."""
    sources: list[Source] = Field(min_length=1)
    """Where it can come from, best first; the first there is used."""
    resize: Resize = Field(default_factory=Resize)
    """How an image of another size is brought to `size`."""
    split: Split = Field(default_factory=Split)
    """How the splits that the source lacks are made: by class, seeded, and never with identical
    images in two of them."""
    sample: Annotated[int, Field(ge=1)] | None = None
    """Use only so many images, drawn by class and split with `split.seed`."""
    duplicates: Literal["keep", "refuse"] = "keep"
    """Identical images in different splits of the source: `keep` them, warned of and recorded, or
    `refuse` the data set."""
    citation: Text | None = None
    """Who is to be credited; stands with the source in the report."""


class Datasets(RootModel[dict[Name, Dataset]]):
    """config/datasets.yaml as a whole: a data set under each name."""

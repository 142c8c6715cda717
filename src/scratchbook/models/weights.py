"""Find and load pretrained weights: a backbone's config and a folder in, a loaded model out."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from scratchbook.errors import ScratchbookError
from scratchbook.results.paths import RunFiles
from scratchbook.results.reading import read_record
from scratchbook.results.records import RunRecord
from scratchbook.specs import InitialWeights, KerasObject

if TYPE_CHECKING:
    import keras


def weights_files(layers: list[KerasObject], folder: Path) -> list[Path]:
    """The weights files under `folder` that a spec's backbones will read and that are there."""
    found = []
    for entry in layers:
        if entry["class_name"] == "Backbone":
            file = local_weights(entry["config"], folder)
            found += [file] if file and file.is_file() else []
    return found


def local_weights(config: dict[str, Any], folder: Path) -> Path | None:
    """The file a backbone's weights come from, there or not; None if Keras is to provide them.

    `imagenet` is looked for under the names that keras.applications downloads, such as
    `vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`.
    """
    if config["weights"] == "none":
        return None
    if config["weights"] != "imagenet":
        return folder.expanduser() / str(config["weights"])
    name = re.escape(config["application"].lower())
    pattern = re.compile(rf"{name}_(weights_tf_dim_ordering_tf_kernels_)?notop\.h5")
    files = sorted(folder.expanduser().glob("*_notop.h5"))
    return next((file for file in files if pattern.fullmatch(file.name)), None)


def weights_identity(
    layers: list[KerasObject], folder: Path, sha256_of: Callable[[Path], str | None]
) -> dict[str, str]:
    """What the weights are that a spec's backbones start from, by their names in it.

    A file is what it holds. What Keras provides by name is that name and the hash that Keras
    publishes for it, before it is fetched and after.

    Args:
        layers: of the spec.
        folder: where weights files lie.
        sha256_of: of a file, or of what it held when it was last there; None where there was none.
    """
    found = {}
    for entry in layers:
        if entry["class_name"] != "Backbone" or entry["config"]["weights"] == "none":
            continue
        config = entry["config"]
        file = local_weights(config, folder)
        published = _published().get(config["application"])
        by_name = config["weights"] == "imagenet" and (file is None or _has(file, published))
        name = f"{config['application']} {published or 'by name'}"
        identity = name if by_name or file is None else sha256_of(file)
        found[str(config["weights"])] = identity or "missing"
    return found


@cache
def _published() -> dict[str, str]:
    """The hashes of the ImageNet weights without top, as keras.applications names them."""
    file = Path(__file__).with_name("published_weights.json")
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def _has(file: Path, published: str | None) -> bool:
    """Whether a file is the one with a published hash, an MD5 or a SHA-256."""
    if published is None or not file.is_file():
        return False
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "md5" if len(published) == 32 else "sha256")
    return digest.hexdigest() == published


def load_pretrained(
    network: keras.Model, whole: keras.Model, config: dict[str, Any], folder: Path
) -> None:
    """Loads a backbone's weights.

    Args:
        network: the backbone, cut after its `output_layer`; shares its layers with `whole`.
        whole: the application without its top.
        config: `application` and `weights` of the backbone.
        folder: where weights files lie.

    Raises:
        ScratchbookError: no such file, no whole file, or weights of another network.
    """
    file = local_weights(config, folder) or _download(whole, config, folder)
    if file is None:
        return
    if not file.is_file():
        raise ScratchbookError(
            f"weights: there is no file {file}; put the weights of {config['application']} there, "
            "or write `weights: imagenet`"
        )
    stored = sum(math.prod(shape) for shape in _shapes(file))
    fits = [model for model in (network, whole) if model.count_params() == stored]
    if not fits:
        raise ScratchbookError(
            f"weights: {file} holds {stored:,} parameters, but {config['application']} has "
            f"{network.count_params():,} up to its output layer and {whole.count_params():,} in "
            "all; give the weights of this network"
        )
    load_weights(fits[0], file)


def load_checkpoint(model: keras.Model, start: InitialWeights, run: RunFiles) -> None:
    """Loads the weights that another run kept.

    Args:
        model: the network to be trained.
        start: which of the run's weights.

    Raises:
        ScratchbookError: the checkpoint was not kept, or the networks' weights differ in shape.
        ResultError: run.json cannot be read.
    """
    record, checkpoint = read_record(run), start["checkpoint"]
    where = f"initial_weights: {start['experiment']}"
    epoch = starting_epoch(record, checkpoint)
    if epoch not in (files := run.weights(record)):
        epochs = ", ".join(map(str, files))
        raise ScratchbookError(
            f"{where} kept no weights of epoch {checkpoint}, only of {epochs}; start from one of "
            "these, from `best` or `last`"
        )
    file = files[epoch]
    theirs, ours = _shapes(file), [tuple(w.shape) for w in model.weights]
    if sorted(theirs) != sorted(ours):
        extra, missing = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
        raise ScratchbookError(
            f"{where} has other shapes than this network: it holds "
            f"{shape_text(extra.elements())} where {shape_text(missing.elements())} is needed; "
            "warm starts need equal layers"
        )
    load_weights(model, file)


def starting_epoch(record: RunRecord, checkpoint: str | int) -> int:
    """The epoch that `checkpoint` of `initial_weights` means."""
    if isinstance(checkpoint, int):
        return checkpoint
    return record["best_epoch"] if checkpoint == "best" else record["epochs"]


def shape_text(shapes: Iterable[tuple[int, ...]]) -> str:
    """`3×3×3×32, 32`, or `nothing`."""
    return ", ".join("×".join(map(str, shape)) for shape in shapes) or "nothing"


def load_weights(model: keras.Model, file: Path) -> None:
    """`model.load_weights`, with every reason why it cannot as a message of one line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Skipping", UserWarning)  # half of it would load
            model.load_weights(file)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise ScratchbookError(
            f"weights: {file} cannot be loaded into {model.name}: {first_line(error)}"
        ) from None


def first_line(error: Exception) -> str:
    """Of its message; the error's kind where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _shapes(file: Path) -> list[tuple[int, ...]]:
    """The shapes of the arrays in a weights file."""
    shapes: list[tuple[int, ...]] = []

    def visit(name: str, item: Any) -> None:
        weights = isinstance(item, h5py.Dataset) and item.dtype.kind == "f"  # no generators' states
        if weights and not name.startswith("optimizer/"):
            shapes.append(tuple(item.shape))

    try:
        with h5py.File(file) as opened:
            opened.visititems(visit)
    except (OSError, RuntimeError) as error:
        raise ScratchbookError(
            f"weights: {file} is no whole weights file ({error}); fetch it again"
        ) from None
    return shapes


def _download(whole: keras.Model, config: dict[str, Any], folder: Path) -> Path | None:
    """Sets the ImageNet weights that Keras downloads; without internet, the file of that name in
    `folder`."""
    import keras

    make = getattr(keras.applications, config["application"])
    try:
        pretrained = make(weights="imagenet", include_top=False, input_shape=whole.input_shape[1:])
    except Exception as error:  # Keras raises a bare Exception where there is no internet
        match = re.search(r"https?://\S+/([\w.-]+\.h5)", str(error))
        if not match:
            raise
        if (folder / match[1]).is_file():
            return folder / match[1]
        raise ScratchbookError(
            f"weights: the ImageNet weights of {config['application']} are not here and cannot be "
            f"downloaded; get {match[0]} and put it at {folder / match[1]}"
        ) from None
    whole.set_weights(pretrained.get_weights())
    return None

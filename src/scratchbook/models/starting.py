"""The network of a run as its training begins: a spec, the data and a seed in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scratchbook.data.rows import run_rows
from scratchbook.errors import ScratchbookError
from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.specs import Spec

from .network import build
from .weights import load_checkpoint
from .whitening import whitening_filters

if TYPE_CHECKING:
    import keras


def start(
    spec: Spec,
    prepared: Prepared,
    precision: str = "float32",
    *,
    seed: int,
    pretrained: Path,
    initial_run: RunFiles | None,
) -> keras.Model:
    """The network that `build` makes, whitened on the training images and with the weights of
    `initial_weights` where a spec says so.

    Args:
        spec: a resolved experiment.
        prepared: the data set; its images' shape is the network's.
        precision: `float32` or `mixed_bfloat16`.
        seed: of the weights that are drawn at random.
        pretrained: the folder of backbones' weights files.
        initial_run: the run that `initial_weights` names.

    Raises:
        ScratchbookError: it cannot be built, or weights that cannot be loaded.
    """
    model = build(spec, prepared.images.shape[1:], precision, seed, pretrained)
    first = spec["layers"][0]
    if first["class_name"] == "Whitening":
        rows = run_rows(spec, prepared, seed)["train"]
        filters = whitening_filters(prepared.images, rows, first["config"]["kernel_size"])
        model.get_layer(first["config"]["name"]).set_weights(filters)
    if "initial_weights" in spec:
        if initial_run is None:
            raise ScratchbookError("initial_weights: the run to start from is missing")
        load_checkpoint(model, spec["initial_weights"], initial_run)
    return model

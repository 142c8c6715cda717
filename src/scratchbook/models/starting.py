"""The network of a run as its training begins: spec, seed and other weights in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchbook.config.errors import ScratchbookError

from .network import build
from .weights import load_checkpoint

if TYPE_CHECKING:
    import keras


def start(
    spec: dict[str, Any],
    input_shape: tuple[int, int, int],
    precision: str = "float32",
    *,
    seed: int,
    pretrained: Path,
    initial_run: Path | None,
) -> keras.Model:
    """The network that `build` makes, with the weights of `initial_weights` where a spec has them.

    Args:
        spec: a resolved experiment.
        input_shape: (height, width, channels) of the images.
        precision: `float32` or `mixed_bfloat16`.
        seed: of the weights that are drawn at random.
        pretrained: the folder of backbones' weights files.
        initial_run: run.json of the run that `initial_weights` names, its checkpoints beside it.

    Raises:
        ScratchbookError: it cannot be built, or weights that cannot be loaded.
    """
    model = build(spec, input_shape, precision, seed, pretrained)
    if "initial_weights" in spec:
        if initial_run is None:
            raise ScratchbookError("initial_weights: the run to start from is missing")
        load_checkpoint(model, spec["initial_weights"], initial_run)
    return model

"""A trained run's Grad-CAM: its run.json, checkpoints and data in, cam.h5 out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchbook import models
from scratchbook.cam.choices import choose_images, resolve_epochs
from scratchbook.cam.record import write_cam
from scratchbook.data.prepared import Prepared


def map_run(
    run: dict[str, Any],
    checkpoints: Path,
    prepared: Prepared,
    choices: dict[str, Any],
    output: Path,
    *,
    pretrained: Path,
    initial_run: Path | None,
    say: Callable[[str], None],
) -> None:
    """Explains a notebook's images in every epoch that was asked for and kept, and in the weights
    that the run started from: drawn at random, pretrained, or another run's.

    Args:
        run: the run's run.json.
        checkpoints: the folder of its weights.
        prepared: the data it was trained on.
        choices: the notebook's `cam` section.
        output: cam.h5.
        pretrained: the folder of backbones' weights files.
        initial_run: run.json of the run that `initial_weights` names, its checkpoints beside it.
        say: takes a line for the log and the terminal.

    Raises:
        ScratchbookError: no such layer, image or method; weights that cannot be loaded.
    """
    images = choices["images"]
    named = None if isinstance(images, int) else images
    count = images if isinstance(images, int) else len(images)
    rows = choose_images(
        prepared.labels, prepared.split, count, seed=0, named=named, names=prepared.names
    )
    files = {entry["epoch"]: checkpoints / entry["file"] for entry in run["checkpoints"]}
    wanted = resolve_epochs(choices["epochs"], run["best_epoch"], run["epochs"])
    write_cam(
        lambda: models.start(
            run["spec"], prepared, seed=run["seed"], pretrained=pretrained, initial_run=initial_run
        ),
        {epoch: files[epoch] for epoch in wanted if epoch},
        prepared.images[rows],
        prepared.labels[rows],
        [prepared.names[row] for row in rows],
        rows,
        prepared.class_names,
        choices["layer"],
        choices["method"],
        output,
        None,
        target=choices["target"],
        seed=run["seed"],
    )
    say(f"Grad-CAM of {len(rows)} images in epochs {', '.join(map(str, wanted))}")

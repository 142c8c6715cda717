"""A trained run's Grad-CAM: its run.json, checkpoints and data in, cam.h5 out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scratchbook import models
from scratchbook.cam.choices import choose_images, resolve_epochs
from scratchbook.cam.record import explain_epochs
from scratchbook.results.hdf5 import write_cam
from scratchbook.results.paths import RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_record
from scratchbook.specs import Cam


def map_run(
    run: RunFiles,
    prepared: Prepared,
    choices: Cam,
    *,
    pretrained: Path,
    initial_run: RunFiles | None,
    say: Callable[[str], None],
) -> None:
    """Explains a notebook's images in every epoch that was asked for and kept, and in the weights
    that the run started from: drawn at random, pretrained, or another run's.

    Args:
        run: trained; its cam.h5 is written.
        prepared: the data it was trained on.
        choices: the notebook's `cam` section.
        pretrained: the folder of backbones' weights files.
        initial_run: the run that `initial_weights` names.
        say: takes a line for the log and the terminal.

    Raises:
        ScratchbookError: no such layer, image or method; weights that cannot be loaded.
    """
    record = read_record(run)
    seed, images = record["seed"], choices["images"]
    count, named = (images, None) if isinstance(images, int) else (len(images), images)
    rows = choose_images(
        prepared.labels, prepared.split, count, seed=0, named=named, names=prepared.names
    )
    files = run.weights(record)
    wanted = resolve_epochs(choices["epochs"], record["best_epoch"], record["epochs"])
    cam = explain_epochs(
        lambda: models.start(
            record["spec"], prepared, seed=seed, pretrained=pretrained, initial_run=initial_run
        ),
        {epoch: files[epoch] for epoch in wanted if epoch},
        prepared,
        rows,
        choices,
        seed,
    )
    write_cam(run.cam, cam)
    say(f"Grad-CAM of {len(rows)} images in epochs {', '.join(map(str, wanted))}")

"""Show where a trained network looks on photos of your own, epoch by epoch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scratchbook.config.errors import ScratchbookError, nearest

from .chosen import add_smoke, chosen_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook")
    parser.add_argument("experiment")
    parser.add_argument(
        "--image", type=Path, nargs="+", required=True, metavar="FILE", help="the photos"
    )
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME",
        help="explain this class; otherwise the one that the last epoch predicts",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", nargs="+", default=(), metavar="E",
        help="numbers, ranges like 1-5, best, last; otherwise all whose weights were kept",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the run; otherwise the first that is trained")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.svg", help="cam-EXPERIMENT.svg unless given"
    )
    parser.add_argument(
        "--own-scale", action="store_true",
        help="each map in its own scale, which shows where weak ones look, and not in the photo's",
    )  # fmt: skip
    add_smoke(parser)


def run(given: argparse.Namespace) -> None:
    project = chosen_project([given.notebook], given.smoke)
    notebook = project.notebooks[given.notebook]
    if given.experiment not in notebook.experiments:
        raise ScratchbookError(
            f"{given.notebook} has no {given.experiment!r}; "
            f"{nearest(given.experiment, notebook.experiments)}"
        )
    experiment = Path(project.results, given.notebook, given.experiment)
    folder = _trained(experiment, given.seed)

    from scratchbook.cam.photos import map_photos, read_photos
    from scratchbook.files import write_text
    from scratchbook.hardware import prepare_keras
    from scratchbook.report.pictures import cam_sheet

    photos = read_photos(given.image, project.dataset(notebook.dataset))
    prepare_keras(project.threads(given.notebook, given.experiment), gpu=False)
    choices = project.page(given.notebook)["cam"] or {"layer": None, "method": "gradcam"}
    cam = map_photos(
        json.loads((folder / "run.json").read_text(encoding="utf-8")),
        folder / "checkpoints",
        photos,
        choices,
        given.class_name,
        given.epochs,
    )
    output = given.output or Path(f"cam-{given.experiment}.svg")
    write_text(output, cam_sheet(cam, list(photos), given.own_scale))
    classes = json.loads(cam["class_names"])
    for row, file in enumerate(given.image):
        print(f"{file}: {cam['method']} of {classes[cam['labels'][row]]} at layer {cam['layer']}")
        for at, epoch in enumerate(cam["epochs"]):
            probability = cam["probability"][at, row]
            answer = probability.argmax()
            print(
                f"  epoch {epoch:>3}: predicts {classes[answer]} ({probability[answer]:.2f}), "
                f"{classes[cam['labels'][row]]} {probability[cam['labels'][row]]:.2f}"
            )
    for flag in json.loads(cam["flags"]):
        print(f"{flag}: the map's grid is so coarse that much of it is chance")
    print(f"wrote {output}")


def _trained(experiment: Path, seed: int | None) -> Path:
    """The folder of the run, which must have ended."""
    name = "seed*" if seed is None else f"seed{seed}"
    found = sorted(file.parent for file in experiment.glob(f"{name}/run.json"))
    if not found:
        which = "" if seed is None else f" with seed {seed}"
        raise ScratchbookError(
            f"{experiment}: no run{which} has been trained; "
            f"`snakemake --config 'notebooks=[{experiment.parent.name}]'` trains it"
        )
    return found[0]

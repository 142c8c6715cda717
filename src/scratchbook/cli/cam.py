"""Show where a trained network looks on photos of your own, epoch by epoch."""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchbook.errors import ScratchbookError
from scratchbook.plan import Plan
from scratchbook.results.paths import RunFiles

from .chosen import add_smoke, check_experiment, chosen_plan


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
    plan = chosen_plan([given.notebook], given.smoke)
    project = plan.project
    notebook = project.notebooks[given.notebook]
    check_experiment(project, given.notebook, given.experiment)
    run = _trained(plan, given)

    from scratchbook.cam.photos import map_photos, read_photos
    from scratchbook.hardware import prepare_keras
    from scratchbook.report.pictures import cam_sheet
    from scratchbook.results.files import write_text

    photos = read_photos(given.image, project.datasets[notebook.dataset])
    prepare_keras(project.threads(given.notebook, given.experiment), gpu=False)
    cam = map_photos(
        run,
        photos,
        [file.name for file in given.image],
        project.cam(given.notebook),
        given.class_name,
        given.epochs,
    )
    output = given.output or Path(f"cam-{given.experiment}.svg")
    write_text(output, cam_sheet(cam, list(photos), given.own_scale))
    for row, file in enumerate(given.image):
        label = cam.labels[row]
        explained = cam.class_names[label]
        print(f"{file}: {cam.method} of {explained} at layer {cam.layer}")
        for at, epoch in enumerate(cam.epochs):
            probability = cam.probability[at, row]
            answer = probability.argmax()
            print(
                f"  epoch {epoch:>3}: predicts {cam.class_names[answer]} "
                f"({probability[answer]:.2f}), {explained} {probability[label]:.2f}"
            )
    for flag in cam.flags:
        print(f"{flag}: the map's grid is so coarse that much of it is chance")
    print(f"wrote {output}")


def _trained(plan: Plan, given: argparse.Namespace) -> RunFiles:
    """The first run of those asked for that is finished."""
    for seed, run in plan.runs(given.notebook)[given.experiment].items():
        if given.seed in (None, seed) and plan.store.kept(run):
            return plan.results.run(run)
    which = "" if given.seed is None else f" with seed {given.seed}"
    raise ScratchbookError(
        f"{given.notebook}/{given.experiment}: no run{which} has been trained; "
        f"`snakemake --config 'notebooks=[{given.notebook}]'` trains it"
    )

"""The command `scratchbook`: what a person asks beside running the workflow."""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from scratchbook.config.errors import ScratchbookError, nearest
from scratchbook.config.project import Project, load_project, notebook_names
from scratchbook.status import run_statuses, status_table

CONFIG = Path("config")
WATCH_SECONDS = 2.0
CLEAR = "\033[H\033[J"  # the cursor to the top left, and nothing below it


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(prog="scratchbook", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check", help="check config, data sets and notebooks, and build every network"
    )
    check.add_argument("notebooks", nargs="*", help="only these; all in config/notebooks otherwise")
    check.set_defaults(run=_check)
    listing = commands.add_parser(
        "list", help="list every experiment with its parameters and its accuracies"
    )
    listing.add_argument(
        "notebooks", nargs="*", help="only these; all in config/notebooks otherwise"
    )
    listing.set_defaults(run=_list)
    status = commands.add_parser(
        "status", help="show how far each run is; reads only files, also while Snakemake runs"
    )
    status.add_argument(
        "notebooks", nargs="*", help="only these; otherwise config.yaml's and all that were begun"
    )
    status.add_argument("--watch", action="store_true", help="show it anew every 2 s until Ctrl-C")
    status.set_defaults(run=_status)
    verify = commands.add_parser(
        "verify", help="train a notebook's runs again, beside the results, and compare bit for bit"
    )
    verify.add_argument("notebook")
    verify.add_argument(
        "--experiments", type=_names, metavar="A,B", help="only these; all otherwise"
    )
    verify.add_argument("--seeds", type=_numbers, metavar="0,1", help="only these; all otherwise")
    verify.set_defaults(run=_verify)
    generate = commands.add_parser(
        "generate", help="write the JSON schemas and tables that follow from the code"
    )
    generate.set_defaults(run=_generate)
    given = parser.parse_args(arguments)
    try:
        return given.run(given) or 0
    except ScratchbookError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _check(given: argparse.Namespace) -> None:
    project = _project_with(given.notebooks)
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.models import check_networks

    mistakes = []
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        try:
            networks = check_networks(specs, project.dataset(notebook.dataset)["size"])
        except ScratchbookError as error:
            mistakes += [f"{CONFIG / 'notebooks' / name}.yaml: {e}" for e in str(error).split("\n")]
            continue
        print(f"{name}: {len(networks)} experiments, every network builds")
    if mistakes:
        raise ScratchbookError("\n".join(mistakes))


def _list(given: argparse.Namespace) -> None:
    project = _project_with(given.notebooks)
    from scratchbook.hardware import prepare_keras

    prepare_keras(threads=1, gpu=False)
    from scratchbook.models import survey_networks

    rows, wrong = [LISTED], []
    for name, notebook in project.notebooks.items():
        specs = {experiment: project.spec(name, experiment) for experiment in notebook.experiments}
        networks, mistakes = survey_networks(specs, project.dataset(notebook.dataset)["size"])
        wrong += [f"{CONFIG / 'notebooks' / name}.yaml: {mistake}" for mistake in mistakes]
        metric = project.page(name)["metric"]
        reproduced = _measured(Path(project.results) / name / "compare.csv", metric)
        for experiment, declared in notebook.experiments.items():
            network = networks.get(experiment, {"id": "–", "parameters": {}})
            rows.append(
                (
                    name,
                    experiment,
                    network["id"],
                    _count(network["parameters"].get("total")),
                    _count(network["parameters"].get("trainable")),
                    _count(declared.recorded.parameters),
                    _share(declared.recorded.val_accuracy),
                    _share(reproduced.get(experiment)),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if position > 2 else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    if wrong:
        raise ScratchbookError("\n".join(wrong))


LISTED = (
    "notebook",
    "experiment",
    "display id",
    "total",
    "trainable",
    "recorded",
    "recorded accuracy",
    "reproduced",
)


def _measured(table: Path, metric: str) -> dict[str, float]:
    """{experiment: its accuracy here, the mean over seeds} of a compare.csv, if there is one."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["experiment"]: float(row[metric]) for row in rows if row.get(metric)}


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.4f}"


def _status(given: argparse.Namespace) -> None:
    project = _project_with(given.notebooks or _begun(load_project()))
    trials = [project.trial(name) for name in project.notebooks]

    def table() -> str:
        return status_table(run_statuses(Path(project.results), trials, time.time()))

    if not given.watch:
        print(table())
        return
    try:
        while True:
            width = shutil.get_terminal_size().columns
            lines = [line[:width] for line in table().splitlines()]
            print(CLEAR + "\n".join(lines), flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        print()


def _begun(project: Project) -> list[str]:
    """The notebooks that config.yaml chooses, and those that another command has begun."""
    logs = Path(project.results, "logs")
    return [
        name
        for name in notebook_names(CONFIG / "notebooks")
        if name in project.notebooks or (logs / name).is_dir()
    ]


def _verify(given: argparse.Namespace) -> int:
    project = _project_with([given.notebook])
    known = project.notebooks[given.notebook].experiments
    for name in given.experiments or ():
        if name not in known:
            raise ScratchbookError(
                f"--experiments: {given.notebook} has no {name!r}; {nearest(name, known)}"
            )
    from scratchbook.verification import verify_run

    results, pretrained = Path(project.results), Path(project.settings.data_dir)
    wrong = 0
    for experiment in given.experiments or known:
        for seed in given.seeds or project.seeds(given.notebook):
            name = Path(given.notebook, experiment, f"seed{seed}")
            with tempfile.TemporaryDirectory(prefix="scratchbook-verify-") as scratch:
                try:
                    difference = verify_run(results, name, Path(scratch), pretrained)
                    verdict = f"differs first in {difference}" if difference else "identical"
                except ScratchbookError as error:
                    difference = verdict = f"not verified: {error}"
            wrong += bool(difference)
            print(f"{name}: {verdict}", flush=True)
    return min(wrong, 1)


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _generate(_given: argparse.Namespace) -> None:
    from scratchbook.config.documents import generate

    for path, text in generate(CONFIG).items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


def _project_with(names: list[str]) -> Project:
    """The project here with these notebooks, or with all it has."""
    from scratchbook.config.reading import read_yaml

    written = read_yaml(CONFIG / "config.yaml") or {}
    chosen = names or notebook_names(CONFIG / "notebooks")
    return load_project({**written, "notebooks": chosen} if isinstance(written, dict) else written)


if __name__ == "__main__":
    sys.exit(main())

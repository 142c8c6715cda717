"""The command `scratchbook`: what a person asks beside running the workflow."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from scratchbook.config.errors import ScratchbookError
from scratchbook.config.project import Project, load_project, notebook_names

CONFIG = Path("config")


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
    generate = commands.add_parser(
        "generate", help="write the JSON schemas and tables that follow from the code"
    )
    generate.set_defaults(run=_generate)
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except ScratchbookError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return 0


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

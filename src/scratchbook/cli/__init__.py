"""The command `scratchbook`: what a person asks beside running the workflow."""

from __future__ import annotations

import argparse
import os
import sys

from scratchbook.errors import ScratchbookError

from . import cam, check, generate, listing, report, reproduction, retrain, status, verify

COMMANDS = {
    "check": check,
    "list": listing,
    "status": status,
    "report": report,
    "retrain": retrain,
    "verify": verify,
    "cam": cam,
    "reproduction": reproduction,
    "generate": generate,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    A command is a module: its docstring says what it does, `add_arguments` what it is given, and
    `run` does it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(prog="scratchbook", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").strip()
        subparser = commands.add_parser(name, help=about.rstrip("."), description=about)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
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

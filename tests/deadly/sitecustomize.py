"""Kills a process, with all of its group or alone, at an operation on files chosen beforehand.

Python imports this at its start where PYTHONPATH has its folder. `DEADLY="keep_run 7"`: the process
of the script keep_run.py is killed before it opens, renames, links, dates or removes one of its
project's files for the seventh time; or at its end, if it does so less often. `DEADLY="keep_run 7
alone"`: nobody else is.
"""

import atexit
import os
import signal
import sys

EVENTS = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.utime"}
TRIFLES = ("__pycache__", ".snakemake/scripts", "results/benchmarks", "results/logs")


def own_name() -> str:
    """`keep_run` of a job, else `snakemake`, or the command that `scratchbook` is given."""
    told = sys.orig_argv[1:]
    if "-m" in told:
        module, *arguments = told[told.index("-m") + 1 :]
        return arguments[0] if module == "scratchbook.cli" else module
    scripts = [each for each in told if each.endswith(".py")]
    return scripts[0].split(".")[-2].rpartition("/")[2] if scripts else ""


def writes(event: str, arguments: tuple) -> bool:
    """Whether this changes a file of the project."""
    changes = event in EVENTS or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if not changes or not isinstance(arguments[0], str | os.PathLike):
        return False
    path = os.fspath(arguments[0])
    inside = not os.path.isabs(path) or path.startswith(os.getcwd())  # noqa: PTH109, PTH117
    return inside and not any(trifle in path for trifle in TRIFLES)


class Death:
    """Comes with the operation of this number."""

    def __init__(self, number: int, alone: bool) -> None:
        self.left, self.alone = number, alone
        atexit.register(self.come)
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple) -> None:
        if writes(event, arguments):
            self.left -= 1
            if self.left == 0:
                self.come()

    def come(self) -> None:
        if self.alone:
            os.kill(os.getpid(), signal.SIGKILL)
        os.killpg(os.getpgrp(), signal.SIGKILL)


if chosen := os.environ.get("DEADLY"):
    process, number, *alone = chosen.split()
    if process == own_name():
        Death(int(number), bool(alone))

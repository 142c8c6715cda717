"""What a job says: everything into its log, the lines a person wants on the terminal too, and how
far it is into its progress file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, Unpack

from scratchbook.errors import ScratchbookError
from scratchbook.results.progress import Progress, ProgressFile

_BAR_WIDTH = 30
_BAR_SECONDS = 0.2
_LINE_SECONDS = 30.0
_TOLD_SECONDS = 1.0


class Console:
    """The job's voice on the terminal: lines under the job's name, and a bar on a real terminal."""

    def __init__(self, terminal: TextIO, name: str, file: ProgressFile | None) -> None:
        self._terminal, self._name, self._file = terminal, name, file
        self._shown = self._told = time.monotonic()

    def tell(self, **told: Unpack[Progress]) -> None:
        """Puts how far the job is into its progress file, where it has one."""
        if self._file is not None:
            self._file.tell(Progress(**told))

    def say(self, line: str) -> None:
        """A line for the log and the terminal."""
        print(line, flush=True)
        erase = "\r\033[K" if self._terminal.isatty() else ""
        self._terminal.write(f"{erase}{self._name}: {line}\n")
        self._terminal.flush()

    def progress(self, done: int, total: int) -> None:
        """Tells how much of the present step is done: a bar on a terminal, else a line now and then
        where the step takes long."""
        watched = self._terminal.isatty()
        now = time.monotonic()
        if done == total or now - self._told >= _TOLD_SECONDS:
            self._told = now
            self.tell(done=done, total=total)
        if done < total and now - self._shown < (_BAR_SECONDS if watched else _LINE_SECONDS):
            return
        self._shown = now
        if watched:
            filled = "█" * (_BAR_WIDTH * done // total)
            self._terminal.write(f"\r\033[K{self._name}: {filled:<{_BAR_WIDTH}} {done}/{total}")
            self._terminal.flush()
        elif done < total:
            self.say(f"{done:,} of {total:,}")


def duration(seconds: float) -> str:
    """`42 s`, `13 min`, `1.2 h`: of what is left."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cell(value: float | None, form: str) -> str:
    """A number of a table, in this format; a dash where there is none."""
    return "–" if value is None else format(value, form)


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """The lines of a table; `sides` has `<` or `>` for each column, where its cells stand."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    return [line.format(*row).rstrip() for row in rows]


@contextmanager
def job_log(path: str, name: str, progress: ProgressFile | None = None) -> Iterator[Console]:
    """Sends all output of this process to a log file, except what the console says.

    Libraries that print from C++ are caught too. A ScratchbookError ends the process with exit
    code 1 and its message alone; Ctrl-C and SIGTERM, by which a batch system ends what takes too
    long, with code 130 and a line; any other exception leaves its traceback in the log.

    Args:
        path: the log file.
        name: what to call the job on the terminal.
        progress: its progress file, where it has one.
    """
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    console = Console(terminal, name, progress)
    console.tell(state="running")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield console
        console.tell(state="done")
    except KeyboardInterrupt:
        console.tell(state="interrupted")
        console.say("interrupted; start Snakemake again to go on")
        sys.exit(130)
    except ScratchbookError as error:
        console.tell(state="failed", message=str(error))
        console.say(f"error: {error}")
        sys.exit(1)
    except Exception as error:
        told = f"{type(error).__name__}: {error} (traceback in {path})"
        console.tell(state="failed", message=told)
        console.say(f"error: {told}")
        raise

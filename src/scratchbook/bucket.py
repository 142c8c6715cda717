"""What a bucket holds beside results: trainings' states and Snakemake's records, a tar file each.

Snakemake brings to a bucket what a job declares, once the job has ended. This goes through the
storage plugin that Snakemake uses, whichever that is.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scratchbook.results.paths import RunFiles, StateFiles
from scratchbook.results.records import Kept

VARIABLE = "SCRATCHBOOK_BUCKET"  # of the environment, in which jobs are told of the bucket
SHARE = 20  # at most one of so many seconds goes to copying
PAUSE = 1.0  # seconds between two looks, at least


def describe_bucket(provider: str, prefix: str, settings: Any) -> str:
    """The value of `VARIABLE`: a storage plugin's name, where results go, the plugin's settings."""
    told = {"provider": provider, "prefix": prefix.rstrip("/"), "settings": asdict(settings)}
    return json.dumps(told)


class Bucket:
    """The place in a bucket that `describe_bucket` told of."""

    def __init__(self, description: str) -> None:
        # Only who uses a bucket has the plugin and pays for its import.
        from snakemake_interface_storage_plugins.registry import StoragePluginRegistry

        told = json.loads(description)
        plugin: Any = StoragePluginRegistry().get_plugin(told["provider"])
        self.prefix = told["prefix"]
        self._folder = tempfile.TemporaryDirectory(prefix="scratchbook-bucket-")
        self._provider = plugin.storage_provider(
            local_prefix=Path(self._folder.name),
            logger=logging.getLogger(__name__),
            settings=plugin.settings_cls(**told["settings"]),
        )

    def put(self, name: str | Path, folder: Path, files: Iterable[Path]) -> None:
        """Makes the object `name` of these files of a folder; it is replaced as a whole."""
        with self._object(name) as (kept, local):
            with tarfile.open(local, "w:gz", compresslevel=1) as archive:
                for file in files:
                    archive.add(file, file.relative_to(folder).as_posix())
            kept.store_object()

    @contextmanager
    def opened(self, name: str | Path) -> Iterator[tarfile.TarFile | None]:
        """The object `name` to read from; None where there is none."""
        with self._object(name) as (kept, local):
            if not kept.exists():
                yield None
                return
            kept.retrieve_object()
            with tarfile.open(local) as archive:
                yield archive

    def names(self, folder: Path) -> set[str]:
        """All objects below a folder, by their places in it; one listing."""
        kept = self._provider.object(f"{self.prefix}/{folder}")
        if hasattr(kept, "get_subkeys"):  # S3, whose plugin lists no pattern
            found = (item.key for item in kept.get_subkeys())
        else:
            pattern = self._provider.object(f"{self.prefix}/{folder}/{{any}}")
            found = pattern.list_candidate_matches()
        return {name.partition(f"{folder}/")[2] for name in found} - {""}

    def read(self, name: str | Path) -> bytes | None:
        """An object's content; None where there is none."""
        with self._object(name) as (kept, local):
            if not kept.exists():
                return None
            kept.retrieve_object()
            return local.read_bytes()

    def fetch(self, name: str | Path, target: Path) -> None:
        """Writes an object's content to a file."""
        with self._object(name) as (kept, local):
            kept.retrieve_object()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local, target)

    def store(self, name: str | Path, file: Path) -> None:
        """Makes the object `name` of a file."""
        with self._object(name) as (kept, local):
            shutil.copyfile(file, local)
            kept.store_object()

    def remove(self, name: str | Path) -> None:
        """Removes the object `name`, where there is one."""
        with self._object(name) as (kept, _):
            if kept.exists():
                kept.remove()

    @contextmanager
    def _object(self, name: str | Path) -> Iterator[tuple[Any, Path]]:
        kept = self._provider.object(f"{self.prefix}/{name}")
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            kept.set_local_path(Path(folder, "archive"))
            yield kept, kept.local_path()


@contextmanager
def kept_state(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Around a training: keeps a copy of its state in the bucket, with which any node can go on.

    Does nothing where there is no bucket. A bucket that cannot be reached ends no training.

    Args:
        folder: the state, as `scratchbook.training.state` writes it; a relative path.
        say: takes a line for the log and the terminal.
    """
    if (description := os.getenv(VARIABLE)) is None:
        yield
        return
    name = f"{folder.as_posix()}.tar.gz"
    try:
        bucket = Bucket(description)
        with bucket.opened(name) as archive:
            if archive is not None and _take_newer(archive, folder):
                say(f"the state of this run is taken from {bucket.prefix}/{name}")
    except Exception as error:
        say(f"without a copy of the state in the bucket: {error}")
        yield
        return
    copied = _newest(folder)

    def copy() -> None:
        nonlocal copied
        if (newest := _newest(folder)) not in (None, copied):
            # Of the newest epoch all is there; of the one that is being trained parts may be.
            state = StateFiles(folder)
            files = [state.key, *state.epochs(), *state.kept().values()]
            bucket.put(name, folder, files)
            copied = newest

    with _repeated(copy, say):
        yield


def kept_by_another(run: RunFiles, place: RunFiles, say: Callable[[str], None]) -> bool:
    """Whether the bucket has a whole run already, from a Snakemake elsewhere; then `place` is it.

    Args:
        run: where it lies in the bucket's results.
        place: where its files go here.
        say: takes a line for the log and the terminal.
    """
    if (description := os.getenv(VARIABLE)) is None:
        return False
    bucket = Bucket(description)
    if (sums := bucket.read(run.checksums)) is None:
        return False
    names = [*json.loads(sums)["files"], run.checksums.name]
    try:
        for name in names:
            bucket.fetch(run.folder / name, place.folder / name)
    except Exception as error:
        say(f"what is in the bucket of this run is not whole ({error}): it is kept anew")
        shutil.rmtree(place.folder)
        return False
    say(f"another Snakemake has kept this run in {bucket.prefix}")
    return True


def put_aside_in_bucket(run: RunFiles, earlier: Callable[[Kept], Path]) -> None:
    """Copies a run that is in the bucket to where earlier ones lie; nothing where there is none.

    Args:
        run: where it lies in the bucket's results.
        earlier: where it goes.
    """
    if (description := os.getenv(VARIABLE)) is None:
        return
    bucket = Bucket(description)
    if (sums := bucket.read(run.checksums)) is None:
        return
    kept: Kept = json.loads(sums)
    with tempfile.TemporaryDirectory(prefix="scratchbook-earlier-") as folder:
        for name in [*kept["files"], run.checksums.name]:
            bucket.fetch(run.folder / name, file := Path(folder) / Path(name).name)
            bucket.store(earlier(kept) / name, file)
            file.unlink()


def fetch_records(folder: Path, unfinished: Path, name: Path) -> None:
    """Takes from the bucket what it knows better of how files were made than this folder does.

    Without, Snakemake makes all anew in a fresh checkout, whose files are newer than the results.

    Args:
        folder: Snakemake's records: a file for each output.
        unfinished: its marks of outputs that were begun, by the same names.
        name: of the records in the bucket.
    """
    with Bucket(os.environ[VARIABLE]).opened(name) as archive:
        if archive is None:
            return
        for part in (folder, unfinished):  # Snakemake looks for both
            part.mkdir(parents=True, exist_ok=True)
        for member in archive:
            if _is_older(folder / member.name, member):
                # Another checkout has finished what was begun, and broken off, here.
                if _is_older(mark := unfinished / member.name, member):
                    mark.unlink(missing_ok=True)
                archive.extract(member, folder, filter="data")


@contextmanager
def kept_records(
    folder: Path, unfinished: Path, name: Path, say: Callable[[str], None]
) -> Iterator[None]:
    """Around the work: keeps a copy of `.snakemake/metadata` in the bucket."""
    bucket = Bucket(os.environ[VARIABLE])
    copied: dict[Path, float] = {}

    def copy() -> None:
        nonlocal copied
        times = {file: file.stat().st_mtime for file in folder.rglob("*") if file.is_file()}
        if times != copied:
            fetch_records(folder, unfinished, name)  # another checkout may have added some
            bucket.put(name, folder, times)
            copied = times

    with _repeated(copy, say):
        yield


@contextmanager
def _repeated(copy: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """Calls `copy` again and again, in a thread, and once more at the end, however that comes."""
    ended = threading.Event()

    def follow() -> None:
        pause = PAUSE
        while not ended.wait(pause):
            began = time.monotonic()
            with _told(say):
                copy()
            pause = max(PAUSE, (SHARE - 1) * (time.monotonic() - began))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with _told(say):
            copy()


@contextmanager
def _told(say: Callable[[str], None]) -> Iterator[None]:
    """An error of the network or the bucket is said; the next copy may do."""
    try:
        yield
    except FileNotFoundError:
        pass  # a file that was listed is out of date and gone
    except Exception as error:
        say(f"not copied to the bucket: {error}")


def _is_older(file: Path, member: tarfile.TarInfo) -> bool:
    return not file.exists() or file.stat().st_mtime < member.mtime


def _newest(folder: Path) -> tuple[str, float] | None:
    """The newest epoch's file and when it was written."""
    for file in StateFiles(folder).epochs():
        return file.name, file.stat().st_mtime
    return None


def _take_newer(archive: tarfile.TarFile, folder: Path) -> bool:
    """Puts a state in the place of a folder's, where that is older or there is none."""
    here = _newest(folder)
    if here and max(m.mtime for m in archive if m.name.endswith(".npz")) <= here[1]:
        return False
    for found in folder.glob("*"):
        if found.is_dir():
            shutil.rmtree(found)
        elif found != StateFiles(folder).lock:
            found.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    archive.extractall(folder, filter="data")
    return True

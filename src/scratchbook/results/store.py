"""The store of finished runs, results/runs/: which are there and whole, how one is put in, how one
is asked for again. Nothing else writes there.

A run is whole where its checksums.json is there and each file that it names, with its size; so it
does not matter in which order files appear, on a disk or in a bucket. One that is to be trained
again stays until its successor is whole, and then lies among the `earlier` ones.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict  # which pydantic can check, before Python 3.12 too

from scratchbook.errors import ScratchbookError
from scratchbook.keys import digits_in

from .errors import DamagedError, MissingError
from .files import link_file, sha256_file, write_json
from .paths import RESERVED, Results, RunFiles, run_name, seed_of
from .records import FileSum, Kept, RunRecord

if TYPE_CHECKING:
    from scratchbook.bucket import Bucket

LAYOUT = 2
"""By which results/ is laid out; a folder of another one is refused."""
EARLIER = "earlier"


class Request(TypedDict):
    """What is asked for in the file that has a run trained again."""

    asked: str  # ISO 8601
    prepare: bool  # also its data, by today's code


class Store:
    """The finished runs of a folder of results.

    Args:
        results: its place.
        bucket: where the results are, if not on this disk.
    """

    def __init__(self, results: Results, bucket: Bucket | None = None) -> None:
        self.results, self._bucket = results, bucket
        self._read: dict[str, Kept | None] = {}
        self._names: set[str] | None = None
        self._keys: dict[str, str] | None = None

    def check(self) -> None:
        """Refuses a folder that this code does not know how to go on with.

        Raises:
            ScratchbookError: it is of a newer version or an older layout, or no folder.
        """
        written = LAYOUT
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                written = json.loads(self.results.layout.read_text(encoding="utf-8"))["layout"]
            except (ValueError, TypeError, KeyError) as error:
                raise DamagedError(self.results.layout, error) from None
        if written != LAYOUT:
            raise ScratchbookError(
                f"{self.results.store} is of layout {written}, and this Scratchbook knows layout "
                f"{LAYOUT}: it was written by a newer one. Update Scratchbook, or give it another "
                "folder; nothing was changed"
            )
        if old := _of_layout_1(self.results.folder):
            raise ScratchbookError(
                f"{old} is a run of the layout before this one, in which a run belonged to its "
                "experiment's name; what it was trained with cannot be told for certain. Move the "
                f"folder away (`mv {self.results.folder} {self.results.folder}-before`) and start "
                "again: the runs are trained anew, and nothing there is lost"
            )

    def key(self, dataset: str, digits: str) -> str:
        """The key with these digits as it was first written, whatever its data set was called."""
        if self._keys is None:
            begun = (self.results.being_made, self.results.states)
            names = [place.name for folder in begun for place in folder.glob("*-*")]
            self._keys = {digits_in(name): name for name in [*names, *self._folders()]}
        return self._keys.setdefault(digits, f"{dataset}-{digits}")

    def kept(self, run: str) -> Kept | None:
        """A finished run's checksums.json; None where there is no whole run.

        Raises:
            DamagedError, MissingError: it was whole once, and is not now.
        """
        if run not in self._read:
            self._read[run] = self._in_bucket(run) if self._bucket else _on_disk(self.results, run)
        return self._read[run]

    def is_open(self, run: str) -> bool:
        """Whether a run is to be trained: it is not there, or asked for again."""
        return self.results.request(run).exists() or self.kept(run) is None

    def earlier(self, run: str) -> list[str]:
        """The runs that were put aside for one of this key and seed, newest first."""
        key, seed = run.rsplit("/", 1)
        places = (self.results.store / key / EARLIER).glob(f"*-{seed}")
        return sorted((f"{key}/{EARLIER}/{place.name}" for place in places), reverse=True)

    def keep(self, run: str, trained: RunFiles, place: RunFiles, now: datetime) -> None:
        """Puts a trained run into the store, whole or not at all, and aside what was there.

        Args:
            trained: its files.
            place: where it goes; of a bucket, the local copy.
            now: when it was finished.
        """
        request = self.results.request(run)
        there = _whole(place)
        if there and not request.exists():
            return  # a job that was started twice
        new = place.folder.with_name(f".partial-{os.getpid()}-{place.folder.name}")
        shutil.rmtree(new, ignore_errors=True)
        try:
            shutil.copytree(trained.folder, new, copy_function=link_file, ignore=_of_snakemake)
            sums = _sums(RunFiles(new), now)
            # Put there by a job that was killed before it took the request away.
            is_there = there is not None and there["files"] == sums["files"]
            write_json(RunFiles(new).checksums, sums)
            for file in (place.folder if is_there else new).rglob("*"):
                os.utime(file)
            if not is_there:
                self._put_aside(run, place, now)
                new.replace(place.folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        request.unlink(missing_ok=True)

    def ask_again(self, run: str, prepare: bool, now: datetime) -> bool:
        """Has a finished run trained again; False where that is asked for already."""
        request = self.results.request(run)
        if request.exists():
            return False
        self.clear(run)  # of what was trained before nothing is gone on with
        write_json(request, Request(asked=now.isoformat(timespec="seconds"), prepare=prepare))
        return True

    def request(self, run: str) -> Request | None:
        """What was asked for, if anything."""
        try:
            asked: Request = json.loads(self.results.request(run).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return Request(asked="", prepare=False)
        return asked

    def undo(self, run: str) -> str | None:
        """Takes back that a run was asked for again, or puts the one before in its place.

        Returns:
            What was done, in a few words; None where there is nothing to take back.
        """
        request = self.results.request(run)
        if request.exists():
            request.unlink()
            self.clear(run)
            if _whole(self.results.run(run)) or not self.earlier(run):
                return "is not trained again"
        if not (earlier := self.earlier(run)):
            return None
        place, before = self.results.run(run), self.results.run(earlier[0])
        self._put_aside(run, place, datetime.now(UTC))
        before.folder.replace(place.folder)
        # So that tables and page are made anew, and what is derived from the run is not.
        now = time.time()
        for file, moment in [(place.record, now), *((f, now + 1) for f in place.derived.glob("*"))]:
            if file.exists():
                os.utime(file, (moment, moment))
        self._read.pop(run, None)
        return f"is again the one that was finished {_stamp_of(before.folder.name)}"

    def clear(self, run: str) -> None:
        """Removes what a training left beside the store."""
        self.results.order(run).unlink(missing_ok=True)
        for folder in (self.results.state(run), self.results.trained(run).folder):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()

    def sweep(self) -> None:
        """Clears what is left of trainings whose runs are in the store."""
        for place in (self.results.states, self.results.being_made):
            for left in place.glob("*/seed*"):  # a folder, or an order
                if (seed := seed_of(left.name.split(".")[0])) is not None:
                    run = run_name(left.parent.name, seed)
                    with suppress(DamagedError, MissingError):
                        if not self.is_open(run):
                            self.clear(run)
        for order in self.results.being_made.glob("*.order.json"):  # of data
            if self.results.data(order.name.removesuffix(".order.json")).exists():
                order.unlink()
        for folder in self.results.store.glob("*/.partial-*"):
            shutil.rmtree(folder, ignore_errors=True)
        if self._bucket:
            for name in self._bucket.names(self.results.states):
                if not self.is_open(name.removesuffix(".tar.gz")):
                    self._bucket.remove(self.results.states / name)

    def mark(self) -> None:
        """Writes by which layout the store is laid out."""
        if not self.results.layout.exists():
            write_json(self.results.layout, {"layout": LAYOUT})

    def _put_aside(self, run: str, place: RunFiles, now: datetime) -> None:
        """Moves what is there of a run, damaged or not, to the earlier ones."""
        if not place.predictions.exists() and not place.record.exists():
            shutil.rmtree(place.folder, ignore_errors=True)  # Snakemake makes an empty folder
            return
        with suppress(DamagedError):
            if kept := _sums_of(place):
                now = datetime.fromisoformat(kept["finished"])
        while (aside := earlier_place(place, now)).exists():
            if _same_sums(place, RunFiles(aside)):
                # Put there by a job that then was killed; Snakemake took it back.
                copy = place.folder.with_name(f".partial-{os.getpid()}-copy")
                place.folder.replace(copy)
                shutil.rmtree(copy)
                return
            now += timedelta(seconds=1)
        aside.parent.mkdir(exist_ok=True)
        place.folder.replace(aside)

    def _folders(self) -> Iterable[str]:
        if self._bucket:
            return {name.split("/")[0] for name in self._listed()}
        try:
            return [entry.name for entry in os.scandir(self.results.store) if entry.is_dir()]
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise ScratchbookError(
                f"{self.results.store} is a file, but finished runs are to be kept there; move it "
                "away"
            ) from None

    def _listed(self) -> set[str]:
        """All that the bucket's store holds, by its place in it."""
        if self._names is None:
            assert self._bucket is not None
            self._names = self._bucket.names(self.results.store)
        return self._names

    def _in_bucket(self, run: str) -> Kept | None:
        assert self._bucket is not None
        sums = RunFiles(Path(run)).checksums.as_posix()
        if sums not in self._listed():
            return None
        kept: Kept = json.loads(self._bucket.read(self.results.store / sums) or b"")
        whole = all(f"{run}/{name}" in self._listed() for name in kept["files"])
        return kept if whole else None


def earlier_place(place: RunFiles, finished: datetime) -> Path:
    """Where a run goes that was put aside."""
    name = f"{finished.astimezone(UTC):%Y%m%dT%H%M%SZ}-{place.folder.name}"
    return place.folder.parent / EARLIER / name


def _on_disk(results: Results, run: str) -> Kept | None:
    place = results.run(run)
    kept = _sums_of(place)
    if kept is None:
        for folder in (place.folder.parent, place.folder):
            if folder.exists() and not folder.is_dir():
                raise ScratchbookError(
                    f"{folder} is a file, but a run is to be kept there; move it away"
                )
        # It is put in its place as a whole, so a part of it is what was left of one.
        if place.record.exists() or place.predictions.exists():
            raise MissingError(place.checksums)
        return None
    for name, told in kept["files"].items():
        file = place.folder / name
        try:
            size = file.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(file) from None
        if size != told["size"]:
            raise DamagedError(file, f"it has {size:,} bytes, not {told['size']:,}")
    return kept


def _whole(place: RunFiles) -> Kept | None:
    """Its checksums, where all that they name is there."""
    kept = _sums_of(place)
    files = {} if kept is None else kept["files"]
    return kept if kept and all((place.folder / name).is_file() for name in files) else None


def _same_sums(one: RunFiles, other: RunFiles) -> bool:
    with suppress(FileNotFoundError):
        return one.checksums.read_bytes() == other.checksums.read_bytes()
    return False


def _sums_of(place: RunFiles) -> Kept | None:
    try:
        found: Any = json.loads(place.checksums.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise DamagedError(place.checksums, error) from None
    if not isinstance(found, dict) or not found.keys() >= Kept.__annotations__.keys():
        raise DamagedError(place.checksums, "it holds something else than a run's checksums")
    kept: Kept = found  # type: ignore[assignment]
    return kept


def _sums(run: RunFiles, now: datetime) -> Kept:
    """checksums.json of a trained run."""
    record: RunRecord = json.loads(run.record.read_text(encoding="utf-8"))
    files = sorted(file for file in run.folder.rglob("*") if file.is_file())
    return Kept(
        key=record["key"],
        seed=record["seed"],
        spec=record["spec"],
        weights_sha256=record["weights_sha256"],
        precision=record["precision"],
        backend=record["backend"],
        threads=record["hardware"]["threads"],
        initial=record["initial"]["run"] if "initial" in record else None,
        training=record["training"],
        preparing=record["preparing"],
        data=record["data"]["file"],
        diverged=record.get("diverged"),
        finished=now.astimezone(UTC).isoformat(timespec="seconds"),
        files={
            file.relative_to(run.folder).as_posix(): FileSum(
                size=file.stat().st_size, sha256=sha256_file(file)
            )
            for file in files
        },
    )


def _of_snakemake(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]  # its timestamp, a killed job's part


def _stamp_of(name: str) -> str:
    """`2026-11-28 12:00 UTC` of `20261128T120000Z-seed0`."""
    return datetime.strptime(name.split("-")[0], "%Y%m%dT%H%M%SZ").strftime("%Y-%m-%d %H:%M UTC")


def _of_layout_1(folder: Path) -> Path | None:
    """A run of the first layout, results/{notebook}/{experiment}/seed{n}/run.json."""
    for notebook in sorted(folder.glob("*/")):
        if notebook.name not in RESERVED:
            for run in notebook.glob("*/seed*/run.json"):
                return run.parent
    return None

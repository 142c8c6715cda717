"""The files of a folder, a zip or a tar, which look the same: a path in, names and contents out."""

from __future__ import annotations

import hashlib
import lzma
import os
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from scratchbook.data.location import walk
from scratchbook.errors import ScratchbookError
from scratchbook.results.files import sha256_file

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    UnicodeDecodeError,  # a name in a zip that says it is UTF-8
    zlib.error,
)
_LARGEST_FILE = 256 << 20  # bytes; no photograph is larger, and it must fit into memory


@dataclass(frozen=True)
class Files:
    """The files of a folder or an archive, by relative path, in the order of storage."""

    path: Path
    sizes: dict[str, int]  # bytes; the keys are all files there are
    folders: set[str]
    content: Callable[[str], bytes]
    digest: Callable[[str], str]  # sha256 of one, however large

    def read(self, name: str) -> bytes:
        if self.sizes[name] > _LARGEST_FILE:
            raise OSError(f"{self.sizes[name] >> 20:,} MiB is too large for an image")
        return self.content(name)

    def images(self) -> tuple[list[str], list[str]]:
        """The images' names, and those of all other files."""
        images: list[str] = []
        others: list[str] = []
        for name in self.sizes:
            path = PurePosixPath(name)
            usable = not _hidden(path) and path.suffix.lower() in IMAGE_SUFFIXES
            (images if usable else others).append(name)
        return images, others


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def open_files(path: Path, stack: ExitStack, hashing: bool = False) -> Files:
    """The files of a folder or an archive, which stays open as long as the stack.

    With `hashing` a tar is read and hashed on the way to its end, so that `digest` costs nothing
    more: to come back to the members of a compressed one means to start from the top.
    Raises ScratchbookError where it is no whole archive, or holds what leads out of it.
    """
    if path.is_dir():
        return _folder(path)
    try:
        if path.suffix.lower() == ".zip":
            return _zip(path, stack.enter_context(zipfile.ZipFile(path)))
        return _tar(path, stack.enter_context(tarfile.open(path)), hashing)
    except READ_ERRORS as error:
        raise ScratchbookError(
            f"{path}: not a whole .zip or .tar file ({error}). It has "
            f"{path.stat().st_size:,} bytes: a download that stopped early, or another kind of "
            "file. Fetch it again."
        ) from error


def _folder(path: Path) -> Files:
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    broken: dict[str, str] = {}
    start = len(str(path).rstrip(os.sep)) + 1
    for entry in walk(path):
        name = entry.path[start:].replace(os.sep, "/")
        if entry.is_dir():
            folders.add(name)
        elif entry.is_file():
            sizes[name] = entry.stat().st_size
        elif entry.is_symlink():
            broken[name] = str(Path(entry.path).readlink())
    _refuse_broken(path, broken, "Restore what they lead to, or remove them.")

    def content(name: str) -> bytes:
        return (path / name).read_bytes()

    return Files(path, sizes, folders, content, lambda name: sha256_file(path / name))


def _zip(path: Path, archive: zipfile.ZipFile) -> Files:
    members = archive.infolist()
    _refuse_unsafe(path, [member.filename for member in members])
    sizes = {member.filename: member.file_size for member in members if not member.is_dir()}
    folders = {member.filename.rstrip("/") for member in members if member.is_dir()}

    def digest(name: str) -> str:
        with archive.open(name) as file:
            return _sha256(file)

    return Files(path, sizes, folders, archive.read, digest)


def _tar(path: Path, archive: tarfile.TarFile, hashing: bool) -> Files:
    hashed = {member.offset: _sha256_member(archive, member) for member in archive if hashing}
    members = archive.getmembers()
    _check_end(archive)
    _refuse_unsafe(path, [member.name for member in members])
    entries: dict[str, tarfile.TarInfo] = {}  # each hard link as what it is another name of
    broken: dict[str, str] = {}
    for member in members:
        name = _plain(member.name)
        target = entries.get(_plain(member.linkname)) if member.islnk() else member
        if target is None:
            broken[name] = member.linkname
        else:
            entries[name] = target
    links = {name: member.linkname for name, member in entries.items() if member.issym()}
    parents = (PurePosixPath(name).parents for name in entries) if links else ()
    places = {parent.as_posix() for above in parents for parent in above}
    for name in links:
        end = _end_of_links(name, links)
        if end in entries:
            entries[name] = entries[end]
        elif end not in places:
            broken[name] = links[name]
    _refuse_broken(
        path, broken, "Make it anew with `tar --dereference`, which packs what links lead to."
    )
    # A link follows what it leads to, and is read along with it.
    stored = sorted(entries.items(), key=lambda entry: entry[1].offset)
    folders = {name for name, member in stored if member.isdir() and name not in links} - {"."}
    by_name = {name: member for name, member in stored if member.isfile()}

    @lru_cache(maxsize=1)  # to read it twice from a compressed archive means to start from the top
    def read(member: tarfile.TarInfo) -> bytes:
        file = archive.extractfile(member)
        assert file is not None  # only regular files are listed
        return file.read()

    def stored_as(name: str) -> tarfile.TarInfo:
        if name not in by_name:
            raise OSError("it is a link to a folder")
        return by_name[name]

    def content(name: str) -> bytes:
        return read(stored_as(name))

    def digest(name: str) -> str:
        member = stored_as(name)
        return hashed.get(member.offset) or _sha256_member(archive, member)

    sizes = {name: member.size for name, member in by_name.items()}
    sizes |= {name: 0 for name in links if name not in sizes}  # to folders: said to be skipped
    return Files(path, sizes, folders, content, digest)


def _sha256_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """sha256 of a member; "" where it is no file."""
    file = archive.extractfile(member) if member.isfile() else None
    return _sha256(file) if file else ""


def _check_end(archive: tarfile.TarFile) -> None:
    """`getmembers` stops without a word at a header that is cut off or damaged.

    Raises tarfile.ReadError unless it stopped at a block of zeros, and nothing but zeros follows
    (pax of POSIX.1: an archive ends with two such blocks).
    """
    file, end = archive.fileobj, archive.offset
    assert file is not None  # it is open for reading
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(
            f"after {counted(len(archive.getmembers()), 'member')} the header at byte {end:,} is "
            "cut off or damaged"
        )
    while block := file.read(1 << 20):  # where it is compressed, this also compares its checksum
        if block.strip(b"\0"):
            raise tarfile.ReadError(
                f"more follows its end mark at byte {end:,}; if archives were joined here, "
                "`tar --ignore-zeros -xf` unpacks them all"
            )


def _end_of_links(name: str, links: dict[str, str]) -> str:
    """Where symbolic links lead from a name; to "" if they go in a circle."""
    passed = set()
    while name in links:
        if name in passed:
            return ""
        passed.add(name)
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), links[name]))
    return name


def _refuse_broken(path: Path, links: dict[str, str], cure: str) -> None:
    """What a link leads to may be an image, or a class folder with all its images."""
    bad = [f"{name} → {to}" for name, to in links.items() if not _hidden(PurePosixPath(name))]
    if bad:
        what = "1 link leads" if len(bad) == 1 else f"{len(bad):,} links lead"
        raise ScratchbookError(f"{path}: {what} to nothing:\n{listed(bad)}\n{cure}")


def _plain(name: str) -> str:
    """`./a/b` (as `tar c .` writes it) and `a/b` are the same."""
    return PurePosixPath(name).as_posix()


def _refuse_unsafe(path: Path, names: list[str]) -> None:
    def unsafe(name: str) -> bool:
        parts = name.replace("\\", "/").split("/")
        return (
            ".." in parts
            or name[:1] in ("/", "\\")
            or re.match(r"[A-Za-z]:[\\/]", name) is not None
        )

    bad = [repr(name) for name in names if unsafe(name)]
    if bad:
        raise ScratchbookError(
            f"{path}: refused, for it names files outside of itself:\n{listed(bad)}\n"
            "An honest archive has no such members; make it anew from a folder."
        )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 18):
        digest.update(block)
    return digest.hexdigest()


def listed(names: list[str], most: int = 10) -> str:
    """The first names, one a line, and how many more there are."""
    more = [f"… and {len(names) - most:,} more"] if len(names) > most else []
    return "\n".join(f"  {name}" for name in names[:most] + more)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

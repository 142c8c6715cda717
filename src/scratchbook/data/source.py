"""Open the source of a data set: its spec and files in, a list of labelled images out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import io
import lzma
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from scratchbook.config.errors import ScratchbookError, nearest
from scratchbook.data.location import Located, walk
from scratchbook.data.prepared import SPLITS

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
    zlib.error,
)
_LOOKS_LIKE_SPLITS = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation")
)
_LARGEST_FILE = 256 << 20  # bytes; no photograph is larger, and it must fit into memory


@dataclass(frozen=True)
class Source:
    """Images that can be read one by one, in the order in which the source stores them."""

    text: str  # what it is, for the report
    class_names: list[str]
    names: list[str]  # [n]
    labels: np.ndarray  # int64 [n]
    splits: np.ndarray | None  # uint8 [n], as in SPLITS; None: the source comes with no splits
    read: Callable[[int], bytes | np.ndarray]  # an encoded image, or uint8 [h, w(, channels)]
    sha256: Callable[[], str]
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_source(found: Located) -> Iterator[Source]:
    """Open a located source, for as long as the `with` block lasts.

    Raises ScratchbookError where it cannot be used: the message names the file and what is wrong.
    """
    kind, spec = found.source["kind"], found.source
    with ExitStack() as stack:
        if kind == "keras":
            yield _keras(spec)
        elif kind == "bundled":
            yield _bundled(spec, found.paths["path"])
        elif kind == "hdf5":
            yield _hdf5(spec, found.paths, stack)
        else:
            files = _open_files(found.paths["path"], stack)
            yield _csv(spec, files) if kind == "csv" else _class_folders(spec, files)


def listed(names: list[str], most: int = 10) -> str:
    """The first names, one a line, and how many more there are."""
    more = [f"… and {len(names) - most:,} more"] if len(names) > most else []
    return "\n".join(f"  {name}" for name in names[:most] + more)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# --- files: a folder, a zip and a tar look the same -----------------------------------------------


@dataclass(frozen=True)
class _Files:
    """The files of a folder or an archive, by relative path, in the order of storage."""

    path: Path
    sizes: dict[str, int]  # bytes; the keys are all files there are
    folders: set[str]
    content: Callable[[str], bytes]
    sha256: Callable[[], str]

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


def _open_files(path: Path, stack: ExitStack) -> _Files:
    if path.is_dir():
        return _folder(path)
    try:
        if path.suffix.lower() == ".zip":
            return _zip(path, stack.enter_context(zipfile.ZipFile(path)))
        return _tar(path, stack.enter_context(tarfile.open(path)))
    except READ_ERRORS as error:
        raise ScratchbookError(
            f"{path}: not a whole .zip or .tar file ({error}). It has "
            f"{path.stat().st_size:,} bytes: a download that stopped early, or another kind of "
            "file. Fetch it again."
        ) from error


def _folder(path: Path) -> _Files:
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    broken: dict[str, str] = {}
    for entry in walk(path):
        name = Path(entry.path).relative_to(path).as_posix()
        if entry.is_dir():
            folders.add(name)
        elif entry.is_file():
            sizes[name] = entry.stat().st_size
        elif entry.is_symlink():
            broken[name] = str(Path(entry.path).readlink())
    _refuse_broken(path, broken, "Restore what they lead to, or remove them.")

    def sha256() -> str:
        whole = hashlib.sha256()
        for name in sizes:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{digest}  {name}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    return _Files(path, sizes, folders, lambda name: (path / name).read_bytes(), sha256)


def _zip(path: Path, archive: zipfile.ZipFile) -> _Files:
    members = archive.infolist()
    _refuse_unsafe(path, [member.filename for member in members])
    sizes = {member.filename: member.file_size for member in members if not member.is_dir()}
    folders = {member.filename.rstrip("/") for member in members if member.is_dir()}
    return _Files(path, sizes, folders, archive.read, lambda: _sha256_file(path))


def _tar(path: Path, archive: tarfile.TarFile) -> _Files:
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

    def content(name: str) -> bytes:
        if name not in by_name:
            raise OSError("it is a link to a folder")
        return read(by_name[name])

    sizes = {name: member.size for name, member in by_name.items()}
    sizes |= {name: 0 for name in links if name not in sizes}  # to folders: said to be skipped
    return _Files(path, sizes, folders, content, lambda: _sha256_file(path))


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


def _sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- folder and archive: one folder a class -------------------------------------------------------


def _class_folders(spec: dict[str, Any], files: _Files) -> Source:
    images, others = files.images()
    splits: dict[str, str] | None = spec["splits"]
    roots = {folder.strip("/"): split for split, folder in splits.items()} if splits else None
    if roots is None:
        roots = {_only_folder(images): ""}
    rows: list[tuple[str, str, str]] = []  # (image, class, split)
    outside, loose = [], []
    for name in images:
        root = next((root for root in roots if name.startswith(root + "/") or not root), None)
        if root is None:
            outside.append(name)
            continue
        below = name[len(root) + 1 :] if root else name
        folder, slash, _ = below.partition("/")
        if slash:
            rows.append((name, folder, roots[root]))
        else:
            loose.append(name)
    if loose:
        raise ScratchbookError(
            f"{files.path}: {counted(len(loose), 'image')} in no class folder:\n{listed(loose)}\n"
            "Each class needs a folder of its own."
        )
    for split, folder in (splits or {}).items():
        if not any(row[2] == split for row in rows):
            tops = sorted({name.split("/")[0] for name in images if "/" in name})
            raise ScratchbookError(
                f"{files.path}: no images for {split} below {folder!r}; the folders at the top "
                f"are {', '.join(tops) or 'none'}"
            )
    if not rows:
        raise ScratchbookError(
            f"{files.path}: no images found. Expected <class>/<image>, the image one of "
            + " ".join(sorted(IMAGE_SUFFIXES))
        )
    empty = [folder for root in roots for folder in _folders_below(files, root)]
    classes = sorted({row[1] for row in rows} | set(empty))
    if not splits and _LOOKS_LIKE_SPLITS.issuperset(name.lower() for name in classes):
        raise ScratchbookError(
            f"{files.path}: the folders {', '.join(classes)} look like splits, not classes. "
            "Name them in the source: `splits: {train: train, test: test}`."
        )
    number = {name: i for i, name in enumerate(classes)}
    notes = _skipped_note(others)
    if outside:
        notes.append(f"left out: {counted(len(outside), 'image')} outside of the split folders")
    return Source(
        text=f"{spec['kind']} {files.path.name}",
        class_names=classes,
        names=[row[0] for row in rows],
        labels=np.array([number[row[1]] for row in rows], np.int64),
        splits=np.array([SPLITS.index(row[2]) for row in rows], np.uint8) if splits else None,
        read=lambda i: files.read(rows[i][0]),
        sha256=files.sha256,
        notes=notes,
    )


def _only_folder(images: list[str]) -> str:
    """The folder around all class folders, where an archive holds one: `dogs/` of `dogs/beagle/…`.

    One class alone is never a data set, so one folder at the top that holds folders is no class.
    """
    tops = {name.split("/")[0] for name in images}
    nested = all(name.count("/") >= 2 for name in images)
    return tops.pop() if len(tops) == 1 and nested else ""


def _folders_below(files: _Files, root: str) -> list[str]:
    """Names of the folders right below one: classes, even if they hold nothing."""
    prefix = root + "/" if root else ""
    below = [folder[len(prefix) :] for folder in files.folders if folder.startswith(prefix)]
    names = {folder.split("/")[0] for folder in below}
    return sorted(name for name in names if name and name[0] != "." and name != "__MACOSX")


def _skipped_note(others: list[str]) -> list[str]:
    if not others:
        return []
    kinds = Counter(PurePosixPath(name).name for name in others)
    some = ", ".join(name for name, _ in kinds.most_common(3))
    more = ", …" if len(kinds) > 3 else ""
    return [f"skipped: {counted(len(others), 'file')} not an image ({some}{more})"]


# --- csv: a table of labels -----------------------------------------------------------------------


def _csv(spec: dict[str, Any], files: _Files) -> Source:
    table = f"{files.path.name}/{spec['labels']}"
    rows = _table_rows(spec, files, table)
    prefix, _, rest = spec["image"].partition("{")
    suffix = rest.rpartition("}")[2]
    images, others = files.images()
    images = [name for name in images if name.startswith(prefix) and name.endswith(suffix)]
    missing = [f"{name} (line {rows[name][2]})" for name in rows if name not in files.sizes]
    if missing:
        raise ScratchbookError(
            f"{table}: {counted(len(missing), 'row')} without its image, looked for as "
            f"`{spec['image']}`:\n{listed(missing)}"
        )
    unlabelled = [name for name in images if name not in rows]
    if unlabelled:
        raise ScratchbookError(
            f"{table}: {counted(len(unlabelled), 'image')} without a row:\n{listed(unlabelled)}\n"
            "Give each a label, or move it out of the way."
        )
    names = [name for name in files.sizes if name in rows]  # in storage order: quick to read
    values = sorted({label for label, _, _ in rows.values()}, key=_natural)
    titles: dict[str, str] = spec["class_names"] or {value: value for value in values}
    unknown = [value for value in values if value not in titles]
    if unknown:
        raise ScratchbookError(
            f"{table}: column {spec['label']!r} holds {unknown[0]!r}, which is not in "
            f"`class_names` ({nearest(unknown[0], titles)})"
        )
    number = {value: i for i, value in enumerate(titles)}
    has_splits = bool(spec["split"])
    return Source(
        text=f"csv {files.path.name}",
        class_names=list(titles.values()),
        names=names,
        labels=np.array([number[rows[name][0]] for name in names], np.int64),
        splits=np.array([SPLITS.index(rows[name][1]) for name in names], np.uint8)
        if has_splits
        else None,
        read=lambda i: files.read(names[i]),
        sha256=files.sha256,
        notes=_skipped_note([name for name in others if name != spec["labels"]]),
    )


def _table_rows(spec: dict[str, Any], files: _Files, table: str) -> dict[str, tuple[str, str, int]]:
    """(label, split or "", line) of each image that the table names."""
    if spec["labels"] not in files.sizes:
        raise ScratchbookError(
            f"{files.path}: there is no {spec['labels']} in it ("
            + nearest(spec["labels"], [name for name in files.sizes if name.endswith(".csv")])
            + ")"
        )
    try:
        text = files.content(spec["labels"]).decode("utf-8-sig")
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ScratchbookError(f"{table}: cannot be read as UTF-8 text: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or [])
    columns_of_name = re.findall(r"{([^{}]*)}", spec["image"])
    wanted = [spec["label"], *columns_of_name]
    if spec["split"]:
        wanted.append(spec["split"])
    for column in wanted:
        if column not in columns:
            raise ScratchbookError(
                f"{table}: no column {column!r}; its columns are {', '.join(columns) or 'none'}"
            )
    rows: dict[str, tuple[str, str, int]] = {}
    empty, twice, strange = [], [], []
    for row in reader:
        line = reader.line_num
        name = spec["image"]
        for column in columns_of_name:
            name = name.replace(f"{{{column}}}", row[column] or "")
        label = (row[spec["label"]] or "").strip()
        split = (row[spec["split"]] or "").strip().lower() if spec["split"] else ""
        if not label:
            empty.append(f"line {line}: {name}")
        if spec["split"] and split not in SPLITS:
            strange.append(f"line {line}: {split!r}")
        if name in rows:
            twice.append(f"lines {rows[name][2]} and {line}: {name}")
        rows[name] = (label, split, line)
    for bad, what in (
        (empty, f"without a label in column {spec['label']!r}"),
        (twice, "with an image that another row has"),
        (strange, f"without one of {', '.join(SPLITS)} in column {spec['split']!r}"),
    ):
        if bad:
            raise ScratchbookError(f"{table}: {counted(len(bad), 'row')} {what}:\n{listed(bad)}")
    if not rows:
        raise ScratchbookError(f"{table}: it has no rows")
    return rows


def _natural(value: str) -> tuple[int, int, str]:
    """Sorts whole numbers by value and before words."""
    return (0, int(value), "") if re.fullmatch(r"-?\d+", value) else (1, 0, value)


# --- arrays: hdf5, keras, bundled -----------------------------------------------------------------


def _hdf5(spec: dict[str, Any], paths: dict[str, Path], stack: ExitStack) -> Source:
    images: list[h5py.Dataset] = []
    labels, names, splits = [], [], []
    for split in sorted(spec["splits"], key=SPLITS.index):
        x = _hdf5_array(paths[f"{split} images"], spec["images"], stack)
        y = _hdf5_array(paths[f"{split} labels"], spec["labels"], stack)
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or y.size != len(x):
            raise ScratchbookError(
                f"{x.file.filename}: {spec['images']!r} is {x.dtype} {list(x.shape)} and its "
                f"labels are {list(y.shape)}; expected uint8 [n, height, width, channels] and n "
                "labels"
            )
        images.append(x)
        labels.append(np.asarray(y[()]).reshape(-1))
        names += [f"{split}/{i:06d}" for i in range(len(x))]
        splits += [SPLITS.index(split)] * len(x)
    starts = np.cumsum([0, *(len(x) for x in images)])

    def read(i: int) -> np.ndarray:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return images[part][i - starts[part]]

    def sha256() -> str:
        lines = [f"{_sha256_file(paths[role])}  {role}\n" for role in sorted(paths)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    first = next(iter(paths.values())).name
    return Source(
        text=f"hdf5 {first}" + (" and others" if len(paths) > 1 else ""),
        class_names=spec["class_names"],
        names=names,
        labels=_checked_labels(np.concatenate(labels), spec["class_names"], first),
        splits=np.array(splits, np.uint8),
        read=read,
        sha256=sha256,
    )


def _hdf5_array(path: Path, key: str, stack: ExitStack) -> h5py.Dataset:
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        packed = " It is compressed: run gunzip on it first." if path.suffix == ".gz" else ""
        raise ScratchbookError(f"{path}: not a whole HDF5 file ({error}).{packed}") from error
    if not isinstance(file.get(key), h5py.Dataset):
        raise ScratchbookError(f"{path}: there is no array {key!r} in it ({nearest(key, file)})")
    return file[key]


def _keras(spec: dict[str, Any]) -> Source:
    try:
        parts = getattr(importlib.import_module("keras").datasets, spec["name"]).load_data()
    except Exception as error:  # a download fails in many ways; all mean the same to the user
        raise ScratchbookError(
            f"keras.datasets.{spec['name']} could not be loaded: {error}\n"
            "Keras downloads it once and needs the internet for that; on a machine without it, "
            "put one of the data set's other sources into data_dir."
        ) from error
    images = [np.asarray(x) for x, _ in parts]  # train, test
    labels = np.concatenate([np.asarray(y).reshape(-1) for _, y in parts])
    splits = np.repeat(np.array([0, 2], np.uint8), [len(x) for x in images])

    def sha256() -> str:
        whole = hashlib.sha256(labels.astype(np.int64).tobytes())
        for x in images:
            whole.update(np.ascontiguousarray(x).data)
        return whole.hexdigest()

    def read(i: int) -> np.ndarray:
        return images[0][i] if i < len(images[0]) else images[1][i - len(images[0])]

    return Source(
        text=f"keras.datasets.{spec['name']}",
        class_names=spec["class_names"],
        names=[
            f"{split}/{i:06d}"
            for split, x in zip(("train", "test"), images, strict=True)
            for i in range(len(x))
        ],
        labels=_checked_labels(labels, spec["class_names"], spec["name"]),
        splits=splits,
        read=read,
        sha256=sha256,
    )


def _bundled(spec: dict[str, Any], path: Path) -> Source:
    height, width = spec["shape"]
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    try:
        table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise ScratchbookError(f"{path}: not a table of whole numbers: {error}") from error
    pixels, labels = table[:, :-1], table[:, -1]  # (n, height × width), (n,)
    if pixels.shape[1] != height * width or pixels.min() < 0 or pixels.max() > 255:
        raise ScratchbookError(
            f"{path}: {pixels.shape[1]} pixels a row, from {pixels.min()} to {pixels.max()}; "
            f"{height} × {width} values from 0 to 255 were expected"
        )
    images = pixels.astype(np.uint8).reshape(-1, height, width)
    return Source(
        text=f"{path.name} of the package {spec['package']}",
        class_names=spec["class_names"],
        names=[f"{i:06d}" for i in range(len(images))],
        labels=_checked_labels(labels, spec["class_names"], path.name),
        splits=None,
        read=images.__getitem__,
        sha256=lambda: hashlib.sha256(content).hexdigest(),
    )


def _checked_labels(labels: np.ndarray, class_names: list[str], where: str) -> np.ndarray:
    """int64 labels; ScratchbookError where one is no number of a class."""
    numbers = labels.astype(np.int64)
    bad = np.flatnonzero((numbers != labels) | (numbers < 0) | (numbers >= len(class_names)))
    if len(bad):
        raise ScratchbookError(
            f"{where}: the label of image {bad[0]} is {labels[bad[0]]}; `class_names` names the "
            f"classes 0 to {len(class_names) - 1}"
        )
    return numbers

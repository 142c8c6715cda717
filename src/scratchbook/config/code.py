"""Which of the package's files a script runs, so that editing one of them re-runs its stage."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "scratchbook"
# Nothing that a stage writes hangs on how errors are told, or on how its files are carried.
_LEFT_OUT = {"errors", "bucket"}


def code_of(script: Path, package: Path) -> list[Path]:
    """The package's modules that a script imports, directly or not, sorted.

    Imports are followed by reading, not by running; those inside functions count.

    Args:
        script: a Python file.
        package: the folder of `scratchbook`.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop()
        for name in _imports(file, package):
            for module in _files(name, package):
                if module not in found:
                    found.add(module)
                    waiting.append(module)
    return sorted(found)


def code_hash(script: Path, package: Path) -> str:
    """The sha256 over those modules: their places in the package, and what is written in them."""
    digest = hashlib.sha256()
    for file in code_of(script, package):
        digest.update(f"{file.relative_to(package)} {_hash(file)}\n".encode())
    return digest.hexdigest()


@cache
def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache  # the rules of a workflow share most files, and each start of a job asks for all of them
def _imports(file: Path, package: Path) -> frozenset[str]:
    """Dotted names, within the package, that a file imports."""
    names: set[str] = set()
    for node in _statements(ast.parse(file.read_bytes()).body):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = file.relative_to(package).parent.parts
                kept = parents[: len(parents) - node.level + 1]
                base = ".".join(filter(None, [PACKAGE, *kept, base]))
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    prefix = f"{PACKAGE}."
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Those of a body and of the bodies inside it: a twelfth of all that `ast.walk` visits."""
    for node in body:
        yield node
        for inside in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, inside, ()))


@cache
def _files(name: str, package: Path) -> list[Path]:
    """The files that importing `scratchbook.{name}` runs: its packages' faces and itself."""
    parts = name.split(".")
    if not _LEFT_OUT.isdisjoint({parts[0], ".".join(parts[:2])}):
        return []
    faces = [package.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    module = package.joinpath(*parts).with_suffix(".py")
    return [path for path in (*faces, module) if path.is_file()]

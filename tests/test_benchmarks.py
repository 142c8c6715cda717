"""Benchmarks, scripts, rules and tests import from the package only what it has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from projects import REPOSITORY

CALLERS = sorted(
    file
    for pattern in ("benchmarks/*.py", "workflow/scripts/*.py", "rules/*.smk", "tests/*.py")
    for file in REPOSITORY.glob(pattern)
)
# Also within a function, and in code that is handed to a process as text.
FROM = re.compile(r"\bfrom (scratchbook[\w.]*) import (\([^)]*\)|[\w, ]+)")
IMPORT = re.compile(r"\bimport ([\w., ]+)")


def imports(text: str) -> Iterator[tuple[str, str | None]]:
    """The package's modules that a file imports, each with a name that it takes from it."""
    for module, names in FROM.findall(text):
        for name in re.sub(r"#.*", "", names).strip("()").split(","):
            if name.strip():
                yield module, name.split()[0]
    for modules in IMPORT.findall(text):
        for module in modules.split(","):
            if module.strip().startswith("scratchbook."):
                yield module.split()[0], None


@cache
def defined(module: str) -> frozenset[str] | None:
    """The names at the top of a module of the package and its submodules'; None if there is none.

    What it imports for types alone is not there when it runs, and so does not count.
    """
    place = REPOSITORY.joinpath("src", *module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    names = {each.stem for each in place.glob("*")}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    names.update(n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    return frozenset(names)


def wrong(text: str) -> list[str]:
    """Of a file's imports those that the package does not have."""
    return [
        f"{module}: {name or 'no such module'}"
        for module, name in imports(text)
        if (names := defined(module)) is None or (name and name not in names)
    ]


@pytest.mark.parametrize("file", CALLERS, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_what_is_imported_from_the_package_is_there(file: Path) -> None:
    assert not wrong(file.read_text(encoding="utf-8"))


def test_an_import_of_what_is_not_there_is_found() -> None:
    package = "scratchbook"  # apart, or the test above would find these
    text = f"""
from {package} import models, no_module
from {package}.results.paths import Results  # noqa: E402
from {package}.results.paths import RunRecord
def later():
    from {package}.figures import (
        FIGURES,  # each
        Figure as One, COLUMNS,
    )
    import sys, {package}.errors, {package}.specs.old
    from {package}.training.batches import in_batches
    command = "import os; from {package}.hardware import no_device; no_device(1)"
"""
    assert sorted(wrong(text)) == [
        "scratchbook.figures: COLUMNS",
        "scratchbook.hardware: no_device",
        "scratchbook.results.paths: RunRecord",
        "scratchbook.specs.old: no such module",
        "scratchbook.training.batches: in_batches",
        "scratchbook: no_module",
    ]

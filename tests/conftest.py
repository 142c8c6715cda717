"""Fixtures that several test files share: one finished project, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from projects import make_project, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose report is made. Read it; copy it before you change it."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    answer = snakemake(project)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, its times and Snakemake's records kept, to change at will."""
    copy = tmp_path / "project"
    shutil.copytree(finished, copy, symlinks=True)
    return copy

"""Pinned packages: complete, without a registry's address, and the same wherever they are named."""

from __future__ import annotations

import re

import yaml
from packaging.requirements import Requirement

from projects import REPOSITORY


def pins(file: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (REPOSITORY / file).read_text().splitlines():
        requirement = Requirement(line)
        assert [s.operator for s in requirement.specifier] == ["=="], line
        found.setdefault(requirement.name, set()).add(next(iter(requirement.specifier)).version)
    return found


def test_every_requirement_is_pinned_and_none_names_an_address() -> None:
    for file in ("requirements.txt", "requirements-storage.txt", "requirements-dev.txt"):
        assert pins(file)
        assert "://" not in (REPOSITORY / file).read_text()


def test_requirements_cover_what_is_asked_for() -> None:
    for file in ("requirements", "requirements-storage", "requirements-dev"):
        pinned = pins(f"{file}.txt")
        for line in (REPOSITORY / f"{file}.in").read_text().splitlines():
            if line and not line.startswith("#"):
                name = re.split(r"[^A-Za-z0-9_.-]", line)[0]
                assert name.lower() in pinned, name


def test_what_is_installed_is_what_is_pinned() -> None:
    from importlib.metadata import version

    for name in ("keras", "snakemake", "pydantic", "numpy", "pandas", "h5py"):
        assert version(name) in pins("requirements.txt")[name]


def test_conda_environments_have_the_pinned_versions() -> None:
    pinned = pins("requirements.txt")
    files = sorted((REPOSITORY / "envs").glob("*.yaml"))
    assert [file.stem for file in files] == ["data", "keras", "report", "statistics"]
    for file in files:
        packages = yaml.safe_load(file.read_text())["dependencies"][-1]["pip"]
        for package in packages:
            name, version = package.split("==")
            assert version in pinned[name], f"{file.name}: {package}"


def test_every_rule_names_an_environment_that_is_there() -> None:
    text = "".join(file.read_text() for file in (REPOSITORY / "rules").glob("*.smk"))
    named = set(re.findall(r"\.\./envs/(\w+)\.yaml", text))
    assert named == {file.stem for file in (REPOSITORY / "envs").glob("*.yaml")}

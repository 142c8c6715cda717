"""Pinned packages: complete, without a registry's address, and the same wherever they are named."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from projects import PARTS, REPOSITORY
from scratchbook.config.code import code_of


def pins(file: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (REPOSITORY / file).read_text().splitlines():
        requirement = Requirement(line)
        assert [s.operator for s in requirement.specifier] == ["=="], line
        found.setdefault(requirement.name, set()).add(next(iter(requirement.specifier)).version)
    return found


def test_every_requirement_is_pinned_and_none_names_an_address() -> None:
    for file in (
        "requirements.txt",
        "requirements-storage.txt",
        "requirements-gpu.txt",
        "requirements-dev.txt",
    ):
        assert pins(file)
        assert "://" not in (REPOSITORY / file).read_text()


def test_requirements_cover_what_is_asked_for() -> None:
    for file in ("requirements", "requirements-storage", "requirements-dev"):
        pinned = pins(f"{file}.txt")
        for line in (REPOSITORY / f"{file}.in").read_text().splitlines():
            if line and not line.startswith("#"):
                name = re.split(r"[^A-Za-z0-9_.-]", line)[0]
                assert name.lower() in pinned, name


def test_the_set_for_gpus_is_requirements_txt_with_cuda_in_the_same_versions() -> None:
    lines = {
        file: set((REPOSITORY / file).read_text().splitlines())
        for file in ("requirements.txt", "requirements-gpu.txt")
    }
    left_out = lines["requirements.txt"] - lines["requirements-gpu.txt"]
    assert {Requirement(line).name for line in left_out} == {"tensorflow", "tensorflow-cpu"}
    ordinary, gpu, dev = map(
        pins, ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt")
    )
    assert gpu["tensorflow"] == ordinary["tensorflow"] == ordinary["tensorflow-cpu"]
    assert gpu["jax"] == gpu["jaxlib"] == gpu["jax-cuda12-plugin"] == dev["jax"]
    added = set(gpu) - set(ordinary)
    assert {"jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cudnn-cu12"} <= added
    assert all(name.startswith(("jax", "nvidia-")) for name in added)
    assert all(name.endswith("-cu12") for name in added if name.startswith("nvidia-"))


def test_the_image_is_made_as_the_readme_makes_its_environment() -> None:
    recipe, readme = (REPOSITORY / "Dockerfile").read_text(), (REPOSITORY / "README.md").read_text()
    uv = re.findall(r"uv==[\d.]+", recipe)
    assert len(uv) == 1
    assert uv[0] in readme
    assert re.search(r"^ARG BASE=\S+/python:3\.11\.\d+-slim-\w+$", recipe, flags=re.M)
    assert re.findall(r"^ARG REQUIREMENTS=(.*)$", recipe, flags=re.M) == ["requirements.txt"]
    command = json.loads(re.search(r"^CMD (.*)$", recipe, flags=re.M)[1])
    assert command[:3] == ["uv", "run", "snakemake"]
    assert " ".join(command[:3]) in readme
    assert recipe.index("USER scratchbook") < recipe.index("RUN uv pip install")


def test_the_image_gets_all_that_is_committed_for_running_and_nothing_else() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    asked = {line[1:] for line in ignore if line.startswith("!")}
    parts = {part.split("/")[0] for part in PARTS} | {"config", "pyproject.toml", "tests"}
    assert {part for part in parts if not part.startswith("requirements")} <= asked
    for pattern in asked:
        assert list(REPOSITORY.glob(pattern)), pattern
    assert not asked & {"data", "results", ".venv", ".git", ".snakemake"}


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


def third_party(file: Path) -> set[str]:
    """What a module imports as it is imported itself, from other packages."""
    body = ast.parse(file.read_bytes()).body
    nodes = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name.split(".")[0]
        for node in nodes
        if not getattr(node, "level", 0)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    }
    return names - set(sys.stdlib_module_names) - {"scratchbook"}


def test_each_environment_has_what_its_rules_scripts_import() -> None:
    package = {"PIL": "pillow", "pydantic_core": "pydantic", "yaml": "pyyaml"}
    seen = set()
    for file in (REPOSITORY / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.M)[1:]:
            (environment,) = re.findall(r"\.\./envs/(\w+)\.yaml", rule)
            (script,) = re.findall(r"\.\./workflow/scripts/(\w+\.py)", rule)
            listed = yaml.safe_load((REPOSITORY / f"envs/{environment}.yaml").read_text())
            has = {each.split("==")[0] for each in listed["dependencies"][-1]["pip"]}
            # Not imported at the top: to check what is read; for pandas to write LaTeX.
            needs = {"pydantic"} if environment != "data" else set()
            needs |= {"jinja2"} if script == "compare_experiments.py" else set()
            for module in code_of(
                REPOSITORY / "workflow/scripts" / script, REPOSITORY / "src/scratchbook"
            ):
                needs |= third_party(module)
            missing = {package.get(name, name).replace("_", "-") for name in needs} - has
            assert not missing, f"{script} in envs/{environment}.yaml"
            seen.add(script)
    assert seen == {file.name for file in (REPOSITORY / "workflow/scripts").glob("*.py")}

"""The workflow from elsewhere: another folder, another workflow's module, snakedeploy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from snakedeploy.deploy import deploy

from projects import REPOSITORY, make_project, snakemake

COMMITTER = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
MODULE = """
configfile: "config/config.yaml"

module scratchbook:
    snakefile: "{snakefile}"
    config: config

use rule * from scratchbook exclude all
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the repository, without anything of a user's."""
    clone = make_project(tmp_path / "clone")
    shutil.move(clone / "config", tmp_path / "config")
    shutil.move(clone / "data", tmp_path / "data")
    return clone


@pytest.fixture
def user(clone: Path, tmp_path: Path) -> Path:
    """A user's folder elsewhere: declarations and data, and not a line of the workflow."""
    user = tmp_path / "user"
    user.mkdir()
    shutil.move(tmp_path / "config", user / "config")
    shutil.move(tmp_path / "data", user / "data")
    return user


@pytest.mark.long
def test_it_runs_from_a_clone_into_another_folder(clone: Path, user: Path) -> None:
    answer = snakemake(
        clone, "--snakefile", "workflow/Snakefile", "--directory", str(user),
        "--config", "smoke=true",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (user / "results/smoke/report.html").stat().st_size > 100_000
    assert not (clone / "results").exists()


@pytest.mark.long
def test_it_is_a_module_of_another_workflow(clone: Path, user: Path) -> None:
    (user / "Snakefile").write_text(
        MODULE.format(snakefile=clone / "workflow/Snakefile")
        + """
rule all:
    default_target: True
    input: "best.txt"

rule best:
    input: "results/smoke/halves/compare.csv"
    output: "best.txt"
    shell: "sort -t, -k2 {input} > {output}"
"""
    )
    answer = snakemake(user, "--config", "smoke=true")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "narrow" in (user / "best.txt").read_text()
    again = snakemake(user, "--config", "smoke=true", "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
    # The module's own page is a target like any other.
    page = snakemake(user, "--config", "smoke=true", "--", "results/smoke/report.html")
    assert page.returncode == 0, page.stdout + page.stderr


def test_snakedeploy_deploys_it(tmp_path: Path) -> None:
    clone = make_project(tmp_path / "clone")
    user = tmp_path / "user"
    deploy(str(clone), name="scratchbook", tag=None, branch="main", dest_path=user)
    shutil.copytree(clone / "data", user / "data")
    # Of a local source snakedeploy writes the path within it, where a path to it is needed.
    snakefile = user / "workflow/Snakefile"
    text = snakefile.read_text()
    assert '"workflow/Snakefile"' in text
    snakefile.write_text(text.replace('"workflow/Snakefile"', f'"{clone / "workflow/Snakefile"}"'))
    dry = snakemake(user, "--dry-run", "--config", "smoke=true")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "train_run" in dry.stdout + dry.stderr


def test_a_module_without_a_clone_is_told_to_have_one(clone: Path, user: Path) -> None:
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        [*COMMITTER, "commit", "-qm", "-"],
    ):
        subprocess.run(["git", *command], cwd=clone, check=True)
    text = MODULE.format(snakefile="").replace(
        '""', f'gitfile("{clone}", path="workflow/Snakefile", ref="HEAD")'
    )
    (user / "Snakefile").write_text(text)
    answer = snakemake(user, "--dry-run")
    assert answer.returncode != 0
    assert "Scratchbook runs from a clone of its repository" in answer.stdout + answer.stderr


def test_the_catalog_finds_what_it_asks_for() -> None:
    catalog = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    usage = catalog["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"]["conda"] is True
    for needed in ("workflow/Snakefile", "config/README.md", "README.md", "LICENSE"):
        assert (REPOSITORY / needed).is_file(), needed
    text = (REPOSITORY / "Snakefile").read_text()
    assert text.count("configfile:") == 1

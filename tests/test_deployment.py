"""The workflow from elsewhere: another folder, another workflow's module, snakedeploy."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from snakedeploy.deploy import deploy

from projects import REPOSITORY, make_project, planned, snakemake

COMMITTER = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
MODULE = """
configfile: "config/config.yaml"

module scratchbook:
    snakefile: "{snakefile}"
    config: config

use rule * from scratchbook exclude all
"""
OWN = """
rule best:
    default_target: True
    input: "results/smoke/halves/compare.csv"
    output: "best.txt"
    shell: "sort -t, -k2 {input} > {output}"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository without anything of a user's."""
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


def commit(clone: Path) -> None:
    for command in (["add", "."], [*COMMITTER, "commit", "--quiet", "--message", "-"]):
        subprocess.run(["git", *command], cwd=clone, check=True)


@pytest.fixture
def github(clone: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address on GitHub of a repository that is the clone."""
    shutil.copytree(user / "config", clone / "config")  # snakedeploy copies it from there
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=clone, check=True)
    commit(clone)
    address = "https://github.com/someone/scratchbook"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{clone}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # Snakemake's clones
    return address


@pytest.mark.long
def test_it_runs_from_a_clone_into_another_folder(clone: Path, user: Path) -> None:
    answer = snakemake(
        clone, "--snakefile", "workflow/Snakefile", "--directory", str(user),
        "--config", "smoke=true",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (user / "results/smoke/report.html").stat().st_size > 100_000
    assert not (clone / "results").exists()


def test_a_clone_is_a_module_of_another_workflow(clone: Path, user: Path) -> None:
    (user / "Snakefile").write_text(MODULE.format(snakefile=clone / "workflow/Snakefile") + OWN)
    jobs = planned(user, "--config", "smoke=true")
    assert "best" in jobs
    assert sum(job.startswith("train_run ") for job in jobs) == 2
    # The module's own page is a target like any other.
    page = planned(user, "--config", "smoke=true", "--", "results/smoke/report.html")
    assert "write_report" in page


@pytest.mark.long
def test_what_snakedeploy_deploys_runs_and_takes_rules_of_the_users(
    clone: Path, user: Path, github: str
) -> None:
    deploy(github, name="scratchbook", tag=None, branch="main", dest_path=user, force=True)
    with (user / "workflow/Snakefile").open("a") as file:
        file.write(OWN)
    answer = snakemake(user, "--config", "smoke=true")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "narrow" in (user / "best.txt").read_text()
    assert "Nothing to be done" in dry_run(user)

    # A commit that changes no code of a stage repeats nothing; one that does repeats that stage.
    (clone / "README.md").write_text("A workflow.")
    commit(clone)
    assert "Nothing to be done" in dry_run(user)
    with (clone / "src/scratchbook/evaluation.py").open("a") as file:
        file.write("\n# Another line.\n")
    commit(clone)
    jobs = planned(user, "--config", "smoke=true")
    assert {job.split()[0] for job in jobs} >= {"evaluate_run", "best"}
    assert not [job for job in jobs if job.startswith("train_run")]


def test_a_module_without_its_repository_is_told_to_have_one(clone: Path, user: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(clone))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/workflow/Snakefile"
        (user / "Snakefile").write_text(MODULE.format(snakefile=address))
        answer = snakemake(user, "--dry-run")
        server.shutdown()
    assert answer.returncode != 0
    assert "needs its whole repository" in answer.stdout + answer.stderr


def dry_run(user: Path) -> str:
    answer = snakemake(user, "--dry-run", "--config", "smoke=true")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def test_the_catalog_finds_what_it_asks_for() -> None:
    catalog = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    usage = catalog["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"]["conda"] is True
    for needed in ("workflow/Snakefile", "config/README.md", "LICENSE"):
        assert (REPOSITORY / needed).is_file(), needed
    # It searches READMEs for these.
    readme = (REPOSITORY / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    text = (REPOSITORY / "Snakefile").read_text()
    assert text.count("configfile:") == 1

"""Snakemake's internals: in rules/internals.smk alone, and what happens where one is missing."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from snakemake.exceptions import WorkflowError

from projects import REPOSITORY, make_project, snakemake

INTERNALS = REPOSITORY / "rules/internals.smk"
# Documented are `workflow.source_path`, `snakemake.utils` and the errors; `snakemake` in scripts.
PATTERNS = [
    r"\bworkflow\.(?!source_path\b|smk\b)\w",
    r"\b(?:from|import) snakemake\.(?!utils\b|exceptions\b)\w",
    r"\bfrom snakemake import\b",
    r"""["']\.snakemake/(?!scratchbook\b)""",  # that folder is our own
    r"""with_name\(["']incomplete""",
    r"\.(?:current_basedir|is_main_process|included_stack|modifier|path_modifier)\b",
    r"\.(?:apply_default_storage|storage_settings|storage_registry|default_storage_\w+)\b",
    r"\.(?:is_producer|get_wildcards|expand_input|hosted_repo|repo_clone|repo_path)\b",
    r"\bPATH_MODIFIER_FLAG\b|\bWildcards\(",
]


def uses(text: str) -> list[str]:
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in code for each in PATTERNS if re.search(each, line)]


def internals(**given: Any) -> dict[str, Any]:
    """What the file defines, for a workflow with these attributes alone."""
    names = {"workflow": SimpleNamespace(**given), "local": lambda file: ("local", file)}
    exec(compile(INTERNALS.read_text(encoding="utf-8"), str(INTERNALS), "exec"), names)
    return names


def test_no_other_file_uses_internals() -> None:
    files = [
        REPOSITORY / "Snakefile",
        REPOSITORY / "workflow/Snakefile",
        *(REPOSITORY / "rules").glob("*.smk"),
        *(REPOSITORY / "workflow/scripts").glob("*.py"),
        *(REPOSITORY / "src/scratchbook").rglob("*.py"),
    ]
    found = {str(file): uses(file.read_text(encoding="utf-8")) for file in files}
    assert found.pop(str(INTERNALS))
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_kind_of_internal_would_be_found(pattern: str) -> None:
    bad = (
        "workflow.rules",
        "from snakemake.io import flag",
        "from snakemake import path_modifier",
        'Path(".snakemake/metadata")',
        'folder.with_name("incomplete")',
        "here.current_basedir",
        "modified.apply_default_storage(path)",
        "each.is_producer(file)",
        'Wildcards(fromdict={"notebook": name})',
    )
    assert [line for line in bad if re.search(pattern, line)]


def test_all_was_checked_on_the_pinned_version() -> None:
    pins = (REPOSITORY / "requirements.txt").read_text().splitlines()
    assert f"snakemake=={internals()['CHECKED_SNAKEMAKE']}" in pins


@pytest.mark.parametrize("name", ["snakefile_folder", "module_source", "default_storage"])
def test_what_nothing_can_stand_in_for_is_told_in_a_sentence(name: str) -> None:
    with pytest.raises(WorkflowError) as raised:
        internals()[name]()
    told = str(raised.value)
    assert f"with Snakemake {version('snakemake')}: " in told
    assert "no attribute '" in told
    assert "known to work with Snakemake 9.27.1" in told
    assert "\n" not in told
    assert raised.value.__suppress_context__


def test_a_changed_parameter_is_told_like_a_missing_attribute() -> None:
    source = SimpleNamespace(get_path_or_uri=lambda: "rules")
    with pytest.raises(WorkflowError, match=r"cannot find its own files .*'secret_free'"):
        internals(current_basedir=source)["snakefile_folder"]()


def test_a_hosted_repository_without_its_clone_is_told() -> None:
    hosted = SimpleNamespace(ref="main", hosted_repo=SimpleNamespace())
    with pytest.raises(WorkflowError, match="no attribute 'repo_clone'"):
        internals(current_basedir=hosted)["module_source"]()
    cloned = SimpleNamespace(ref="main", repo_path="/clone")
    assert internals(current_basedir=cloned)["module_source"]() == (Path("/clone"), "main")


def test_a_bucket_whose_settings_are_missing_is_told_and_none_is_none() -> None:
    settings = SimpleNamespace(default_storage_provider=None)
    assert internals(storage_settings=settings)["default_storage"]() is None
    settings = SimpleNamespace(default_storage_provider="s3", default_storage_prefix="s3://b")
    with pytest.raises(WorkflowError, match=r"kept in a bucket .*'storage_registry'"):
        internals(storage_settings=settings)["default_storage"]()


def test_what_can_be_done_without_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = internals()
    assert bare["is_first_process"]() is True
    assert internals(is_main_process=False)["is_first_process"]() is False
    assert bare["in_bucket"]("results/a") == "results/a"
    assert bare["rules_read_from"](["report.html"]) == {}
    for name in ("snakemake.path_modifier", "snakemake.logging", "snakemake.iocontainers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert bare["of_checkout"](Path("a.py")) == ("local", "a.py")
    bare["say"]("copied")
    assert capsys.readouterr().err == "copied\n"
    assert internals(rules=[])["rules_read_from"](["report.html"]) == {}


@pytest.mark.parametrize("lacking", ["is_producer", "get_wildcards", "expand_input"])
def test_rules_that_cannot_be_asked_are_not_drawn(lacking: str) -> None:
    class Rule(SimpleNamespace):
        def is_producer(self, file: str) -> bool:
            return file == self.output

        def get_wildcards(self, file: str) -> dict[str, str]:
            return {}

        def expand_input(self, wildcards: Any) -> tuple[list[str], None]:
            return self.input, None

    rules = [
        Rule(name="write_report", output="report.html", input=["run.json"]),
        Rule(name="train_run", output="run.json", input=["data.h5"]),
    ]
    whole = {"all": ["write_report"], "train_run": [], "write_report": ["train_run"]}
    assert internals(rules=rules)["rules_read_from"](["report.html"]) == whole
    delattr(Rule, lacking)
    assert internals(rules=rules)["rules_read_from"](["report.html"]) == {}


def test_a_user_reads_the_sentence_and_no_traceback(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    file = project / "rules/internals.smk"
    file.write_text(file.read_text().replace("workflow.storage_settings", "workflow.renamed"))
    answer = snakemake(project, "--dry-run")
    told = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert "'Workflow' object has no attribute 'renamed'; it is known to work with" in told
    assert "AttributeError" not in told
    assert "Traceback" not in told

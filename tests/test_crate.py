"""ro-crate-metadata.json: read again by the library, it keeps to Workflow Run Crate 0.5."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rocrate.rocrate import ROCrate

from projects import REPOSITORY
from result_trees import DATA, make_page, run_files
from scratchbook.crate import write_crate
from scratchbook.results.paths import Results
from test_report import make_all, make_data

CONFIG = ["config/config.yaml", "config/datasets.yaml"]
WORKFLOW = {"File", "SoftwareSourceCode", "ComputationalWorkflow"}


def describe(root: Path, page: dict[str, Any]) -> Path:
    output = root / "ro-crate-metadata.json"
    write_crate(
        [page], Results(Path("results")), output, snakefile="Snakefile",
        trainer="workflow/scripts/train_run.py", config=CONFIG, report="report.html",
        licence="LICENSE",
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished project's folder with its description, and the page of its one notebook."""
    root = tmp_path_factory.mktemp("crate")
    page = make_page(title="Shapes & <b>more</b>")
    make_data(root / "results")
    make_all(root / "results", page)
    for name in ("Snakefile", "LICENSE", "workflow/scripts/train_run.py", *CONFIG):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    for experiment in page["experiments"]:
        for seed in page["seeds"]:
            run_files(root / "results", experiment["name"], seed).checkpoints.mkdir()
    (root / "results/shapes/notebook.md").write_text("# Goal\n")
    (root / "report.html").write_text("<!doctype html>")
    describe(root, page)
    return root, page


def types(entity: Any) -> set[str]:
    return {entity.type} if isinstance(entity.type, str) else set(entity.type)


def test_the_root_says_what_it_is_and_which_profiles_it_keeps_to(described) -> None:
    crate = ROCrate(described[0])
    assert crate.name == "Shapes & <b>more</b>"
    assert crate.description == "Which net tells the shapes apart?"
    assert crate.license.id == "LICENSE"
    assert str(crate.datePublished).startswith("2026-11-21")
    profiles = {entity.id for entity in crate.root_dataset["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in profiles
    metadata = json.loads((described[0] / "ro-crate-metadata.json").read_text())["@graph"]
    descriptor = next(one for one in metadata if one["@id"] == "ro-crate-metadata.json")
    assert {"@id": "https://w3id.org/ro/crate/1.1"} in descriptor["conformsTo"]
    assert descriptor["about"] == {"@id": "./"}


def test_the_main_entity_is_the_snakemake_workflow(described) -> None:
    workflow = ROCrate(described[0]).mainEntity
    assert workflow.id == "Snakefile"
    assert types(workflow) >= WORKFLOW
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    assert types(workflow["programmingLanguage"]) == {"ComputerLanguage"}
    versions = {one["name"]: one["softwareVersion"] for one in workflow["softwareRequirements"]}
    assert versions["keras"] == "3.15.1"
    assert versions["python"] == "3.11.7"


def test_every_run_is_an_action_with_its_instrument_inputs_outputs_and_times(described) -> None:
    root, page = described
    crate = ROCrate(root)
    actions = [one for one in crate.contextual_entities if "CreateAction" in types(one)]
    assert len(actions) == 1 + len(page["experiments"]) * len(page["seeds"])
    assert {one.id for one in crate.root_dataset["mentions"]} == {one.id for one in actions}
    for action in actions:
        begun, ended = (datetime.fromisoformat(action[key]) for key in ("startTime", "endTime"))
        assert begun < ended
        assert (root / action["instrument"].id).is_file()
        assert action["object"]
        assert action["result"]
    whole = next(one for one in actions if one["instrument"] is crate.mainEntity)
    assert {one.id for one in whole["object"]} == {*CONFIG, f"results/data/{DATA}.h5"}
    assert {"report.html", "results/shapes/compare.csv"} <= {one.id for one in whole["result"]}
    seeds = [one["object"][0]["value"] for one in actions if one is not whole]
    assert sorted(seeds) == sorted(page["seeds"] * len(page["experiments"]))


def test_the_data_carry_the_hash_of_their_source(described) -> None:
    data = ROCrate(described[0]).dereference(f"results/data/{DATA}.h5")
    assert data["identifier"]["propertyID"] == "sha256"
    assert data["identifier"]["value"] == "ab" * 32


def test_every_file_that_is_named_is_there_and_every_reference_leads_somewhere(described) -> None:
    root, _ = described
    graph = json.loads((root / "ro-crate-metadata.json").read_text())["@graph"]
    known = {one["@id"] for one in graph}
    parts = {one["@id"] for one in next(x for x in graph if x["@id"] == "./")["hasPart"]}
    for entity in graph:
        kinds = entity["@type"] if isinstance(entity["@type"], list) else [entity["@type"]]
        if {"File", "Dataset"} & set(kinds):
            assert (root / entity["@id"]).exists(), entity["@id"]
            assert entity["@id"] in parts | {"./"}
        for key, value in entity.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and not one["@id"].startswith(("http://", "https://")):
                    assert one["@id"] in known, (entity["@id"], key, one)


def test_the_same_files_give_the_same_crate(described) -> None:
    root, page = described
    before = (root / "ro-crate-metadata.json").read_bytes()
    assert describe(root, page).read_bytes() == before

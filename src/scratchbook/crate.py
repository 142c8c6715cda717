"""The results as a research object: pages and run records in, ro-crate-metadata.json out.

It follows Workflow Run Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5), so that archives and
search engines of research data can read who made what, from what and with what. The crate's root
is the project's folder; everything is told from the files, so the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from scratchbook.results.files import write_json
from scratchbook.results.paths import Results, RunFiles
from scratchbook.results.prepared import Prepared
from scratchbook.results.reading import read_record
from scratchbook.results.records import RunRecord
from scratchbook.specs import Page

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
BIOSCHEMAS = "https://bioschemas.org/profiles/{}/1.0-RELEASE"
FORMATS = {
    "": "text/plain",
    ".csv": "text/csv",
    ".h5": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".yaml": "application/yaml",
}


def write_crate(
    pages: Sequence[Page],
    results: Results,
    output: Path,
    *,
    snakefile: str,
    trainer: str,
    config: Sequence[str],
    report: str,
    licence: str | None = None,
) -> None:
    """Describes the finished notebooks; every path is relative to the folder of `output`.

    Args:
        pages: the notebooks' text and resolved specs.
        results: of the runs.
        output: ro-crate-metadata.json.
        snakefile: the workflow.
        trainer: the script that every run is an execution of.
        config: the configuration files.
        report: the page.
        licence: the file of the project's licence.
    """
    root = output.parent
    records = {
        run: read_record(RunFiles(root / run.folder))
        for page in pages
        for experiment in page["experiments"]
        for seed in page["seeds"]
        for run in [results.run(page["name"], experiment["name"], seed)]
    }
    crate = ROCrate(version="1.1")
    crate.name = ", ".join(page["title"] for page in pages)
    crate.description = " ".join(page["goal"] for page in pages)
    crate.datePublished = max(_ended(record) for record in records.values())
    crate.root_dataset["conformsTo"] = [
        crate.add(_thing(crate, url, "CreativeWork", name=name, version=version))
        for url, (name, version) in PROFILES.items()
    ]
    if licence:
        crate.license = _file(crate, root, licence, "The licence of the code")
    workflow = _workflow(crate, snakefile, records.values())
    settings = [_file(crate, root, path, f"Configuration: {Path(path).name}") for path in config]
    data = {
        name: _data(crate, root, results.data(name), name)
        for name in sorted({page["dataset"] for page in pages})
    }
    shown = _file(crate, root, report, "The page of all results")
    tables = [
        _file(crate, root, path, f"{page['title']}: {about}")
        for page in pages
        for made in [results.notebook(page["name"])]
        for path, about in (
            (made.page, "the lab notebook"),
            (made.compare, "one row an experiment"),
            (made.comparisons, "one row a pair of experiments"),
        )
    ]
    figures = [
        _file(
            crate,
            root,
            run.metrics,
            f"Figures of {record['experiment']}, seed {record['seed']}",
        )
        for run, record in records.items()
    ]
    _parameters(crate, workflow, settings, [*data.values()], shown)
    script = _file(crate, root, trainer, "Trains one run", kind="SoftwareSourceCode")
    actions = [_training(crate, root, run, record, script, data) for run, record in records.items()]
    whole = _thing(
        crate,
        "#workflow-run",
        "CreateAction",
        name=f"Execution of {Path(snakefile).name}",
        description="Every run trained, evaluated, compared and written down",
        instrument=workflow,
        object=[*settings, *data.values()],
        result=[shown, *tables, *figures],
        startTime=min(record["started"] for record in records.values()),
        endTime=crate.datePublished.isoformat(),
    )
    crate.root_dataset["mentions"] = [crate.add(whole), *actions]
    written = crate.metadata.generate()
    written["@graph"].sort(key=lambda entity: entity["@id"])
    write_json(output, written)


def _workflow(crate: ROCrate, snakefile: str, records: Iterable[RunRecord]) -> Entity:
    """The main entity, with every version of every package that its runs used."""
    packages: dict[str, set[str]] = {}
    for record in records:
        for name, version in {"python": record["python"], **record["packages"]}.items():
            packages.setdefault(name, set()).add(version)
    workflow = crate.add_workflow(
        dest_path=snakefile,
        main=True,
        lang="snakemake",
        lang_version=max(packages.get("snakemake", ()), default=None),
        properties={
            "name": "Scratchbook",
            "conformsTo": {"@id": BIOSCHEMAS.format("ComputationalWorkflow")},
            "encodingFormat": "text/plain",
            "license": "https://spdx.org/licenses/MIT",
        },
    )
    workflow["softwareRequirements"] = [
        _software(crate, name, version)
        for name, versions in sorted(packages.items())
        for version in sorted(versions)
    ]
    commits = sorted({commit for record in records if (commit := record["git"]["commit"])})
    if commits:
        workflow["version"] = ", ".join(commits)
    return workflow


def _software(crate: ROCrate, name: str, version: str) -> Entity:
    """A package at its version."""
    url = f"https://pypi.org/project/{name}/{version}/"
    if name == "python":
        url = f"https://docs.python.org/release/{version}/"
    return crate.add(
        _thing(crate, url, "SoftwareApplication", name=name, softwareVersion=version, url=url)
    )


def _data(crate: ROCrate, root: Path, path: Path, name: str) -> Entity:
    """A prepared data set with the hash of what it was made from."""
    prepared = Prepared(root / path)
    file = _file(crate, root, path, prepared.title)
    file["description"] = f"Prepared from {prepared.source}"
    file["identifier"] = crate.add(
        _thing(
            crate,
            f"#sha256-{name}",
            "PropertyValue",
            propertyID="sha256",
            name="sha256 of the source",
            value=prepared.sha256,
        )
    )
    return file


def _training(
    crate: ROCrate,
    root: Path,
    run: RunFiles,
    record: RunRecord,
    script: Entity,
    data: dict[str, Entity],
) -> Entity:
    """One run: its seed and data in, its files out, when and on what."""
    machine = record["hardware"]
    device = ", ".join(machine["gpus"] or [machine["cpu"]])
    name = f"{record['notebook']}/{record['experiment']}, seed {record['seed']}"
    seed = crate.add(
        _thing(crate, f"#{run.folder}:seed", "PropertyValue", name="seed", value=record["seed"])
    )
    files = [
        _file(crate, root, path, f"{about} of {name}")
        for path, about in (
            (run.record, "Record"),
            (run.history, "Learning curves"),
            (run.predictions, "Predictions"),
        )
    ]
    weights = crate.add_dataset(
        dest_path=str(run.checkpoints), properties={"name": f"Weights of {name}"}
    )
    return crate.add(
        _thing(
            crate,
            f"#{run.folder}",
            "CreateAction",
            name=f"Training of {name}",
            description=f"{record['id']} on {device}, {record['backend']}, {record['precision']}",
            instrument=script,
            object=[seed, data[record["data"]["dataset"]]],
            result=[*files, weights],
            startTime=record["started"],
            endTime=_ended(record).isoformat(),
        )
    )


def _parameters(
    crate: ROCrate, workflow: Entity, settings: list[Entity], data: list[Entity], page: Entity
) -> None:
    """What the workflow takes and gives, apart from the files of this execution."""
    named = {"config": settings, "data": data, "report": [page]}
    parameters: dict[str, Entity] = {}
    for name, examples in named.items():
        parameter = crate.add(
            _thing(
                crate,
                f"#parameter-{name}",
                "FormalParameter",
                name=name,
                additionalType="File",
                conformsTo={"@id": BIOSCHEMAS.format("FormalParameter")},
            )
        )
        parameters[name] = parameter
        for example in examples:
            example["exampleOfWork"] = parameter
    workflow["input"] = [parameters["config"], parameters["data"]]
    workflow["output"] = parameters["report"]


def _file(
    crate: ROCrate, root: Path, path: Path | str, name: str, kind: str | None = None
) -> Entity:
    """A file of the crate as an entity, with its format and size."""
    properties: dict[str, str | list[str]] = {"name": name}
    if kind:
        properties["@type"] = ["File", kind]
    if Path(path).suffix in FORMATS:
        properties["encodingFormat"] = FORMATS[Path(path).suffix]
    if (root / path).is_file():
        properties["contentSize"] = str((root / path).stat().st_size)
    return crate.add_file(dest_path=str(path), properties=properties)


def _thing(crate: ROCrate, key: str, kind: str, **properties: Any) -> Entity:
    """An entity that is no file. Entities among its properties become references."""
    thing = ContextEntity(crate, key, properties={"@type": kind})
    for name, value in properties.items():
        thing[name] = value
    return thing


def _ended(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record["started"]) + timedelta(
        seconds=round(record["wall_seconds"])
    )

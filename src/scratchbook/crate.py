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

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from scratchbook.results.errors import readable
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
    crate = _Crate(output.parent)
    records = {
        run: read_record(RunFiles(crate.root / run.folder))
        for page in pages
        for experiment in page["experiments"]
        for name in experiment["runs"].values()
        for run in [results.run(name)]
    }
    crate.name = ", ".join(page["title"] for page in pages)
    crate.description = " ".join(page["goal"] for page in pages)
    crate.datePublished = max(_ended(record) for record in records.values())
    crate.root_dataset["conformsTo"] = [
        crate.thing(url, "CreativeWork", name=name, version=version)
        for url, (name, version) in PROFILES.items()
    ]
    if licence:
        crate.license = crate.file(licence, "The licence of the code")
    workflow = _workflow(crate, snakefile, records.values())
    settings = [crate.file(path, f"Configuration: {Path(path).name}") for path in config]
    used = {
        records[run]["data"]["file"]: page
        for page in pages
        for experiment in page["experiments"]
        for run in map(results.run, experiment["runs"].values())
    }
    data = {name: _data(crate, results.data(name), used[name]) for name in sorted(used)}
    shown = crate.file(report, "The page of all results")
    tables = [
        crate.file(path, f"{page['title']}: {about}")
        for page in pages
        for made in [results.notebook(page["name"])]
        for path, about in (
            (made.page, "the lab notebook"),
            (made.compare, "one row an experiment"),
            (made.comparisons, "one row a pair of experiments"),
        )
    ]
    figures = [
        crate.file(run.metrics, f"Figures of {record['experiment']}, seed {record['seed']}")
        for run, record in records.items()
    ]
    workflow["input"] = [
        _parameter(crate, "config", settings),
        _parameter(crate, "data", data.values()),
    ]
    workflow["output"] = _parameter(crate, "report", [shown])
    script = crate.file(trainer, "Trains one run", kind="SoftwareSourceCode")
    actions = [_training(crate, run, record, script, data) for run, record in records.items()]
    whole = crate.thing(
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
    crate.root_dataset["mentions"] = [whole, *actions]
    written = crate.metadata.generate()
    written["@graph"].sort(key=lambda entity: entity["@id"])
    write_json(output, written)


class _Crate(ROCrate):  # type: ignore[misc] # the library has no types
    """The crate of the files below `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__(version="1.1")
        self.root = root

    def file(self, path: Path | str, name: str, kind: str | None = None) -> Entity:
        """A file as an entity, with its format and size."""
        properties: dict[str, str | list[str]] = {"name": name}
        if kind:
            properties["@type"] = ["File", kind]
        if Path(path).suffix in FORMATS:
            properties["encodingFormat"] = FORMATS[Path(path).suffix]
        if (self.root / path).is_file():
            properties["contentSize"] = str((self.root / path).stat().st_size)
        return self.add_file(dest_path=str(path), properties=properties)

    def thing(self, key: str, kind: str, **properties: Any) -> Entity:
        """An entity that is no file. Entities among its properties become references."""
        return self.add_jsonld({"@id": key, "@type": kind, **properties})


def _workflow(crate: _Crate, snakefile: str, records: Iterable[RunRecord]) -> Entity:
    """The main entity, with every version of every package that its runs used."""
    used = [{"python": record["python"], **record["packages"]} for record in records]
    packages = sorted({package for each in used for package in each.items()})
    workflow = crate.add_workflow(
        dest_path=snakefile,
        main=True,
        lang="snakemake",
        lang_version=max((v for name, v in packages if name == "snakemake"), default=None),
        properties={
            "name": "Scratchbook",
            "conformsTo": {"@id": BIOSCHEMAS.format("ComputationalWorkflow")},
            "encodingFormat": "text/plain",
            "license": "https://spdx.org/licenses/MIT",
        },
    )
    workflow["softwareRequirements"] = [
        _software(crate, name, version) for name, version in packages
    ]
    if commits := {commit for record in records if (commit := record["git"]["commit"])}:
        workflow["version"] = ", ".join(sorted(commits))
    return workflow


def _software(crate: _Crate, name: str, version: str) -> Entity:
    """A package at its version."""
    url = f"https://pypi.org/project/{name}/{version}/"
    if name == "python":
        url = f"https://docs.python.org/release/{version}/"
    return crate.thing(url, "SoftwareApplication", name=name, softwareVersion=version, url=url)


def _data(crate: _Crate, path: Path, page: Page) -> Entity:
    """A prepared data set with the hash of what it was made from."""
    file = crate.file(path, page["data_title"])
    prepared = readable(Prepared, crate.root / path)
    if prepared is None:  # the runs are as good where their data were cleared away
        return file
    told = [prepared.source, *([page["citation"]] if page["citation"] else [])]
    file["description"] = f"Prepared from {' — '.join(told)}"
    file["identifier"] = crate.thing(
        f"#sha256-{path.stem}", "PropertyValue",
        propertyID="sha256", name="sha256 of the source", value=prepared.sha256,
    )  # fmt: skip
    return file


def _training(
    crate: _Crate, run: RunFiles, record: RunRecord, script: Entity, data: dict[str, Entity]
) -> Entity:
    """One run: its seed and data in, its files out, when and on what."""
    machine = record["hardware"]
    device = ", ".join(machine["gpus"] or [machine["cpu"]])
    name = f"{record['notebook']}/{record['experiment']}, seed {record['seed']}"
    seed = crate.thing(f"#{run.folder}:seed", "PropertyValue", name="seed", value=record["seed"])
    weights = {"name": f"Weights of {name}"}
    return crate.thing(
        f"#{run.folder}",
        "CreateAction",
        name=f"Training of {name}",
        description=f"{record['id']} on {device}, {record['backend']}, {record['precision']}",
        instrument=script,
        object=[seed, data[record["data"]["file"]]],
        result=[
            crate.file(run.record, f"Record of {name}"),
            crate.file(run.history, f"Learning curves of {name}"),
            crate.file(run.predictions, f"Predictions of {name}"),
            crate.add_dataset(dest_path=str(run.checkpoints), properties=weights),
        ],
        startTime=record["started"],
        endTime=_ended(record).isoformat(),
    )


def _parameter(crate: _Crate, name: str, examples: Iterable[Entity]) -> Entity:
    """What the workflow takes or gives, apart from the files of this execution, its examples."""
    profile = {"@id": BIOSCHEMAS.format("FormalParameter")}
    parameter = crate.thing(
        f"#parameter-{name}", "FormalParameter",
        name=name, additionalType="File", conformsTo=profile,
    )  # fmt: skip
    for example in examples:
        example["exampleOfWork"] = parameter
    return parameter


def _ended(record: RunRecord) -> datetime:
    return datetime.fromisoformat(record["started"]) + timedelta(
        seconds=round(record["wall_seconds"])
    )

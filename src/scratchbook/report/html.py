"""The page itself: notebooks, their results and figures in, one offline report.html out."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scratchbook.figures import FIGURES, PREFIXES, Figure, Measured, Table, shown
from scratchbook.language import speaking, tr, tr_n
from scratchbook.report import wording
from scratchbook.report.architecture import (
    setting_diff,
    settings,
    shorthand,
    side_by_side,
    summary_table,
)
from scratchbook.report.grids import grids_of, rows_outside
from scratchbook.report.loading import (
    TABLE_CLASSES,
    Experiment,
    Notebook,
    Run,
    confused_pairs,
    load_notebook,
)
from scratchbook.report.markdown import baseline_pairs
from scratchbook.report.rules import Reads, draw_rules, in_order
from scratchbook.report.svg import inline
from scratchbook.results.errors import readable
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.paths import NotebookFiles, Results
from scratchbook.results.reading import read_drift
from scratchbook.results.records import Hardware, Metrics, Proportion
from scratchbook.specs import Page

LARGE = 15_000_000  # bytes that mail and browsers begin to mind


def write_page(
    pages: Sequence[Page],
    results: Results,
    templates: Path,
    output: Path,
    command: str,
    *,
    made: Results | None = None,
    config: Mapping[str, str] | None = None,
    requirements: str = "",
    rules: Reads | None = None,
) -> None:
    """Writes report.html: every notebook a chapter, one file that needs nothing beside it.

    Args:
        pages: the notebooks' text and resolved specs; the first one's `language` is the page's.
        results: of their runs.
        templates: the folder of page.html.j2, page.css and page.js.
        output: report.html.
        command: what the user types to make the page again.
        made: where their comparisons and figures are; `results` unless given.
        config: the configuration files' text by their name.
        requirements: the text of the pinned requirements.
        rules: the workflow's rules, each with those whose outputs it reads.

    Warns of a page over 15 MB.
    """
    language = pages[0]["language"] if pages else "en"
    made = made or results
    with speaking(language) as catalog:
        notebooks = [load_notebook(page, results, made) for page in pages]
        views = [_chapter(notebook, made.notebook(notebook.name)) for notebook in notebooks]
        environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        environment.policies["ext.i18n.trimmed"] = True
        environment.install_gettext_translations(  # type: ignore[attr-defined]
            catalog, newstyle=True
        )
        for name in (*wording.FORMS, "cell", "sentence", "metric_name", "split_name"):
            environment.filters[name] = getattr(wording, name)
        environment.globals["columns"] = _columns
        css = (templates / "page.css").read_text(encoding="utf-8").strip()
        script = (templates / "page.js").read_text(encoding="utf-8").strip()
        html = environment.get_template("page.html.j2").render(
            language=language,
            title=", ".join(page["title"] or page["name"] for page in pages),
            chapters=views,
            policy=_policy(css, script),
            css=Markup(css),
            script=Markup(script),
            data=Markup(embedded_json(_machine_readable(notebooks))),
            command=command,
            config=dict(config or {}),
            requirements=requirements,
            rules={rule: rules[rule] for rule in in_order(rules)} if rules else {},
            rule_graph=Markup(inline(draw_rules(rules), "page:rules")) if rules else None,
        )
    output.write_text(html, encoding="utf-8")
    if len(html) > LARGE:
        warnings.warn(
            f"{output} is {len(html) / 1e6:.0f} MB; fewer Grad-CAM images or notebooks make it "
            "lighter to open and to send",
            stacklevel=2,
        )


def embedded_json(values: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(css: str, script: str) -> str:
    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src '{digest(css)}'; script-src '{digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _columns(table: Table, *groups: str) -> list[dict[str, Any]]:
    """The figures that a table shows, each with its head in the reader's language and, `below` it,
    those without one."""
    found: list[dict[str, Any]] = []
    for figure, column in shown(table, *groups):
        told = {"name": figure.name, "form": column.form, "interval": figure.interval, "below": []}
        if column.head:
            found.append(told | {"head": tr(column.head)})
        else:
            found[-1]["below"].append(told)
    return found


def _chapter(notebook: Notebook, files: NotebookFiles) -> dict[str, Any]:
    page = notebook.page
    grids = grids_of(notebook)
    verdicts = baseline_pairs(notebook)
    told = {(pair["first"], pair["second"]) for pair in verdicts}
    return {
        "name": notebook.name,
        "title": page["title"] or notebook.name,
        "goal": page["goal"],
        "lang": page["lang"],
        "notes": page["notes"],
        "facts": _facts(notebook),
        "problems": notebook.problems,
        "cautions": wording.cautions(notebook) + _left_out(notebook),
        "claims": [{"claim": claim, "recorded": recorded} for claim, recorded in notebook.claims],
        "rows": notebook.rows,
        "tables": [(None, rows_outside(notebook)), *((grid, grid.rows) for grid in grids)],
        "grids": [(grid, _figure(files, grid.figure)) for grid in grids],
        "metric": page["metric"],
        "reach": page["reach"],
        "baseline": page["baseline"],
        "verdicts": verdicts,
        "other_verdicts": [p for p in notebook.pairs if (p["first"], p["second"]) not in told],
        "figures": {"compare": _figure(files, "compare")},
        "data": notebook.data,
        "experiments": [
            _experiment(experiment, notebook, files) for experiment in notebook.experiments
        ],
    }


def _experiment(experiment: Experiment, notebook: Notebook, files: NotebookFiles) -> dict[str, Any]:
    declared = experiment.declared
    parent = notebook.specs.get(declared["parent"] or "")
    first = experiment.runs[0].record if experiment.runs else None

    def figure(name: str) -> Markup | None:
        return _figure(files, f"{experiment.name}-{name}")

    return {
        "name": experiment.name,
        "anchor": f"{notebook.name}.{experiment.name}",
        "heading": wording.heading(experiment.name, declared["title"], "–"),
        "parent": declared["parent"],
        "notes": declared["notes"],
        "recorded": declared["recorded"],
        "missing": experiment.missing,
        "row": experiment.row,
        "id": first["id"] if first else None,
        "arch": shorthand(first["layers"]) if first else None,
        "parameters": first["parameters"] if first else None,
        "table": summary_table(first["layers"], first["parameters"]) if first else None,
        "settings": settings(declared["spec"]),
        "setting_diff": setting_diff(parent, declared["spec"]) if parent else [],
        "layer_diff": side_by_side(parent["layers"], declared["spec"]["layers"]) if parent else [],
        "runs": [_run(run) for run in experiment.runs],
        "weights": wording.weights_lines(experiment),
        "figures": {
            name: figure(name)
            for name in ("accuracy", "loss", "reliability", "mistakes", "confusion")
        },
        "attention": [
            {
                "seed": run.seed,
                "cam": cam,
                "drift": drift,
                "facts": _cam_facts(run),
                "settling": wording.settling(readable(read_drift, run.files)),
            }
            for run in experiment.runs
            for cam, drift in [(figure(f"seed{run.seed}-cam"), figure(f"seed{run.seed}-drift"))]
            if cam or drift
        ],
        "diagnoses": notebook.diagnosed.get(experiment.name, []),
        "errors": _errors(*experiment.evaluated[0]) if experiment.evaluated else None,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "record": run.record,
        "held": run.record["validation"],
        "figures": {name: _seed_figure(figure, run) for name, figure in FIGURES.items()},
    }


def _seed_figure(figure: Figure, run: Run) -> Proportion | dict[str, float | None]:
    """`value` of one seed, with its interval where there is one; a split's share under its own
    name alone, also where it stands for another (`validation: test`)."""
    if figure.interval:
        splits = run.metrics["splits"] if run.metrics else {}
        split = splits.get(PREFIXES[figure.name.partition("_")[0]])
        return split["accuracy"] if split else {"value": None}
    return {"value": figure.of(Measured(run.record, run.metrics))}


def _cam_facts(run: Run) -> dict[str, str]:
    """What cam.h5 says of itself; nothing where there is none."""
    cam = readable(read_cam, run.files)
    if cam is None:
        return {}
    return {
        "layer": cam.layer,
        "method": {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}[cam.method],
        "target": cam.target,
        "flags": ", ".join(cam.flags),
        "grid": "×".join(map(str, cam.grid)),
        "input_size": "×".join(map(str, cam.input_size)),
    }


def _errors(run: Run, metrics: Metrics) -> dict[str, Any]:
    """What the test split's mistakes are made of, for one run: tables, shades, pairs."""
    test, names = metrics["splits"]["test"], metrics["class_names"]
    small = len(names) <= TABLE_CLASSES
    return {
        "seed": run.seed,
        "epoch": metrics["epoch"],
        "test": test,
        "names": names,
        "confusion": [
            {"name": name, "cells": [(n, _shade(n, sum(row))) for n in row]}
            for name, row in zip(names, test["confusion"], strict=True)
        ] if small else None,
        "pairs": confused_pairs(test["confusion"], names),
    }  # fmt: skip


def _shade(n: int, of: int) -> int:
    """0 to 6: how dark a cell of the confusion matrix is, by its share of the true class."""
    return 0 if not n else 1 + round(5 * n / of)


def _facts(notebook: Notebook) -> list[tuple[str, str]]:
    """What the head of a chapter tells of its runs: data, when, on what, how long."""
    runs = notebook.runs
    title = notebook.data.title or notebook.page["dataset"]
    facts = []
    if runs:
        # The data set's images, of which an experiment may train on a part.
        counts: dict[str, int] = {}
        for run in runs:
            for split, n in run.record["data"]["counts"].items():
                counts[split] = max(n, counts.get(split, 0))
        images = ", ".join(
            tr("{n:,} {split}", n=n, split=wording.split_name(split))
            for split, n in counts.items()
            if n
        )
        facts.append((tr("Data set"), tr("{title} ({images} images)", title=title, images=images)))
        facts.append((tr("Run"), wording.date(min(run.record["started"] for run in runs))))
        gits = [run.record["git"] for run in runs]
        known = dict.fromkeys(git["commit"][:10] for git in gits if git["commit"])
        if known:
            commits = ", ".join(known)
            dirty = any(git["dirty"] for git in gits if git["commit"])
            told = tr("{commits}, with uncommitted changes", commits=commits) if dirty else commits
            facts.append((tr("Commit"), told))
        machines = dict.fromkeys(_machine(run.record["hardware"]) for run in runs)
        facts += [(tr("Hardware"), machine) for machine in machines]
        facts.append((tr("Computing time"), wording.duration(
            sum(run.record["wall_seconds"] for run in runs)
        )))  # fmt: skip
    else:
        facts.append((tr("Data set"), title))
    seeds = ", ".join(map(str, notebook.page["seeds"]))
    facts.append((tr("Seeds"), seeds))
    return facts


def _left_out(notebook: Notebook) -> list[str]:
    drawn, every = len(notebook.illustrated), len(notebook.experiments)
    if drawn == every:
        return []
    return [
        tr(
            "Of {every:,} experiments, only {drawn} have figures: the best and the baseline.",
            every=every,
            drawn=drawn,
        )
    ]


def _machine(hardware: Hardware) -> str:
    """`NVIDIA H200, AMD EPYC, 16 cores`"""
    parts = [*hardware["gpus"], hardware["cpu"]]
    if cores := hardware["cores"]:
        parts.append(tr_n("{n} core", "{n} cores", cores))
    return ", ".join(part for part in parts if part)


def _figure(files: NotebookFiles, name: str) -> Markup | None:
    try:
        svg = files.figure(name).read_text(encoding="utf-8")
    except OSError:
        return None
    return Markup(inline(svg, f"{files.folder.name}:{name}"))


def _machine_readable(notebooks: list[Notebook]) -> dict[str, Any]:
    """The page's figures as plain data, for whoever reads it with a program."""
    return {
        "notebooks": [
            {
                "name": notebook.name,
                "goal": notebook.page["goal"],
                "dataset": notebook.page["dataset"],
                "seeds": notebook.page["seeds"],
                "problems": notebook.problems,
                "key_results": [
                    {"text": claim.text, "status": claim.status, "recorded": recorded}
                    for claim, recorded in notebook.claims
                ],
                "diagnoses": [
                    {"code": one.code, "experiment": one.experiment, "message": one.message}
                    for one in notebook.diagnoses
                ],
                "experiments": notebook.rows,
                "comparisons": notebook.pairs,
            }
            for notebook in notebooks
        ]
    }

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
    read_cam_facts,
    read_data,
    read_drift,
)
from scratchbook.report.markdown import baseline_pairs
from scratchbook.report.rules import Reads, draw_rules, in_order
from scratchbook.report.svg import inline

LARGE = 15_000_000  # bytes that mail and browsers begin to mind


def write_page(
    pages: Sequence[dict[str, Any]],
    results: Path,
    templates: Path,
    output: Path,
    command: str,
    *,
    chapters: Path | None = None,
    tables: Path | None = None,
    config: Mapping[str, str] | None = None,
    requirements: str = "",
    rules: Reads | None = None,
) -> None:
    """Writes report.html: every notebook a chapter, one file that needs nothing beside it.

    Args:
        pages: the notebooks' text and resolved specs; the first one's `language` is the page's.
        results: the folder that holds {notebook}/ and data/.
        templates: the folder of page.html.j2, page.css and page.js.
        output: report.html.
        command: what the user types to make the page again.
        chapters: where `write_chapter` wrote {notebook}/figures; `results` unless given.
        tables: the folder of {notebook}/compare.csv; `results` unless given.
        config: the configuration files' text by their name.
        requirements: the text of the pinned requirements.
        rules: the workflow's rules, each with those whose outputs it reads.

    Warns of a page over 15 MB.
    """
    language = str(pages[0].get("language", "en")) if pages else "en"
    with speaking(language) as catalog:
        notebooks = [load_notebook(page, results, tables) for page in pages]
        views = [_chapter(notebook, results, Path(chapters or results)) for notebook in notebooks]
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
        for name in (
            "percent", "points", "count", "duration", "operations", "sentence", "metric_name",
            "split_name",
        ):  # fmt: skip
            environment.filters[name] = getattr(wording, name)
        css = (Path(templates) / "page.css").read_text(encoding="utf-8").strip()
        script = (Path(templates) / "page.js").read_text(encoding="utf-8").strip()
        html = environment.get_template("page.html.j2").render(
            language=language,
            title=", ".join(str(page["title"] or page["name"]) for page in pages),
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
    Path(output).write_text(html, encoding="utf-8")
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


def _chapter(notebook: Notebook, results: Path, chapters: Path) -> dict[str, Any]:
    page = notebook.page
    folder = chapters / notebook.name / "figures"
    data = read_data(Path(results) / "data" / f"{page['dataset']}.h5")
    grids = grids_of(notebook)
    verdicts = baseline_pairs(notebook)
    shown = {(pair["first"], pair["second"]) for pair in verdicts}
    return {
        "name": notebook.name,
        "title": page["title"] or notebook.name,
        "goal": page["goal"],
        "lang": page.get("lang", "en"),
        "notes": page.get("notes", []),
        "facts": _facts(notebook, data),
        "problems": notebook.problems,
        "cautions": wording.cautions(notebook) + _left_out(notebook),
        "claims": [{"claim": claim, "recorded": recorded} for claim, recorded in notebook.claims],
        "rows": notebook.rows,
        "tables": [(None, rows_outside(notebook)), *((grid, grid.rows) for grid in grids)],
        "grids": [(grid, _figure(folder, grid.figure, notebook.name)) for grid in grids],
        "metric": page["metric"],
        "reach": page.get("reach"),
        "baseline": page.get("baseline"),
        "verdicts": verdicts,
        "other_verdicts": [p for p in notebook.pairs if (p["first"], p["second"]) not in shown],
        "figures": {"compare": _figure(folder, "compare", notebook.name)},
        "data": data,
        "experiments": [
            _experiment(experiment, notebook, folder) for experiment in notebook.experiments
        ],
    }


def _experiment(experiment: Experiment, notebook: Notebook, folder: Path) -> dict[str, Any]:
    declared = experiment.declared
    parent = notebook.specs.get(declared.get("parent") or "")
    first = experiment.runs[0] if experiment.runs else None
    evaluated = [run for run in experiment.runs if run.metrics and "test" in run.metrics["splits"]]

    def figure(name: str) -> Markup | None:
        return _figure(folder, f"{experiment.name}-{name}", notebook.name)

    return {
        "name": experiment.name,
        "anchor": f"{notebook.name}.{experiment.name}",
        "heading": wording.heading(declared, "–"),
        "parent": declared.get("parent"),
        "notes": declared.get("notes", []),
        "recorded": {k: v for k, v in (declared.get("recorded") or {}).items() if v is not None},
        "missing": experiment.missing,
        "row": experiment.row,
        "id": first.record["id"] if first else None,
        "arch": shorthand(first.record["layers"]) if first else None,
        "parameters": first.record["parameters"] if first else None,
        "table": summary_table(first.record["layers"], first.record["parameters"])
        if first else None,
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
            seen for run in experiment.runs
            if (seen := {
                "seed": run.seed,
                "cam": figure(f"seed{run.seed}-cam"),
                "drift": figure(f"seed{run.seed}-drift"),
                "facts": read_cam_facts(run),
                "settling": wording.settling(read_drift(run)),
            }) and (seen["cam"] or seen["drift"])
        ],
        "diagnoses": notebook.diagnosed.get(experiment.name, []),
        "errors": _errors(evaluated[0]) if evaluated else None,
    }  # fmt: skip


def _run(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "record": run.record,
        "metrics": run.metrics,
        "held": run.record["validation"],
    }


def _errors(run: Run) -> dict[str, Any]:
    """What the test split's mistakes are made of, for one run: tables, shades, pairs."""
    assert run.metrics is not None
    test = run.metrics["splits"]["test"]
    names = run.metrics["class_names"]
    small = len(names) <= TABLE_CLASSES
    return {
        "seed": run.seed,
        "epoch": run.metrics["epoch"],
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


def _facts(notebook: Notebook, data: dict[str, Any]) -> list[tuple[str, str]]:
    """What the head of a chapter tells of its runs: data, when, on what, how long."""
    runs = notebook.runs
    title = str(data.get("title") or notebook.page["dataset"])
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
        gits = [git for run in runs if (git := run.record.get("git") or {}).get("commit")]
        if gits:
            commits = ", ".join(dict.fromkeys(git["commit"][:10] for git in gits))
            dirty = any(git.get("dirty") for git in gits)
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


def _machine(hardware: dict[str, Any]) -> str:
    """`NVIDIA H200, AMD EPYC, 16 cores`"""
    parts = [*hardware.get("gpus", []), str(hardware.get("cpu", ""))]
    if cores := hardware.get("cores"):
        parts.append(tr_n("{n} core", "{n} cores", cores))
    return ", ".join(part for part in parts if part)


def _figure(folder: Path, name: str, prefix: str) -> Markup | None:
    try:
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    except OSError:
        return None
    return Markup(inline(svg, f"{prefix}:{name}"))


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

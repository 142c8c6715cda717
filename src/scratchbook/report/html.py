"""The page itself: notebooks, their results and figures in, one offline report.html out."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scratchbook.figures import FIGURES, PREFIXES, Group, Measured, Table, shown
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
from scratchbook.report.loading import TABLE_CLASSES, Notebook, Run, confused_pairs, load_notebook
from scratchbook.report.rules import Reads, draw_rules, in_order
from scratchbook.report.svg import inline
from scratchbook.results.errors import readable
from scratchbook.results.files import write_text
from scratchbook.results.hdf5 import read_cam
from scratchbook.results.paths import Results
from scratchbook.results.reading import read_drift
from scratchbook.results.records import SPLITS, CamMaps, Hardware, Proportion
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
        environment.filters |= wording.FORMS | {
            told.__name__: told for told in (wording.cell, wording.sentence, wording.metric_name)
        }
        environment.globals |= {told.__name__.lstrip("_"): told for told in ASKED}
        environment.globals |= {"drawing": partial(_drawing, made), "table_classes": TABLE_CLASSES}
        css = (templates / "page.css").read_text(encoding="utf-8").strip()
        script = (templates / "page.js").read_text(encoding="utf-8").strip()
        html = environment.get_template("page.html.j2").render(
            language=language,
            title=", ".join(notebook.title for notebook in notebooks),
            notebooks=notebooks,
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
    write_text(output, html)
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


def _columns(table: Table, *groups: Group) -> list[dict[str, Any]]:
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


def _seed_figure(run: Run, name: str) -> Proportion | dict[str, float | None]:
    """`value` of one seed, with its interval where there is one; a split's share under its own
    name alone, also where it stands for another (`validation: test`)."""
    figure = FIGURES[name]
    if figure.proportion is None:
        return {"value": figure.of(Measured(run.record, run.metrics))}
    splits = run.metrics["splits"] if run.metrics else {}
    split = splits.get(PREFIXES[name.partition("_")[0]])
    return figure.proportion(split) if split else {"value": None}


def _shade(n: int, of: int) -> int:
    """0 to 6: how dark a cell of the confusion matrix is, by its share of the true class."""
    return 0 if not n else 1 + round(5 * n / of)


def _facts(notebook: Notebook) -> list[tuple[str, str]]:
    """What the head of a chapter tells of its runs: data, when, on what, how long."""
    runs = notebook.runs
    title = notebook.page["data_title"]
    facts = []
    if runs:
        # The data set's images, of which an experiment may train on a part.
        used = [run.record["data"]["counts"] for run in runs]
        counts = {split: max(each[split] for each in used) for split in SPLITS}
        told = (tr("{n:,} {split}", n=n, split=tr(split)) for split, n in counts.items() if n)
        images = ", ".join(told)
        facts.append((tr("Data set"), tr("{title} ({images} images)", title=title, images=images)))
        facts.append((tr("Run"), wording.date(min(run.record["started"] for run in runs))))
        gits = [run.record["git"] for run in runs]
        known = dict.fromkeys(git["commit"][:10] for git in gits if git["commit"])
        if known:
            commits = ", ".join(known)
            if any(git["dirty"] for git in gits if git["commit"]):
                commits = tr("{commits}, with uncommitted changes", commits=commits)
            facts.append((tr("Commit"), commits))
        machines = dict.fromkeys(_machine(run.record["hardware"]) for run in runs)
        facts += [(tr("Hardware"), machine) for machine in machines]
        seconds = sum(run.record["wall_seconds"] for run in runs)
        facts.append((tr("Computing time"), wording.duration(seconds)))
    else:
        facts.append((tr("Data set"), title))
    return [*facts, (tr("Seeds"), ", ".join(map(str, notebook.page["seeds"])))]


def _left_out(notebook: Notebook) -> list[str]:
    drawn, every = len(notebook.illustrated), len(notebook.experiments)
    return [] if drawn == every else [tr(
        "Of {every:,} experiments, only {drawn} have figures: the best and the baseline.",
        every=every, drawn=drawn,
    )]  # fmt: skip


def _machine(hardware: Hardware) -> str:
    """`NVIDIA H200, AMD EPYC, 16 cores`"""
    parts = [*hardware["gpus"], hardware["cpu"]]
    if cores := hardware["cores"]:
        parts.append(tr_n("{n} core", "{n} cores", cores))
    return ", ".join(part for part in parts if part)


def _drawing(made: Results, notebook: Notebook, name: str) -> Markup | None:
    """A notebook's drawing, to stand in the page; None where it is not there."""
    try:
        svg = made.notebook(notebook.name).figure(name).read_text(encoding="utf-8")
    except OSError:
        return None
    return Markup(inline(svg, f"{notebook.name}:{name}"))


def _maps_of(run: Run) -> CamMaps | None:
    return readable(read_cam, run.maps) if run.maps else None


def _settling(run: Run) -> str:
    return wording.settling(readable(read_drift, run.drift))


ASKED = (  # by the templates, for what no notebook holds
    _columns, _facts, _left_out, _maps_of, _seed_figure, _settling, _shade, confused_pairs,
    grids_of, rows_outside, setting_diff, settings, shorthand, side_by_side, summary_table,
    wording.cautions, wording.heading, wording.weights_lines,
)  # fmt: skip


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
                "remarks": notebook.remarks,
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

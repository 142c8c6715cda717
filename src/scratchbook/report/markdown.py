"""A notebook as the lab notebook it came from: `# Goal:`, key results, then every train N."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from scratchbook.comparison import Claim
from scratchbook.comparison.tables import Row
from scratchbook.figures import shown
from scratchbook.language import tr
from scratchbook.report.architecture import (
    setting_diff,
    settings,
    shorthand,
    side_by_side,
    summary_table,
)
from scratchbook.report.grids import Grid, grids_of, rows_outside
from scratchbook.report.loading import Experiment, Notebook
from scratchbook.report.svg import plain
from scratchbook.report.wording import best_figures, cautions, heading, weights_lines
from scratchbook.specs import Spec

MARKUP = re.compile(r"([\\`*\[\]<>&~|{}$])")  # characters that mean something in the middle of text
OPENING = re.compile(r"^(\s*)([#>+=:-]|\d+(?=[.)]))")  # ... and at the beginning of a line


def notebook_markdown(notebook: Notebook, drawn: dict[str, str]) -> str:
    """notebook.md, in the form of the seeds, valid CommonMark (tables are GitHub's extension).

    Args:
        notebook: as loaded.
        drawn: SVG text of each figure in `figures/` beside the file, by name.
    """
    page = notebook.page
    blocks = ["# " + tr("Goal") + f": {_line(page['goal'])}"]
    incomplete, mind = tr("Incomplete."), tr("Mind:")
    told = [f"**{incomplete}** {_line(text)}" for text in notebook.problems]
    told += [f"**{mind}** {_line(text)}" for text in cautions(notebook)]
    blocks += [_quote(told), _quote([escape(text) for text in page["notes"]])]
    if notebook.claims:
        told = [_claim(claim) for claim, _ in notebook.claims]
        blocks += ["## " + tr("Key results"), _quote(told)]
    if notebook.rows:
        outside = rows_outside(notebook)
        blocks += ["## " + tr("Compare"), _compare_table(outside) if outside else ""]
        blocks += _figure(drawn, "compare")
        verdicts = [tr("{second} against {first}: {verdict}", **p) for p in notebook.baseline_pairs]
        blocks.append("\n".join(f"- {_line(text)}" for text in verdicts))
        for grid in grids_of(notebook):
            blocks += _grid(grid, drawn)
    for experiment in notebook.experiments:
        blocks += _experiment(experiment, notebook, drawn)
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    """User's text as CommonMark that shows it as written, line by line."""
    lines = []
    for line in plain(text).split("\n"):
        # An underscore inside a word is no markup: val_accuracy stays readable.
        line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", MARKUP.sub(r"\\\1", line.strip()))
        # What stands after the backslash must be punctuation: `1\.`, not `\1.`.
        if opening := OPENING.match(line):
            mark = opening.group(2)
            line = line[len(mark) :] if mark.isdigit() else line
            line = f"{mark}\\{line}" if mark.isdigit() else f"\\{line}"
        lines.append(line)
    return "\n".join(lines)


def _line(text: str) -> str:
    """Escaped, on one line; spaces that are not plain ones stay as they are."""
    return escape(re.sub(r"[ \n]+", " ", plain(text)))


def _claim(claim: Claim) -> str:
    note = claim.message or ("" if claim.status in ("measured", "words") else tr(claim.status))
    return escape(claim.text) + (f" *({_line(note)})*" if note else "")


def _quote(paragraphs: list[str]) -> str:
    """One block quote of Markdown paragraphs; nothing for none."""
    lines = "\n\n".join(paragraphs).split("\n") if paragraphs else []
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _code(text: str) -> str:
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def _experiment(experiment: Experiment, notebook: Notebook, drawn: dict[str, str]) -> list[str]:
    declared, name = experiment.declared, experiment.name
    incomplete, mind = tr("Incomplete."), tr("Mind:")
    blocks = [f"## {escape(heading(name, declared['title']))}"]
    told = [f"**{incomplete}** {_line(text)}" for text in experiment.missing]
    told += [f"**{mind}** {_line(text)}" for text in experiment.remarks]
    blocks.append(_quote(told))
    if (first := experiment.record) is None:
        blocks.append("" if experiment.remarks else tr("No run of this experiment is here yet."))
    else:
        blocks.append(f"### id: {_code(first['id'])}")
        blocks.append(f"## arch: {escape(shorthand(first['layers']))}")
        blocks.append(_fenced(summary_table(first["layers"], first["parameters"])))
    parent = declared["parent"]
    if parent in notebook.specs:
        blocks.append(tr("### changed against {parent}", parent=_line(parent)))
        blocks.append(_changes(notebook.specs[parent], declared["spec"]) or tr("nothing"))
    blocks += ["### " + tr("hyper-parameters"), "\n".join(
        f"- {key}: {_code(value)}" for key, value in settings(declared["spec"]).items()
    )]  # fmt: skip
    said = [_line(text) for text in best_figures(experiment)]
    said += [escape(text) for text in declared["notes"]]
    said += [
        _line(f"{one.code}: {one.message} {one.advice}") for one in notebook.diagnosed.get(name, [])
    ]
    said += [tr("weights: {file}", file=_code(text)) for text in weights_lines(experiment)]
    if said:
        blocks += ["### " + tr("results"), _quote(said)]
    for figure in ("accuracy", "loss"):
        blocks += _figure(drawn, f"{name}-{figure}")
    cams = [f"seed{run.seed}-{key}" for run in experiment.runs for key in ("cam", "drift")]
    if any(f"{name}-{key}" in drawn for key in cams):
        blocks.append("### " + tr("Grad-CAM through the epochs"))
        for key in cams:
            blocks += _figure(drawn, f"{name}-{key}")
    if any(f"{name}-{key}" in drawn for key in ("reliability", "mistakes", "confusion")):
        blocks.append("### " + tr("errors"))
        for key in ("confusion", "reliability", "mistakes"):
            blocks += _figure(drawn, f"{name}-{key}")
    return blocks


def _changes(before: Spec, after: Spec) -> str:
    lines = [
        f"- {key}: {_code(old)} → {_code(new)}" for key, old, new in setting_diff(before, after)
    ]
    rows = side_by_side(before["layers"], after["layers"])
    if any(sign != "=" for sign, _, _ in rows):
        diff = []
        for sign, old, new in rows:
            if sign == "=":
                diff.append(f"  {new}")
            else:
                diff += [f"- {old}"] if old else []
                diff += [f"+ {new}"] if new else []
        lines.append("\n" + _fenced("\n".join(diff), "diff"))
    return "\n".join(lines).strip("\n")


def _figure(drawn: dict[str, str], name: str) -> list[str]:
    if name not in drawn:
        return []
    alt = ElementTree.fromstring(drawn[name]).get("aria-label", name)
    return [f"![{_line(alt)}](figures/{name}.svg)"]


def _grid(grid: Grid, drawn: dict[str, str]) -> list[str]:
    return [
        f"### {escape(heading(grid.name, grid.title))}",
        tr("{keys} over {n} experiments", keys=_line(", ".join(grid.paths)), n=len(grid.points)),
        _quote([escape(text) for text in grid.notes]),
        _compare_table(grid.rows) if grid.rows else "",
        *_figure(drawn, grid.figure),
    ]


def _compare_table(rows: list[Row]) -> str:
    columns = shown("notebook")
    head = [tr("experiment"), *(tr(column.head) for _, column in columns), tr("recorded")]
    lines = [_table_row(head), _table_row(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        cells = [_line(row["experiment"])]
        for figure, column in columns:
            text = _number(row[figure.name], column.form)
            low, high = row.get(f"{figure.name}_low"), row.get(f"{figure.name}_high")
            if text and low is not None and high is not None:
                text += f" \\[{low:.3f}, {high:.3f}\\]"
            cells.append(text)
        lines.append(_table_row([*cells, _number(row["recorded"], "g")]))
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(float(value), form)


def _table_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

"""Write a comparison as CSV, Markdown and LaTeX; every file whole or not at all."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from scratchbook.comparison.tables import Comparison
from scratchbook.figures import FIGURES, shown
from scratchbook.results.files import write_text
from scratchbook.results.paths import NotebookFiles
from scratchbook.results.records import RunRow

SHOWN = {
    "experiment": "experiment",
    "changes": "what changed",
    "point": "grid",
    **{figure.name: column.head for figure, column in shown("export", "size")},
    "seeds": "seeds",
    **{f.name: column.head for f, column in shown("export", "course", "accuracy", "gap", "loss")},
    "baseline_difference": "against baseline",
    "recorded": "recorded",
    **{figure.name: column.head for figure, column in shown("export", "cost", "more")},
    "status": "status",
}
LATEX = str.maketrans({  # its own characters, escaped
    "\\": r"\textbackslash{}", "→": r"$\rightarrow$", "×": r"$\times$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", **{c: f"\\{c}" for c in "&%$#_{}"},
})  # fmt: skip
WORDS = {"experiment", "what changed", "grid", "status"}  # the columns that hold no number


def write_comparison(comparison: Comparison, files: NotebookFiles) -> None:
    """compare.csv, comparisons.csv, compare.md, compare.tex and runs.csv of a notebook."""
    write_text(files.compare, comparison.rows.to_csv(index=False, lineterminator="\n"))
    write_text(files.comparisons, comparison.pairs.to_csv(index=False, lineterminator="\n"))
    runs = pd.DataFrame(comparison.runs, columns=list(RunRow.__annotations__))
    write_text(files.runs, runs.to_csv(index=False, lineterminator="\n"))
    write_text(files.compare_markdown, markdown(comparison))
    write_text(files.compare_latex, latex(comparison))


def markdown(comparison: Comparison) -> str:
    """The rows as a Markdown table, accuracies in percent with their intervals."""
    cells = _cells(comparison, minus="−").map(lambda text: text.replace("|", "\\|"))
    return cells.to_markdown(index=False, disable_numparse=True) + "\n"


def latex(comparison: Comparison) -> str:
    """The rows as a LaTeX `tabular` (needs the booktabs package)."""
    cells = _cells(comparison, minus="-").map(lambda text: text.translate(LATEX))
    columns = "".join("l" if name in WORDS else "r" for name in cells.columns)
    cells.columns = [name.translate(LATEX) for name in cells.columns]
    return cells.to_latex(index=False, column_format=columns)


def _cells(comparison: Comparison, minus: str) -> pd.DataFrame:
    """Every cell as the text that is shown; the status only where a run is missing."""
    rows = comparison.rows.to_dict("records")
    table = pd.DataFrame(
        [{SHOWN[name]: _cell(row, name).replace("−", minus) for name in SHOWN} for row in rows],
        columns=list(SHOWN.values()),
        dtype=object,
    )
    if (comparison.rows["status"] == "complete").all():
        table = table.drop(columns="status")
    return table.loc[:, [name == "experiment" or (table[name] != "").any() for name in table]]


def _cell(row: dict[Hashable, Any], name: str) -> str:
    value = row[name]
    if pd.isna(value):
        return ""
    if name == "baseline_difference":
        ends = [100 * row[f"{name}{part}"] for part in ("", "_low", "_high")]
        value, low, high = (f"{end:+.1f}".replace("-", "−") for end in ends)
        return f"{value} [{low}, {high}]"
    if name in FIGURES and (column := FIGURES[name].column("export")):
        ends = [row[f"{name}_{end}"] for end in ("low", "high")] if FIGURES[name].interval else []
        told, *interval = [format(number, column.form) for number in (value, *ends)]
        return f"{told} [{', '.join(interval)}]" if interval else told
    if name == "experiment":
        return f"{value} (tie)" if row["tie"] else str(value)
    return str(value)

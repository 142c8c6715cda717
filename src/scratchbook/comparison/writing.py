"""Write a comparison as CSV, Markdown and LaTeX; every file whole or not at all."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from scratchbook.comparison.tables import MEASURED, Comparison
from scratchbook.files import write_text

SHOWN = {
    "experiment": "experiment",
    "changes": "what changed",
    "point": "grid",
    "parameters": "parameters",
    "seeds": "seeds",
    "best_epoch": "best epoch",
    "train_accuracy": "train",
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "baseline_difference": "against baseline",
    "recorded": "recorded",
    "seconds": "seconds",
    "reached_epoch": "reached in epoch",
    "reached_flops": "reached after FLOP",
    "status": "status",
}


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """compare.csv, comparisons.csv, compare.md and compare.tex in `folder`; returns their paths."""
    texts = {
        "compare.csv": comparison.rows.to_csv(index=False, lineterminator="\n"),
        "comparisons.csv": comparison.pairs.to_csv(index=False, lineterminator="\n"),
        "compare.md": markdown(comparison),
        "compare.tex": latex(comparison),
    }
    for name, text in texts.items():
        write_text(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def markdown(comparison: Comparison) -> str:
    """The rows as a Markdown table, accuracies in percent with their intervals."""
    cells = _cells(comparison, minus="−").map(lambda text: text.replace("|", "\\|"))
    return cells.to_markdown(index=False, disable_numparse=True) + "\n"


def latex(comparison: Comparison) -> str:
    """The rows as a LaTeX `tabular` (needs the booktabs package)."""
    cells = _cells(comparison, minus="-").map(_latex_text)
    cells.columns = [_latex_text(name) for name in cells.columns]
    columns = "".join("r" if _is_number(name) else "l" for name in cells.columns)
    body = [" & ".join(cells.columns), *(" & ".join(row) for row in cells.to_numpy())]
    head, *rows = [f"{line} \\\\" for line in body]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            head,
            "\\midrule",
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def _is_number(column: str) -> bool:
    return column not in ("experiment", "what changed", "grid", "status")


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
    if name in MEASURED:
        return f"{value:.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]"
    if name == "baseline_difference":
        ends = [100 * row[f"{name}{part}"] for part in ("", "_low", "_high")]
        value, low, high = (f"{end:+.1f}".replace("-", "−") for end in ends)
        return f"{value} [{low}, {high}]"
    if name in ("parameters", "best_epoch", "seconds"):
        return f"{value:,.0f}"
    if name == "reached_epoch":
        return f"{value:.3g}"
    if name == "reached_flops":
        return f"{value:.2g}"
    if name == "experiment":
        return f"{value} (tie)" if row["tie"] else str(value)
    return str(value)


def _latex_text(text: str) -> str:
    """`text` with LaTeX's own characters escaped."""
    escapes = {
        "\\": r"\textbackslash{}",
        "→": r"$\rightarrow$",
        "×": r"$\times$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{c: f"\\{c}" for c in "&%$#_{}"},
    }
    return "".join(escapes.get(c, c) for c in text)

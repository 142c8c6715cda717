"""The page and its records of a project that the real Snakemake has finished."""

from __future__ import annotations

import re
from pathlib import Path

from projects import snakemake


def test_the_page_draws_the_rule_graph_that_snakemake_tells(finished: Path) -> None:
    dot = snakemake(finished, "--rulegraph", "dot").stdout
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)", dot, re.MULTILINE)
    told = {(names[source], names[target]) for source, target in edges}
    page = (finished / "report.html").read_text(encoding="utf-8")
    drawn = re.search(r'aria-label="Graph of (\d+) rules: ([^"]*)"', page)
    shown = {
        (source, target)
        for each in drawn[2].split("; ")
        for target, _, sources in [each.partition(" reads ")]
        for source in sources.split(", ")
    }
    assert int(drawn[1]) == len(names)
    assert shown == told

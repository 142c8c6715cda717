"""The workflow's rule graph: the rules that each rule reads in, a small SVG drawing out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from scratchbook.language import tr
from scratchbook.report.svg import INK, add, finish_svg, new_svg

BOX = (154, 34)  # pixels a rule takes
GAP = (18, 30)  # between neighbours, and between rows
MARGIN = 4

Reads = Mapping[str, Sequence[str]]


def draw_rules(reads: Reads) -> str:
    """Boxes in rows, every rule below all that it reads; arrows follow the data downwards.

    An arrow that others imply (a → c beside a → b → c) is left out. The same graph gives the same
    bytes, in whatever order it is told.

    Args:
        reads: each rule with the rules whose outputs it reads; every rule is a key. No cycles.
    """
    rows = _rows(reads)
    widest = max(len(row) for row in rows)
    width = widest * (BOX[0] + GAP[0]) - GAP[0] + 2 * MARGIN
    height = len(rows) * (BOX[1] + GAP[1]) - GAP[1] + 2 * MARGIN
    root = new_svg(width, height, font_size=13)
    places: dict[str, tuple[float, float]] = {}  # the middle of each box's upper side
    for level, row in enumerate(rows):
        left = (width - len(row) * (BOX[0] + GAP[0]) + GAP[0]) / 2
        for at, rule in enumerate(row):
            places[rule] = (left + at * (BOX[0] + GAP[0]) + BOX[0] / 2,
                            MARGIN + level * (BOX[1] + GAP[1]))  # fmt: skip
    for source, target in drawn_arrows(reads):
        _arrow(root, places[source], places[target])
    for rule, (x, y) in sorted(places.items()):
        add(root, "rect", x=f"{x - BOX[0] / 2:g}", y=f"{y:g}", rx=4, width=BOX[0], height=BOX[1],
            fill="none", stroke=INK, stroke_opacity=0.55)  # fmt: skip
        below = f"{y + BOX[1] / 2 + 4.5:g}"
        add(root, "text", x=f"{x:g}", y=below, text_anchor="middle", fill=INK).text = rule
    said = [
        tr("{rule} reads {inputs}", rule=rule, inputs=", ".join(reads[rule]))
        for row in rows for rule in row if reads[rule]
    ]  # fmt: skip
    alt = tr("Graph of {count} rules: {rules}", count=len(reads), rules="; ".join(said))
    return finish_svg(root, alt)


def drawn_arrows(reads: Reads) -> list[tuple[str, str]]:
    """(source, target) without those that a longer way through the graph implies, sorted."""
    before = {rule: _before(rule, reads) for rule in reads}
    return sorted(
        (source, target)
        for target, sources in reads.items()
        for source in set(sources)
        if not any(source in before[other] for other in sources)
    )


def in_order(reads: Reads) -> list[str]:
    """Every rule after all that it reads."""
    return [rule for row in _rows(reads) for rule in row]


def _rows(reads: Reads) -> list[list[str]]:
    """Rules by the longest way that leads to them; in a row, below those that they read."""
    depth: dict[str, int] = {}

    def deep(rule: str) -> int:
        if rule not in depth:
            depth[rule] = 1 + max((deep(needed) for needed in reads[rule]), default=-1)
        return depth[rule]

    rows: list[list[str]] = [[] for _ in range(1 + max(map(deep, reads)))]
    for rule in sorted(reads):
        rows[depth[rule]].append(rule)
    place: dict[str, float] = {}
    for row in rows:
        middle = {
            rule: sum(place[needed] for needed in reads[rule]) / max(len(reads[rule]), 1)
            for rule in row
        }
        row.sort(key=lambda rule: (middle[rule], rule))
        place |= {rule: x - (len(row) - 1) / 2 for x, rule in enumerate(row)}
    return rows


def _before(rule: str, reads: Reads) -> set[str]:
    """All rules that a rule needs, directly or not."""
    return set(reads[rule]).union(*(_before(needed, reads) for needed in reads[rule]))


def _arrow(
    root: ElementTree.Element, source: tuple[float, float], target: tuple[float, float]
) -> None:
    (x, top), (end, y) = source, target
    y -= 1.5
    start = top + BOX[1]
    bend = (y - start) / 2
    line = f"M{x:g} {start:g}C{x:g} {start + bend:g} {end:g} {y - bend:g} {end:g} {y - 5:g}"
    add(root, "path", d=line, fill="none", stroke=INK, stroke_opacity=0.55)
    add(root, "path", d=f"M{end - 4:g} {y - 7:g}h8l-4 7z", fill=INK, fill_opacity=0.7)

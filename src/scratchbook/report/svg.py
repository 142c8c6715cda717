"""What a chapter's drawings share: colours, and an SVG tree as text that can stand anywhere.

A figure carries its own alternative text (`aria-label`), takes the colour of the text around it,
and holds neither style sheets nor scripts, so that it can stand in a page with a strict Content
Security Policy as well as alone beside notebook.md.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
INK = "#010203"  # stands for the colour of the text around the figure
ACCENT = "#3f7fd0"  # at least 3:1 on white paper and on black
FORBIDDEN = re.compile("[^\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0, 2.2
ALONE = """svg { color: #26241f; font-family: sans-serif }
@media (prefers-color-scheme: dark) { svg { color: #dcd8cf } }"""


def new_svg(width: float, height: float, font_size: int) -> ElementTree.Element:
    """An empty drawing; pixels."""
    root = ElementTree.Element(f"{{{SVG}}}svg", width=str(width), height=str(height),
                               viewBox=f"0 0 {width} {height}")  # fmt: skip
    root.set("font-size", str(font_size))
    return root


def add(parent: ElementTree.Element, tag: str, **attributes: object) -> ElementTree.Element:
    """A new element in `parent`; what is `stroke_width` or `class_` here is `stroke-width` and
    `class` there."""
    named = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, f"{{{SVG}}}{tag}", named)


def finish_svg(root: ElementTree.Element, alt: str, scale: float = 1) -> str:
    """Serialises an SVG tree as the module promises."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    for parent in list(root.iter()):
        for child in list(parent):
            kind = child.tag.rpartition("}")[2]
            if kind in ("metadata", "style") or child.get("id") == "patch_1":
                parent.remove(child)
    for element in root.iter():
        for key, value in _declarations(element.attrib.pop("style", "")):
            element.set(key, value)
        for key in ("fill", "stroke"):
            if element.get(key) == INK:
                element.set(key, "currentColor")
        if f"{{{XLINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{XLINK}}}href").replace("\n", ""))
    _lighten(root)
    for side in ("width", "height"):  # matplotlib's points, as the pixels of a page
        root.set(side, f"{float(str(root.get(side)).removesuffix('pt')) * scale:.5g}")
    root.set("role", "img")
    root.set("aria-label", plain(alt).replace("\n", " "))
    root.set("stroke-linejoin", "round")
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = ALONE
    root.insert(0, style)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def plain(text: str) -> str:
    """The text without the characters that XML forbids; a tab is a space, a line ends in \\n."""
    return FORBIDDEN.sub("", re.sub("\r\n?", "\n", text.replace("\t", " ")))


def inline(svg: str, prefix: str) -> str:
    """A figure's SVG for a page: no style sheet or XML head, and ids that begin with `prefix`."""
    text = re.sub(r"<style>.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', text)
    return re.sub(r'(href="|url\()#', rf"\1#{prefix}-", text)


def _lighten(root: ElementTree.Element) -> None:
    """Leaves out what draws nothing: ids that none refers to, groups that say nothing, spaces, and
    digits beyond a hundredth of a point. A page holds hundreds of figures."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {name for value in values for name in re.findall(r"^#(.+)|url\(#([^)]+)\)", value)}
    names = {name for pair in used for name in pair}
    for element in root.iter():
        if element.get("id") not in names:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        for key in {"d", "x", "y"} & element.attrib.keys():
            short = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", element.attrib[key])
            element.set(key, " ".join(short.split()))
        element.text, element.tail = (
            text if text and text.strip() else None for text in (element.text, element.tail)
        )
    _unwrap(root)


def _unwrap(parent: ElementTree.Element) -> None:
    children: list[ElementTree.Element] = []
    for child in parent:
        _unwrap(child)
        bare = child.tag == f"{{{SVG}}}g" and not child.attrib
        empty = child.tag == f"{{{SVG}}}defs" and not len(child)
        if bare:
            children += child
        elif not empty:
            children.append(child)
    parent[:] = children


def _declarations(style: str) -> list[tuple[str, str]]:
    """CSS declarations as presentation attributes, which a strict policy lets pass."""
    found = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = re.search(r"([\d.]+)px", value)
            found += [("font-size", size.group(1))] if size else []
        elif key == "font-size":
            found.append((key, value.removesuffix("px")))
        elif key == "image-rendering":
            found.append((key, "pixelated"))
        elif key not in ("font-family", "font-stretch"):
            found.append((key, value))
    return found

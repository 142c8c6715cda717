"""Picture sheets of a chapter: images, Grad-CAM maps and mistakes in, one SVG of small rasters out.

A picture is stored once and used by every map laid over it; a map is stored at a small size and
drawn smoothly, so that a sheet of 6 images and 7 epochs takes some tens of kilobytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import matplotlib
import numpy as np
from PIL import Image

from scratchbook.language import tr
from scratchbook.report.svg import ACCENT, INK, SVG, finish_svg, plain
from scratchbook.results.records import CamMaps

if TYPE_CHECKING:
    from scratchbook.report.loading import Mistake

CELL = 88  # pixels a picture takes in a sheet
GAP = 10
LINE = 15  # pixels a line of text takes
STORED = 168  # pixels a picture is stored with at most: sharp on a fine screen and when enlarged


def cam_sheet(cam: CamMaps, pictures: Sequence[np.ndarray | None], own_scale: bool = False) -> str:
    """Images × epochs, each map laid over its picture, with the probability of the true class.

    The positive part of the maps is drawn twice: in one scale an image row, where the strongest
    point of all its epochs is full, so that strengths compare; and each map in its own scale, which
    shows where a weak map looks. One of the two is hidden, and a page may swap them by the classes
    `row-scale` and `own-scale`. A mark tells where the predicted class is not the epoch before's.

    Args:
        cam: the maps.
        pictures: uint8 (h, w, 3) of each image, or None where the data are not at hand.
        own_scale: hide the row's scale instead of the maps' own.
    """
    epochs, labels, classes = cam.epochs, cam.labels, cam.class_names
    predicted = cam.probability.argmax(axis=2)  # (epoch, image)
    positive = np.maximum(np.nan_to_num(cam.maps), 0)  # (epoch, image, h, w)
    aspect = _aspect(pictures, cam.input_size)
    height = round(CELL * aspect)
    sheet = _Sheet(columns=len(epochs) + 1, rows=len(labels), height=height, lines=2, head=2 * LINE)
    for column, epoch in enumerate(epochs, start=1):
        sheet.text(
            column, -1, 0, tr("epoch {epoch}", epoch=epoch) if epoch else tr("before training")
        )
    said = []
    for row, label in enumerate(labels):
        picture = pictures[row]
        key = sheet.store(picture)
        sheet.use(0, row, key)
        sheet.text(0, row, 0, _short(classes[label]))
        strongest = positive[:, row].max()
        for at in range(len(epochs)):
            column = at + 1
            sheet.use(column, row, key)
            here = positive[at, row]
            for scale, top in (("row-scale", strongest), ("own-scale", here.max())):
                if top > 0:
                    hidden = own_scale == (scale == "row-scale")
                    sheet.image(column, row, _heat(here / top), scale, hidden)
            answer = predicted[at, row]
            changed = at > 0 and answer != predicted[at - 1, row]
            right = answer == label
            sheet.text(
                column, row, 0,
                f"{cam.probability[at, row, label]:.2f}{'' if right else ' ✗'}",
            )  # fmt: skip
            if changed:
                sheet.text(column, row, 1, f"▸ {_short(classes[answer])}", color=ACCENT)
                sheet.frame(column, row)
        share = ", ".join(f"{p:.2f}" for p in cam.probability[:, row, label])
        said.append(f"{classes[label]}: {share}")
    listed = ", ".join(str(epoch) for epoch in epochs)
    return sheet.svg(
        tr(
            "Grad-CAM at layer {layer} in epochs {epochs}; probability of the true class by "
            "image: {images}",
            layer=cam.layer,
            epochs=listed,
            images="; ".join(said),
        )
    )


def mistake_sheet(mistakes: Sequence[Mistake], columns: int = 6) -> str:
    """The most confident mistakes, as `read_mistakes` returns them."""
    pictures = [mistake.picture for mistake in mistakes]
    aspect = _aspect(pictures, (1, 1))
    columns = min(columns, len(mistakes))
    rows = -(-len(mistakes) // columns)
    sheet = _Sheet(columns=columns, rows=rows, height=round(CELL * aspect), lines=3, head=0)
    for i, mistake in enumerate(mistakes):
        row, column = divmod(i, columns)
        sheet.use(column, row, sheet.store(mistake.picture))
        sheet.text(column, row, 0, f"{_short(mistake.predicted)} {mistake.probability:.2f}",
                   color=ACCENT)  # fmt: skip
        sheet.text(column, row, 1, tr("is {name}", name=_short(mistake.true)))
        sheet.text(column, row, 2, _short(mistake.name, 14), faint=True)
    said = "; ".join(
        tr("{name}: {true} taken for {predicted} with {probability:.2f}", **vars(m))
        for m in mistakes
    )
    return sheet.svg(
        tr("The {count} most confident mistakes. {mistakes}", count=len(mistakes), mistakes=said)
    )


class _Sheet:
    """An SVG of cells in rows and columns, each a picture above lines of text."""

    def __init__(self, columns: int, rows: int, height: int, lines: int, head: int):
        self.height, self.head = height, head
        self.row_height = height + lines * LINE + GAP
        self.root = ElementTree.Element(
            f"{{{SVG}}}svg",
            width=str(columns * (CELL + GAP) - GAP),
            height=str(head + rows * self.row_height),
            viewBox=f"0 0 {columns * (CELL + GAP) - GAP} {head + rows * self.row_height}",
        )
        self.root.set("font-size", "12")
        self.definitions = ElementTree.SubElement(self.root, f"{{{SVG}}}defs")
        self.stored = 0

    def store(self, picture: np.ndarray | None) -> str:
        """Keeps a picture, uint8 (h, w, 3), to be used in any cell; returns its key."""
        key = f"picture{self.stored}"
        self.stored += 1
        if picture is None:
            empty = {"id": key, "fill": INK, "opacity": "0.12"}
            empty |= {"width": str(CELL), "height": str(self.height)}
            ElementTree.SubElement(self.definitions, f"{{{SVG}}}rect", empty)
        else:
            image = Image.fromarray(picture)
            image.thumbnail((STORED, STORED), Image.Resampling.LANCZOS)
            gray = bool((picture[..., 0] == picture[..., 1]).all())
            self._image(self.definitions, _data(image.convert("L") if gray else image), id=key)
        return key

    def use(self, column: int, row: int, key: str) -> None:
        x, y = self._corner(column, row)
        ElementTree.SubElement(self.root, f"{{{SVG}}}use", href=f"#{key}", x=str(x), y=str(y))

    def image(
        self, column: int, row: int, image: Image.Image, class_name: str, hidden: bool
    ) -> None:
        """Lays an image over a cell; the class lets a page show what is hidden here."""
        x, y = self._corner(column, row)
        attributes = {"class": class_name, "x": str(x), "y": str(y)}
        if hidden:
            attributes["display"] = "none"
        self._image(self.root, _data(image), smooth=True, **attributes)

    def frame(self, column: int, row: int) -> None:
        x, y = self._corner(column, row)
        place = {"x": str(x), "y": str(y), "width": str(CELL), "height": str(self.height)}
        ElementTree.SubElement(
            self.root, f"{{{SVG}}}rect", {"fill": "none", "stroke": ACCENT, "stroke-width": "2"},
            **place,
        )  # fmt: skip

    def text(
        self, column: int, row: int, line: int, words: str, color: str = INK, faint: bool = False
    ) -> None:
        """Writes a line under the cell; row -1 is the head of the sheet."""
        x, y = self._corner(column, row)
        y = self.head - 9 if row < 0 else y + self.height + (line + 1) * LINE - 2
        attributes = {"x": str(x), "y": str(y), "fill": color}
        if faint:
            attributes["fill-opacity"] = "0.75"
        element = ElementTree.SubElement(self.root, f"{{{SVG}}}text", attributes)
        element.text = plain(words).replace("\n", " ")

    def svg(self, alt: str) -> str:
        return finish_svg(self.root, alt)

    def _corner(self, column: int, row: int) -> tuple[int, int]:
        return column * (CELL + GAP), self.head + row * self.row_height

    def _image(
        self, parent: ElementTree.Element, data: str, smooth: bool = False, **attributes: str
    ) -> None:
        attributes |= {"width": str(CELL), "height": str(self.height), "href": data}
        image = ElementTree.SubElement(parent, f"{{{SVG}}}image", attributes)
        image.set("preserveAspectRatio", "none")
        if not smooth:
            image.set("image-rendering", "pixelated")


def _heat(values: np.ndarray, side: int = 48) -> Image.Image:
    """A map (h, w) of 0 to 1 as a smooth picture whose low values let the image through."""
    coarse = Image.fromarray(values.astype(np.float32))
    smooth = coarse.resize((side, side), Image.Resampling.BICUBIC)
    levels = np.round(np.clip(np.asarray(smooth), 0, 1) * 31).astype(np.uint8)  # (side, side)
    steps = np.arange(32) / 31
    colors = matplotlib.colormaps["inferno"](steps)[:, :3]
    image = Image.fromarray(levels).convert("P")
    image.putpalette((colors * 255).round().astype(np.uint8).tobytes())
    image.info["transparency"] = bytes((230 * steps**0.7 * 0.85).astype(np.uint8))
    return image


def _data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    small = image.width * image.height <= 64 * 64
    if small or image.mode == "P":
        transparency = image.info.get("transparency")
        extra = {"transparency": transparency} if transparency else {}
        image.save(buffer, "PNG", optimize=True, **extra)
        kind = "png"
    else:
        image.save(buffer, "JPEG", quality=82)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _aspect(pictures: Sequence[np.ndarray | None], size: Sequence[int]) -> float:
    known = next((p.shape for p in pictures if p is not None), size)
    return min(max(known[0] / known[1], 0.4), 2.5)


def _short(text: str, longest: int = 12) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"

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
from scratchbook.report.svg import ACCENT, INK, add, finish_svg, new_svg, plain
from scratchbook.results.records import CamMaps

if TYPE_CHECKING:
    from scratchbook.report.loading import Mistake

CELL = 88  # pixels a picture takes in a sheet
GAP = 10
LINE = 15  # pixels a line of text takes
ABREAST = 6  # mistakes
STORED = 168  # pixels a picture is stored with at most: sharp on a fine screen and when enlarged


def cam_sheet(cam: CamMaps, pictures: Sequence[np.ndarray | None], own_scale: bool = False) -> str:
    """Images × epochs, each map laid over what the network sees of its picture, with the
    probability of the true class.

    The positive part of the maps is drawn twice: in one scale an image row, where the strongest
    point of all its epochs is full, so that strengths compare; and each map in its own scale, which
    shows where a weak map looks. One of the two is hidden, and a page may swap them by the classes
    `row-scale` and `own-scale`. A mark tells where the predicted class is not the epoch before's.

    Args:
        cam: the maps.
        pictures: uint8 (h, w, 3) of each image, or None where the data are not at hand.
        own_scale: hide the row's scale instead of the maps' own.
    """
    epochs, classes = cam.epochs, cam.class_names
    predicted = cam.probability.argmax(axis=2)  # (epoch, image)
    positive = np.maximum(np.nan_to_num(cam.maps), 0)  # (epoch, image, h, w)
    pictures = [None if whole is None else _middle(whole, cam.input_size) for whole in pictures]
    height, rows = _height(pictures, cam.input_size), len(cam.labels)
    sheet = _Sheet(columns=len(epochs) + 1, rows=rows, height=height, lines=2, head=2 * LINE)
    for column, epoch in enumerate(epochs, start=1):
        told = tr("epoch {epoch}", epoch=epoch) if epoch else tr("before training")
        sheet.text(column, -1, 0, told)
    said = []
    for row, (label, picture) in enumerate(zip(cam.labels, pictures, strict=True)):
        key = sheet.store(picture)
        sheet.use(0, row, key)
        sheet.text(0, row, 0, _short(classes[label]))
        strongest = positive[:, row].max()
        for at in range(len(epochs)):
            column, here = at + 1, positive[at, row]
            sheet.use(column, row, key)
            for scale, top in (("row-scale", strongest), ("own-scale", here.max())):
                if top > 0:
                    hidden = own_scale == (scale == "row-scale")
                    sheet.image(column, row, _heat(here / top), scale, hidden)
            answer = predicted[at, row]
            mark = "" if answer == label else " ✗"
            sheet.text(column, row, 0, f"{cam.probability[at, row, label]:.2f}{mark}")
            if at > 0 and answer != predicted[at - 1, row]:
                sheet.text(column, row, 1, f"▸ {_short(classes[answer])}", color=ACCENT)
                sheet.frame(column, row)
        share = ", ".join(f"{p:.2f}" for p in cam.probability[:, row, label])
        said.append(f"{classes[label]}: {share}")
    return sheet.svg(tr(
        "Grad-CAM at layer {layer} in epochs {epochs}; probability of the true class by image: "
        "{images}",
        layer=cam.layer, epochs=", ".join(map(str, epochs)), images="; ".join(said),
    ))  # fmt: skip


def mistake_sheet(mistakes: Sequence[Mistake]) -> str:
    """The most confident mistakes, as `read_mistakes` returns them."""
    columns = min(ABREAST, len(mistakes))
    rows = -(-len(mistakes) // columns)
    height = _height([mistake.picture for mistake in mistakes], (1, 1))
    sheet = _Sheet(columns=columns, rows=rows, height=height, lines=3, head=0)
    for i, mistake in enumerate(mistakes):
        row, column = divmod(i, columns)
        sheet.use(column, row, sheet.store(mistake.picture))
        answer = f"{_short(mistake.predicted)} {mistake.probability:.2f}"
        sheet.text(column, row, 0, answer, color=ACCENT)
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
        width = columns * (CELL + GAP) - GAP
        self.root = new_svg(width, head + rows * self.row_height, font_size=12)
        self.definitions = add(self.root, "defs")
        self.stored = 0

    def store(self, picture: np.ndarray | None) -> str:
        """Keeps a picture, uint8 (h, w, 3), to be used in any cell; returns its key."""
        key = f"picture{self.stored}"
        self.stored += 1
        if picture is None:
            add(self.definitions, "rect", id=key, fill=INK, opacity=0.12, width=CELL,
                height=self.height)  # fmt: skip
        else:
            image = Image.fromarray(picture)
            image.thumbnail((STORED, STORED), Image.Resampling.LANCZOS)
            gray = bool((picture[..., 0] == picture[..., 1]).all())
            stored = self._image(self.definitions, image.convert("L") if gray else image, id=key)
            stored.set("image-rendering", "pixelated")
        return key

    def use(self, column: int, row: int, key: str) -> None:
        x, y = self._corner(column, row)
        add(self.root, "use", href=f"#{key}", x=x, y=y)

    def image(self, column: int, row: int, image: Image.Image, kind: str, hidden: bool) -> None:
        """Lays an image over a cell; the class lets a page show what is hidden here."""
        x, y = self._corner(column, row)
        hiding = {"display": "none"} if hidden else {}
        self._image(self.root, image, class_=kind, x=x, y=y, **hiding)

    def frame(self, column: int, row: int) -> None:
        x, y = self._corner(column, row)
        add(self.root, "rect", fill="none", stroke=ACCENT, stroke_width=2, x=x, y=y, width=CELL,
            height=self.height)  # fmt: skip

    def text(
        self, column: int, row: int, line: int, words: str, color: str = INK, faint: bool = False
    ) -> None:
        """Writes a line under the cell; row -1 is the head of the sheet."""
        x, y = self._corner(column, row)
        y = self.head - 9 if row < 0 else y + self.height + (line + 1) * LINE - 2
        fainter = {"fill_opacity": 0.75} if faint else {}
        written = add(self.root, "text", x=x, y=y, fill=color, **fainter)
        written.text = plain(words).replace("\n", " ")

    def svg(self, alt: str) -> str:
        return finish_svg(self.root, alt)

    def _corner(self, column: int, row: int) -> tuple[int, int]:
        return column * (CELL + GAP), self.head + row * self.row_height

    def _image(
        self, parent: ElementTree.Element, image: Image.Image, **attributes: object
    ) -> ElementTree.Element:
        return add(parent, "image", **attributes, width=CELL, height=self.height,
                   href=_data(image), preserveAspectRatio="none")  # fmt: skip


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
    kind = "png" if image.mode == "P" or image.width * image.height <= 64 * 64 else "jpeg"
    options = {"optimize": True} if kind == "png" else {"quality": 82}
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _middle(picture: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """As much of a picture's middle, by (height, width), as a network sees of it."""
    height, width = size
    top, left = (max(0, (picture.shape[axis] - size[axis]) // 2) for axis in (0, 1))
    return picture[top : top + height, left : left + width]


def _height(pictures: Sequence[np.ndarray | None], size: Sequence[int]) -> int:
    """Pixels that a picture is high in its cell; `size` is theirs where none is at hand."""
    known = next((p.shape for p in pictures if p is not None), size)
    return round(CELL * min(max(known[0] / known[1], 0.4), 2.5))


def _short(text: str, longest: int = 12) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"

"""Make one image what a network eats: an encoded image or array in, uint8 [h, w, 3] out."""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Named, because Pillow would also hand PostScript to an interpreter.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 1 << 26  # 64 Mi pixels: 200 MB decoded
_MANY_PIXELS = 1 << 24  # such images are decoded one at a time, whatever the number of threads
_one_at_a_time = threading.Lock()

# What may be done to an image, as the notes say it of so many of them.
TURNED = "turned upright as their EXIF data say"
FIRST_FRAME = "of several frames: the first one was used"
GREY = "grey: copied into three channels"
DEEP = "of 16 bits: scaled to 8 (divided by 257)"
ALPHA = "with transparency: laid over white"
PALETTE = "with a palette: turned into RGB"
CMYK = "in CMYK: turned into RGB"
OTHER = "in another colour space: turned into RGB"
RESIZED = "resized"


def to_rgb(
    raw: bytes | np.ndarray, size: tuple[int, int], method: str, fit: str
) -> tuple[np.ndarray, list[str]]:
    """Decode, turn upright, convert and resize one image.

    `raw` is an encoded image or uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]; `size` is
    (height, width); `method` one of Pillow's filters; `fit` one of stretch, crop, pad.
    Returns uint8 [height, width, 3] and what was done to it (the constants above).
    Raises ValueError or OSError, with a readable reason, for what is not a whole image.
    """
    with _opened(raw) as image:
        pixels = image.width * image.height
        if pixels > MOST_PIXELS:
            raise ValueError(f"{image.width} × {image.height} pixels are too many")
        with _one_at_a_time if pixels > _MANY_PIXELS else nullcontext():
            done = []
            if image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "n_frames", 1) > 1:
                done.append(FIRST_FRAME)
            tile = getattr(image, "tile", None)  # names the raw mode, which Pillow cuts to 8 bits
            raw_mode = str(tile[0][3]) if tile else ""
            deep = ";16" in raw_mode
            # Pillow scales PPM's to 16 bits, whatever their depth; what else is of mode I is not.
            ranged = image.format == "PPM" or (image.mode != "I" and "I;12" not in raw_mode)
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
                done.append(TURNED)
            colour, how = _colour(ImageOps.exif_transpose(image), ranged)
            done += how
            if deep and DEEP not in done:
                done.append(DEEP)
            height, width = size
            if colour.size != (width, height):
                colour = _resized(colour, (width, height), method, fit)
                done.append(RESIZED)
            return np.asarray(colour), done  # (height, width, 3)


def _opened(raw: bytes | np.ndarray) -> Image.Image:
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[-1] == 1 else raw)
    if not raw:
        raise ValueError("the file is empty")
    try:
        return Image.open(io.BytesIO(raw), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"not an image (it begins with {raw[:12]!r})") from None
    except Image.DecompressionBombError:
        raise ValueError("it has too many pixels") from None


def _colour(image: Image.Image, ranged: bool) -> tuple[Image.Image, list[str]]:
    """An RGB image, and what was done to get it; `ranged`: its deep pixels go from 0 to 65535."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, []
    if image.mode == "F" or image.mode.startswith("I"):
        if image.mode == "F" or not ranged:
            raise ValueError(
                "pixels of 32 bits have no agreed range (nor are 12 bits or signed ones read); "
                "save it with 8 or 16 bits"
            )
        scaled = np.rint(np.asarray(image) / 257).astype(np.uint8)  # 65535 / 255 = 257
        return Image.fromarray(scaled).convert("RGB"), [DEEP, GREY]
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB"), [ALPHA]
    how = {"L": GREY, "1": GREY, "P": PALETTE, "CMYK": CMYK}.get(image.mode, OTHER)
    return image.convert("RGB"), [how]


def _resized(image: Image.Image, size: tuple[int, int], method: str, fit: str) -> Image.Image:
    resampling = Image.Resampling[method.upper()]
    if fit == "crop":
        return ImageOps.fit(image, size, resampling)
    if fit == "pad":
        return ImageOps.pad(image, size, resampling)
    return image.resize(size, resampling)

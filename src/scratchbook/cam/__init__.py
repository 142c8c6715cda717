"""Grad-CAM through the epochs: what a run's network looks at, and how far that moves.

`explain_epochs` is a whole run's job; `choose_images` and `resolve_epochs` say what it looks at,
and `mapper` explains any image, such as a photo of one's own. Nothing here imports Keras before a
network is needed.
"""

from scratchbook.cam.choices import choose_images, resolve_epochs
from scratchbook.cam.drift import drift, write_drift
from scratchbook.cam.maps import Layer, choose_layer, mapper
from scratchbook.cam.record import explain_epochs

__all__ = [
    "Layer",
    "choose_images",
    "choose_layer",
    "drift",
    "explain_epochs",
    "mapper",
    "resolve_epochs",
    "write_drift",
]

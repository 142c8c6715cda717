"""The numbers of our own code that answers: raised by hand where a feature's results change."""

from __future__ import annotations

from scratchbook.language import mark
from scratchbook.specs import KerasObject, Spec

TRAINING: dict[str, int] = {
    mark("loop"): 1,  # order of the images, random states of an epoch, measures, the best epoch
    mark("initialisation"): 1,
    mark("layers"): 1,
    mark("losses"): 1,
    mark("optimizers"): 1,
    mark("predictions"): 1,
    mark("augmentation"): 1,
    mark("backbones"): 1,
    mark("callbacks"): 1,
    mark("residual blocks"): 1,
    mark("samples"): 1,
    mark("schedules"): 1,
    mark("test-time flips"): 1,
    mark("validation on test"): 1,
    mark("warm starts"): 1,
    mark("whitening"): 1,
}
"""One a feature. A run keeps those of the features that it used; where two runs have others, the
page says so. They are no part of a run's key: an update orders no training."""
_EVERY_RUN = ("loop", "initialisation", "layers", "losses", "optimizers", "predictions")


def training_numbers(spec: Spec) -> dict[str, int]:
    """Those of the features that a spec uses."""
    classes = set(_classes(spec["layers"]))
    used = {
        "augmentation": bool(spec["augment"]),
        "backbones": "Backbone" in classes,
        "callbacks": bool(spec["callbacks"]),
        "residual blocks": "Residual" in classes,
        "samples": spec["train_samples"] is not None,
        "schedules": "schedule" in spec,
        "test-time flips": "test_time_flip" in spec,
        "validation on test": spec["validation"] == "test",
        "warm starts": "initial_weights" in spec,
        "whitening": "Whitening" in classes,
    }
    return {name: TRAINING[name] for name in TRAINING if name in _EVERY_RUN or used.get(name)}


def _classes(layers: list[KerasObject]) -> list[str]:
    found = []
    for layer in layers:
        found.append(layer["class_name"])
        for branch in ("layers", "shortcut"):
            if layer["class_name"] == "Residual":
                found += _classes(layer["config"].get(branch, []))
    return found

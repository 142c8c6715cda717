"""The numbers of our own code that answers: raised by hand where a feature's results change."""

from __future__ import annotations

from scratchbook.specs import KerasObject, Spec

TRAINING: dict[str, int] = {
    "loop": 1,  # order of the images, random states of an epoch, measures, the best epoch
    "initialisation": 1,
    "layers": 1,
    "losses": 1,
    "optimizers": 1,
    "predictions": 1,
    "augmentation": 1,
    "backbones": 1,
    "callbacks": 1,
    "residual blocks": 1,
    "samples": 1,
    "schedules": 1,
    "test-time flips": 1,
    "validation on test": 1,
    "warm starts": 1,
    "whitening": 1,
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

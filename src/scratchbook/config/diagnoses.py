"""What a notebook may say of the diagnoses: which to mute, where each draws its line."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from .errors import nearest
from .strict import Strict, unusable

CODES = (
    "NAN",
    "PRIOR-COLLAPSE",
    "SATURATED",
    "OVERFIT",
    "UNDERTRAINED",
    "LR-TOO-HIGH",
    "LEAK",
    "SMALL-TEST",
    "CHERRY-PICKED",
    "SEED-NOISE",
)
"""The diagnoses' codes, which do not change; docs/diagnoses.md explains each."""

Limit = Annotated[float, Field(ge=0)]


class Thresholds(Strict):
    """Where each rule draws its line; docs/diagnoses.md explains every one."""

    prior_loss: Limit = 0.02
    """PRIOR-COLLAPSE: loss within this share of the prior's entropy."""
    prior_loss_recorded: Limit = 0.005
    """The same where the class prior is not known."""
    prior_accuracy: Limit = 0.02
    """And accuracy at most this much above the majority class."""
    saturated_loss: Limit = 12.0
    """SATURATED: nats lost on each wrong answer."""
    overfit_gap: Limit = 0.05
    """OVERFIT: growth of train − validation accuracy."""
    overfit_rise: Limit = 0.10
    """And rise of validation loss above its lowest, as a share."""
    overfit_gap_recorded: Limit = 0.10
    """The gap that is enough where only two figures are known."""
    undertrained_end: Limit = 0.10
    """UNDERTRAINED: best epoch in this last share of the epochs."""
    undertrained_gain: Limit = 0.01
    """And validation loss still falling by this share."""
    lr_rise: Limit = 0.02
    """LR-TOO-HIGH: a rise of training loss by this share counts."""
    lr_share: Limit = 0.30
    """And so many of the epochs rise."""
    lr_spike: Limit = 2.0
    """Or training loss reaches this multiple of its lowest so far."""
    leak_images: Limit = 1
    """LEAK: images met in two splits."""
    small_test_share: Limit = 0.5
    """SMALL-TEST: share of pairs closer than their interval."""
    seed_noise_ratio: Limit = 1.0
    """SEED-NOISE: seeds' standard deviation over the gain."""


class Diagnoses(Strict):
    """What is looked for in a notebook's results."""

    mute: list[str] = Field(default_factory=list)
    """Codes not to report: `OVERFIT`, or `OVERFIT:train1` for one experiment."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    """Where the rules draw their lines."""

    @field_validator("mute")
    @classmethod
    def _known_codes(cls, mute: list[str]) -> list[str]:
        for entry in mute:
            code = entry.partition(":")[0]
            if code not in CODES:
                raise unusable(f"{entry!r} is no diagnosis; {nearest(code, CODES)}")
        return mute

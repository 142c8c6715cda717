"""The diagnoses, each declared once, and what a notebook may say of them: which to mute, where each
draws its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from scratchbook.errors import nearest
from scratchbook.language import mark, tr, tr_n

from .strict import Strict, unusable

Scope = Literal["run", "experiment", "notebook"]
Limit = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Diagnosis:
    """One thing that goes wrong. Its rule is in `scratchbook.diagnoses`, docs/diagnoses.md explains
    it."""

    code: str
    """It does not change."""
    scope: Scope
    """What its rule looks at."""
    message: str | Callable[..., str]
    """What was seen: a marked message with the evidence as its fields, or a function of them where
    they are counted."""
    advice: str
    """What to do, a marked message."""
    thresholds: tuple[str, ...] = ()
    """Those that its rule reads."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """Other messages and advice, by the key that a finding names."""
    told: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    """How a piece of evidence is said, where not as it is."""


def _points(share: float) -> float:
    return share * 100


DIAGNOSES: dict[str, Diagnosis] = {
    one.code: one
    for one in (
        Diagnosis(
            "NAN", "run",
            mark("The loss is not a number from epoch {epoch} on; the run diverged."),
            mark("Lower the learning rate, and look for images or labels that are not numbers."),
            variants={
                "answers": mark("The net no longer answers with numbers: {trouble}."),
                "inherited": mark("The run whose weights it starts from diverged."),
            },
        ),
        Diagnosis(
            "PRIOR-COLLAPSE", "run",
            mark(
                "Loss {loss:.4f} at accuracy {accuracy:.3f} is the entropy of the class prior "
                "({entropy:.4f}, largest class {majority:.1%}): the net answers how often each "
                "class occurs and has learnt nothing from the images."
            ),
            mark("Lower the learning rate, try Adam, or take layers out until it learns."),
            ("prior_loss", "prior_loss_recorded", "prior_accuracy"),
            variants={"guessed": mark(
                "Loss {loss:.4f} at accuracy {accuracy:.3f} would be the entropy of the class "
                "prior ({entropy:.4f}) if the largest class had {majority:.1%} of the images: the "
                "net may answer how often each class occurs and have learnt nothing from them."
            )},
        ),
        Diagnosis(
            "SATURATED", "run",
            mark(
                "Loss {loss:.4f} at accuracy {accuracy:.3f} is {each:.1f} nats on each wrong "
                "answer (a blind guess loses {guess:.2f}): the softmax is saturated and passes no "
                "gradient."
            ),
            mark("Scale the images to 0–1, lower the first steps, or use another start."),
            ("saturated_loss",),
        ),
        Diagnosis(
            "OVERFIT", "run",
            mark(
                "After epoch {epoch} validation loss rises by {rise:.0%} ({lowest:.3f} to "
                "{last:.3f}) while the gap between training and validation accuracy grows by "
                "{growth:.1f} points to {gap:.1f}."
            ),
            mark("Stop earlier, add dropout or augmentation, or train on more images."),
            ("overfit_gap", "overfit_rise", "overfit_gap_recorded"),
            variants={"figures": mark(
                "Training accuracy {train:g} against validation accuracy {validation:g}: a gap of "
                "{gap:.0f} points."
            )},
            told={"growth": _points, "gap": _points},
        ),
        Diagnosis(
            "UNDERTRAINED", "run",
            mark(
                "Validation loss still falls when training ends after {epochs} epochs: {last:.3f} "
                "over the last {window}, {before:.3f} over the {window} before."
            ),
            mark("Train for more epochs, or raise the learning rate."),
            ("undertrained_end", "undertrained_gain"),
        ),
        Diagnosis(
            "LR-TOO-HIGH", "run",
            mark(
                "With learning rate {rate:g} training loss jumps from {low:.3f} to {high:.3f} at "
                "epoch {epoch}."
            ),
            mark("Lower the learning rate by a factor of three to ten."),
            ("lr_rise", "lr_share", "lr_spike"),
            variants={"rises": mark(
                "With a learning rate of up to {rate:g} training loss rises in {n} of {epochs} "
                "epochs."
            )},
        ),
        Diagnosis(
            "CHERRY-PICKED", "notebook",
            mark(
                "The best epoch is chosen on the test images that are reported, so every figure "
                "is too high by an unknown amount."
            ),
            mark("Choose the epoch on validation images and report the test images."),
        ),
        Diagnosis(
            "LEAK", "notebook",
            lambda **evidence: tr_n(
                "{n} image is in two splits, first {image} ({split}) and {other} "
                "({other_split}): what is measured on them was partly learnt by heart.",
                "{n} images are in two splits, first {image} ({split}) and {other} "
                "({other_split}): what is measured on them was partly learnt by heart.",
                **evidence,
            ),
            mark("Remove the copies from the images that are trained on and train again."),
            ("leak_images",),
            told={"split": tr, "other_split": tr},
        ),
        Diagnosis(
            "SMALL-TEST", "notebook",
            mark(
                "{close} of {pairs} differences are smaller than their own margin of error: "
                "{images:,} {split} images and these seeds show differences of about "
                "{detectable:.1f} points, here they are {middle:.1f}."
            ),
            mark("Measure on more images, or claim only larger differences."),
            ("small_test_share",),
            variants={
                "images": mark(
                    "{close} of {pairs} differences are smaller than their own margin of error: "
                    "{images:,} {split} images show differences of about {detectable:.1f} points, "
                    "here they are {middle:.1f}."
                ),
                "more seeds": mark(
                    "Run more seeds (more images would not do), or claim only larger differences."
                ),
            },
            told={"split": tr, "detectable": _points, "middle": _points},
        ),
        Diagnosis(
            "SEED-NOISE", "experiment",
            mark(
                "The gain of {gain:.1f} points over {parent} is no larger than what a seed changes "
                "(standard deviation {deviation:.1f} points)."
            ),
            mark("Run more seeds before believing the gain."),
            ("seed_noise_ratio",),
            told={"gain": _points, "deviation": _points},
        ),
    )
}  # fmt: skip
"""By their codes, in the order in which a page tells them."""


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
            if code not in DIAGNOSES:
                raise unusable(f"{entry!r} is no diagnosis; {nearest(code, DIAGNOSES)}")
        return mute

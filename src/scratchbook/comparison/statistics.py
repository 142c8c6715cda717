"""From right-or-wrong answers on the same images to differences, intervals, p-values and power.

Arrays only. An experiment's answers are `correct`, bool (seeds, images). The model behind every
figure: accuracy = image effect + seed effect + what is left (image x seed). All experiments share
the images, so images are paired; seeds are not, a seed number means nothing across two nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom, f
from scipy.stats import t as student

from scratchbook.evaluation import LEVEL, wilson

POWER = 0.8


@dataclass(frozen=True)
class SeedSpread:
    """The variance between one experiment's seeds, and how well it is known.

    `variance` is that of one seed's accuracy; `degrees` its degrees of freedom, 0 where no
    experiment has a second seed; `shared` says that it is the notebook's, not its own.
    """

    variance: float
    degrees: float
    shared: bool


@dataclass(frozen=True)
class Answers:
    """How often each image was answered right, and how uncertain the seeds leave the mean.

    `runs` bool (seeds, images) is every answer, `right` int (images,) counts the seeds that were
    right. `seed_variance` is the variance of the mean over seeds that comes from the seeds alone.
    """

    runs: np.ndarray
    right: np.ndarray
    seed_variance: float
    spread: SeedSpread

    @property
    def seeds(self) -> int:
        return len(self.runs)

    @property
    def images(self) -> int:
        return self.runs.shape[1]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean() / self.seeds)


def seed_spreads(values: Sequence[Sequence[float]], outlier: float = 0.01) -> list[SeedSpread]:
    """The variance between seeds of each experiment, from every seed's accuracy.

    Two or three seeds say little of their variance, so the experiments of a notebook share one
    (the pooled variance); those with one seed borrow it. An experiment whose seeds are further
    apart than the others' (F test at `outlier`, Bonferroni-adjusted) keeps its own.
    """
    degrees = np.array([max(len(one) - 1, 0) for one in values])
    squares = np.array([float(np.var(one)) * len(one) if len(one) else 0.0 for one in values])
    own = np.zeros(len(values), dtype=bool)
    for i in np.flatnonzero(degrees):
        rest, their_degrees = squares.sum() - squares[i], degrees.sum() - degrees[i]
        if rest > 0:
            ratio = (squares[i] / degrees[i]) / (rest / their_degrees)
            own[i] = f.sf(ratio, degrees[i], their_degrees) < outlier / np.count_nonzero(degrees)
    total, total_degrees = squares[~own].sum(), int(degrees[~own].sum())
    shared = SeedSpread(total / total_degrees if total_degrees else 0.0, total_degrees, True)
    return [
        SeedSpread(squares[i] / degrees[i], int(degrees[i]), False) if own[i] else shared
        for i in range(len(values))
    ]


def summarise(correct: Sequence[np.ndarray]) -> list[Answers]:
    """Split the variance of each experiment's `correct`, bool (seeds, images), into its parts.

    Two-way random effects by the method of moments (Searle, Casella & McCulloch 1992, section
    4.4): the variance between seeds' accuracies holds the seed effect and 1/images of the
    residual, which the images' part counts already and is taken off here.
    """
    spreads = seed_spreads([one.mean(axis=1) for one in correct])
    residuals = [_residual(one) for one in correct]
    several = [residual for residual in residuals if residual is not None]
    usual = float(np.mean(several)) if several else 0.0
    found = []
    for one, spread, residual in zip(correct, spreads, residuals, strict=True):
        seeds, images = one.shape
        noise = (usual if residual is None else residual) / images
        variance = max(0.0, spread.variance - noise) / seeds
        found.append(Answers(one, one.sum(axis=0), variance, spread))
    return found


def _residual(correct: np.ndarray) -> float | None:
    """Variance of the image x seed part; None for one seed, which cannot tell it."""
    seeds, images = correct.shape
    if seeds == 1:
        return None
    share = correct.mean(axis=0)
    within = float((share * (1 - share)).mean()) * seeds / (seeds - 1)
    between = float(correct.mean(axis=1).var(ddof=1))
    return max(0.0, within - between) * images / max(images - 1, 1)


def accuracy_interval(answers: Answers, level: float = LEVEL) -> tuple[float, float]:
    """Interval of an experiment's mean accuracy over the images and, where known, the seeds.

    Wilson's interval at the number of independent images that would give the same variance.
    """
    return mean_interval(
        answers.accuracy,
        float((answers.right / answers.seeds).var()) / answers.images,
        answers.seed_variance,
        answers.spread.degrees,
        answers.images,
        level,
    )


def accuracies_interval(
    values: Sequence[float], images: int, spread: SeedSpread, level: float = LEVEL
) -> tuple[float, float]:
    """The same interval from each seed's accuracy alone, where the single answers were not kept.

    How alike the seeds' mistakes are is then unknown and taken to be complete, so this interval
    is never too narrow and, for several seeds, a little wide.
    """
    value = float(np.mean(values))
    image_variance = value * (1 - value) / images
    noise = 0.0 if len(values) > 1 else image_variance
    seed_variance = max(0.0, spread.variance - noise) / len(values)
    return mean_interval(value, image_variance, seed_variance, spread.degrees, images, level)


def mean_interval(
    value: float,
    image_variance: float,
    seed_variance: float,
    degrees: float,
    images: int,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Wilson's interval of `value` for a variance made of images (normal) and seeds (Student)."""
    variance = image_variance + seed_variance
    if variance <= 0:
        low, high = wilson(value, images, level)
        return float(low), float(high)
    z = float(ndtri((1 + level) / 2))
    stretch = 1.0
    if seed_variance > 0:
        t = float(student.ppf((1 + level) / 2, degrees))
        stretch = (z**2 * image_variance + t**2 * seed_variance) / (z**2 * variance)
    effective = value * (1 - value) / (variance * stretch)
    low, high = wilson(value, effective, level)
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Accuracy of `second` less accuracy of `first`, and what is uncertain about it."""

    value: float
    image_variance: float
    seed_variance: float
    degrees: float
    skewness: float
    values: np.ndarray  # the differences an image can show, (k,)
    counts: np.ndarray  # how many images show each, (k,)
    images: int


def difference(first: Answers, second: Answers) -> Difference:
    """The paired difference of two experiments on the same images."""
    a, b = first.seeds, second.seeds
    steps = second.right * a - first.right * b  # (images,), in units of 1 / (a b)
    counts = np.bincount(steps + a * b, minlength=2 * a * b + 1)
    kept = counts.nonzero()[0]
    values, counts = (kept - a * b) / (a * b), counts[kept]
    n = int(counts.sum())
    value = float(counts @ values) / n
    off = values - value
    image_variance = float(counts @ off**2) / n / max(n - 1, 1)
    return Difference(
        value=value,
        image_variance=image_variance,
        seed_variance=first.seed_variance + second.seed_variance,
        degrees=_degrees(first, second),
        skewness=float(counts @ off**3) / n**3,
        values=values,
        counts=counts,
        images=n,
    )


def bca_interval(
    found: Difference, rng: np.random.Generator, resamples: int, level: float = LEVEL
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a paired difference.

    Efron 1987. Images are resampled in pairs: an image is one of few values, so a resample is one
    multinomial draw. Seeds are two or three, and resampling those would understate their spread:
    their part is drawn from Student's t instead.
    """
    variance = found.image_variance + found.seed_variance
    if variance <= 0:
        return _silent_interval(found, level)
    drawn = rng.multinomial(found.images, found.counts / found.images, size=resamples)
    replicates = drawn @ found.values / found.images  # (resamples,)
    if found.seed_variance > 0:
        noise = rng.standard_t(found.degrees, resamples)
        replicates = replicates + np.sqrt(found.seed_variance) * noise
    below = (replicates < found.value - 1e-12).mean() + (replicates <= found.value + 1e-12).mean()
    edge = 0.5 / resamples
    bias = ndtri(np.clip(below / 2, edge, 1 - edge))
    acceleration = found.skewness / (6 * variance**1.5)
    z = ndtri(np.array([1 - level, 1 + level]) / 2) + bias
    low, high = np.quantile(replicates, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def mcnemar(first: Answers, second: Answers) -> float:
    """Exact two-sided McNemar test of one run against one run (Edwards 1948).

    With several seeds: twice the median of the tests of first seed against first seed, second
    against second and so on, a valid p-value however they depend on each other (Ruger 1978).
    """
    pairs = min(first.seeds, second.seeds)
    only_first = (first.runs[:pairs] & ~second.runs[:pairs]).sum(axis=1)
    only_second = (~first.runs[:pairs] & second.runs[:pairs]).sum(axis=1)
    fewer = np.minimum(only_first, only_second)
    p = np.minimum(1.0, 2 * binom.cdf(fewer, only_first + only_second, 0.5))
    return float(p[0]) if pairs == 1 else min(1.0, 2 * float(np.median(p)))


def difference_p(found: Difference) -> float:
    """Two-sided p-value of a difference over images and seeds.

    The level at which z^2 x image variance + t^2 x seed variance reaches the square of the
    difference (Cochran 1964's compromise, with the images' part normal).
    """
    if found.value == 0:
        return 1.0
    if found.image_variance + found.seed_variance <= 0:
        return 0.0
    low, high = -300.0, 0.0  # log10 p
    for _ in range(60):
        middle = (low + high) / 2
        half = 10**middle / 2
        t2 = student.isf(half, found.degrees) ** 2 if found.seed_variance > 0 else 0.0
        reach = ndtri(half) ** 2 * found.image_variance + t2 * found.seed_variance
        low, high = (middle, high) if reach > found.value**2 else (low, middle)
    return float(10**high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p-values (Holm 1979), float (m,)."""
    p = np.asarray(p, dtype=float)
    order = p.argsort(kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def detectable(found: Difference, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that these images and seeds would show with `power`."""
    reach = float(ndtri((1 + level) / 2) + ndtri(power))
    floor = 1 / found.images**2  # two nets that answer alike: one discordant image
    return reach * float(np.sqrt(max(found.image_variance, floor) + found.seed_variance))


def images_needed(found: Difference, level: float = LEVEL, power: float = POWER) -> float:
    """How many images would show the difference found; inf where only more seeds would."""
    reach = float(ndtri((1 + level) / 2) + ndtri(power))
    room = found.value**2 / reach**2 - found.seed_variance
    return found.image_variance * found.images / room if room > 0 else np.inf


def _degrees(first: Answers, second: Answers) -> float:
    """Degrees of freedom of a difference's seed variance, after Welch where it is not shared."""
    if first.spread.shared and second.spread.shared:
        return first.spread.degrees
    parts = [
        (x.spread.variance / x.seeds, x.spread.degrees)
        for x in (first, second)
        if x.spread.degrees and x.spread.variance
    ]
    if not parts:
        return 0
    return sum(part for part, _ in parts) ** 2 / sum(part**2 / d for part, d in parts)


def _silent_interval(found: Difference, level: float) -> tuple[float, float]:
    """Every image shows one and the same difference: what an unseen image could still do."""
    unseen = 1 - (1 - level) ** (1 / found.images)
    return max(-1.0, found.value - unseen), min(1.0, found.value + unseen)

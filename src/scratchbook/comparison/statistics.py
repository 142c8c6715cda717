"""From right-or-wrong answers on the same images to differences, intervals, p-values and power.

Arrays only. An experiment's answers are `correct`, bool (seeds, images). The model behind every
figure: accuracy = image effect + seed effect + what is left (image x seed). All experiments share
the images, so images are paired; seeds are not, a seed number means nothing across two nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# scipy.stats has these too, and takes four times as long to import.
from scipy.special import bdtr, fdtrc, ndtr, ndtri, stdtr, stdtrit

from scratchbook.evaluation import LEVEL, wilson

POWER = 0.8
SeedPart = tuple[float, float]  # a variance, its degrees of freedom


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
        return int(self.runs.shape[1])

    @property
    def accuracy(self) -> float:
        return float(self.right.mean() / self.seeds)


def seed_spreads(values: Sequence[Sequence[float]], outlier: float = 0.01) -> list[SeedSpread]:
    """The variance between seeds of each experiment, from every seed's accuracy.

    Two or three seeds say little of their variance, so the experiments of a notebook share one:
    pooled in units of accuracy x (1 - accuracy), since a net that is nearly always right varies
    less. Those with one seed borrow it. An experiment whose seeds are further apart than the
    others' (F test at `outlier`, Bonferroni-adjusted) keeps its own.
    """
    degrees = np.array([max(len(one) - 1, 0) for one in values])
    means = np.array([np.mean(one) if len(one) else 0.5 for one in values])
    unit = np.maximum(means * (1 - means), 1e-4)
    own = np.array([float(np.var(one)) * len(one) if len(one) else 0.0 for one in values])
    squares = own / unit
    apart = np.zeros(len(values), dtype=bool)
    for i in np.flatnonzero(degrees):
        rest, their_degrees = squares.sum() - squares[i], degrees.sum() - degrees[i]
        if rest > 0:
            ratio = (squares[i] / degrees[i]) / (rest / their_degrees)
            apart[i] = fdtrc(degrees[i], their_degrees, ratio) < outlier / np.count_nonzero(degrees)
    together = int(degrees[~apart].sum())
    pooled = squares[~apart].sum() / together if together else 0.0
    return [
        SeedSpread(own[i] / degrees[i], int(degrees[i]), False)
        if apart[i]
        else SeedSpread(pooled * unit[i], together, True)
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
    """Interval of an experiment's mean accuracy over the images and, where known, the seeds."""
    image_variance = float((answers.right / answers.seeds).var()) / answers.images
    part = (answers.spread.variance / answers.seeds, answers.spread.degrees)
    degrees = satterthwaite(image_variance, answers.seed_variance, answers.images, [part])
    variance = image_variance + answers.seed_variance
    return mean_interval(answers.accuracy, variance, degrees, answers.images, level)


def accuracies_interval(
    values: Sequence[float], images: int, spread: SeedSpread, level: float = LEVEL
) -> tuple[float, float]:
    """The same interval from each seed's accuracy alone, where the single answers were not kept.

    How alike the seeds' mistakes are is then unknown and taken to be complete, so this interval
    is never too narrow and, for several seeds, a little wide.
    """
    value = float(np.mean(values))
    image_variance = value * (1 - value) / images
    seed_variance = spread.variance / len(values)
    degrees = satterthwaite(
        image_variance, seed_variance, images, [(seed_variance, spread.degrees)]
    )
    return mean_interval(value, image_variance + seed_variance, degrees, images, level)


def mean_interval(
    value: float, variance: float, degrees: float, images: int, level: float = LEVEL
) -> tuple[float, float]:
    """Wilson's interval of `value` at the number of independent images that gives `variance`."""
    if variance <= 0 or value in (0, 1):
        effective = float(images)
    else:
        stretch = (stdtrit(degrees, (1 + level) / 2) / ndtri((1 + level) / 2)) ** 2
        effective = value * (1 - value) / (variance * stretch)
    low, high = wilson(value, effective, level)
    return float(low), float(high)


def satterthwaite(
    image_variance: float, seed_variance: float, images: int, seed_parts: Sequence[SeedPart]
) -> float:
    """Degrees of freedom of the sum of two variances (Satterthwaite 1946).

    `seed_parts` are the variances between seeds, before the images' share is taken off, each with
    its own degrees of freedom; inf where nothing is known of the seeds, as for images alone.
    """
    known = [(variance, degrees) for variance, degrees in seed_parts if degrees]
    if not known:
        return np.inf
    uncertain = image_variance**2 / max(images - 1, 1)
    uncertain += sum(variance**2 / degrees for variance, degrees in known)
    return max(1.0, (image_variance + seed_variance) ** 2 / uncertain) if uncertain else np.inf


@dataclass(frozen=True)
class Difference:
    """Accuracy of `second` less accuracy of `first`, and what is uncertain about it.

    The images show only few different values: `values` float (k,), each met `counts` int (k,)
    times. `degrees` are those of the whole variance, `seeds_known` whether it covers the seeds.
    """

    value: float
    image_variance: float
    seed_variance: float
    degrees: float
    seeds_known: bool
    skewness: float
    values: np.ndarray
    counts: np.ndarray
    images: int

    @property
    def variance(self) -> float:
        return self.image_variance + self.seed_variance


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
    seed_variance = first.seed_variance + second.seed_variance
    return Difference(
        value=value,
        image_variance=image_variance,
        seed_variance=seed_variance,
        degrees=satterthwaite(image_variance, seed_variance, n, _seed_parts(first, second)),
        seeds_known=bool(first.spread.degrees and second.spread.degrees),
        skewness=float(counts @ off**3) / n**3,
        values=values,
        counts=counts,
        images=n,
    )


def _seed_parts(first: Answers, second: Answers) -> list[SeedPart]:
    """The variances between seeds in a difference; a shared one is known, or not, as a whole."""
    one, other = first.spread, second.spread
    if one.shared and other.shared:
        return [(one.variance / first.seeds + other.variance / second.seeds, one.degrees)]
    return [
        (one.variance / first.seeds, one.degrees),
        (other.variance / second.seeds, other.degrees),
    ]


def bca_interval(
    found: Difference, rng: np.random.Generator, resamples: int, level: float = LEVEL
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a paired difference (Efron 1987).

    Images are resampled in pairs: an image is one of few values, so a resample is one multinomial
    draw. Seeds are two or three, and resampling those few would understate their spread, so their
    part is drawn from the normal with their variance; each replicate is then widened as Student's
    t is, for what two or three seeds leave unknown of that variance.
    """
    if found.variance <= 0:
        return _silent_interval(found, level)
    drawn = rng.multinomial(found.images, found.counts / found.images, size=resamples)
    off = drawn @ found.values / found.images - found.value  # (resamples,)
    if found.seeds_known:
        off += np.sqrt(found.seed_variance) * rng.standard_normal(resamples)
        off *= np.sqrt(found.degrees / rng.chisquare(found.degrees, resamples))
    below = (off < -1e-12).mean() + (off <= 1e-12).mean()
    edge = 0.5 / resamples
    bias = ndtri(np.clip(below / 2, edge, 1 - edge))
    acceleration = found.skewness / (6 * found.variance**1.5)
    z = ndtri(np.array([1 - level, 1 + level]) / 2) + bias
    low, high = found.value + np.quantile(off, ndtr(bias + z / (1 - acceleration * z)))
    return float(max(low, -1)), float(min(high, 1))


def mcnemar(first: Answers, second: Answers) -> float:
    """Exact two-sided McNemar test of one run against one run (Edwards 1948).

    With several seeds: twice the median of the tests of first seed against first seed, second
    against second and so on, a valid p-value however they depend on each other (Ruger 1978).
    """
    pairs = min(first.seeds, second.seeds)
    only_first = (first.runs[:pairs] & ~second.runs[:pairs]).sum(axis=1)
    only_second = (~first.runs[:pairs] & second.runs[:pairs]).sum(axis=1)
    fewer = np.minimum(only_first, only_second)
    p = np.minimum(1.0, 2 * bdtr(fewer, only_first + only_second, 0.5))
    return float(p[0]) if pairs == 1 else min(1.0, 2 * float(np.median(p)))


def difference_p(found: Difference) -> float:
    """Two-sided p-value of a difference over images and seeds, by Student's t."""
    if found.variance <= 0:
        return float(found.value == 0)
    return float(2 * stdtr(found.degrees, -abs(found.value) / np.sqrt(found.variance)))


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


def _silent_interval(found: Difference, level: float) -> tuple[float, float]:
    """Every image shows one and the same difference: what an unseen image could still do."""
    unseen = 1 - (1 - level) ** (1 / found.images)
    return max(-1.0, found.value - unseen), min(1.0, found.value + unseen)

"""A published figure with our rows beside it: the difference, what chance makes of it, and what is concluded."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property

from profiling.reports import Figure
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.statistics import LEVEL
from tune_jobs.results.table import Row


@dataclass(frozen=True)
class Match:
    """One of our rows as a cell's."""

    loaded: Loaded
    row: Row
    accuracy: float
    """0 to 1."""
    metric: str
    """val or test: what it is of."""
    best_epoch: int | None
    marks: tuple[str, ...]
    """In what the conditions are not the cell's: such accuracies do not compare."""

    @property
    def images(self) -> int:
        """That the accuracy was taken on."""
        return int(self.loaded.environment["images"][self.metric])


@dataclass(frozen=True)
class Cell:
    """A published figure with ours beside it."""

    figure: Figure
    ours: tuple[Match, ...]
    """Repeats of one config; empty where it was not run."""
    chosen_from: int
    """How many configs of ours fit the cell; the one with the highest validation accuracy stands for them."""

    @property
    def accuracy(self) -> float:
        return statistics.fmean(match.accuracy for match in self.ours) if self.ours else math.nan

    @property
    def difference(self) -> float:
        """Ours less theirs, 0 to 1."""
        return self.accuracy - self.figure.accuracy

    @property
    def marks(self) -> tuple[str, ...]:
        """In what ours are not the cell's, conditions first; with any, the two do not compare."""
        if not self.ours:
            return ()
        found = self.ours[0].marks
        if any(match.metric != self.figure.metric for match in self.ours):
            return (*found, "val for test")
        if self.figure.metric == "val" and self.chosen_from > 1:
            return (*found, f"ours is the highest of {self.chosen_from} configs on the images they were chosen by")
        return found

    @cached_property
    def noise(self) -> float:
        """By how much the two may differ by chance, 95 %: each was taken on images of its own and, where the run has
        repeats or is confirmed, by training under seeds of its own.  Theirs is taken to be of one seed and, where it is
        not stated, of as many images as ours: without any, too many differences would be called real.

        A spread over few seeds is itself uncertain: Student's t, on the degrees of freedom of Welch and Satterthwaite.
        """
        if not self.ours:
            return math.nan
        from scipy import stats  # which those who show no such cell need not wait for

        images, noise = self.ours[0].images, self.ours[0].loaded.noise
        variance = _of_images(self.accuracy, images)
        variance += _of_images(self.figure.accuracy, self.figure.eval_images or images)
        degrees = math.inf
        if noise.seeds is not None:
            of_seeds = noise.seeds**2 * (1 + 1 / len(self.ours))
            variance += of_seeds
            degrees = noise.degrees * (variance / of_seeds) ** 2
        return float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(variance)

    @property
    def with_seeds(self) -> bool:
        """Whether the run measured how far seeds lie apart."""
        return bool(self.ours) and self.ours[0].loaded.noise.seeds is not None

    @property
    def noise_source(self) -> str:
        """In words, seeds apart."""
        theirs = self.figure.eval_images
        known = f"their {theirs:,}" if theirs is not None else "theirs, which are not stated, taken to be as many"
        return f"our {self.ours[0].images:,} images and {known}"

    @property
    def verdict(self) -> str:
        if not self.ours:
            return "not run"
        if self.marks:
            return "does not compare"
        if abs(self.difference) <= self.noise:
            return "within noise"
        return "outside the images' noise" if self.without_seeds else "outside noise"

    @property
    def without_seeds(self) -> bool:
        """Whether ours depends on a seed of which the noise knows nothing."""
        return bool(self.ours) and not self.with_seeds and self.ours[0].row.config["model"] != "svm"


def _of_images(share: float, images: int) -> float:
    """Variance of a share of so many images."""
    # At 0 or 1 the formula says 0, and life does not: half an image is kept from it.
    share = min(max(share, 0.5 / images), 1 - 0.5 / images)
    return share * (1 - share) / images

"""What a confirmation found: which of the best configs are really apart."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets.reasons import in_a_line
from tune_jobs.errors import UsageError
from tune_jobs.results import statistics
from tune_jobs.results.ledger import number_of
from tune_jobs.results.plain import number, plain
from tune_jobs.results.selection import Candidate, candidates
from tune_jobs.results.statistics import LEVEL, Comparison, Summary
from tune_jobs.results.table import Row, without_seed

Verdict = Literal["first", "tied", "worse", "worse on these images"]


@dataclass(frozen=True)
class Confirmed:
    """One config over the fresh seeds."""

    trial: str
    """Its id in the search."""
    config: dict[str, Any]
    """But for the seed."""
    search_val_accuracy: float
    """The score that the search knew it by."""
    val: Summary
    """Validation accuracy over the fresh seeds."""
    train_time_s: float
    """Mean."""
    macs: int | None
    versus_first: Comparison | None
    """Held against the best mean; None for that one itself."""
    reads_seed: bool = True
    """Else all its scores on one split are the same: an svm's."""
    scores: list[float] = field(default_factory=list)
    """Validation accuracy under each seed, in their order; empty where an earlier version wrote it."""
    test: Summary | None = None
    """Test accuracy over the seeds; None where an earlier version wrote it.  Nothing was chosen by the test images, but
    the same trainings put the config where it stands, and a seed that does well does well on both."""
    search_repeats: int = 1
    """Trainings that the search's score is the mean of; 1 where an earlier version wrote it."""


@dataclass(frozen=True)
class Confirmation:
    """All of it; the best mean first."""

    seeds: list[int]
    splits: bool
    """Whether each seed also had a split of its own."""
    images: int
    """In the validation part."""
    configs: list[Confirmed]
    test: Summary
    """Test accuracy of the first config over the seeds, which was chosen without these images, by these trainings."""
    winner: str
    """The config that the search would have named, by its id there."""
    optimism: float
    """The winner's score in the search less its mean over fresh seeds: by how much the single score was too good.  NaN
    where it is left out."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Of each config, by its id in the search, that has not all its trials COMPLETE, how they ended."""
    overlap: float = 0.0
    """Validation images for each one trained on, where each seed has a split of its own; 0 where an earlier version
    wrote it, whose intervals do not allow for it."""

    def of(self, row: Row) -> Confirmed | None:
        """What it found of a row's config; None where that is none of those compared.  The seed does not count."""
        for confirmed in self.configs:
            if number_of(confirmed.trial) == number_of(row.id) or confirmed.config == without_seed(row.config):
                return confirmed
        return None

    def picking(self) -> str:
        """What the first's having been picked does to its mean and its interval, in a line; empty of a single config,
        and where it has no spread or its scores are not known."""
        first, among = self.configs[0], len(self.configs)
        if among < 2 or len(first.scores) < 2 or not first.val.std > 0:
            return ""
        counted = statistics.of_the_highest(first.scores, among, self.overlap)
        return (
            f"trial {first.trial} was picked as the highest of {among}: with that counted in (Bonferroni) its 95 % "
            f"interval is {interval(counted)} %, and its mean is likely somewhat too high"
        )

    def refutes(self, row: Row) -> bool:
        """Whether it told the row's config apart from its first, which is better."""
        confirmed = self.of(row)
        return confirmed is not None and self.is_worse(confirmed)

    def test_accuracy(self, config: Confirmed) -> Summary | None:
        """Over the seeds; None where an earlier version wrote it, but of the first."""
        return config.test or (self.test if config.versus_first is None else None)

    def verdict(self, config: Confirmed) -> Verdict:
        """How one of them stands to the first.

        On one split, `worse` only where the images alone would tell the two apart too.
        """
        versus = config.versus_first
        if versus is None:
            return "first"
        if versus.tied:
            return "tied"
        p = versus.p_images
        if math.isnan(p):
            p = statistics.p_of_shares(config.val.mean, self.configs[0].val.mean, self.images)
        return "worse" if self.splits or p < 1 - LEVEL else "worse on these images"

    def is_worse(self, config: Confirmed) -> bool:
        """Whether it was told apart from the first, be it on these images alone."""
        return self.verdict(config) in ("worse", "worse on these images")

    def test_of(self, configs: Sequence[Confirmed]) -> str:
        """How these were held against the first."""
        reads_seed = self.splits or any(config.reads_seed for config in [self.configs[0], *configs])
        return "paired t-test over seeds" if reads_seed else "test of two shares of the images"

    def are(self, verdict: Verdict) -> list[Confirmed]:
        return [config for config in self.configs if self.verdict(config) == verdict]


def conclude(
    ranked: Sequence[Candidate], rows: Sequence[Row], seeds: list[int], splits: bool, images: Mapping[str, int]
) -> Confirmation:
    """`ranked`: the search's candidates that were trained again, best first; `rows`: theirs under the fresh seeds, the
    trial of number n being of the n-th of them.  At least one has all its rows COMPLETE.  `images` is how many the
    parts have: train, val, test."""
    again = {number_of(candidate.rows[0].id): candidate for candidate in candidates(rows)}
    order = sorted(again, key=lambda number: (-again[number].accuracy, again[number].train_time_s, number))
    first = order[0]
    scores = {str(n): {row.fold: row.val_accuracy for row in again[n].rows} for n in order}
    reading = {n: "seed" in again[n].rows[0].config for n in order}
    seedless = [str(n) for n in order if not reading[n]]
    overlap, tests_overlap = (images[part] / images["train"] if splits else 0.0 for part in ("val", "test"))
    versus = statistics.compare(
        scores, str(first), images["val"], seedless=seedless, overlap=overlap if splits else None
    )
    return Confirmation(
        seeds=seeds,
        splits=splits,
        images=images["val"],
        configs=[
            Confirmed(
                trial=ranked[n].rows[0].id,
                config=without_seed(again[n].rows[0].config),
                search_val_accuracy=ranked[n].accuracy,
                val=statistics.summarise(list(scores[str(n)].values()), overlap=overlap),
                train_time_s=again[n].train_time_s,
                macs=again[n].rows[0].macs,
                versus_first=versus.get(str(n)),
                reads_seed=reading[n],
                scores=[scores[str(n)][fold] for fold in sorted(scores[str(n)])],
                test=_test(again[n], tests_overlap),
                search_repeats=len(ranked[n].rows),
            )
            for n in order
        ],
        test=_test(again[first], tests_overlap),
        winner=ranked[0].rows[0].id,
        optimism=ranked[0].accuracy - again[0].accuracy if 0 in again else math.nan,
        left_out={
            candidate.rows[0].id: _ends([row for row in rows if number_of(row.id) == n])
            for n, candidate in enumerate(ranked)
            if n not in again
        },
        overlap=overlap,
    )


def _test(candidate: Candidate, overlap: float) -> Summary:
    return statistics.summarise([row.test_accuracy for row in candidate.rows], overlap=overlap)


def _ends(rows: Sequence[Row]) -> str:
    ends = Counter(row.state for row in rows if row.state != "COMPLETE")
    ended = ", ".join(f"{count} {state}" for state, count in ends.items())
    return f"{ended or 'some without an accuracy'} of {len(rows)}"


def dump(confirmation: Confirmation) -> str:
    """As JSON; NaN is null."""
    return json.dumps(plain(asdict(confirmation)), indent=2, allow_nan=False) + "\n"


def load(path: Path) -> Confirmation | None:
    """What `dump` wrote; None where there is no confirmation.  Raises UsageError where it is damaged."""
    if not path.exists():
        return None
    try:
        return _confirmation(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is damaged ({in_a_line(error)}); remove it, and confirm again") from error


def _confirmation(found: Any) -> Confirmation:
    configs = [
        Confirmed(
            **confirmed
            | {
                "val": _summary(confirmed["val"]),
                "versus_first": versus and _comparison(versus),
                "test": test and _summary(test),
            }
        )
        for confirmed in found["configs"]
        for versus, test in [(confirmed["versus_first"], confirmed.get("test"))]
    ]
    if not configs:
        raise ValueError("it compares no configs")
    summaries = {"test": _summary(found["test"]), "optimism": number(found["optimism"])}
    return Confirmation(**found | summaries | {"configs": configs})


def _comparison(found: dict[str, Any]) -> Comparison:
    return Comparison(**found | {"p": number(found["p"]), "p_images": number(found.get("p_images"))})


def _summary(found: dict[str, Any]) -> Summary:
    return Summary(found["n"], *(number(found[key]) for key in ("mean", "std", "low", "high")))


def half_width(found: Confirmation) -> float | None:
    """Half the interval of the best confirmed mean, 0 to 1: how far below the best a config may be by `cheapest` and
    `smallest`.  Of one that is cut at an end, the half that is whole.

    None where it has no spread.
    """
    if math.isnan(found.configs[0].val.low):
        return None
    first = found.configs[0].val
    return max(first.mean - first.low, first.high - first.mean) or None


def interval(summary: Summary) -> str:
    """Its interval in percent, in words; a dash where one score has none."""
    if math.isnan(summary.low):
        return "–"
    return f"{100 * summary.low:.2f} to {100 * summary.high:.2f}" if summary.std > 0 else "no spread"

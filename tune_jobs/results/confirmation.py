"""What a confirmation found: which of the best configs are really apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_jobs.results import statistics
from tune_jobs.results.ledger import number_of
from tune_jobs.results.selection import Candidate, candidates
from tune_jobs.results.statistics import Comparison, Summary
from tune_jobs.results.table import Row


@dataclass(frozen=True)
class Confirmed:
    """One config over the fresh seeds."""

    trial: str
    """Its id in the search."""
    config: dict[str, Any]
    search_val_accuracy: float
    """The score that the search knew it by."""
    val: Summary
    """Validation accuracy over the fresh seeds."""
    train_time_s: float
    """Mean."""
    macs: int | None
    versus_first: Comparison | None
    """Held against the best mean; None for that one itself."""


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
    """Test accuracy of the first config over the seeds.  It was chosen without it."""
    winner: str
    """The config that the search would have named, by its id there."""
    optimism: float
    """The winner's score in the search less its mean over fresh seeds: by how much the single score was too good."""


def conclude(
    ranked: Sequence[Candidate], rows: Sequence[Row], seeds: list[int], splits: bool, images: int
) -> Confirmation:
    """`ranked`: the search's candidates that were trained again, best first; `rows`: theirs under the fresh seeds, the
    trial of number n being of the n-th of them.  At least one has all its rows COMPLETE."""
    again = {number_of(candidate.rows[0].id): candidate for candidate in candidates(rows)}
    order = sorted(again, key=lambda number: (-again[number].accuracy, again[number].train_time_s, number))
    first = order[0]
    scores = {str(n): {row.fold: row.val_accuracy for row in again[n].rows} for n in order}
    versus = statistics.compare(scores, str(first), images)
    winner = 0 if 0 in again else min(again)
    return Confirmation(
        seeds=seeds,
        splits=splits,
        images=images,
        configs=[
            Confirmed(
                trial=ranked[n].rows[0].id,
                config={key: value for key, value in again[n].rows[0].config.items() if key != "seed"},
                search_val_accuracy=ranked[n].accuracy,
                val=statistics.summarise(list(scores[str(n)].values())),
                train_time_s=again[n].train_time_s,
                macs=again[n].rows[0].macs,
                versus_first=versus.get(str(n)),
            )
            for n in order
        ],
        test=statistics.summarise([row.test_accuracy for row in again[first].rows]),
        winner=ranked[winner].rows[0].id,
        optimism=ranked[winner].accuracy - again[winner].accuracy,
    )


def dump(confirmation: Confirmation) -> str:
    """As JSON; NaN is null."""
    return json.dumps(_plain(asdict(confirmation)), indent=2, allow_nan=False) + "\n"


def load(path: Path) -> Confirmation | None:
    """What `dump` wrote; None where there is no confirmation."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    configs = [
        Confirmed(
            **confirmed
            | {
                "val": _summary(confirmed["val"]),
                "versus_first": versus and Comparison(**versus | {"p": _number(versus["p"])}),
            }
        )
        for confirmed in found["configs"]
        for versus in [confirmed["versus_first"]]
    ]
    return Confirmation(**found | {"configs": configs, "test": _summary(found["test"])})


def _summary(found: dict[str, Any]) -> Summary:
    return Summary(found["n"], *(_number(found[key]) for key in ("mean", "std", "low", "high")))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def half_width(path: Path) -> float | None:
    """Half the interval of the best confirmed config, 0 to 1: configs that far below it cannot be told from it.  Of one
    that is cut at an end, the half that is whole.

    None where there is no confirmation, or it had one seed.
    """
    if not path.exists():
        return None
    first = json.loads(path.read_text(encoding="utf-8"))["configs"][0]["val"]
    return None if first["low"] is None else float(max(first["mean"] - first["low"], first["high"] - first["mean"]))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.results.best import check_rule
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.selection import Rule, best, candidates, cheapest, distinct, pareto_front, smallest, with_front
from tune_jobs.results.table import Row, rank, rows


def row(
    id_: str, accuracy: float, time_s: float = 1.0, state: str = "COMPLETE", lr: float = 0.1, macs: int | None = None
) -> Row:
    (blank,) = rows([TrialRecord(id_, {"model": "mlp", "lr": lr, "seed": None}, state)])
    return replace(blank, val_accuracy=accuracy, train_time_s=time_s, macs=macs)


def chosen(rule: Rule, *found: Row, within: float | None = None) -> tuple[str, str]:
    candidate, reason = rule(candidates(found), within)
    return candidate.rows[0].id, reason


def test_best_is_the_highest_validation_accuracy() -> None:
    id_, reason = chosen(best, row("0", 0.8), row("1", 0.9), row("2", 0.7))
    assert id_ == "1"
    assert reason == "highest validation accuracy, 90.00%, of 3 complete configs"


def test_best_tie_goes_to_less_training_time_then_to_config_and_only_then_to_id() -> None:
    id_, reason = chosen(best, row("0", 0.9, 2.0), row("1", 0.9, 1.0), row("2", 0.8, 0.1))
    assert id_ == "1"
    assert "2 share it" in reason
    tied = [row("0", 0.9, lr=0.2), row("1", 0.9, lr=0.1), row("2", 0.9, lr=0.1)]
    assert chosen(best, *tied)[0] == chosen(best, *tied[::-1])[0] == "1"
    for rule in (cheapest, smallest):
        assert chosen(rule, *tied, within=0.1)[0] == "1"
    assert [one.id for one in sorted(tied, key=rank)] == ["1", "2", "0"]
    waiting = [replace(one, state="WAITING", val_accuracy=math.nan) for one in tied]
    assert [one.id for one in sorted(waiting, key=rank)] == ["0", "1", "2"]


def test_candidates_tie_between_configs_in_the_same_order_whoever_was_made_first() -> None:
    one = [row("0-0", 0.9, lr=0.2), row("0-1", 0.9, lr=0.2), row("1-0", 0.9), row("1-1", 0.9)]
    other = [replace(each, id=f"{1 - int(each.id[0])}{each.id[1:]}") for each in one]
    orders = [[candidate.rows[0].config["lr"] for candidate in candidates(found)] for found in (one, other)]
    assert orders == [[0.1, 0.2]] * 2


def test_best_never_looks_at_the_test_set() -> None:
    better_test = replace(row("0", 0.8), test_accuracy=1.0)
    assert chosen(best, better_test, replace(row("1", 0.9), test_accuracy=0.0))[0] == "1"


def test_best_of_repeats_is_the_highest_mean() -> None:
    lucky = [row("0-0", 0.95), row("0-1", 0.75)]
    steady = [row("1-0", 0.88), row("1-1", 0.90)]
    id_, reason = chosen(best, *lucky, *steady)
    assert id_ == "1-0"
    assert "89.00% ± 1.41 over 2 seeds" in reason


def test_best_of_repeats_without_a_seed_claims_no_spread_over_seeds() -> None:
    seeded = [row(f"0-{fold}", 0.95) for fold in (0, 1)]
    assert "95.00% ± 0.00 over 2 seeds" in chosen(best, *seeded)[1]
    svms = [replace(one, config={"model": "svm", "C": 1.0}) for one in seeded]
    _, reason = chosen(best, *svms)
    assert reason == "highest validation accuracy, 95.00%, which depends on no seed, of 1 complete configs"


@pytest.mark.parametrize("state", ["FAIL", "PRUNED", "RUNNING", "WAITING"])
def test_candidates_are_complete_alone(state: str) -> None:
    found = candidates([row("0", 0.9, state=state), row("1", 0.1), row("2", math.nan)])
    assert [candidate.rows[0].id for candidate in found] == ["1"]


def test_candidates_need_all_their_repeats() -> None:
    assert candidates([row("0-0", 0.9), row("0-1", 0.9, state="FAIL")]) == []


def test_distinct_configs_differ_in_more_than_the_seed() -> None:
    found = [row("0", 0.9), row("1", 0.8), row("2", 0.7, lr=0.2)]
    seeded = [replace(one, config=one.config | {"seed": seed}) for seed, one in enumerate(found)]
    assert [candidate.rows[0].id for candidate in distinct(candidates(seeded))] == ["0", "2"]


ROWS = [
    row("0", 0.90, 9.0, macs=900),
    row("1", 0.89, 5.0, macs=100),
    row("2", 0.895, 6.0, macs=200),
    row("3", 0.5, 0.1, macs=1),
]


def test_cheapest_is_the_least_time_near_the_best() -> None:
    assert chosen(cheapest, *ROWS, within=0.02)[0] == "1"
    id_, reason = chosen(cheapest, *ROWS, within=0.006)
    assert id_ == "2"
    assert reason == (
        "least training time, 6.0 s, of 2 of 4 configs within 0.60 points of the best validation accuracy, 90.00%"
    )


def test_smallest_is_the_fewest_macs_near_the_best() -> None:
    assert chosen(smallest, *ROWS, within=0.02)[0] == "1"
    assert chosen(smallest, *ROWS, within=0.0)[0] == "0"


@pytest.mark.parametrize("rule", [cheapest, smallest])
def test_near_rules_choose_the_most_accurate_of_those_alike(rule: Rule) -> None:
    """All configs of one network have the same multiply-accumulates."""
    alike = [row(str(number), accuracy, macs=100) for number, accuracy in enumerate((0.89, 0.90, 0.88))]
    assert chosen(rule, *alike, within=0.05)[0] == "1"


@pytest.mark.parametrize("rule", [cheapest, smallest])
def test_near_rules_need_to_know_how_near(rule: Rule) -> None:
    with pytest.raises(UsageError, match=r"Give --within POINTS, or confirm the run first"):
        chosen(rule, *ROWS)


def test_how_near_is_a_number() -> None:
    with pytest.raises(UsageError, match=r"^--within: nan: is a number of percentage points, from 0 to 100$"):
        chosen(cheapest, *ROWS, within=math.nan)


def test_a_candidate_has_the_means_of_its_repeats() -> None:
    (found,) = candidates([replace(row(f"0-{n}", 0.9, n), test_accuracy=0.8 + n / 10) for n in (0, 1)])
    assert (found.test_accuracy, found.train_time_s) == pytest.approx((0.85, 0.5))


def test_pareto_front_is_what_nothing_beats() -> None:
    front = pareto_front(candidates(ROWS), {"val_accuracy": "max", "train_time_s": "min"})
    assert [candidate.rows[0].id for candidate in front] == ["0", "2", "1", "3"]
    beaten = row("4", 0.88, 5.5, macs=50)
    front = pareto_front(candidates([*ROWS, beaten]), {"val_accuracy": "max", "train_time_s": "min"})
    assert "4" not in [candidate.rows[0].id for candidate in front]
    front = pareto_front(candidates([*ROWS, beaten]), {"val_accuracy": "max", "macs": "min"})
    assert "4" in [candidate.rows[0].id for candidate in front]


def test_pareto_front_leaves_out_what_lacks_an_objective_and_keeps_equals() -> None:
    twins = [row("0", 0.9, macs=5), row("1", 0.9, macs=5), row("2", 0.99)]
    marked = with_front(twins, {"val_accuracy": "max", "macs": "min"})
    assert [r.pareto for r in marked] == [True, True, False]
    assert [r.pareto for r in with_front(twins, {"val_accuracy": "max"})] == [None] * 3


def test_check_rule_unknown_names_the_known() -> None:
    with pytest.raises(UsageError, match="--rule luck: there is no such rule; there are best, cheapest, smallest"):
        check_rule("luck")


def test_cheapest_says_where_trials_had_more_company_than_others() -> None:
    alone, beside = replace(row("0", 0.9, 2.0), shared_with=0.0), replace(row("1", 0.9, 3.0), shared_with=1.6)
    id_, reason = chosen(cheapest, alone, beside, within=0.1)
    assert id_ == "0"
    assert reason.endswith(
        "; times of trials that ran beside 0.0 to 1.6 others of the search, so they do not quite compare"
    )
    _, reason = chosen(cheapest, alone, replace(beside, shared_with=0.3), within=0.1)
    assert "compare" not in reason
    on_card = [replace(one, shared_with=2.0, shared_card_with=n / 2) for n, one in enumerate((alone, beside))]
    _, reason = chosen(cheapest, *on_card, within=0.1)
    assert "that ran beside 0.0 to 0.5 others of the search on the same card, so" in reason

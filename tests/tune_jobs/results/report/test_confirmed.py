"""What the page and the tables say of configs that were trained again over fresh seeds."""

from __future__ import annotations

import re

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.report import page
from tune_jobs.results.report.loaded import load


def written(make_run: MakeRun, fresh: list[list[float]], splits: bool = False) -> str:
    """The page's text of a run whose configs were trained again to these scores."""
    trials: list[Trial] = [
        ({"model": "mlp", "lr": 0.1 * (n + 1), "seed": 1}, "COMPLETE", [0.95 - 0.01 * n], {}) for n in range(len(fresh))
    ]
    run = make_run(trials)
    again = make_run(
        [(trials[n][0], "COMPLETE", [score], {"number": n, "fold": fold, "train_time_s": 9.0 - n})
         for n, scores in enumerate(fresh) for fold, score in enumerate(scores)], name="again",
    )  # fmt: skip
    images, seeds = load(run).environment["images"], list(range(len(fresh[0])))
    run.confirmation.write_text(dump(conclude(load(run).candidates, load(again).rows, seeds, splits, images)))
    page.write([run], run.report)
    return " ".join(re.sub(r"<[^>]*>", "", run.report.read_text(encoding="utf-8")).split())


@pytest.mark.parametrize("splits", [False, True])
def test_a_confirmed_headline_has_what_the_images_leave_open_where_they_are_the_same(
    make_run: MakeRun, splits: bool
) -> None:
    found = written(make_run, [[0.90, 0.91, 0.92]], splits)
    assert "95 % interval over the seeds" in found
    said = "89.07% to 92.62%, what 1,000 validation images alone leave open (95 %), on which it was chosen"
    assert (said in found) == (not splits)


@pytest.mark.parametrize(("more", "said"), [(0.0, False), (0.001, True)])
def test_no_other_config_has_a_higher_mean_by_what_adding_rounds(make_run: MakeRun, more: float, said: bool) -> None:
    """The same images in another order, whose means differ in the last digit, and one image more."""
    own, other = [0.940, 0.928, 0.913, 0.936, 0.875], [0.937, 0.931, 0.913, 0.936, 0.875 + more]
    found = written(make_run, [own, other])
    assert ("Another config has a higher mean over the same seeds: trial 00001" in found) == said

"""Wherever the report ranks by time, it says whether the times compare."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun, Trial
from tune_jobs.results import best
from tune_jobs.results.report import page, text
from tune_jobs.results.report.cells import of_trials
from tune_jobs.results.report.compared import lines, times
from tune_jobs.results.report.figures import figures
from tune_jobs.results.report.findings import findings
from tune_jobs.results.report.loaded import Loaded, load
from tune_jobs.results.report.timing import sentence

DIFFERENT = "Times are of trials that ran beside 0.0 to 1.6 others of the search: they do not quite compare."


def trial(accuracy: float, shared_with: float | None, **more: Any) -> Trial:
    config = {"model": "mlp", "lr": accuracy, "batch_size": int(1000 * accuracy)}
    return config, "COMPLETE", [accuracy], {"shared_with": shared_with} | more


@pytest.fixture
def different(make_run: MakeRun) -> Loaded:
    """The faster of two configs, which are as good as each other, had no company."""
    trials = [trial(0.9, 1.6, train_time_s=3.0), trial(0.899, 0.0, train_time_s=1.0, macs=900)]
    objectives = {"val_accuracy": "max", "train_time_s": "min"}
    space = {"lr": {"uniform": [0.1, 0.9]}, "batch_size": {"int": [100, 900]}}
    search = {"method": "random", "trials": 2, "objectives": objectives}
    return load(make_run(trials, {"space": space, "search": search}))


def test_every_place_that_ranks_by_time_says_how_the_rows_shared(different: Loaded) -> None:
    assert different.times(different.rows) == DIFFERENT
    cheaper = next(finding for finding in findings(different) if finding.lead == "A cheaper one")
    assert cheaper.text.endswith(DIFFERENT)
    captions = {figure.key: figure.caption for figure in figures(different, [])}
    assert {key for key, caption in captions.items() if DIFFERENT in caption} == {"time", "heat", "objectives"}
    assert DIFFERENT in text.markdown([different.run]).replace("\\", "")
    assert times([different, different]) == DIFFERENT
    columns, table = of_trials(different)
    beside = [column.name for column in columns].index("beside")
    assert [cells[beside].text for _, cells in table] == ["1.6", "0.0"]


def test_front_and_tie_broken_by_time_say_how_the_rows_shared(different: Loaded, make_run: MakeRun) -> None:
    written = best.write_front(different.run, different.experiment, different.rows)
    assert len(written) == 2
    assert "ran beside 0.0 to 1.6 others of the search" in (best.load(written[0]).reason or "")
    tied = load(make_run([trial(0.9, 1.6, train_time_s=3.0), trial(0.9, 0.0)], name="tied"))
    _, reason = best.choose(tied.rows, "best")
    assert "in the least time; times of trials that ran beside 0.0 to 1.6 others of the search" in reason


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ((0.0, 0.2), ""),
        ((1.0, 1.2), "Times are of trials that ran side by side, each beside about 1.2 others of the search: small "
                     "differences mean nothing."),
        ((0.0, None, 1.6), "Times are of trials that ran beside 0.0 to 1.6 others of the search (1 do not say): they "
                           "do not quite compare."),
        ((None, None), ""),
        ((1.6,), ""),
    ],
)  # fmt: skip
def test_sentence_on_times(make_run: MakeRun, shared: tuple[float | None, ...], said: str) -> None:
    loaded = load(make_run([trial(0.9, value) for value in shared]))
    assert not loaded.side_by_side
    assert loaded.times(loaded.rows) == said


def test_rows_that_shared_a_card_differently_beside_as_many_on_the_node(make_run: MakeRun) -> None:
    run = make_run([trial(0.9, 3.0, shared_card_with=value) for value in (0.0, 3.0, None)])
    loaded = load(run)
    assert loaded.times(loaded.rows) == (
        "Times are of trials that ran beside 0.0 to 3.0 others of the search on the same card: they do not quite "
        "compare."
    )
    columns, table = of_trials(loaded)
    place = [column.name for column in columns].index("on its card")
    assert sorted(cells[place].text for _, cells in table) == ["0.0", "3.0", "–"]
    assert "compare" not in loaded.times([loaded.rows[0], loaded.rows[2]])
    reason = best.choose(loaded.rows, "best")[1]
    assert reason.endswith(
        "; times of trials that ran beside 0.0 to 3.0 others of the search on the same card, so they do not quite "
        "compare"
    )


def test_sentence_on_times_of_fused_trials(make_run: MakeRun) -> None:
    """Though all were alike."""
    told = "The time of a fused trial is that of all that were trained as one with it."
    alike = load(make_run([trial(0.9, 0.0, fused=2), trial(0.8, 0.0, fused=2)], name="alike"))
    assert alike.times(alike.rows) == told
    beside = load(make_run([trial(0.9, 1.0, fused=2), trial(0.8, 1.0)], name="beside"))
    assert beside.times(beside.rows) == (
        f"Times are of trials that ran beside 0 to 1 others fused with them: they do not quite compare. {told}"
    )


def test_sentence_of_an_old_ledger_and_of_several_devices(make_run: MakeRun) -> None:
    rows = load(make_run([trial(0.9, None), trial(0.8, None, device="cuda")])).rows
    assert all(math.isnan(row.shared_with) for row in rows)
    assert "beside how many is not known: small" in sentence([rows[0], rows[0]], True)
    assert sentence(rows, False) == "Times are of trials that ran on cpu and cuda: they do not quite compare."


def test_the_time_of_trials_trained_as_one_is_counted_once(make_run: MakeRun) -> None:
    """Four that took 8 s together, and one alone."""
    trials = [trial(0.5 + n / 10, None, train_time_s=8.0, fused=4) for n in range(4)] + [trial(0.4, None)]
    loaded = load(make_run(trials))
    assert [line.train_time_s for line in lines([("made", loaded)])] == [9.0]
    page.write([loaded.run], loaded.run.report)
    assert "<span>9 s of training in" in loaded.run.report.read_text(encoding="utf-8")

from __future__ import annotations

import math
import re

import pytest

from tests.tune_jobs.results.report.conftest import MakeRun
from tune_jobs.console import trials_table
from tune_jobs.results.report.cells import count, of_trials
from tune_jobs.results.report.loaded import load
from tune_jobs.results.report.text import markdown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"), (math.nan, "–"), (0, "0"), (999, "999"), (1000, "1 k"), (61_706, "61.7 k"), (999_400, "999 k"),
        (999_600, "1 M"), (1.8e9, "1.8 G"), (1.5e12, "1.5 T"), (1.5e16, "15,000 T"),
    ],
)  # fmt: skip
def test_count_has_three_digits_and_no_exponent(value: float | None, said: str) -> None:
    assert count(value) == said


def test_epochs_asked_for_and_epochs_trained_are_two_columns(make_run: MakeRun) -> None:
    alike = make_run([({"model": name, "epochs": 2}, "COMPLETE", [0.5], {}) for name in ("mlp", "cnn")], name="alike")
    loaded = load(
        make_run(
            [
                ({"model": "mlp", "epochs": 2}, "COMPLETE", [0.5, 0.6], {}),
                ({"model": "mlp", "epochs": 9}, "PRUNED", [0.4], {"reason": "stopped by asha after epoch 1"}),
                ({"model": "svm"}, "COMPLETE", [0.3], {}),
            ],
            {"space": {"epochs": {"grid": [2, 9]}}},
        )
    )
    assert [column.name for column in of_trials(load(alike))[0]].count("epochs") == 1
    columns, table = of_trials(loaded)
    names = [column.name for column in columns]
    assert len(names) == len(set(names))
    asked, trained = names.index("epochs"), names.index("epochs trained")
    found = [(cells[asked].text, cells[trained].text) for _, cells in table]
    assert found == [("2", "2"), ("–", "1"), ("9", "1")]
    heads = [str(column.header) for column in trials_table(loaded.rows).columns]
    assert "epochs trained" in heads
    assert len(heads) == len(set(heads))


def test_how_many_were_fused_is_told_where_some_were(make_run: MakeRun) -> None:
    def found(*fused: int | None) -> list[str]:
        trials = [({"model": "mlp"}, "COMPLETE", [0.5], {} if n is None else {"fused": n}) for n in fused]
        columns, table = of_trials(load(make_run(trials, name=f"of-{fused}".replace(", ", "-").strip("()"))))
        names = [column.name for column in columns]
        return [cells[names.index("fused")].text for _, cells in table] if "fused" in names else []

    assert found(None, None) == []
    assert found(4, None) == ["4", "–"]


def test_tables_break_ties_as_the_choice_of_the_best_does(make_run: MakeRun) -> None:
    trials = [({"model": "mlp", "lr": lr}, "COMPLETE", [0.5], {"train_time_s": s}) for lr, s in ((0.1, 2), (0.2, 1))]
    loaded = load(make_run([*trials, ({"model": "mlp", "lr": 0.3}, "COMPLETE", [0.5], {"train_time_s": 1})]))
    best_first = ["00001", "00002", "00000"]
    assert [candidate.rows[0].id for candidate in loaded.candidates] == best_first
    assert [row.id for row, _ in of_trials(loaded)[1]] == best_first
    assert list(trials_table(loaded.rows).columns[0].cells) == best_first
    assert re.findall(r"^\| (\d{5}) \|", markdown([loaded.run]), re.MULTILINE) == best_first

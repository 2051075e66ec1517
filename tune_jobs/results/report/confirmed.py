"""The configs that were trained again over fresh seeds, as a table for the page and for Markdown."""

from __future__ import annotations

from tune_jobs.results import table
from tune_jobs.results.confirmation import Confirmation, Confirmed, interval
from tune_jobs.results.report.finding import points
from tune_jobs.results.report.published_table import Shown
from tune_jobs.results.report.wording import label
from tune_jobs.results.statistics import p_cell
from tune_jobs.results.words import fixed

NUMBERS = ["search %", "seeds", "mean %", "std", "95 % interval", "test %", "train s", "to the first", "p"]


def shown(found: Confirmation) -> Shown:
    """A row a config, the best mean first."""
    fields = table.varied([config.config for config in found.configs])
    on = "each with a split of its own" if found.splits else f"all on the same {found.images:,} validation images"
    note = f"{len(found.seeds)} fresh seeds, {on}; to the first in points, p after Holm's correction for all pairs"
    return Shown(
        title="Confirmed over fresh seeds",
        words=["trial", *fields, "verdict"],
        numbers=NUMBERS,
        rows=[_row(found, config, fields) for config in found.configs],
        notes=[note, *filter(None, [found.picking()])],
    )


def _row(found: Confirmation, config: Confirmed, fields: list[str]) -> list[str]:
    val, versus, test = config.val, config.versus_first, found.test_accuracy(config)
    values = [label(config.config[name]) if name in config.config else "–" for name in fields]
    numbers = [_percent(config.search_val_accuracy), str(val.n), _percent(val.mean), _percent(val.std), interval(val)]
    numbers += ["–" if test is None else _percent(test.mean), fixed(config.train_time_s, 2)]
    numbers += ["–", "–"] if versus is None else [points(versus.difference, sign=True), p_cell(versus.p)]
    return [config.trial, *values, found.verdict(config), *numbers]


def _percent(share: float) -> str:
    return fixed(100 * share, 2)

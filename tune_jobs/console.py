"""What a person sees: lines as trials finish, and the table.  Plain lines where the output is no terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from profiling.console import console as console
from profiling.console import is_live as is_live
from profiling.console import say as say
from tune_jobs.fitted import Fitted, Kind, Words
from tune_jobs.results.confirmation import Confirmation, interval
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.statistics import p_cell
from tune_jobs.results.table import Row, rank, varied
from tune_jobs.results.words import fixed, percent, short


def config_text(config: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The fields that the trial has, as `name=value`."""
    return " ".join(f"{name}={short(config[name])}" for name in fields if name in config)


def trial_line(trial: TrialRecord, finished: int, total: int, fields: Sequence[str]) -> str:
    """One line for a trial that has just finished, or failed and waits to be tried again."""
    config = config_text(trial.config, fields)
    head = f"[{finished}/{total}] {trial.id} {trial.state}"
    if trial.state == "COMPLETE":
        accuracy, seconds = trial.result["val_accuracy"], trial.result["train_time_s"]
        return f"{head}  {config}  val {accuracy:.2%}  train {seconds:.1f} s"
    again = f"; attempt {trial.attempts + 1} follows" if trial.state == "WAITING" else ""
    why = f"{trial.failure}: {trial.reason}" if trial.failure else trial.reason
    return f"{head}  {config}  {why}{again}"


def running_table(trials: Iterable[TrialRecord], fields: Sequence[str]) -> Table:
    """How those that run get on, a row each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("running", *fields):
        table.add_column(name, overflow="fold")
    for name in ("epoch", "train loss", "val loss", "val %"):
        table.add_column(name, justify="right")
    for trial in trials:
        last: dict[str, Any] = trial.epochs[-1] if trial.epochs else {}
        config = (short(trial.config.get(name)) for name in fields)
        epochs = f"{last.get('epoch', 0)}/{trial.config.get('epochs', 1)}"
        losses = (short(last.get(name)) for name in ("train_loss", "val_loss"))
        accuracy = last.get("val_accuracy")
        score = percent(math.nan if accuracy is None else accuracy)
        table.add_row(*map(escape, (trial.id, *config, epochs, *losses, score)))
    return table


def trials_table(rows: Sequence[Row]) -> Fitted:
    """The rows, best first, with the config fields in which they differ; failures with their reasons.

    In a narrow window config columns but two are left out first, then epochs, then reasons, and then those two.
    """
    fields = varied([row.config for row in rows]) or ["model"]
    trained = "epochs trained" if "epochs" in fields else "epochs"
    ordered = sorted(rows, key=rank)

    def column(name: str, kind: Kind, cell: Callable[[Row], str], spared: int = 0) -> Words:
        return Words(name, kind, tuple(map(cell, ordered)), spared)

    columns = [column("id", "whole", lambda row: row.id)]
    if any(row.state != "COMPLETE" for row in rows):
        columns.append(column("state", "whole", lambda row: row.state))
    for place, name in enumerate(fields):
        columns.append(column(name, "value", _value(name), 4 if place > 1 else 1))
    columns += [
        column("val %", "figure", lambda row: fixed(100 * row.val_accuracy, 2)),
        column("test %", "figure", lambda row: fixed(100 * row.test_accuracy, 2)),
        column("best epoch", "figure", lambda row: short(row.best_epoch), 3),
        column(trained, "figure", lambda row: str(row.epochs), 3),
        column("train s", "figure", lambda row: fixed(row.train_time_s, 1)),
    ]
    if any(row.failure for row in rows):
        columns.append(column("failure", "reason", _failure, 2))
    return Fitted(columns)


def _value(field: str) -> Callable[[Row], str]:
    return lambda row: short(row.config.get(field))


def _failure(row: Row) -> str:
    return f"{row.failure}: {row.reason}" if row.failure else ""


def without_their_gpu(rows: Sequence[Row]) -> str:
    """A note on trials that kept a GPU from others and did not compute on it; empty where none did."""
    count = sum(bool(row.gpu) and row.device == "cpu" for row in rows)
    if not count:
        return ""
    return (
        f"note: {count} trial{'s' * (count > 1)} asked for a GPU and computed on the CPU, as an svm does, and any "
        "model where PyTorch finds no card"
    )


def confirmation_table(found: Confirmation) -> Table:
    """The confirmed configs, best mean first."""
    fields = varied([confirmed.config for confirmed in found.configs])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", *fields):
        table.add_column(name, overflow="fold")
    for name in ("search %", "mean %", "std", "95 % interval", "train s", "vs first", "p"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for confirmed in found.configs:
        val, versus = confirmed.val, confirmed.versus_first
        cells = [confirmed.trial, *(short(confirmed.config.get(name)) for name in fields)]
        cells += [fixed(100 * confirmed.search_val_accuracy, 2), fixed(100 * val.mean, 2), fixed(100 * val.std, 2)]
        cells += [interval(val), fixed(confirmed.train_time_s, 1)]
        if versus is None:
            cells += ["", "", "first"]
        else:
            cells += [f"{100 * versus.difference:+.2f}", p_cell(versus.p), found.verdict(confirmed)]
        table.add_row(*map(escape, cells))
    return table


def confirmation_lines(found: Confirmation) -> list[str]:
    """What a confirmation says, in words."""
    first = found.configs[0]
    over = f"{len(found.seeds)} fresh seeds" + (", each with a fresh split" if found.splits else " on the same split")
    tied, worse, here = (
        ", ".join(config.trial for config in found.are(verdict))
        for verdict in ("tied", "worse", "worse on these images")
    )
    lines = [f"over {over}: trial {first.trial} has the highest mean validation accuracy, {first.val.mean:.2%}"]
    lines += [picking] if (picking := found.picking()) else []
    lines += [f"{trial}: {ended}; not compared" for trial, ended in found.left_out.items()]
    if tied:
        by = found.test_of(found.are("tied"))
        lines.append(f"not distinguishable from it ({by}, Holm's correction): {tied}")
    if worse:
        lines.append(f"really worse: {worse}")
    if here:
        lines.append(f"worse on these {found.images:,} images, which alone leave such a gap to chance: {here}")
    test = f"its test accuracy: {found.test.mean:.2%}"
    if found.test.std > 0:
        lines.append(f"{test}, 95 % interval over the seeds {found.test.low:.2%} to {found.test.high:.2%}")
    else:
        lines.append(f"{test}, the same under each seed")
    if not math.isnan(found.optimism):
        optimism = f"{100 * found.optimism:+.2f} points"
        line = f"the search's score of its winner, trial {found.winner}, less its mean over fresh seeds: {optimism}"
        reads = next(config.reads_seed for config in found.configs if config.trial == found.winner)
        lines.append(
            line if reads or found.splits else f"{line}; it reads no seed, so this says nothing of the choosing"
        )
    return lines

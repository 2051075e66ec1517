"""The table of trials, made from the ledger: one row a trial."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tune_jobs.results.ledger import FINAL, TrialRecord, fold_of, number_of
from tune_jobs.results.plain import number
from tune_jobs.results.rundir import RunDir, replacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One trial.  What is not known is NaN or None; a failed trial keeps its row, its state and its reason."""

    id: str
    state: str
    """WAITING, RUNNING, COMPLETE, PRUNED or FAIL."""
    config: dict[str, Any]
    """The fields of TrainConfig that the trial read, with their values."""
    val_accuracy: float
    """Best epoch's, 0 to 1; until the trial is finished, the best so far."""
    test_accuracy: float
    """Of the best epoch's weights, 0 to 1, evaluated once; NaN unless COMPLETE."""
    val_loss: float
    test_loss: float
    best_epoch: int | None
    epochs: int
    """Epochs trained."""
    train_time_s: float
    """Training alone, synchronised with the device, without evaluation."""
    wall_time_s: float
    """From the start of the last attempt to its end, as the driver saw it."""
    precision: str | None
    device: str | None
    threads: int | None
    fused: int | None
    """How many trials of its shape were trained as one with it, at most, itself among them: its time is that of all.
    None where it was trained alone, or is not COMPLETE."""
    params: int | None
    """Trainable parameters; None for an svm."""
    macs: int | None
    """Multiply-accumulates for one image: convolutions and linear layers; of an svm, support vectors × features."""
    seed: int | None
    """The one used, also where the config draws it."""
    fold: int
    """Which repeat of its config it is, from 0."""
    pareto: bool | None
    """Whether it is on the Pareto front; None where the search has one objective."""
    cpu: float | None
    """CPUs that it asked for; None until it has run."""
    gpu: float | None
    """GPUs that it asked for, or the fraction of one."""
    peak_memory_mib: float
    """Most memory taken: on a GPU what was reserved there, else by its whole process; NaN where not known."""
    node: str | None
    """Address of the node that its last attempt ran on."""
    slot: int | None
    """Which of the trials running at the same time it was, from 0: a worker process takes one trial after another."""
    shared_with: float
    """Other trials of the same search on the same node, whatever they computed on, on average while it ran: times of
    rows that shared differently do not compare."""
    card: str | None
    """Ray's number of the GPU of its node that it ran on, or of several; None where it had none."""
    shared_card_with: float
    """Other trials on the same card, on average while it ran; NaN where it had none."""
    attempts: int
    failure: str | None
    """The class of its last failure: out_of_memory, diverged, timeout, node_lost, store_lost, worker_crashed,
    user_error, error."""
    reason: str | None

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    def flat(self) -> dict[str, Any]:
        """Column -> value.  Config fields stand as columns of their own after the state.

        The config's `epochs` is `config_epochs`, since `epochs` counts those trained; its seed is `seed`.
        """
        record = asdict(self)
        config = {
            "config_epochs" if key == "epochs" else key: value
            for key, value in without_seed(record.pop("config")).items()
        }
        return {"id": record.pop("id"), "state": record.pop("state")} | config | record


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What configs that differ in nothing but the seed have in common."""
    return {field: value for field, value in config.items() if field != "seed"}


def rows(trials: Iterable[TrialRecord]) -> list[Row]:
    """A row a trial, in their order."""
    return [_row(trial) for trial in trials]


def _row(trial: TrialRecord) -> Row:
    result = trial.result
    best = max(trial.epochs, key=lambda epoch: (number(epoch["val_accuracy"]), -epoch["epoch"]), default={})
    known = best | result
    return Row(
        id=trial.id,
        state=trial.state,
        config=trial.config,
        val_accuracy=number(known.get("val_accuracy")),
        test_accuracy=number(result.get("test_accuracy")),
        val_loss=number(known.get("val_loss")),
        test_loss=number(result.get("test_loss")),
        best_epoch=known.get("best_epoch", known.get("epoch")),
        epochs=result.get("epochs", len(trial.epochs)),
        train_time_s=number(result.get("train_time_s", sum(_time(epoch) for epoch in trial.epochs))),
        wall_time_s=number(trial.wall_time_s),
        precision=result.get("precision"),
        device=result.get("device"),
        threads=result.get("threads"),
        fused=result.get("fused"),
        params=result.get("params"),
        macs=result.get("macs"),
        seed=result.get("seed", trial.config.get("seed")),
        fold=fold_of(trial.id) or 0,
        pareto=None,
        cpu=None if trial.request is None else trial.request.get("cpu"),
        gpu=None if trial.request is None else trial.request.get("gpu"),
        peak_memory_mib=number(result.get("peak_memory_mib")),
        node=trial.place.get("node"),
        slot=trial.place.get("slot"),
        shared_with=number(trial.shared_with),
        card=" ".join(trial.place.get("cards") or []) or None,
        shared_card_with=number(trial.shared_card_with),
        attempts=trial.attempts,
        failure=trial.failure,
        reason=trial.reason,
    )


def _time(epoch: dict[str, Any]) -> float:
    return epoch.get("epoch_time_s") or 0.0


def config_order(config: Mapping[str, Any]) -> str:
    """By which configs that tie are put in an order that does not depend on which was made first: the text of their
    fields and values, seeds apart."""
    return json.dumps(without_seed(config), sort_keys=True, default=str)


def rank(row: Row) -> tuple[bool, float, float, str, int, int]:
    """By which all tables are sorted, best first: COMPLETE, by accuracy, then less training time, then config, then
    id; those that are not COMPLETE by id alone where they tie."""
    accuracy = math.inf if math.isnan(row.val_accuracy) else -row.val_accuracy
    seconds = math.inf if math.isnan(row.train_time_s) else row.train_time_s
    config = config_order(row.config) if row.state == "COMPLETE" else ""
    return row.state != "COMPLETE", accuracy, seconds, config, number_of(row.id), row.fold


def varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The config fields that have several values among the trials that have them."""
    values: dict[str, set[str]] = {}
    for config in configs:
        for field, value in config.items():
            values.setdefault(field, set()).add(repr(value))
    return [field for field, found in values.items() if len(found) > 1]


def frame(table: Sequence[Row]) -> pd.DataFrame:
    """The rows as a DataFrame.  A column whose values are of several kinds (gamma: "scale", 0.1) is of strings."""
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    for index, row in enumerate(table):
        for name, value in row.flat().items():
            columns.setdefault(name, [None] * len(table))[index] = value
    # Config columns of a later row must stand with the others, before the results.
    config = dict.fromkeys(name for row in table for name in row.flat() if name in columns)
    results = [name for name in Row.__dataclass_fields__ if name not in ("id", "state", "config")]
    order = ["id", "state", *(name for name in config if name not in ("id", "state", *results)), *results]
    return pd.DataFrame({name: _column(name, columns[name]) for name in order if name in columns})


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values if value is not None} or _declared(name)
    if kinds <= {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds <= {int}:
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="string")


def _declared(name: str) -> set[type]:
    """The type of a column without a value, so that tables of several runs can be read as one."""
    field = Row.__dataclass_fields__.get(name)
    return {str} if field is None else {_TYPES[str(field.type).split(" ")[0]]}


_TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def write(run: RunDir, table: Sequence[Row]) -> None:
    """trials.parquet and trials.csv, each whole or as it was."""
    data = frame(table)
    with replacing(run.parquet) as path:
        data.to_parquet(path, index=False)
    with replacing(run.csv) as path:
        data.to_csv(path, index=False)

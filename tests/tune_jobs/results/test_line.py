"""Which lines of a ledger are whole."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from models import TrainConfig
from models.result import EpochMetrics, TrainResult
from tune_jobs.resources import Request
from tune_jobs.results import line
from tune_jobs.results.line import parse

CONFIG: dict[str, Any] = {"model": "mlp", "lr": 0.1, "gamma": "scale", "amp": True, "seed": None}
REQUEST: dict[str, Any] = Request(cpu=2, gpu=0.5, memory_mib=100, custom={"fast": 1}).model_dump()
RESULT: dict[str, Any] = {
    "val_accuracy": 0.9, "val_loss": None, "test_accuracy": None, "test_loss": None, "best_epoch": 1, "epochs": 1,
    "train_time_s": 1.0, "precision": "fp32", "device": "cpu", "threads": 1, "params": None, "macs": 42, "seed": None,
    "fused": None, "peak_memory_mib": 100.0,
}  # fmt: skip
STATE: dict[str, Any] = {
    "time": 1.0, "trial": "00000", "event": "state", "state": "COMPLETE", "wall_time_s": 2.0, "shared_with": 0.5,
    "shared_card_with": None, "config": CONFIG, "request": REQUEST, "next_request": None, "result": RESULT,
}  # fmt: skip
EPOCH: dict[str, Any] = {
    "time": 1, "trial": "00000-1", "event": "epoch", "attempt": 1, "epoch": 1, "train_loss": None, "val_loss": None,
    "val_accuracy": 1, "epoch_time_s": 0.5,
}  # fmt: skip
PLACE: dict[str, Any] = {
    "time": 1.0, "trial": "00000", "event": "place", "attempt": 1, "node": "10.0.0.7", "slot": 0, "cards": ["3"]
}  # fmt: skip


def parsed(event: dict[str, Any]) -> dict[str, Any] | None:
    return parse(json.dumps(event))


def test_tables_have_the_fields_of_what_is_written() -> None:
    assert line.RESULT.keys() == {field.name for field in fields(TrainResult)} | {"peak_memory_mib"}
    whole = {field.name for field in fields(TrainResult) if field.type == "int"}
    assert {name for name, kinds in line.RESULT.items() if kinds == {int}} == whole
    assert {field.name for field in fields(EpochMetrics)} <= line.FIELDS.keys()
    assert line.CONFIG.keys() == TrainConfig.model_fields.keys()
    assert line.REQUEST.keys() == Request.model_fields.keys()
    assert line.CONFIG["gamma"] == {int, float, str}
    assert line.CONFIG["seed"] == {int, type(None)}
    assert line.CONFIG["amp"] == {bool}
    assert line.REQUEST["gpu"] == {int, float}


@pytest.mark.parametrize("event", [STATE, EPOCH, PLACE, PLACE | {"cards": None}])
def test_a_whole_line_is_read_also_of_an_older_and_of_a_newer_version(event: dict[str, Any]) -> None:
    assert parsed(event) == event
    assert parsed(newer := event | {"mood": ["good"]}) == newer
    for part in ("config", "request", "result"):
        if part in event:
            assert parsed(event | {part: {}}) == event | {part: {}}
            more = event[part] | {"mood": ["good"]}
            assert parsed(event | {part: more}) == event | {part: more}
    if event is STATE:
        needed = {name: event[name] for name in ("time", "trial", "event", "state")}
        assert parsed(needed) == needed


@pytest.mark.parametrize("state", line.STATES)
def test_all_states_of_a_trial_are_known(state: str) -> None:
    assert parsed(STATE | {"state": state}) is not None


@pytest.mark.parametrize(
    ("event", "damage"),
    [
        (STATE, {"state": "PAUSED"}),
        (STATE, {"wall_time_s": "x"}),
        (STATE, {"shared_with": "x"}),
        (STATE, {"shared_card_with": [1]}),
        (STATE, {"failure": 3}),
        (STATE, {"reason": ["x"]}),
        (STATE, {"config": {"model": ["mlp"]}}),
        (STATE, {"config": CONFIG | {"lr": "x"}}),
        (STATE, {"config": CONFIG | {"epochs": None}}),
        (STATE, {"request": {"cpu": "x"}}),
        (STATE, {"next_request": REQUEST | {"gpu": "auto"}}),
        (STATE, {"request": REQUEST | {"custom": {"fast": "x"}}}),
        (STATE, {"request": REQUEST | {"custom": None}}),
        (STATE, {"result": dict.fromkeys(RESULT)}),
        (STATE, {"result": {name: str(value) for name, value in RESULT.items()}}),
        (STATE, {"result": RESULT | {"val_accuracy": True}}),
        (STATE, {"result": RESULT | {"fused": 0.5}}),
        (EPOCH, {"train_loss": "x"}),
        (EPOCH, {"epoch_time_s": "1.0"}),
        (EPOCH, {"epoch": True}),
        (PLACE, {"slot": "0"}),
        (PLACE, {"cards": 3}),
        (PLACE, {"cards": [3]}),
        (PLACE, {"node": None}),
        ({"time": 1, "trial": "00000", "event": "refused", "reason": "x"}, {"reason": 3}),
        ({"time": 1, "trial": "00000", "event": "config", "config": CONFIG}, {"config": {"model": 3}}),
    ],
)
def test_a_line_with_a_part_of_another_kind_is_damaged(event: dict[str, Any], damage: dict[str, Any]) -> None:
    assert parsed(event) is not None
    assert parsed(event | damage) is None


def test_a_number_of_more_digits_than_python_reads_is_damage() -> None:
    assert parse(json.dumps(EPOCH).replace('"attempt": 1', f'"attempt": {"1" * 5000}')) is None

"""One line of the ledger, and whether it is whole: each part of it that is known is of a kind that it may have.

What is missing was not written yet by an older version, and what is unknown is a newer one's: neither is damage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from models import TrainConfig
from tune_jobs.resources import Request

Kinds = frozenset[type]

WHOLE: Kinds = frozenset((int,))
NUMBER: Kinds = frozenset((int, float))
UNKNOWN_NUMBER: Kinds = NUMBER | {NoneType}
"""One that may be null: what is not finite is written so."""
TEXT: Kinds = frozenset((str,))
NONE: Kinds = frozenset((NoneType,))

STATES = ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")
"""Those that a trial may be in."""

NEEDED = {
    "state": {"time", "state"},
    "epoch": {"time", "attempt", "epoch", "val_accuracy"},
    "config": {"config"},
    "refused": {"reason"},
    "place": {"attempt", "node"},
}
"""Event -> what a line of it has at least.  Other events, of a newer version, are passed over."""

FIELDS: dict[str, Kinds] = {
    "time": NUMBER,
    "trial": TEXT,
    "event": TEXT,
    "state": TEXT,
    "attempt": WHOLE,
    "epoch": WHOLE,
    **dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "epoch_time_s"), UNKNOWN_NUMBER),
    **dict.fromkeys(("wall_time_s", "shared_with", "shared_card_with"), UNKNOWN_NUMBER),
    "failure": TEXT | NONE,
    "reason": TEXT | NONE,
    "config": frozenset((dict,)),
    "result": frozenset((dict,)),
    "request": frozenset((dict, NoneType)),
    "next_request": frozenset((dict, NoneType)),
    "node": TEXT,
    "slot": WHOLE | NONE,
    "cards": frozenset((list, NoneType)),
}
"""Field of a line -> the kinds of value that it may have."""

RESULT: dict[str, Kinds] = {
    **dict.fromkeys(("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_time_s"), UNKNOWN_NUMBER),
    **dict.fromkeys(("best_epoch", "epochs", "threads"), WHOLE),
    **dict.fromkeys(("precision", "device"), TEXT),
    **dict.fromkeys(("params", "macs", "seed", "fused"), WHOLE | NONE),
    "peak_memory_mib": UNKNOWN_NUMBER,
}
"""The same of `models.result.TrainResult`, which is not asked itself, since it comes with PyTorch, and of what a trial
adds to it."""


def _kinds(annotation: Any) -> Kinds:
    """The kinds of JSON that a value of this type is written as."""
    origin = get_origin(annotation)
    if origin is Literal:
        return frozenset(map(type, get_args(annotation)))
    if origin is dict:
        return frozenset((dict,))
    if get_args(annotation):  # a union, or a type with its limits
        return frozenset().union(*(_kinds(part) for part in get_args(annotation) if _is_type(part)))
    return NUMBER if annotation is float else frozenset((annotation,))


def _is_type(part: Any) -> bool:
    return isinstance(part, type) or get_origin(part) is not None


CONFIG = {name: _kinds(field.annotation) for name, field in TrainConfig.model_fields.items()}
REQUEST = {name: _kinds(field.annotation) - TEXT for name, field in Request.model_fields.items()}
"""By the time that it is written, what was to be measured is a number."""


def parse(line: str) -> dict[str, Any] | None:
    """One line; None for one that is cut, damaged or of another version."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None  # cut by a crash: that line alone is lost
    if type(event) is not dict or not _fit(event, FIELDS):
        return None
    needed = NEEDED.get(event.get("event", ""))
    if needed is None or not needed <= event.keys() or not _TRIAL.fullmatch(event.get("trial", "")):
        return None
    return event if event["event"] == "epoch" or _is_whole(event) else None


_TRIAL = re.compile(r"\d+(-\d+)?")


def _fit(values: Mapping[str, Any], known: Mapping[str, Kinds]) -> bool:
    for name, value in values.items():  # a loop: all() of a generator takes half as long again
        if (kinds := known.get(name)) is not None and type(value) not in kinds:
            return False
    return True


def _is_whole(event: Mapping[str, Any]) -> bool:
    """Whether its parts are, whose kinds are right."""
    requests = [event[name] for name in ("request", "next_request") if event.get(name) is not None]
    return (
        event.get("state", STATES[0]) in STATES
        and _fit(event.get("config", {}), CONFIG)
        and _fit(event.get("result", {}), RESULT)
        and all(map(_is_request, requests))
        and all(type(card) is str for card in event.get("cards") or [])
    )


def _is_request(values: Mapping[str, Any]) -> bool:
    return _fit(values, REQUEST) and _fit(values.get("custom", {}), dict.fromkeys(values.get("custom", {}), NUMBER))

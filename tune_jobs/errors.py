"""What a person did that cannot be done, as one line."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError


class UsageError(ValueError):
    """A wrong experiment, config, path or request.  The command line prints its line and exits with 2."""


class NoUsableTrialError(UsageError):
    """A run that has no trial to go on with.  Exit code 3."""


def one_line(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """All that is wrong, in one line: the path of each key, what was given, what is allowed."""
    return "; ".join(_describe(item, model, where) for item in error.errors(include_url=False))


def _describe(item: Any, model: type[BaseModel], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    path = ".".join(filter(None, [where, *location]))
    if item["type"] == "extra_forbidden":
        return f"{path}: there is no such key; the keys are {', '.join(_keys_beside(model, location))}"
    if item["type"] == "missing":
        return f"{path}: is missing"
    if item["type"] in _WORDS:
        shown = "" if item["input"] is None else repr(item["input"])
        return ": ".join(filter(None, [path, shown, _WORDS[item["type"]]]))
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = item["input"]
    shown = "" if isinstance(given, dict | BaseModel) else f"{given!r}: "
    return ": ".join(filter(None, [path, f"{shown}{message}"]))


_WORDS = {
    "string_pattern_mismatch": "up to 100 letters, digits, '.', '_' and '-', the first a letter or digit",
    "model_type": "is a section: a mapping of keys to values",
    "invalid_key": "a key is a word",
    "dict_type": "is a section: a mapping of keys to values",
}
"""Pydantic's types of error whose own words are a programmer's; names alone have a pattern."""


def _keys_beside(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys allowed where `location` ends, found by walking down the models' fields."""
    here = model
    for part in location[:-1]:
        field = here.model_fields.get(part)
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        candidates += [inner for candidate in candidates for inner in get_args(candidate)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                here = candidate
                break
    return list(here.model_fields)

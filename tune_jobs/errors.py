"""What a person did that cannot be done, as one line."""

from __future__ import annotations

import datetime
import reprlib
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from datasets.config import NO_NUMBER


class UsageError(ValueError):
    """A wrong experiment, config, path or request.  The command line prints its line and exits with 2."""


class NoUsableTrialError(UsageError):
    """A run that has no trial to go on with.  Exit code 3."""


def one_line(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """All that is wrong, in one line: the path of each key, what was given, what is allowed."""
    return "; ".join(_describe(item, model, where) for item in error.errors(include_url=False))


def _describe(item: Any, model: type[BaseModel], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    kind = item["type"]
    if location[-1:] == ["[key]"]:
        location, kind = location[:-1], "invalid_key"
    path = ".".join([*([where] if where else []), *(part or "''" for part in location)])
    if kind == "extra_forbidden":
        return f"{path}: there is no such key; the keys are {', '.join(_keys_beside(model, location))}"
    if kind == "missing":
        return f"{path}: is missing"
    given = item["input"]
    if kind in _WORDS:
        words = _WORDS[kind]
        if kind == "list_type" and isinstance(given, str):
            words += f": [{given[:LONGEST_SHOWN]}]"
        return ": ".join(filter(None, [path, "" if given is None else shown(given), words]))
    if kind == "too_short" and not given:
        return f"{path}: is empty, and needs at least {item['ctx']['min_length']} entry"
    message = item["msg"].removeprefix("Value error, ")
    if message == NO_NUMBER and (field := _model_beside(model, location).model_fields.get(location[-1])):
        return f"{path}: {message}; give {_number_allowed(field)}"
    message = message[0].lower() + message[1:]
    value = "" if isinstance(given, dict | BaseModel) else f"{shown(given)}: "
    return ": ".join(filter(None, [path, f"{value}{message}"]))


_WORDS = {
    "string_pattern_mismatch": "up to 100 letters, digits, '.', '_' and '-', the first a letter or digit",
    "invalid_key": "a key is a word",
    **dict.fromkeys(("model_type", "dict_type"), "must be a mapping of keys to values"),
    "list_type": "must be a list",
    "string_type": "must be text, in quotes where it looks like a number or a date",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
}
"""Pydantic's types of error whose own words are a programmer's; names alone have a pattern."""

LONGEST_SHOWN = 200
"""Characters of a value in a line about it."""


def shown(value: Any) -> str:
    """A value as a line about it names it: cut where it is long, however deep or often repeated its parts are."""
    text = _brief.repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


class _Brief(reprlib.Repr):
    def repr_date(self, value: datetime.date, _: int) -> str:
        return str(value)

    repr_datetime = repr_date


_brief = _Brief()
_brief.maxlevel, _brief.maxlist, _brief.maxdict = 4, 12, 12
_brief.maxstring = _brief.maxlong = _brief.maxother = 2 * LONGEST_SHOWN


def _number_allowed(field: FieldInfo) -> str:
    """What a field of numbers takes."""
    kinds = (field.annotation, *get_args(field.annotation))
    words = ["a whole number" if int in kinds and float not in kinds else "a number"]
    limits = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    for limit in field.metadata:
        bounds = [(word, getattr(limit, name)) for name, word in limits.items() if hasattr(limit, name)]
        words += [f"{word} {bound:,}".removesuffix(".0") for word, bound in bounds]
    others = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    return " or ".join([" ".join(words), *others])


def _keys_beside(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys allowed where `location` ends."""
    return list(_model_beside(model, location).model_fields)


def _model_beside(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The one that has the key at which `location` ends, found by walking down the models' fields."""
    here = model
    for part in location[:-1]:
        field = here.model_fields.get(part)
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        candidates += [inner for candidate in candidates for inner in get_args(candidate)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                here = candidate
                break
    return here

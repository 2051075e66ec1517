"""The JSON schema of an experiment file: completion and checks in editors, and what the reference page is made from.

Draft 7, the latest that yaml-language-server knows.  Keys, types, ranges and descriptions are those of the pydantic
models; added are the axes of the space and what depends on a registry or on another key.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

import datasets
import models
from models import TrainConfig
from models.config import CONDITIONS
from profiling import reports
from tune_jobs.experiment import OBJECTIVES, SECTIONS, Experiment
from tune_jobs.space.axis import LISTS, RANGES

Schema = dict[str, Any]

KINDS = {
    "grid": "Each of these values; of method grid.",
    "choice": "One of these values; of methods random and optuna.",
    "uniform": "A number from low to high; of methods random and optuna.",
    "loguniform": "A number from low to high, evenly spread on a log scale; of methods random and optuna.",
    "int": "A whole number from low to high; of methods random and optuna.",
    "logint": "A whole number from low to high, evenly spread on a log scale; of methods random and optuna.",
}
"""Kind of axis -> what a trial gets."""
WHEN = (
    "The axis is part of a trial only while each of these fields, which stand before it in the space or in train, has "
    "the value or one of the values."
)
_REF = "#/definitions/"
_BOUNDS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic asks for each
        return False


def text() -> str:
    """The schema as it is committed."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Schema:
    """The schema of an experiment file, draft 7.

    What it says is wrong is refused by a search too.  A search refuses more: what `plan` alone can know.
    """
    made = _draft7(Experiment.model_json_schema(ref_template=_REF + "{model}", schema_generator=_Untitled))
    definitions: Schema = made.pop("definitions")
    for definition in definitions.values():
        del definition["title"]
    for name, field in _training_fields().items():
        definitions[f"value-{name}"] = field
    definitions["when"] = _when()
    definitions["train"] = _object({name: _ref(f"value-{name}") for name in TrainConfig.model_fields})
    definitions["space"] = _object({name: _axis(name, definitions) for name in TrainConfig.model_fields})
    keys = made["properties"]
    for section in ("space", "train"):
        keys[section] = _ref(section) | {"description": keys[section]["description"]}
    for key in keys.values():
        if "$ref" in key:
            key.pop("default", None)  # a section's defaults are those of its keys
    for section in SECTIONS:
        definitions[keys[section]["$ref"].removeprefix(_REF)]["type"] = ["object", "null"]
    keys["published"]["items"]["enum"] = reports.tables()
    keys["loggers"]["uniqueItems"] = True
    _complete_dataset(definitions["DatasetConfig"])
    _complete_search(definitions["Search"])
    by_model = definitions["Resources"]["properties"]["by_model"]
    by_model |= _object(dict.fromkeys(models.names(), by_model["additionalProperties"]))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Experiment of tune_jobs",
        **{key: value for key, value in made.items() if key != "title"},
        "allOf": [_axes_of_method(), _one_objective_where_stopped()],
        "definitions": definitions,
    }


def _draft7(node: Any) -> Any:
    """pydantic's schema (2020-12) in the words of draft 7, descriptions in one line, the same from all its versions."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    # Most validators divide floats, and say that 0.3 is no multiple of 0.0001.
    made = {key: _draft7(value) for key, value in node.items() if key != "multipleOf"}
    if "$defs" in made:
        made["definitions"] = made.pop("$defs")
    if "allOf" in made:  # until 2.9, a reference with a description beside it
        (reference,) = made.pop("allOf")
        made |= reference
    if "anyOf" in made:  # until 2.9, an optional union is one within another
        made["anyOf"] = [inner for one in made["anyOf"] for inner in one.get("anyOf", [one])]
    if "const" in made:  # until 2.10, the same as an enum besides
        made.pop("enum", None)
        made.pop("type", None)
    if "prefixItems" in made:
        made["items"] = made.pop("prefixItems")
    if isinstance(made.get("description"), str):
        made["description"] = " ".join(made["description"].split())
    return made


def _training_fields() -> dict[str, Schema]:
    """Field of TrainConfig -> its schema, with the runs that read it in the description."""
    fields: dict[str, Schema] = _draft7(TrainConfig.model_json_schema(schema_generator=_Untitled))["properties"]
    fields["model"]["enum"] = models.names()
    for name, field in fields.items():
        if name != "model":
            field["description"] += f" Read by {_readers(name)}."
    return fields


def _readers(field: str) -> str:
    readers = [name for name in models.names() if field in models.fields_possible(name)]
    networks = [name for name in models.names() if models.is_network(name)]
    who = "every network" if readers == networks else "every model" if readers == models.names() else ", ".join(readers)
    if field not in CONDITIONS:
        return who
    other, values = CONDITIONS[field]
    return f"{who} where {other} is {' or '.join(json.dumps(value).strip(chr(34)) for value in values)}"


def _axis(name: str, definitions: Schema) -> Schema:
    """A plain value, or an object with one of the kinds of axes that the field can have."""
    value = _ref(f"value-{name}")
    values = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    kinds: dict[str, Schema] = dict.fromkeys(LISTS, values)
    number = _number(definitions[f"value-{name}"])
    if number is not None:
        allowed = RANGES if number["type"] == "number" else ("int", "logint")
        kinds |= {kind: _ends(kind, number) for kind in RANGES if kind in allowed}
    described = {kind: declared | {"description": KINDS[kind]} for kind, declared in kinds.items()}
    axis = _object(described | {"when": _ref("when")})
    return {
        "description": definitions[f"value-{name}"]["description"],
        "anyOf": [value, axis | {"oneOf": [{"required": [kind]} for kind in kinds]}],
    }


def _number(field: Schema) -> Schema | None:
    """The bounds of a field that is a number, or may be one; None for another."""
    for declared in [field, *field.get("anyOf", [])]:
        if declared.get("type") in ("number", "integer"):
            return {key: declared[key] for key in _BOUNDS if key in declared}
    return None


def _ends(kind: str, number: Schema) -> Schema:
    end = number | ({"type": "integer"} if kind in ("int", "logint") else {})
    if kind.startswith("log"):
        end.setdefault("exclusiveMinimum", 0)
    return {"type": "array", "items": end, "minItems": 2, "maxItems": 2}


def _when() -> Schema:
    fields = {name: _ref(f"value-{name}") for name in TrainConfig.model_fields}
    several = {name: {"type": "array", "items": value, "minItems": 1} for name, value in fields.items()}
    return {"description": WHEN} | _object({name: {"anyOf": [fields[name], several[name]]} for name in fields})


def _complete_dataset(section: Schema) -> None:
    keys = section["properties"]
    keys["name"]["enum"] = datasets.names()
    of_a_path = {"properties": {"name": {"enum": ["npz", "folder"]}}}
    section["if"] = of_a_path
    section["then"] = {"properties": {"path": {"type": "string", "minLength": 1}}, "required": ["path"]}
    section["else"] = {"properties": {"path": {"type": "null"}}}


def _complete_search(section: Schema) -> None:
    keys = section["properties"]
    way = keys["objectives"].pop("additionalProperties")
    keys["objectives"] |= _object(dict.fromkeys(OBJECTIVES, way)) | {"minProperties": 1}
    keys["enqueue"]["items"] = _ref("train")
    section["allOf"] = [
        {
            "if": _method("random", "optuna"),
            "then": {"properties": {"trials": {"type": "integer"}}, "required": ["trials"]},
            "else": {"properties": {"trials": {"type": "null"}, "enqueue": {"maxItems": 0}}},
        },
        {"if": _method("optuna"), "else": {"properties": {"warm_start": {"type": "null"}}}},
    ]


def _axes_of_method() -> Schema:
    """A grid search has grids, a sampled one choices and ranges."""
    sampled = [kind for kind in (*LISTS, *RANGES) if kind != "grid"]
    return {
        "if": {"properties": {"search": _method("random", "optuna")}, "required": ["search"]},
        "then": {"properties": {"space": {"additionalProperties": {"properties": {"grid": False}}}}},
        "else": {"properties": {"space": {"additionalProperties": {"properties": dict.fromkeys(sampled, False)}}}},
    }


def _one_objective_where_stopped() -> Schema:
    stops = {"type": "object", "properties": {"name": {"not": {"const": "none"}}}, "required": ["name"]}
    return {
        "if": {"properties": {"scheduler": stops}, "required": ["scheduler"]},
        "then": {"properties": {"search": {"properties": {"objectives": {"maxProperties": 1}}}}},
    }


def _method(*names: str) -> Schema:
    return {"type": "object", "properties": {"method": {"enum": list(names)}}, "required": ["method"]}


def _ref(name: str) -> Schema:
    return {"$ref": _REF + name}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}

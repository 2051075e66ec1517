"""The page on the experiment file, made from its JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from tune_jobs.experiment.schema import KINDS, WHEN, Schema, schema
from tune_jobs.space.axis import LISTS

MOST = 12
"""Of a longer list of allowed values the first few are named."""

HEAD = """\
# The experiment file

A YAML file (1.2: `1e-3` is a number) with the keys below; `name` and `dataset` must be there, and `model` in `space` or
in `train`. An unknown key or a wrong value is refused in one line that says what is allowed; a section that is left
empty has its defaults. `--set KEY=VALUE` changes a key for a single call: a training field by its name
(`--set lr=1e-3`), any other by its path (`--set dataset.limit=500`).

```yaml
# yaml-language-server: $schema=experiment.schema.json
name: three-models
dataset: {name: digits, limit: 600}
space:
  model: {grid: [baseline, mlp, svm]}
  optimizer: {grid: [sgd, adam]}                         # svm reads neither this nor the next: 7 trials
  lr: {grid: [1e-1, 1e-2], when: {optimizer: sgd}}       # adam keeps the default, 1e-3
train: {epochs: 3, batch_size: 32, seed: 42}
resources: {cpu: 1, by_model: {svm: {cpu: 2}}}
budget: {minutes: 10}
```

The first line is for editors: those that run yaml-language-server (VS Code's YAML extension, Neovim, Emacs) then
complete keys and values, show what each means, and mark what is wrong while you write. It gives the schema's place as
seen from your file, or its full path. The schema lies beside this page, and any other place gets it by

```sh
python -m tune_jobs schema --output experiment.schema.json
```

An editor cannot know all: that a field stands in `space` or `train` but not in both, that the ends of a range are in
order, that a split's fractions sum to 1, that some node can serve a request. `python -m tune_jobs plan FILE` checks
these too and starts nothing.

This page is made from the same schema (`make docs`).
"""
SPACE = """\
A key is a training field, as in [train](#train); its value is plain or an axis, a mapping with one of these keys:

| key | takes | a trial gets |
|---|---|---|
{kinds}

Beside it may stand `when: {{FIELD: VALUE}}` or `when: {{FIELD: [VALUE, ...]}}`:
{when}
A field that the trial's model does not read is left out without being told.
"""


def page() -> str:
    """The Markdown page."""
    document = schema()
    definitions = document["definitions"]
    sections = {
        key: declared["$ref"].rpartition("/")[2] for key, declared in _keys(document).items() if "$ref" in declared
    }
    reader = _Reader(definitions, {name: key for key, name in sections.items()})
    parts = [HEAD, _heading("The keys", ""), reader.table(document)]
    for key, definition in sections.items():
        parts.append(_heading(f"`{key}`", _keys(document)[key]["description"]))
        parts.append(_space() if key == "space" else reader.table(definitions[definition]))
    return "\n".join(parts)


def _keys(section: Schema) -> Schema:
    keys: Schema = section["properties"]
    return keys


def _heading(title: str, intro: str) -> str:
    return f"## {title}\n" + (f"\n{intro}\n" if intro else "")


def _space() -> str:
    takes = {kind: "`[VALUE, ...]`" if kind in LISTS else "`[LOW, HIGH]`" for kind in KINDS}
    rows = [f"| `{kind}` | {takes[kind]} | {said} |" for kind, said in KINDS.items()]
    return SPACE.format(kinds="\n".join(rows), when=textwrap.fill(WHEN[0].lower() + WHEN[1:], 120))


class _Reader:
    """Says schemas in words."""

    def __init__(self, definitions: Schema, sections: dict[str, str]) -> None:
        """`sections`: name of a definition -> the key of the file that has it, and a heading of its own."""
        self._definitions = definitions
        self._sections = sections

    def table(self, section: Schema) -> str:
        """A row for each key."""
        rows = ["| key | allowed | default | means |", "|---|---|---|---|"]
        for key, declared in _keys(section).items():
            resolved = self._resolved(declared)
            default = _written(resolved["default"]) if "default" in resolved else ""
            if key in section.get("required", []):
                default = "must be given"
            rows.append(f"| `{key}` | {self.allowed(declared)} | {default} | {_cell(resolved['description'])} |")
        return "\n".join(rows) + "\n"

    def allowed(self, declared: Schema) -> str:
        """What a value may be."""
        if (name := declared.get("$ref", "").rpartition("/")[2]) in self._sections:
            return f"section [{self._sections[name]}](#{self._sections[name]})"
        declared = self._resolved(declared)
        if "anyOf" in declared:
            return " or ".join(self.allowed(one) for one in declared["anyOf"])
        if "enum" in declared:
            return _listed(declared["enum"])
        if "const" in declared:
            return _written(declared["const"])
        match declared["type"]:
            case "array":
                return self._array(declared)
            case "object" | ["object", "null"]:
                return self._object(declared)
            case "integer" | "number" as kind:
                return ("whole number" if kind == "integer" else "number") + _bounds(declared)
            case "boolean":
                return "`true`, `false`"
            case "null":
                return "`null`"
        return "text"

    def _array(self, declared: Schema) -> str:
        items = declared["items"]
        if isinstance(items, list):
            return f"list of {len(items)}: {self.allowed(items[0])}"
        return f"list of: {self.allowed(items)}"

    def _object(self, declared: Schema) -> str:
        if "properties" not in declared:
            return f"mapping of names to: {self.allowed(declared['additionalProperties'])}"
        keys = _keys(declared)
        values = {self.allowed(value) for value in keys.values()}
        return f"mapping of {_listed(keys)}" + (f" to: {values.pop()}" if len(values) == 1 else "")

    def _resolved(self, declared: Schema) -> Schema:
        name = declared.get("$ref", "").rpartition("/")[2]
        return self._definitions[name] | declared if name else declared


def _listed(values: Iterable[Any]) -> str:
    values = list(values)
    shown = values if len(values) <= MOST else values[:3]
    return ", ".join(map(_written, shown)) + (f", … ({len(values)} in all)" if len(shown) < len(values) else "")


def _bounds(number: Schema) -> str:
    words = {"minimum": " from", "exclusiveMinimum": " above", "maximum": " to", "exclusiveMaximum": ", below"}
    return "".join(f"{word} {_figure(number[bound])}" for bound, word in words.items() if bound in number)


def _figure(number: float) -> str:
    power = int(number).bit_length() - 1
    return f"2^{power}" if power > 20 and number == 2**power else f"{number:,.10g}"


def _written(value: Any) -> str:
    """As it stands in a YAML file."""
    return f"`{json.dumps(value, ensure_ascii=False).replace(chr(34), '') or json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

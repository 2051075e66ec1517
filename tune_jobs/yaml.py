"""YAML 1.2 in and out: `1e-3` is a number, `no` is a word, a key written twice is an error, nothing is executed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from datasets.reasons import first_line, in_a_line
from tune_jobs.errors import UsageError


def parse(text: str, where: str) -> Any:
    """Plain dicts, lists and scalars.  Raises UsageError that names `where` and the line."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        problem = (error.problem or "a key stands twice").split(" with value")[0].replace("found ", "")
        raise UsageError(f"{where}: {problem}{line}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UsageError(f"{where}: not YAML: {problem}{line}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: is nested too deep, bracket in bracket or key under key") from error
    except (ValueError, TypeError, LookupError) as error:
        # a date that is none, a number that is none, a list for a key
        raise UsageError(f"{where}: not YAML: {in_a_line(error)}") from error


def read(path: Path) -> Any:
    """The document in a file.  Raises UsageError that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text") from error
    return parse(text, str(path))


def dump(document: dict[str, Any], comment: str = "") -> str:
    """A document as a person would write it: a key a line in its order, lists in one line, null written out."""
    yaml = YAML()
    yaml.width = 110
    yaml.representer.add_representer(type(None), lambda representer, _: representer.represent_scalar(_NULL, "null"))
    yaml.representer.add_representer(list, _represent_list)
    yaml.representer.add_representer(dict, _represent_dict)
    out = io.StringIO()
    yaml.dump(document, out)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + out.getvalue()


_NULL = "tag:yaml.org,2002:null"


def _represent_list(representer: Any, value: list[Any]) -> Any:
    return representer.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)


def _represent_dict(representer: Any, value: dict[str, Any]) -> Any:
    return representer.represent_mapping("tag:yaml.org,2002:map", value, flow_style=False)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from datasets import DatasetConfig, load_splits
from datasets.config import SplitSizes

SPLIT_MESSAGE = (
    "a split is three positive fractions that sum to 1, as [0.7, 0.1, 0.2], or official, "
    "or numbers of images of at least 1, as {train: 800, val: 100, test: 1000}"
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([0.7, 0.1, 0.2], (0.7, 0.1, 0.2)),
        ((0.25, 0.25, 0.5), (0.25, 0.25, 0.5)),
        ([1 / 3, 1 / 3, 1 / 3], (1 / 3, 1 / 3, 1 / 3)),
        ("official", "official"),
        ({"train": 800, "val": 100, "test": 1000}, SplitSizes(train=800, val=100, test=1000)),
        ({"train": 1, "val": 1, "test": 1}, SplitSizes(train=1, val=1, test=1)),
        (SplitSizes(train=8, val=1, test=10), SplitSizes(train=8, val=1, test=10)),
    ],
)
def test_split_accepted(given: Any, kept: object) -> None:
    config = DatasetConfig(name="digits", split=given)
    assert config.split == kept
    assert type(config.split) is type(kept)
    assert DatasetConfig.model_validate(config.model_dump(mode="json")) == config
    assert DatasetConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "given",
    [
        None,
        True,
        0.7,
        3,
        "",
        "Official",
        "0.7, 0.1, 0.2",
        [],
        [0.7, 0.3],
        [0.7, 0.1, 0.1, 0.1],
        [0.7, 0.1, 0.1],
        [0.7, 0.2, 0.2],
        [0.7, 0.3, 0.0],
        [0.9, -0.1, 0.2],
        [1, 0, 0],
        [800, 100, 1000],
        ["0.7", "0.1", "0.2"],
        [0.7, 0.3, None],
        [True, 0.5, -0.5],
        [True, True, -1],
        [True, 1e-10, 1e-10],
        [float("nan"), 0.5, 0.5],
        [float("inf"), 0.5, 0.5],
        [[0.7], [0.1], [0.2]],
        {0.7, 0.1, 0.2},
        {},
        {"train": 800},
        {"train": 800, "val": 100},
        {"train": 800, "val": 100, "test": 0},
        {"train": -800, "val": 100, "test": 100},
        {"train": 800, "val": 100, "test": 100, "extra": 1},
        {"train": 800, "validation": 100, "test": 100},
        {"train": 0.7, "val": 0.1, "test": 0.2},
        {"train": 800.5, "val": 100, "test": 100},
        {"train": "many", "val": 100, "test": 100},
        {"train": None, "val": 100, "test": 100},
        {"train": True, "val": 100, "test": 100},
        {"train": [800], "val": 100, "test": 100},
    ],
    ids=repr,
)
def test_split_refused(given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({"name": "digits", "split": given})
    (error,) = caught.value.errors()
    assert error["loc"] == ("split",)
    assert error["msg"] == f"Value error, {SPLIT_MESSAGE}"


@pytest.mark.parametrize("key", ["size", "Name", "splits", "seed", "batch_size"])
def test_key_unknown(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({"name": "digits", key: 1})
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    assert error["type"] == "extra_forbidden"


def test_name_required() -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({})
    (error,) = caught.value.errors()
    assert (error["loc"], error["type"]) == (("name",), "missing")


@pytest.mark.parametrize(
    ("field", "inside", "outside", "allowed"),
    [
        ("image_size", 4, 3, "greater than or equal to 4"),
        ("image_size", 1024, 1025, "less than or equal to 1024"),
        ("split_seed", 0, -1, "greater than or equal to 0"),
        ("split_seed", 2**63 - 1, 2**63, f"less than {2**63}"),
        ("limit", 3, 2, "greater than or equal to 3"),
    ],
)
def test_number_bounds(field: str, inside: int, outside: int, allowed: str) -> None:
    assert getattr(DatasetConfig.model_validate({"name": "digits", field: inside}), field) == inside
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({"name": "digits", field: outside})
    (error,) = caught.value.errors()
    assert error["loc"] == (field,)
    assert allowed in error["msg"]


@pytest.mark.parametrize("field", ["image_size", "split_seed", "limit"])
@pytest.mark.parametrize("value", [28.5, "wide", [28]])
def test_number_wrong_type(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({"name": "digits", field: value})
    (error,) = caught.value.errors()
    assert error["loc"] == (field,)


def test_defaults() -> None:
    assert DatasetConfig(name="digits").model_dump() == {
        "name": "digits",
        "path": None,
        "image_size": None,
        "split": (0.7, 0.1, 0.2),
        "split_seed": 0,
        "limit": None,
    }


def test_config_frozen() -> None:
    config = DatasetConfig(name="digits", split={"train": 8, "val": 1, "test": 10})
    with pytest.raises(ValidationError, match="frozen"):
        config.limit = 10  # type: ignore[misc]
    assert isinstance(config.split, SplitSizes)
    with pytest.raises(ValidationError, match="frozen"):
        config.split.train = 9  # type: ignore[misc]


def test_split_seed_largest() -> None:
    highest = load_splits(DatasetConfig(name="digits", split_seed=2**63 - 1))
    assert highest.sha256 != load_splits(DatasetConfig(name="digits")).sha256


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "name": ({"name": "mnist"}, "digits"),
    "path": ({"name": "npz", "path": "one.npz"}, "two.npz"),
    "image_size": ({"name": "digits"}, 32),
    "split": ({"name": "digits"}, (0.6, 0.2, 0.2)),
    "split_seed": ({"name": "digits"}, 1),
    "limit": ({"name": "digits"}, 100),
}
"""Every field of DatasetConfig: a config, and another value of the field that must change what a run sees."""


@pytest.mark.parametrize("field", DatasetConfig.model_fields)
def test_field_changes_something(
    field: str, tmp_path: Path, write_npz: Callable[..., Path], write_idx: Callable[..., list[Path]]
) -> None:
    write_idx(tmp_path)
    for name, value in (("one.npz", 1), ("two.npz", 2)):
        write_npz(name, images=np.full((20, 4, 4), np.array([0, 0, 0, value]), np.uint8), labels=np.arange(20) % 2)
    base, other = CHANGES[field]
    seen = []
    for fields in (base, base, base | {field: other}):
        splits = load_splits(DatasetConfig.model_validate(fields), tmp_path)
        seen.append((splits.sha256, splits.image_size, len(splits.train), len(splits.val), len(splits.test)))
    assert seen[0] == seen[1] != seen[2]

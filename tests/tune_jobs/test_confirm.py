from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets import DatasetConfig, load_splits
from tune_jobs.confirm import _new_splits


@pytest.mark.parametrize("rule", [{}, {"limit": 12}, {"split": {"train": 9, "val": 3, "test": 4}}], ids=str)
def test_new_splits_are_those_of_the_seeds_that_follow(rule: dict[str, Any], tmp_path: Path) -> None:
    """Of all pictures, though a search decodes only those that its own split uses."""
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 6, 6), dtype=np.uint8)):
        path = tmp_path / "own" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    config = DatasetConfig(name="folder", path="own", split_seed=4, **rule)
    found = [splits.sha256 for splits in _new_splits(config, 3, tmp_path)]
    alone = [load_splits(config.model_copy(update={"split_seed": seed}), tmp_path).sha256 for seed in (5, 6, 7)]
    assert found == alone
    assert len(set(found)) == 3

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tune_jobs.results.confirmation import half_width


@pytest.mark.parametrize(
    ("mean", "low", "high", "half"),
    [(0.90, 0.88, 0.92, 0.02), (0.99, 0.9646, 1.0, 0.0254), (0.01, 0.0, 0.0354, 0.0254), (0.9, None, None, None)],
)
def test_half_width_is_that_of_the_side_that_is_not_cut(
    mean: float, low: float | None, high: float | None, half: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "confirm.json"
    assert half_width(path) is None
    path.write_text(json.dumps({"configs": [{"val": {"mean": mean, "low": low, "high": high}}]}))
    assert half_width(path) == (None if half is None else pytest.approx(half))

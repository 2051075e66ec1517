from __future__ import annotations

import pytest
import torch

from profiling import peak
from profiling.timing import Timing, measure

CPU = torch.device("cpu")


def test_timing_median_and_spread() -> None:
    assert Timing((3.0, 1.0, 2.0)).median_s == 2.0
    assert Timing((3.0, 1.0, 2.0)).spread == 1.0
    assert Timing((5.0,)).spread == 0.0


def test_measure_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    durations = iter([100.0, 50.0, 1.0, 3.0, 2.0])

    def work() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr("models.clock.time.perf_counter", lambda: now)
    assert measure(work, CPU, repeats=3, warm_up=2).times_s == (1.0, 3.0, 2.0)


def test_peak_is_the_best_rate_over_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIDES, "cpu", (64, 128))
    times_s = iter([Timing((2.0, 1.0)), Timing((4.0, 16.0))])
    monkeypatch.setattr(peak, "measure", lambda *_, **__: next(times_s))
    assert peak.flop_per_s(CPU, "fp32") == max(2 * 64**3 / 1.0, 2 * 128**3 / 4.0)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_peak_multiplies_matrices_in_the_precision(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIDES, "cpu", (32,))
    seen = set()
    multiply = torch.mm

    def watched(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        seen.add((a.dtype, out.dtype, tuple(a.shape)))
        return multiply(a, b, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    assert peak.flop_per_s(CPU, precision) > 0  # type: ignore[arg-type]
    assert seen == {(peak.DTYPES[precision], peak.DTYPES[precision], (32, 32))}

"""Peaks of this process's main memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiling import ProfilingError, memory, resident


def test_peak_is_counted_from_where_it_was_forgotten() -> None:
    if not resident.forget_peak():
        pytest.skip("this system cannot forget a peak")
    before_mib = resident.peak_mib()
    block = torch.ones(200 * 2**20 // 4)
    held_mib = resident.peak_mib()
    del block
    assert resident.forget_peak()
    after_mib = resident.peak_mib()
    assert before_mib is not None
    assert held_mib is not None
    assert after_mib is not None
    assert 150 < held_mib - before_mib < 400
    assert after_mib < held_mib - 100


def test_peak_that_a_system_does_not_tell_is_none_and_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(Path, "read_text", lambda _: "VmRSS: 100 kB")
    assert resident.peak_mib() is None
    with pytest.raises(ProfilingError, match="does not tell a process's peak"):
        memory._peak_mib()

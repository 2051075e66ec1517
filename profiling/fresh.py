"""Measurements in a process of their own, where nothing else has left a mark, and on noise.

Such a process is `python -m MODULE`: JSON in on stdin, JSON out as the last line of stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets import Split, Splits
from profiling import ProfilingError

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Shape:
    """What a training's memory and time depend on besides its config and the number of images."""

    channels: int
    classes: int
    image_size: int
    """Pixels a side that the model sees."""

    def noise(self, n: int) -> Split:
        """So many random images."""
        side = (n, self.channels, self.image_size, self.image_size)
        images = torch.randint(0, 256, side, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return Split(images, torch.arange(n) % self.classes)

    def splits(self, part: Split) -> Splits:
        """With these images in each part."""
        classes = tuple(str(index) for index in range(self.classes))
        deep = self.channels
        return Splits(part, part, part, classes, self.image_size, (0.5,) * deep, (0.3,) * deep, sha256="")


def ask(module: str, asked: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What the module answers in a fresh process.  Raises ProfilingError, which says of what, with the process's last
    words if it dies."""
    child = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:] or [f"it ended with {child.returncode}"]
        raise ProfilingError(f"{what}: {last[0]}")
    told: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return told


def asked() -> dict[str, Any]:
    """In that process: what it was asked."""
    found: dict[str, Any] = json.loads(sys.stdin.read())
    return found


def answer(told: Mapping[str, Any]) -> None:
    """In that process: what it answers."""
    print(json.dumps(told))  # noqa: T201 - to the parent


def make_current(device: torch.device) -> None:
    """PyTorch refuses one without a number here."""
    torch.cuda.set_device(device.index or 0)

"""The report's colours, told apart with every common deficiency (Machado et al. 2009) and read on their ground."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colorspacious import cspace_convert

from tune_jobs.results.report import drawing, page

CSS = (Path(page.__file__).parent / "page.css").read_text()
BLOCKS = CSS.split("/* One")[1].split("@media")[:2]
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in BLOCKS)
APART = 9.0
"""In CAM02-UCS, where 1 is about what can just be seen side by side; groups differ by symbol or dash besides."""


def rgb(colour: str) -> np.ndarray[Any, Any]:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio."""
    lights = []
    for colour in (one, other):
        c = rgb(colour)
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("deficiency", [None, "protanomaly", "deuteranomaly", "tritanomaly"])
def test_groups_are_told_apart(theme: dict[str, str], deficiency: str | None) -> None:
    colours = [rgb(theme[f"c{index}"]) for index in range(drawing.COLOURS)]
    if deficiency is not None:
        seen = {"name": "sRGB1+CVD", "cvd_type": deficiency, "severity": 100}
        colours = [np.clip(cspace_convert(colour, seen, "sRGB1"), 0, 1) for colour in colours]
    places = [cspace_convert(colour, "sRGB1", "CAM02-UCS") for colour in colours]
    for (i, one), (j, other) in itertools.combinations(enumerate(places), 2):
        assert float(np.linalg.norm(one - other)) >= APART, (i, j)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "ground"])
def test_text_is_read_on_its_ground(theme: dict[str, str], ground: str) -> None:
    for name in ("ink", "muted", "accent", "good", "open", "bad"):
        assert contrast(theme[name], theme[ground]) >= 4.5, name


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_sequential_colours_go_one_way(theme: dict[str, str]) -> None:
    lights = [float(cspace_convert(rgb(theme[f"s{index}"]), "sRGB1", "CAM02-UCS")[0]) for index in range(5)]
    steps = np.diff(lights)
    assert (steps < -5).all() or (steps > 5).all()

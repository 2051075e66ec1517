"""Every command in the README and its pages is run, and their example files are real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tune_jobs import space
from tune_jobs.experiment import load

if TYPE_CHECKING:
    from tests.conftest import App

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "tune_jobs/docs/search.md", "profiling/README.md")
README = "\n".join((ROOT / page).read_text() for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith(("python -m tune_jobs ", "python -m profiling "))
]
SMALLER = {"small": ["--set", "dataset.limit=300", "--set", "batch_size=32"]}
"""Name of a run in the README -> what makes it small enough for a test."""


def test_readme_example_has_the_trials_it_says(tmp_path: Path) -> None:
    block, _ = blocks("yaml")
    (tmp_path / "my.yaml").write_text(block)
    experiment = load(str(tmp_path / "my.yaml"))
    assert (ROOT / block.splitlines()[0].partition("$schema=")[2]).is_file()
    assert len(space.of(experiment).grid()) == 6


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\S+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert targets == ["demo", "check"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="FashionMNIST is not installed")
def test_readme_commands_run_in_their_order(app: App) -> None:
    for name, block in zip(("my.yaml", "sampled.yaml"), blocks("yaml"), strict=True):
        (app.home / name).write_text(block)
    assert len(COMMANDS) == 13
    for command in COMMANDS:
        arguments = [
            str(app.home / word)
            if word in ("my.yaml", "sampled.yaml")
            else word.replace("~/ray_results", str(app.storage))
            for word in command[3:]
        ]
        name = arguments[-1]
        if name in SMALLER:
            replaced = [word.split("=")[0] for word in SMALLER[name][1::2]]
            kept = [
                (flag, value)
                for flag, value in zip(arguments[2::2], arguments[3::2], strict=True)
                if value.split("=")[0] not in replaced
            ]
            arguments = [*arguments[:2], *(word for pair in kept for word in pair), *SMALLER[name]]
        ran = app.run(command[2], *arguments)
        assert ran.returncode == 0, (arguments, ran.stdout, ran.stderr)


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        "tune_jobs/docs/experiment.md",
        "tune_jobs/docs/resources.md",
        "tune_jobs/docs/survival.md",
        "models/README.md",
        "datasets/README.md",
    ],
)
def test_readme_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()] == []


def test_resources_page_shows_what_there_is(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "tune_jobs/docs/resources.md").read_text(), flags=re.DOTALL)
    found = []
    for block in blocks:
        (tmp_path / "x.yaml").write_text(f"name: x\ndataset: {{name: digits}}\n{block}")
        found.append(load(str(tmp_path / "x.yaml")).resources)
    resources, fused = found
    assert fused.fuse == "auto"
    assert fused.of("mlp").shares
    assert set(type(resources).model_fields) == resources.model_fields_set
    assert resources.of("resnet50").gpu == 0.5

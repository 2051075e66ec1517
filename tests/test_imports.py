"""What each process does not load: time that nobody has a use for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import App

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "torchvision", "sklearn", "pandas", "optuna", "fvcore", "plotly", "scipy", "statsmodels")


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Those of the modules that a fresh process has after the code."""
    code += f"\nimport sys; print('loaded:', *(name for name in {names} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("package", ["tune_jobs", "profiling"])
@pytest.mark.parametrize("words", [["--help"], ["{}", "--help"]])
def test_help_loads_nothing_heavy(package: str, words: list[str]) -> None:
    command = {"tune_jobs": "search", "profiling": "bench"}[package]
    code = f"from {package}.__main__ import app\napp({[word.format(command) for word in words]}, standalone_mode=False)"
    assert loaded(code, HEAVY) == []


def test_experiment_and_its_space_are_checked_without_pytorch_and_ray() -> None:
    """As `search` does it: Ray is begun before PyTorch is imported, and a mistake in the file is told before either."""
    code = (
        "from tune_jobs import space\n"
        "from tune_jobs.experiment.checks import check_experiment\n"
        "from tune_jobs.commands.common import asked_for\n"
        "from tune_jobs.results import rundir\n"
        "asked = asked_for('fashion-resnet-grid', ['model=resnet18,svm,mlp', 'epochs=1'], False, None)\n"
        "check_experiment(asked, space.parse(asked.space, asked.train, asked.search.method))"
    )
    assert loaded(code, HEAVY) == []
    assert loaded("import tune_jobs.cluster", HEAVY) == ["ray"]


def test_schema_loads_nothing_heavy() -> None:
    code = "from tune_jobs.experiment import reference, schema\nschema.text()\nreference.page()"
    assert loaded(code, HEAVY) == []


def test_submit_plans_without_pytorch() -> None:
    code = "from tune_jobs import submit\nsubmit.plan('digits-demo', [], None, None, None, [])"
    assert loaded(code, HEAVY) == ["ray"]


def test_config_is_chosen_and_rows_are_written_without_pytorch_and_without_what_draws() -> None:
    assert loaded("import tune_jobs.results.best, tune_jobs.console", HEAVY) == []
    assert loaded("import tune_jobs.results.report.all_rows", HEAVY) == ["pandas"]


@pytest.mark.parametrize("part", ["cells", "confirmed", "fields", "published_table", "trade_offs"])
def test_part_of_a_report_loads_no_statistics_that_it_does_not_use(part: str) -> None:
    assert loaded(f"import tune_jobs.results.report.{part}", ("scipy", "statsmodels", "torch")) == []


def test_plan_and_submit_load_no_tune() -> None:
    """Which takes a second, and which they have no use for."""
    assert loaded("import tune_jobs.plan, tune_jobs.submit", ("ray.tune", "tensorboardX")) == []


@pytest.mark.parametrize("model", ["mlp", "resnet18"])
def test_worker_that_trains_a_network_loads_neither_torchvision_nor_the_compiler_nor_sklearn(model: str) -> None:
    """As far as a trial can be run here: its module, and its training without Ray."""
    code = (
        "import tune_jobs.trial, torch\n"
        "from datasets import Split, Splits\n"
        "from models import TrainConfig\n"
        "part = Split(torch.arange(8 * 64).reshape(8, 1, 8, 8).to(torch.uint8), torch.arange(8) % 2)\n"
        "splits = Splits(part, part, part, ('a', 'b'), 28, (0.5,), (0.5,), '')\n"
        f"config = TrainConfig(model='{model}', epochs=1)\n"
        "tune_jobs.trial.fit(config, splits, torch.device('cpu'), lambda _: None)"
    )
    unwanted = ("torchvision", "torch._dynamo", "sklearn", "fvcore", "plotly", "scipy", "statsmodels", "optuna")
    assert loaded(code, unwanted) == []


@pytest.mark.slow
@pytest.mark.cluster
def test_search_loads_no_experiment_tracker_that_nobody_asked_for(app: App) -> None:
    """Ray itself imports those that are installed, for a tag in usage reports."""
    script = app.home / "look.py"
    words = ["search", "digits-demo", "--set", "model=mlp", "--set", "epochs=1", "--set", "lr=0.1", "--name", "look"]
    script.write_text(
        "import sys\n"
        "from tune_jobs.__main__ import app\n"
        f"app({words}, standalone_mode=False)\n"
        "print('loaded:', *(name for name in ('wandb', 'mlflow', 'comet_ml') if name in sys.modules))\n"
    )
    ran = app.script(script)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "loaded:"

"""Runs written by the ledger's own API, and a browser."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tune_jobs import yaml
from tune_jobs.experiment import check
from tune_jobs.results import best, selection, table
from tune_jobs.results.confirmation import conclude, dump
from tune_jobs.results.ledger import Ledger, read, trial_id
from tune_jobs.results.report.loaded import load
from tune_jobs.results.rundir import RunDir

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

Trial = tuple[dict[str, Any], str, list[float], dict[str, Any]]
"""Config, final state, validation accuracy by epoch, and more of the result or the final line."""
MakeRun = Callable[..., RunDir]

RESULT: dict[str, Any] = {
    "val_loss": 0.3, "test_loss": 0.4, "precision": "fp32", "device": "cpu", "threads": 1,
    "params": 1000, "macs": 2000, "seed": 42, "train_time_s": 1.0,
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A finished run from its trials; `document` changes the experiment, `val` is the number of validation images."""

    def make(
        trials: Sequence[Trial],
        document: dict[str, Any] | None = None,
        val: int = 1000,
        name: str = "made",
        sha: str = "a",
    ) -> RunDir:
        run = RunDir(tmp_path / name)
        run.path.mkdir()
        asked = {"name": "made", "dataset": {"name": "digits"}, "train": {"model": "mlp", "epochs": 3}} | (
            document or {}
        )
        run.experiment.write_text(yaml.dump(check(asked).document(), "Made for a test."))
        environment: dict[str, Any] = {
            "python": "3.11", "versions": {"torch": "2"}, "git_commit": None, "cpu": "some", "cpu_cores": 2,
            "memory_gib": 8, "gpus": [], "data_sha256": sha * 64, "images": {"train": 7000, "val": val, "test": 2000},
        }  # fmt: skip
        run.environment.write_text(json.dumps(environment))
        record = Ledger(run.ledger)
        for number, (config, state, accuracies, more) in enumerate(trials):
            fold = more.pop("fold", None)
            own = trial_id(more.pop("number", number), fold)
            record.append(own, "state", state="WAITING", config=config)
            record.append(own, "state", state="RUNNING", attempt=1)
            for epoch, accuracy in enumerate(accuracies, 1):
                record.append(own, "epoch", attempt=1, epoch=epoch, train_loss=1 / epoch, val_loss=1.1 / epoch,
                              val_accuracy=accuracy, epoch_time_s=0.5)  # fmt: skip
            fields: dict[str, Any] = {name: more.pop(name, None) for name in ("shared_with", "shared_card_with")}
            if state == "COMPLETE":
                top = max(accuracies)
                fields["result"] = RESULT | {
                    "val_accuracy": top, "test_accuracy": top - 0.01, "best_epoch": accuracies.index(top) + 1,
                    "epochs": len(accuracies),
                } | more  # fmt: skip
            else:
                fields |= more
            record.append(own, "state", state=state, wall_time_s=2.0, **fields)
        record.close()
        rows = table.rows(read(run.ledger).values())
        if selection.candidates(rows):
            row, reason = best.choose(rows, "best")
            best.write(run, check(asked), row, "best", reason, run.best)
        return run

    return make


def train_again(make_run: MakeRun, run: RunDir, trials: Sequence[Trial], fresh: Sequence[Sequence[float]]) -> None:
    """Confirm a run of these trials: each has its scores under three fresh seeds."""
    again = make_run(
        [(trials[n][0], "COMPLETE", [score], {"number": n, "fold": fold})
         for n, scores in enumerate(fresh) for fold, score in enumerate(scores)], name="again",
    )  # fmt: skip
    found = conclude(load(run).candidates, load(again).rows, [1, 2, 3], False, load(run).environment["images"])
    run.confirmation.write_text(dump(found))


@pytest.fixture
def sampled(make_run: MakeRun) -> Callable[[int], RunDir]:
    """A run of an Optuna search with conditions, in which lr matters, and with stopped and failed trials."""

    def make(n: int) -> RunDir:
        draw = random.Random(0)
        trials: list[Trial] = []
        for number in range(n):
            lr = 10 ** draw.uniform(-4, -1)
            config: dict[str, Any] = {"model": draw.choice(["baseline", "mlp"]), "epochs": 6, "lr": lr}
            if config["model"] == "mlp":
                config["hidden_units"] = draw.randint(16, 256)
            top = 0.95 - 0.1 * abs(-2.5 - math.log10(lr)) + draw.gauss(0, 0.005)
            curve = [top - 0.2 / epoch for epoch in range(1, 7)]
            if number % 50 == 7:
                trials.append(
                    (config, "FAIL", curve[:1], {"failure": "diverged", "reason": "<b>loss</b> is NaN in epoch 2"})
                )
            elif number % 3 == 1:
                trials.append((config, "PRUNED", curve[:2], {"reason": "stopped by asha after epoch 2"}))
            else:
                trials.append((config, "COMPLETE", curve, {"macs": 1000 + 10 * number, "train_time_s": 1 + number % 9}))
        space = {
            "model": {"choice": ["baseline", "mlp"]}, "lr": {"loguniform": [1e-4, 1e-1]},
            "hidden_units": {"int": [16, 256]},
        }  # fmt: skip
        return make_run(
            trials, {"space": space, "train": {"epochs": 6}, "search": {"method": "optuna", "trials": n},
                     "scheduler": {"name": "asha"}}
        )  # fmt: skip

    return make


@pytest.fixture
def browser() -> Iterator[Chrome]:
    """Headless Chromium that asks nobody outside for anything."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    # Software WebGL, for the parallel coordinates.
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-background-networking",
        "--force-prefers-reduced-motion",
        "--enable-unsafe-swiftshader",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()

"""Running out of a card's memory, through a whole search: the card is the test's own, in the workers' processes."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT, App
from tune_jobs.results import ledger

pytestmark = pytest.mark.cluster

SITECUSTOMIZE = '''
"""Python loads this first.  Where `tune_jobs.device` is imported, a card of 8,192 MiB is there."""
import importlib.abc, importlib.util, os, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tune_jobs.device":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.find_card = lambda: card(module.torch)
        spec.loader.exec_module = exec_module
        return spec

def card(torch):
    class Card:
        device, total_mib = torch.device("cpu"), 8192.0
        def limit(self, fraction):
            self.fraction = fraction
        def start_counting(self):
            if self.fraction < float(os.environ["NEEDS"]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.")
        def peak_mib(self):
            return 1500.0
    return Card()

sys.meta_path.insert(0, Finder())
'''


@pytest.fixture
def carded(app: App, tmp_path: Path) -> App:
    """Searches start a Ray with one GPU in its books."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    own = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "RAY_OVERRIDE_RESOURCES": '{"CPU": 2, "GPU": 1}'}
    return replace(app, environment=own)


def search(app: App, name: str, needs: float) -> tuple[int, ledger.TrialRecord, list[str]]:
    """One trial on a quarter of the card, which needs so much of it for its tensors: how it ended, what was said."""
    sets = ["model=mlp", "lr=1e-3", "optimizer=adam", "epochs=1", "resources.gpu=0.25", "retries=5"]
    told = replace(app, environment=app.environment | {"NEEDS": str(needs)})
    ran = told("search", "digits-demo", *(word for value in sets for word in ("--set", value)), "--name", name)
    path = app.storage / name / "trials.jsonl"
    (trial,) = ledger.read(path).values()
    return ran.returncode, trial, [line["reason"] for line in ledger.events(path) if line.get("reason")]


def test_trial_that_runs_out_of_its_share_says_what_it_had_and_gets_more(carded: App) -> None:
    code, trial, reasons = search(carded, "grows", needs=0.4)
    assert code == 0
    assert (trial.state, trial.attempts, trial.failures) == ("COMPLETE", 2, ["out_of_memory"])
    assert reasons == [
        "out of memory: asked for cpu 1, gpu 0.25 of 8192 MiB, 1500 MiB in use at most "
        "(CUDA out of memory. Tried to allocate 3 GiB.); asks for cpu 1, gpu 0.5 next"
    ]
    assert trial.request is not None
    assert trial.request["gpu"] == 0.5
    assert trial.place["cards"] == ["0"]
    assert trial.result["peak_memory_mib"] == 1500


@pytest.mark.slow
def test_trial_that_a_whole_card_is_too_small_for_fails(carded: App) -> None:
    code, trial, reasons = search(carded, "too-large", needs=2)
    assert code == 3
    assert (trial.state, trial.attempts, trial.failure) == ("FAIL", 3, "out_of_memory")
    assert [reason.rpartition("; ")[2] for reason in reasons] == [
        "asks for cpu 1, gpu 0.5 next", "asks for cpu 1, gpu 1 next", "no node has more",
    ]  # fmt: skip
    assert reasons[-1].startswith("out of memory: asked for cpu 1, gpu 1 of 8192 MiB, 1500 MiB in use at most (")


def test_trial_that_ray_ends_on_a_node_low_on_memory_says_what_it_had_and_asks_for_more(app: App) -> None:
    """Ray's own monitor, which is told to see to it that next to nothing of the node's memory is used."""
    low = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
    low["RAY_OVERRIDE_RESOURCES"] = '{"CPU": 4}'  # so that a trial's share by cores is not all there is
    sets = ["model=mlp", "lr=1e-3", "optimizer=adam", "epochs=1000", "retries=1"]
    asked = (word for value in sets for word in ("--set", value))
    ran = replace(app, environment=low)("search", "digits-demo", *asked, "--name", "low")
    assert ran.returncode == 3
    path = app.storage / "low" / "trials.jsonl"
    first, last = (line["reason"] for line in ledger.events(path) if line.get("reason"))
    low_on_memory = r"its node ran low on memory \([\d.]+GB of [\d.]+GB used\)"
    killed = rf"{low_on_memory}, and Ray ended its worker process, which used [\d.]+GB"
    grown = re.fullmatch(rf"{killed}; it had asked for cpu 1; asks for cpu 1, memory (\d+) MiB next", first)
    assert grown is not None, first
    assert re.fullmatch(rf"{killed}; it had asked for cpu 1, memory {grown[1]} MiB", last), last

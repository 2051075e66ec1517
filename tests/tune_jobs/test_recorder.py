"""What the driver writes down of trials that start, report, fail and end, without Ray running."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from datasets import load_splits
from tune_jobs import space as spaces
from tune_jobs.experiment import check
from tune_jobs.interruption import Stop
from tune_jobs.resources import MIB, Request
from tune_jobs.results import ledger
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.results.rundir import RunDir
from tune_jobs.running import recorder as module
from tune_jobs.running.broken_nodes import BrokenNodes
from tune_jobs.running.record import Record
from tune_jobs.running.run import Run
from tune_jobs.search import _recorder
from tune_jobs.study import Study
from tune_jobs.trial import TRIAL_KEY

NODES = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0, "memory": 8000.0 * MIB}}]
DIED = "Failure # 1 (occurred at)\nThe actor died unexpectedly before finishing this task.\n"
Made = Callable[..., "Search"]


class Search:
    """A grid of two configs on one node of two cores, and Ray's part in it."""

    def __init__(self, path: Path, **fields: Any) -> None:
        given = {"name": "x", "dataset": {"name": "digits"}, "space": {"model": "mlp", "lr": {"grid": [0.1, 0.01]}}}
        self.experiment = check(given | {"train": {"epochs": 3}, "resources": {"cpu": 1}} | fields)
        space = spaces.of(self.experiment)
        self.path = path / "trials.jsonl"
        self.record = Record(self.path, ledger.read(self.path), 2)
        self.trials = self.record.trials
        self.study = Study(path / "optuna.journal", self.experiment, space)
        self.stop = Stop(None)
        self.said: list[str] = []
        listener: Any = SimpleNamespace(say=self.said.append, follow=lambda _: None, tell=lambda *_: None)
        run = Run(self.experiment, space, RunDir(path), [load_splits(self.experiment.dataset)], listener)
        requests: Any = SimpleNamespace(of=lambda _: self.experiment.resources.of("mlp"))
        self.recorder = _recorder(run, self.record, self.study, requests, self.stop)
        if not self.trials:
            for point in space.grid():
                for own in self.recorder.add(self.study.add(point), point):
                    self.recorder.waiting.put(own)

    def start(self, ray_id: str) -> Any:
        """Ray's trial of the next one that is handed out, which has a worker now."""
        config = self.recorder.hand_out(ray_id)
        assert config is not None
        actor = SimpleNamespace(ray_actor=f"worker of {ray_id}")
        trial: Any = SimpleNamespace(trial_id=ray_id, config=config, temporary_state=actor)
        self.recorder.on_trial_start(1, [], trial)
        return trial

    def epoch(self, trial: Any, epoch: int, accuracy: float = 0.5, **result: Any) -> None:
        where = {"node_id": "a", "node": "10.0.0.1", "cards": []}
        told = {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": accuracy, "epoch_time_s": 1.0}
        self.recorder.on_trial_result(1, [], trial, told | {"where": where} | result)

    def fail(self, trial: Any, failure: str, **fields: Any) -> None:
        """As the trial itself says."""
        self.recorder.on_trial_result(1, [], trial, {"failure": failure, "reason": "so it was"} | fields)

    def die(self, trial: Any, folder: Path, text: str = DIED) -> None:
        """As Ray says: its process is gone."""
        trial.error_file = folder / "error.txt"
        trial.error_file.write_text(text)
        self.recorder.on_trial_error(1, [], trial)

    def own(self, trial: Any) -> TrialRecord:
        return self.trials[trial.config[TRIAL_KEY]]

    def states(self) -> list[str]:
        """As the ledger has them."""
        return [trial.state for trial in ledger.read(self.path).values()]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    monkeypatch.setattr(module, "is_lost", lambda _: False)
    monkeypatch.setattr(module, "Metrics", lambda *_: SimpleNamespace(epoch=lambda *_: None, states=lambda *_: None))
    with contextlib.ExitStack() as opened:

        def make(**fields: Any) -> Search:
            search = Search(tmp_path, **fields)
            opened.callback(search.record.close)
            return search

        yield make


def test_failures_are_tried_again_as_often_as_the_experiment_says(made: Made, tmp_path: Path) -> None:
    search = made(retries=1)
    first, other = search.start("r0"), search.start("r1")
    search.die(first, tmp_path)
    assert search.states() == ["WAITING", "RUNNING"]
    assert search.recorder.waiting.out == {"00001": "r1"}
    again = search.start("r2")
    assert search.own(again) is search.own(first)
    assert search.own(again).attempts == 2
    search.recorder.on_trial_error(1, [], first)  # Ray has it twice: it is another attempt's already
    search.fail(other, "diverged")
    search.die(again, tmp_path)
    assert search.states() == ["FAIL", "FAIL"]
    assert search.own(again).failures == ["worker_crashed", "worker_crashed"]
    assert [trial.state.name for trial in search.study.optuna.trials] == ["FAIL", "PRUNED"]


def test_a_worker_that_died_with_its_node_costs_no_retry(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = made(retries=0)
    monkeypatch.setattr(module, "is_lost", lambda node: node == "a")
    monkeypatch.setattr(BrokenNodes, "node", lambda *_: "a")
    trial = search.start("r0")
    search.die(trial, tmp_path)
    assert (search.own(trial).state, search.own(trial).failure) == ("WAITING", "node_lost")
    search.die(search.start("r2"), tmp_path, "Failure # 1 (occurred at)\nValueError: no such thing\n")
    assert search.states() == ["FAIL", "WAITING"]
    monkeypatch.setattr(BrokenNodes, "node", lambda *_: "b")
    search.die(search.start("r1"), tmp_path)
    assert search.states() == ["FAIL", "FAIL"]


def test_out_of_memory_asks_for_more_as_long_as_a_node_has_it(made: Made) -> None:
    search = made(resources={"memory_mib": 3000})
    for asked, ends in ((6000, "WAITING"), (6000, "FAIL")):
        trial = search.start(f"r{ends}")
        search.fail(trial, "out_of_memory", main_memory=True)
        own = search.own(trial)
        assert own.id == "00000"
        assert own.state == ends
        assert own.next_request == Request(memory_mib=asked).model_dump()
    assert own.reason == "so it was; no node has more"


def test_a_full_disk_stops_the_search_and_leaves_the_trial_to_be_taken_up(made: Made) -> None:
    search = made()
    trial = search.start("r0")
    search.epoch(trial, 1)
    search.fail(trial, "disk_full")
    assert search.stop.cause == "disk"
    assert search.states() == ["RUNNING", "WAITING"]
    taken_up = made()
    taken_up.recorder.take_up()
    own = taken_up.trials["00000"]
    assert (own.state, own.reason, own.furthest) == ("WAITING", "its driver died", 1)
    assert taken_up.states() == ["WAITING", "WAITING"]


def test_take_up_writes_down_the_repeats_that_a_dead_driver_did_not_come_to(made: Made) -> None:
    search = made(repeats=2)
    lines = search.path.read_text().splitlines(keepends=True)
    search.path.write_text("".join(line for line in lines if '"00001-1"' not in line))
    taken_up = made(repeats=2)
    taken_up.recorder.take_up()
    found = {own.id: own.config["seed"] for own in ledger.read(search.path).values()}
    assert found == {"00000-0": 42, "00000-1": 43, "00001-0": 42, "00001-1": 43}


def test_what_a_scheduler_stops_is_pruned_and_its_repeats_with_it(made: Made, tmp_path: Path) -> None:
    search = made(repeats=3, scheduler={"name": "asha"})
    first, second = search.start("r0"), search.start("r1")
    for trial in (first, second):
        search.epoch(trial, 1)
    search.epoch(second, 2, accuracy=0.9)
    assert search.study.optuna.trials[0].intermediate_values == {1: 0.5}  # the first repeat speaks for all
    search.recorder.on_trial_complete(1, [], first)
    assert search.own(first).state == "RUNNING"  # it was not stopped: a result may follow
    search.recorder.stopped.add("r0")
    search.recorder.on_trial_complete(1, [], first)
    assert search.own(first).reason == "stopped by asha after epoch 1"
    assert search.states() == ["PRUNED", "RUNNING", "PRUNED", *["WAITING"] * 3]
    search.die(second, tmp_path)
    assert search.states() == ["PRUNED"] * 3 + ["WAITING"] * 3
    assert search.own(second).reason == "00000-0, of the same config, was stopped"


def test_one_that_may_have_failed_by_its_node_is_not_the_first_to_go_there_again(made: Made, tmp_path: Path) -> None:
    search = made(repeats=2)
    search.die(search.start("r0"), tmp_path)
    second = search.start("r1")
    assert search.own(second).id == "00000-1"
    search.fail(second, "node_lost")
    assert search.own(search.start("r2")) is search.own(second)


def test_failures_that_may_be_a_node_s_are_told_to_who_looks_for_broken_ones(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(BrokenNodes, "fail", lambda _, own, __, alive: told.append((own, alive)))
    search = made()
    search.fail(search.start("r0"), "diverged")
    search.die(search.start("r1"), tmp_path)
    assert told == [("00001", ["a"])]


@pytest.mark.parametrize("accuracy", [0.9, None])
def test_repeats_go_on_where_the_first_is_complete_or_failed(accuracy: float | None, made: Made) -> None:
    search = made(repeats=2)
    first = search.start("r0")
    if accuracy is None:
        search.fail(first, "diverged")
    else:
        search.epoch(first, 3, accuracy, result={"val_accuracy": accuracy, "train_time_s": 1.0, "macs": 42})
    ended = "FAIL" if accuracy is None else "COMPLETE"
    assert search.states() == [ended, "WAITING", "WAITING", "WAITING"]
    assert search.study.optuna.trials[0].state.name == "RUNNING"  # all of its repeats are one trial there
    second = search.start("r1")
    search.epoch(second, 3, 0.8, result={"val_accuracy": 0.8, "train_time_s": 1.0, "macs": 43})
    told = search.study.optuna.trials[0]
    assert told.state.name == ("PRUNED" if accuracy is None else "COMPLETE")
    assert told.value == (None if accuracy is None else pytest.approx(0.85))

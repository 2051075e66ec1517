"""Ray's schedulers behind ours, without Ray running."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tune_jobs.experiment import Scheduler
from tune_jobs.results import ledger
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running.stopping import EarlyStopping

EPOCHS = 9
CURVES = {
    f"{number:05d}": [0.1 * number + 0.01 * epoch for epoch in range(1, EPOCHS + 1)] for number in (5, 3, 8, 1, 9)
}


class Search:
    """Trials that report in turn, and what has become of them."""

    def __init__(self, name: str) -> None:
        self.records = {
            own: TrialRecord(own, state="RUNNING", config={"model": "mlp", "epochs": EPOCHS}) for own in CURVES
        }
        self.stopped: set[str] = set()
        asked = Scheduler.model_validate({"name": name, "reduction_factor": 2})
        self.scheduler = EarlyStopping(asked, EPOCHS, lambda trial: self.records[trial.config["trial"]], self.stopped)
        self.decisions: list[tuple[str, int, str]] = []
        self.events: list[dict[str, Any]] = []

    def run(self, until: int = EPOCHS) -> None:
        """Each trial that goes on reports its next epoch, up to `until`."""
        for epoch in range(1, until + 1):
            for own, curve in CURVES.items():
                record = self.records[own]
                if record.state == "RUNNING" and len(record.epochs) < epoch:
                    self.report(own, {"epoch": epoch, "val_accuracy": curve[epoch - 1]})

    def report(self, own: str, epoch: dict[str, Any]) -> None:
        record = self.records[own]
        record.epochs.append(epoch)
        self.events.append({"event": "epoch", "trial": own} | epoch)
        trial: Any = SimpleNamespace(trial_id=f"ray-{own}", config={"trial": own})
        if epoch["epoch"] == EPOCHS:  # as Tune does with a last message: no decision is asked for
            self.scheduler.on_trial_complete(None, trial, epoch | {"result/val_accuracy": 1.0})
            record.state, decision = "COMPLETE", "-"
        else:
            decision = self.scheduler.on_trial_result(None, trial, epoch)
            if decision == "STOP":
                self.scheduler.on_trial_complete(None, trial, epoch)
                record.state = "PRUNED"
        self.decisions.append((own, epoch["epoch"], decision))


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_early_stopping_ends_bad_trials_and_never_at_the_last_epoch(name: str) -> None:
    search = Search(name)
    search.run()
    assert search.stopped == {f"ray-{own}" for own, record in search.records.items() if record.state == "PRUNED"}
    assert search.records["00009"].state == "COMPLETE"
    if name != "hyperband":  # which may have drawn for it the bracket that lets every trial go on
        assert search.records["00001"].state == "PRUNED"
    assert all(epoch < EPOCHS for _, epoch, decision in search.decisions if decision == "STOP")


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("dies_after", [1, 3, 4])
def test_replay_decides_as_if_nothing_had_happened(name: str, dies_after: int) -> None:
    undisturbed = Search(name)
    undisturbed.run()
    first = Search(name)
    first.run(dies_after)
    second = Search(name)
    second.records = first.records
    assert second.scheduler.replay(first.events, second.records) == []
    second.run()
    assert first.decisions + second.decisions == undisturbed.decisions


@pytest.mark.parametrize("name", ["asha", "median"])
def test_replay_names_what_was_stopped_when_the_driver_died(name: str) -> None:
    first = Search(name)
    first.run()
    pruned = [record for record in first.records.values() if record.state == "PRUNED"]
    assert pruned
    pruned[0].state = "RUNNING"  # its last line was not written
    second = Search(name)
    assert second.scheduler.replay(first.events, first.records) == [pruned[0]]


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_replay_never_stops_a_trial_that_had_all_its_epochs(name: str) -> None:
    """The driver died between a trial's last epoch and the line that it is COMPLETE."""
    first = Search(name)
    first.run()
    worst = min((own for own, record in first.records.items() if record.state == "COMPLETE"), default="")
    first.records[worst].state = "RUNNING"
    last = next(event for event in reversed(first.events) if event["trial"] == worst)
    last["val_accuracy"] = 0.0
    assert Search(name).scheduler.replay(first.events, first.records) == []


def test_a_last_epoch_counts_for_those_that_follow() -> None:
    """Two trials of one epoch each, far better: median stops the third at its first."""
    search = Search("median")
    for own in ("00009", "00008"):
        done: Any = SimpleNamespace(trial_id=f"ray-{own}", config={"trial": own})
        search.scheduler.on_trial_complete(None, done, {"epoch": 1, "val_accuracy": 0.95})
    search.report("00001", {"epoch": 1, "val_accuracy": 0.5, "time": 3.0})
    assert search.records["00001"].state == "PRUNED"


def test_an_epoch_that_is_trained_again_is_not_decided_again() -> None:
    search = Search("asha")
    search.run(3)
    before = list(search.decisions)
    own = next(own for own, record in search.records.items() if record.state == "RUNNING")
    search.report(own, {"epoch": 1, "val_accuracy": 0.0, "time": 9.0})
    assert search.decisions[len(before) :] == [(own, 1, "CONTINUE")]


def test_a_last_epoch_that_is_trained_again_counts_once_for_the_others() -> None:
    """Its worker died before the epoch's checkpoint: two others must have got as far, and there is one."""
    config = {"model": "mlp", "epochs": EPOCHS}
    scheduler = stopping("median", {own: TrialRecord(own, config=config) for own in ("00000", "00001")})
    for accuracy in (0.9, 0.8):
        assert decide(scheduler, "00000", 1, accuracy) == "CONTINUE"
    assert decide(scheduler, "00001", 1, 0.5) == "CONTINUE"


def first_epochs(scheduler: dict[str, Any], accuracies: Sequence[float], epoch: int = 1) -> list[str]:
    """What is decided of trials that come one after the other."""
    records = {f"{n:05d}": TrialRecord(f"{n:05d}", config={"model": "mlp"}) for n in range(len(accuracies))}
    asked = Scheduler.model_validate(scheduler)
    made = EarlyStopping(asked, EPOCHS, lambda trial: records[trial.config["trial"]], set())
    return [decide(made, own, epoch, accuracy) for own, accuracy in zip(records, accuracies, strict=True)]


@pytest.mark.parametrize(("reduction_factor", "third"), [(2, "CONTINUE"), (4, "STOP")])
def test_asha_lets_as_many_go_on_as_is_asked(reduction_factor: float, third: str) -> None:
    """0.75 is above the median of 0.9 and 0.5, and not among the best quarter."""
    asked = {"name": "asha", "reduction_factor": reduction_factor}
    assert first_epochs(asked, [0.9, 0.5, 0.75]) == ["CONTINUE", "STOP", third]


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_nothing_is_stopped_in_its_grace_epochs(name: str) -> None:
    falling = [1 - n / 20 for n in range(20)]
    for grace in (3, EPOCHS + 5):  # more than there are is no mistake
        for epoch in (1, 2):
            assert set(first_epochs({"name": name, "grace_epochs": grace}, falling, epoch)) == {"CONTINUE"}
    assert "STOP" in first_epochs({"name": name, "grace_epochs": 3}, falling, 3)


def test_hyperband_lets_the_trials_of_some_brackets_go_on_longer_and_draws_from_nobody_elses_numbers() -> None:
    falling = [1 - n / 30 for n in range(30)]
    np.random.seed(0)
    drawn = np.random.random()
    np.random.seed(0)
    stopped = [first_epochs({"name": name}, falling).count("STOP") for name in ("hyperband", "asha")]
    assert np.random.random() == drawn
    assert 0 < stopped[0] < stopped[1]


def test_replay_of_epochs_that_belong_to_no_attempt_stops_nothing(tmp_path: Path) -> None:
    """The line that the trial RUNs was damaged: it has no epochs, and is trained from its start again."""
    path = tmp_path / "trials.jsonl"
    config = {"model": "mlp", "epochs": EPOCHS}
    with contextlib.closing(ledger.Ledger(path)) as record:
        for own, accuracy in (("00000", 0.9), ("00001", 0.1)):
            record.append(own, "state", state="WAITING", config=config)
            record.append(own, "epoch", attempt=1, epoch=1, val_accuracy=accuracy)
    assert stopping("asha", {}).replay(ledger.events(path), ledger.read(path)) == []


def test_replay_of_an_epoch_that_was_trained_again_goes_by_when_it_came_first(tmp_path: Path) -> None:
    """00000 went on at the first rung, where 00001 was better; its worker died, and it trained that epoch again."""
    with contextlib.closing(ledger.Ledger(tmp_path / "trials.jsonl")) as record:
        for own, attempt, accuracy in (("00000", 1, 0.5), ("00001", 1, 0.9), ("00000", 2, 0.5)):
            record.append(own, "state", state="RUNNING", attempt=attempt, config={"model": "mlp", "epochs": EPOCHS})
            record.append(own, "epoch", attempt=attempt, epoch=1, val_accuracy=accuracy)
    path = tmp_path / "trials.jsonl"
    asked = Scheduler.model_validate({"name": "asha", "reduction_factor": 2})
    scheduler = EarlyStopping(asked, EPOCHS, lambda _: pytest.fail("asked for a trial"), set())
    assert scheduler.replay(ledger.events(path), ledger.read(path)) == []


def stopping(name: str, records: dict[str, TrialRecord]) -> EarlyStopping:
    asked = Scheduler.model_validate({"name": name, "reduction_factor": 2})
    return EarlyStopping(asked, EPOCHS, lambda trial: records[trial.config["trial"]], set())


def decide(scheduler: EarlyStopping, own: str, epoch: int, accuracy: float) -> str:
    trial: Any = SimpleNamespace(trial_id=f"ray-{own}", config={"trial": own})
    return scheduler.on_trial_result(None, trial, {"epoch": epoch, "val_accuracy": accuracy})


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_finished_svms_stop_no_network_in_its_first_epoch(name: str) -> None:
    records = {f"{number:05d}": TrialRecord(f"{number:05d}", config={"model": "svm"}) for number in range(4)}
    records["00004"] = TrialRecord("00004", config={"model": "mlp", "epochs": EPOCHS})
    scheduler = stopping(name, records)
    for own in list(records)[:4]:
        done: Any = SimpleNamespace(trial_id=f"ray-{own}", config={"trial": own})
        scheduler.on_trial_complete(None, done, {"epoch": 1, "val_accuracy": 0.95})
    assert decide(scheduler, "00004", 1, 0.5) == "CONTINUE"


def test_of_repeats_the_first_is_judged_and_the_others_follow_it() -> None:
    config = {"model": "mlp", "epochs": EPOCHS}
    records = {own: TrialRecord(own, config=config) for own in ("00000-0", "00000-1", "00001-0", "00001-1", "00001-2")}
    scheduler = stopping("asha", records)
    assert decide(scheduler, "00000-0", 1, 0.9) == "CONTINUE"
    assert decide(scheduler, "00000-1", 1, 0.1) == "CONTINUE"  # a bad seed says nothing of its config
    assert decide(scheduler, "00001-1", 1, 0.1) == "CONTINUE"
    assert decide(scheduler, "00001-0", 1, 0.2) == "STOP"
    assert decide(scheduler, "00001-1", 2, 0.99) == "STOP"
    assert decide(scheduler, "00000-1", 2, 0.1) == "CONTINUE"


def test_of_repeats_one_that_was_done_when_the_driver_died_stays_so() -> None:
    config = {"model": "mlp", "epochs": EPOCHS}
    records = {own: TrialRecord(own, config, "RUNNING") for own in ("00000", "00001-0", "00001-1")}
    told = [("00000", 1, 0.9), ("00001-0", 1, 0.2), ("00001-1", EPOCHS, 0.9)]
    events = [{"event": "epoch", "trial": own, "epoch": epoch, "val_accuracy": value} for own, epoch, value in told]
    for record in records.values():
        record.epochs = [event for event in events if event["trial"] == record.id]
    assert stopping("asha", records).replay(events, records) == [records["00001-0"]]


def test_of_repeats_the_others_go_on_where_the_first_is_done_however_it_ended() -> None:
    config = {"model": "mlp", "epochs": 2}
    records = {own: TrialRecord(own, config=config) for own in ("00000-0", "00001-0", "00001-1")}
    scheduler = stopping("median", records)
    for own in ("00002-0", "00003-0", "00000-0"):
        records[own] = TrialRecord(own, config=config)
        for epoch in (1, 2):
            assert decide(scheduler, own, epoch, 0.9) == "CONTINUE"
    last: Any = SimpleNamespace(trial_id="ray-00001-0", config={"trial": "00001-0"})
    scheduler.on_trial_complete(None, last, {"epoch": 2, "val_accuracy": 0.2})
    assert decide(scheduler, "00001-1", 1, 0.2) == "CONTINUE"

"""Nodes that go away while a search runs, on a clock that is given."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tune_jobs.failures import MOST_LOST, STORE_AWAY_S
from tune_jobs.interruption import Stop
from tune_jobs.resources import Request
from tune_jobs.running import watching
from tune_jobs.running.watching import NODES_GONE_MINUTES, Watch


class Nodes:
    """What a trial waits for in vain, and the trials that run meanwhile."""

    def __init__(self) -> None:
        self.asked: list[Request] = [Request(gpu=1)]
        self.actors: dict[str, Any] = {}
        self.since: dict[str, float] = {}
        self.out: dict[str, str] = {}

    def stuck(self) -> Sequence[Request]:
        return self.asked


class Search:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, wait_for_nodes: bool = False) -> None:
        self.now = 0.0
        monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.nodes, self.stop = Nodes(), Stop(None)
        self.said: list[str] = []
        listener: Any = SimpleNamespace(say=self.said.append)
        waiting: Any = self.nodes
        self.watch = Watch(waiting, None, listener, self.stop, wait_for_nodes)

    def pass_minutes(self, minutes: float) -> None:
        end = self.now + 60 * minutes
        while self.now < end:
            self.now += 6
            assert self.watch.look([]) == []


def test_nodes_that_stay_away_are_said_once_and_stop_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch)
    search.pass_minutes(NODES_GONE_MINUTES)
    assert len(search.said) == 1
    assert search.stop.cause is None
    search.pass_minutes(1)
    assert search.stop.cause == "nodes"


def test_nodes_that_come_back_are_waited_for_anew_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch)
    search.pass_minutes(4)
    asked, search.nodes.asked = search.nodes.asked, []
    search.pass_minutes(4)
    search.nodes.asked = asked
    search.pass_minutes(4)
    assert len(search.said) == 2
    assert search.stop.cause is None


def test_a_search_whose_other_trials_run_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch)
    search.nodes.actors["00001"] = object()
    search.pass_minutes(60)
    assert search.stop.cause is None
    search.nodes.actors.clear()
    search.pass_minutes(NODES_GONE_MINUTES)  # between two of them there is a moment without any
    assert search.stop.cause is None
    search.pass_minutes(1)
    assert search.stop.cause == "nodes"


def test_a_trial_that_tune_ended_without_a_word_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch)
    search.nodes.out = {"00000": "a", "00001": "b"}
    trials: list[Any] = [SimpleNamespace(trial_id=name, is_finished=lambda name=name: name != "b") for name in "abc"]
    assert search.watch.look(trials) == ["00000"]


def test_who_asked_to_wait_for_nodes_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, wait_for_nodes=True)
    search.pass_minutes(60)
    assert search.stop.cause is None
    assert len(search.said) == 1


def test_a_store_is_away_where_trials_fail_by_it_for_a_while_and_none_comes_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = Search(monkeypatch)
    away = search.watch.is_store_away
    assert not away("00000")
    search.now += STORE_AWAY_S - 1
    assert not away("00001")
    search.watch.store_is_there("00002")
    search.now += 1
    assert not away("00000")
    search.now += 2 * STORE_AWAY_S + 1  # another hiccup
    assert not away("00000")
    search.now += STORE_AWAY_S
    assert away("00001")


def test_a_store_is_away_for_a_trial_that_never_gets_through_while_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch)
    for _ in range(MOST_LOST - 1):
        assert not search.watch.is_store_away("00000")
        search.watch.store_is_there("00001")
    assert search.watch.is_store_away("00000")

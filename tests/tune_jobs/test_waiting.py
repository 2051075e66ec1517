"""Who is started next, on nodes that are given."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray

from tune_jobs import waiting
from tune_jobs.elsewhere import Elsewhere
from tune_jobs.resources import MIB, Request
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.waiting import Waiting

NODES = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}]
REQUESTS = {"resnet18": Request(gpu=0.5), "svm": Request()}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    queue = Waiting(lambda config: REQUESTS[config["model"]], Elsewhere(print))
    models = ["resnet18"] * 6 + ["svm"] * 6
    for number, model in enumerate(models):
        queue.put(TrialRecord(f"{number:05d}", {"model": model}))
    return queue


def all_next(queue: Waiting) -> list[TrialRecord]:
    found = []
    while (own := queue.next(f"ray-{len(queue.out)}")) is not None:
        found.append(own)
    return found


def test_next_hands_out_as_many_of_each_kind_as_fit_at_once(queue: Waiting) -> None:
    first = all_next(queue)
    assert [own.id for own in first] == ["00000", "00001", "00006", "00007", "00008", "00009"]
    queue.start(first[0], worker("a"))
    assert [own.id for own in all_next(queue)] == ["00002"]
    queue.leave(first[0])
    assert all_next(queue) == []


def test_slots_are_the_lowest_free_and_a_worker_keeps_its_own(queue: Waiting) -> None:
    one, two, *_ = all_next(queue)
    assert [queue.promised_slot(one), queue.promised_slot(two)] == [0, 1]
    queue.start(one, worker("a"))
    queue.start(two, worker("b"))
    assert (queue.slot(one), queue.slot(two)) == (0, 1)
    queue.leave(one)
    again = queue.next("ray-9")
    assert again is not None
    queue.start(again, worker("b2"))  # a new worker
    others = {queue.slot(two), queue.slot(again)}
    assert len(others) == 2
    queue.leave(two)
    third = queue.next("ray-10")
    assert third is not None
    queue.start(third, worker("b"))
    assert queue.slot(third) == 1


def test_grow_is_what_it_asks_for_from_then_on_and_after_a_take_up(queue: Waiting) -> None:
    own = TrialRecord("00012", {"model": "resnet18"})
    assert queue.grow(own, main_memory=False) == Request(gpu=1)
    assert queue.request(own) == Request(gpu=1)
    assert queue.grow(own, main_memory=False) is None
    taken_up = TrialRecord("00000", {"model": "resnet18"}, next_request=Request(gpu=1).model_dump())
    assert Waiting(lambda config: REQUESTS[config["model"]], Elsewhere(print)).request(taken_up) == Request(gpu=1)


def test_put_first_goes_before_all_others_of_whatever_kind(queue: Waiting) -> None:
    again, once_more = TrialRecord("00012", {"model": "svm"}), TrialRecord("00013", {"model": "resnet18"})
    queue.put_first(again)
    queue.put_first(once_more)
    assert len(queue) == 14
    assert [own.id for own in all_next(queue)] == ["00013", "00012", "00000", "00006", "00007", "00008"]
    assert len(queue) == 8


def test_next_looks_at_kinds_not_at_every_trial_that_waits(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    all_next(queue)
    asked: list[Request] = []

    def slots(request: Request, nodes: Any) -> int:
        asked.append(request)
        return 1

    monkeypatch.setattr(waiting, "slots", slots)
    assert queue.next("ray-9") is None
    assert asked == [REQUESTS["resnet18"], REQUESTS["svm"]]


def test_next_of_a_kind_that_takes_no_time_none_waits_at_rays(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for own in all_next(queue):
        queue.start(own, worker(own.id))
    now += 0.5
    queue.leave(TrialRecord("00006", {"model": "svm"}))
    assert [own.id for own in all_next(queue)] == ["00002", "00003", "00010"]  # of the networks nothing is known yet
    now += 60
    queue.leave(TrialRecord("00007", {"model": "svm"}))
    queue.start(TrialRecord("00010", {"model": "svm"}), worker("00010"))
    assert [own.id for own in all_next(queue)] == ["00011"]


def test_stuck_names_what_no_node_can_serve_any_more(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    all_next(queue)
    assert queue.stuck() == []
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0}}])
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", -1.0)
    assert queue.stuck() == [Request(gpu=0.5)]


def worker(name: str) -> Any:
    """Anything that can be told apart stands for a worker."""
    return name


def test_grow_counts_on_a_node_that_went_away_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "memory": 4000 * MIB}}
    large = {"NodeID": "b", "Alive": True, "Resources": {"CPU": 4.0, "memory": 64_000 * MIB}}
    alive = [small, large]
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    queue = Waiting(lambda _: Request(memory_mib=4000), Elsewhere(print))
    own = TrialRecord("00000", {"model": "resnet18"})
    queue.nodes()
    alive = [small, large | {"Alive": False}]
    assert queue.grow(own, main_memory=True) == Request(memory_mib=8000)


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere(print)


@pytest.fixture
def on_two_nodes(monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere) -> Waiting:
    """Four trials of a core each, on two nodes with one core each."""
    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}} for name in ("a", "b")]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    queue = Waiting(lambda _: Request(), elsewhere)
    for number in range(4):
        queue.put(TrialRecord(f"{number:05d}", {"model": "svm"}))
    return queue


def fail(queue: Waiting, elsewhere: Elsewhere, own: TrialRecord, node: str) -> None:
    """It runs on this node, fails there and is to be run again."""
    queue.start(own, worker(own.id))
    elsewhere.arrive(own.id, node, node)
    elsewhere.fail(own.id, "boom")
    queue.leave(own)
    queue.put_first(own)


def test_next_of_a_trial_that_failed_on_a_node_it_is_kept_from_it_and_keeps_no_other_back(
    on_two_nodes: Waiting, elsewhere: Elsewhere
) -> None:
    queue = on_two_nodes
    first, second = all_next(queue)
    assert (queue.kept_from(first), queue.kept_from(second)) == ([], [])
    fail(queue, elsewhere, first, "a")
    assert queue.next("ray-2") is first
    assert queue.kept_from(first) == ["a"]
    third = queue.next("ray-3")
    assert third is not None
    assert (third.id, queue.kept_from(third)) == ("00002", [])
    fail(queue, elsewhere, third, "a")
    fourth = queue.next("ray-4")
    assert fourth is not None
    assert fourth.id == "00003"  # on b is room for one, for which the first waits: the third has to, but not the fourth
    queue.leave(first)
    assert queue.next("ray-5") is third


def test_next_of_a_trial_that_failed_on_every_node_it_may_go_to_any(
    on_two_nodes: Waiting, elsewhere: Elsewhere
) -> None:
    queue = on_two_nodes
    own = queue.next("ray-0")
    assert own is not None
    for node, away in (("a", ["a"]), ("b", [])):
        fail(queue, elsewhere, own, node)
        assert queue.next("ray-1") is own
        assert queue.kept_from(own) == away


def test_next_no_trial_goes_to_a_broken_node_where_another_can_serve_it(
    on_two_nodes: Waiting, elsewhere: Elsewhere
) -> None:
    elsewhere.broken.add("a")
    (own,) = all_next(on_two_nodes)
    assert on_two_nodes.kept_from(own) == ["a"]
    assert on_two_nodes.room([Request()]) == 1
    assert on_two_nodes.stuck() == []
    elsewhere.broken.add("b")
    on_two_nodes.leave(own)
    assert len(all_next(on_two_nodes)) == 2


def test_stuck_names_what_is_kept_from_the_only_node_left(
    on_two_nodes: Waiting, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.broken.add("a")
    all_next(on_two_nodes)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 1.0}}])
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", -1.0)
    assert on_two_nodes.stuck() == [Request()]

"""Who is started next, on nodes that are given."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray

from tune_jobs.resources import MIB, Request
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.running import waiting
from tune_jobs.running.broken_nodes import BrokenNodes
from tune_jobs.running.waiting import Waiting

NODES = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}]
REQUESTS = {"resnet18": Request(gpu=0.5), "svm": Request()}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    queue = Waiting(lambda config: REQUESTS[config["model"]], Broken())
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


def test_has_place_for_a_kind_of_which_not_as_many_as_fit_wait_at_rays(queue: Waiting) -> None:
    networks, svms = REQUESTS.values()
    assert queue.has_place([networks])
    own = all_next(queue)
    assert not queue.has_place([networks, svms])
    queue.start(own[-1], worker("a"))
    assert not queue.has_place([networks])
    assert queue.has_place([networks, svms])


def two_workers_that_are_done(queue: Waiting) -> None:
    """Called a and b, with slots 0 and 1."""
    one, two, *_ = all_next(queue)
    queue.start(one, worker("a"))
    queue.start(two, worker("b"))
    for own in (one, two):
        queue.leave(own)


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


def test_slot_of_a_worker_that_comes_back_is_its_own_unless_another_has_it_now(queue: Waiting) -> None:
    two_workers_that_are_done(queue)
    slots = []
    for name in ("b", "c", "a"):
        queue.leave(TrialRecord("00006", {"model": "svm"}))
        own_or_none = queue.next("ray-9")
        assert own_or_none is not None
        queue.start(own_or_none, worker(name))
        slots.append(queue.slot(own_or_none))
    assert slots[0] == 1
    assert len(set(slots)) == 3


def test_slot_that_a_worker_keeps_is_nobody_elses_although_it_was_promised(queue: Waiting) -> None:
    two_workers_that_are_done(queue)
    third, fourth = queue.next("ray-9"), queue.next("ray-10")
    assert third is not None
    assert fourth is not None
    assert (queue.promised_slot(third), queue.promised_slot(fourth)) == (0, 1)
    queue.start(third, worker("b"))
    queue.start(fourth, worker("c"))
    assert (queue.slot(third), queue.slot(fourth)) == (1, 0)


def test_slot_promised_to_one_that_never_had_a_worker_is_free_again(queue: Waiting) -> None:
    one, *_ = all_next(queue)
    assert queue.leave(one) is None
    again = queue.next("ray-9")
    assert again is not None
    assert queue.promised_slot(again) == 0


def test_leave_of_one_that_ran_says_for_how_long_once(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had a worker longest is looked for among those that have one now."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    own, *_ = all_next(queue)
    queue.start(own, worker("a"))
    now = 7.0
    assert queue.leave(own) == 7.0
    assert not queue.since
    assert queue.leave(own) is None


def test_end_workers_ends_each_one_that_runs(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(ray, "kill", ended.append)
    one, two, *_ = all_next(queue)
    queue.start(one, worker("a"))
    queue.start(two, worker("b"))
    queue.leave(one)
    queue.end_workers()
    assert ended == ["b"]


def test_grow_is_what_it_asks_for_from_then_on_and_after_a_take_up(queue: Waiting) -> None:
    own = TrialRecord("00012", {"model": "resnet18"})
    assert queue.grow(own, main_memory=False) == Request(gpu=1)
    assert queue.request(own) == Request(gpu=1)
    assert queue.grow(own, main_memory=False) is None
    taken_up = TrialRecord("00000", {"model": "resnet18"}, next_request=Request(gpu=1).model_dump())
    assert Waiting(lambda config: REQUESTS[config["model"]], Broken()).request(taken_up) == Request(gpu=1)


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


def test_stuck_says_nothing_of_those_that_run(queue: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their node may be one that Ray has just lost sight of: that they fail by it is told elsewhere."""
    for own in all_next(queue):
        queue.start(own, worker(own.id))
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", -1.0)
    assert queue.stuck() == []


def worker(name: str) -> Any:
    """Anything that can be told apart stands for a worker."""
    return name


def test_grow_counts_on_a_node_that_went_away_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "memory": 4000 * MIB}}
    large = {"NodeID": "b", "Alive": True, "Resources": {"CPU": 4.0, "memory": 64_000 * MIB}}
    alive = [small, large]
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    queue = Waiting(lambda _: Request(memory_mib=4000), Broken())
    own = TrialRecord("00000", {"model": "resnet18"})
    queue.nodes()
    alive = [small, large | {"Alive": False}]
    assert queue.grow(own, main_memory=True) == Request(memory_mib=8000)


class Broken(BrokenNodes):
    """Those that it is told."""

    def __init__(self, *ids: str) -> None:
        super().__init__(print)
        self.given = ids

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self.given)


def on_two_nodes(monkeypatch: pytest.MonkeyPatch, *broken: str) -> Waiting:
    """Four trials of a core each, on two nodes with one core each."""
    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}} for name in ("a", "b")]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    queue = Waiting(lambda _: Request(), Broken(*broken))
    for number in range(4):
        queue.put(TrialRecord(f"{number:05d}", {"model": "svm"}))
    return queue


def test_next_no_trial_goes_to_a_broken_node_where_another_can_serve_it(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = on_two_nodes(monkeypatch, "a")
    (own,) = all_next(queue)
    assert queue.kept_from(own) == ["a"]
    assert queue.room([Request()]) == 1
    assert queue.room([Request(), Request(cpu=0.5)]) == 2
    assert queue.stuck() == []
    for broken in ([], ["a", "b"], ["gone"]):
        queue = on_two_nodes(monkeypatch, *broken)
        found = all_next(queue)
        assert len(found) == queue.room([Request()]) == 2
        assert not any(map(queue.kept_from, found))


def test_next_a_broken_node_that_is_dead_is_none_to_be_kept_from(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = on_two_nodes(monkeypatch, "a")
    nodes = [{"NodeID": name, "Alive": name == "b", "Resources": {"CPU": 1.0}} for name in ("a", "b")]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    (own,) = all_next(queue)
    assert queue.kept_from(own) == []
    assert queue.alive() == ["b"]


def test_stuck_names_what_is_kept_from_the_only_node_left(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = on_two_nodes(monkeypatch, "a")
    all_next(queue)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 1.0}}])
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", -1.0)
    assert queue.stuck() == [Request()]
    assert queue.room([Request()]) == 1


def test_put_second_goes_behind_the_first_of_its_kind(queue: Waiting) -> None:
    again = TrialRecord("00012", {"model": "svm"})
    queue.put_second(again)
    assert [own.id for own in all_next(queue)] == ["00000", "00001", "00006", "00012", "00007", "00008"]
    alone = Waiting(lambda _: Request(), Broken())
    alone.put_second(again)
    assert alone.next("ray-0") is again


def test_take_back_what_ray_has_not_yet(queue: Waiting) -> None:
    first, *_ = found = all_next(queue)
    assert not queue.take_back(first)
    other = TrialRecord("00011", {"model": "svm"})
    assert queue.take_back(other)  # which was not put in: there is nothing to take
    waiting_still = queue._queues[str(REQUESTS["svm"])][0][1]
    assert queue.take_back(waiting_still)
    assert len(queue) == 12 - len(found) - 1

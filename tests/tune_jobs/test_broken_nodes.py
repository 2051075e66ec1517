"""Which nodes are taken for broken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tune_jobs.running.broken_nodes import BrokenNodes

NODES = ("a", "b")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def broken(said: list[str]) -> BrokenNodes:
    """Trials have come further on b."""
    broken = BrokenNodes(said.append)
    broken.arrive("00000", "b", "10.0.0.2")
    broken.epoch("00000")
    return broken


def fail(
    broken: BrokenNodes, own_id: str, node: str = "a", cards: Sequence[str] = (), alive: Sequence[str] = NODES
) -> None:
    """It runs there, fails and is over."""
    broken.arrive(own_id, node, "10.0.0.1", cards)
    broken.fail(own_id, "CUDA error: uncorrectable ECC error encountered", alive)
    broken.leave(own_id)


def come_further(broken: BrokenNodes, own_id: str, node: str = "a", cards: Sequence[str] = ()) -> None:
    broken.arrive(own_id, node, "10.0.0.1", cards)
    broken.epoch(own_id)


def test_three_failures_of_two_trials_in_a_row_make_a_node_a_broken_one(broken: BrokenNodes, said: list[str]) -> None:
    fail(broken, "00001")
    fail(broken, "00001")
    assert not broken.ids
    fail(broken, "00002")
    assert broken.ids == {"a"}
    fail(broken, "00003")
    assert said == [
        "note: 10.0.0.1 is sent no more trials: 3 in a row failed on 10.0.0.1, and others come further elsewhere; the "
        "last one: CUDA error: uncorrectable ECC error encountered"
    ]


def test_one_trial_that_fails_again_and_again_says_nothing_of_its_node(broken: BrokenNodes) -> None:
    for _ in range(5):
        fail(broken, "00001")
    assert not broken.ids


def test_an_epoch_of_one_that_began_after_them_and_failures_are_counted_anew(broken: BrokenNodes) -> None:
    fail(broken, "00001")
    fail(broken, "00002")
    come_further(broken, "00003")
    fail(broken, "00004")
    assert not broken.ids


def test_epochs_of_one_that_began_before_them_say_nothing_of_what_begins_now(broken: BrokenNodes) -> None:
    broken.arrive("00009", "a", "10.0.0.1")
    for number in range(1, 4):
        fail(broken, f"{number:05d}")
        broken.epoch("00009")
    assert broken.ids == {"a"}
    come_further(broken, "00005")  # one that had been sent there before it was known to be broken
    assert not broken.ids


def test_trials_that_had_come_further_say_nothing_of_what_begins_now(broken: BrokenNodes) -> None:
    """A hiccup that ends all that run on a node at once."""
    for number in range(1, 6):
        come_further(broken, f"{number:05d}")
    for number in range(1, 6):
        broken.fail(f"{number:05d}", "its worker process died", NODES)
    assert not broken.ids


def test_a_broken_card_beside_others_that_work(broken: BrokenNodes, said: list[str]) -> None:
    for number in range(1, 4):
        fail(broken, f"{number:05d}", cards=["3"])
        come_further(broken, f"1{number:04d}", cards=["0"])
    assert broken.ids == {"a"}
    assert "3 in a row failed on 10.0.0.1, GPU 3, and" in said[0]
    fail(broken, "19999", cards=["0"])
    come_further(broken, "20000", cards=["0"])
    assert broken.ids == {"a"}
    come_further(broken, "20001", cards=["3"])
    assert not broken.ids


def test_workers_that_die_before_they_have_a_card_are_of_the_whole_node(broken: BrokenNodes) -> None:
    fail(broken, "00001")
    fail(broken, "00002")
    come_further(broken, "00003", cards=["0"])
    fail(broken, "00004")
    assert not broken.ids


def test_where_no_trial_came_further_on_another_living_node_none_is_broken(broken: BrokenNodes) -> None:
    for number in range(5):
        fail(broken, f"{number:05d}", alive=["a"])
    assert not broken.ids
    alone = BrokenNodes(print)
    for number in range(5):
        fail(alone, f"{number:05d}")
    assert not alone.ids


def test_the_only_node_that_is_left_to_work_is_never_broken(broken: BrokenNodes) -> None:
    for node in NODES:
        for number in range(3):
            fail(broken, f"{number:05d}", node)
    assert broken.ids == {"a"}


def test_a_broken_node_that_worked_before_is_none_on_which_others_come_further(broken: BrokenNodes) -> None:
    come_further(broken, "00001", "a")
    for node in NODES:
        for number in range(2, 5):
            fail(broken, f"{number:05d}", node)
    assert broken.ids == {"a"}


def test_node_of_one_that_left_is_asked_for_anew(broken: BrokenNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"1c05": {"Address": {"NodeID": "b", "IPAddress": "10.0.0.2"}}}
    monkeypatch.setattr("tune_jobs.running.broken_nodes.state.actors", lambda worker: table.get(worker, {}))
    broken.arrive("00001", "a", "10.0.0.1")
    assert broken.node("00001", "1c05") == "a"
    broken.leave("00001")
    assert broken.node("00001", None) is None
    assert broken.node("00001", "unknown") is None
    assert broken.node("00001", "1c05") == "b"

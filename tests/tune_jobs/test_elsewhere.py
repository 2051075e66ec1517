"""Which nodes are taken for broken."""

from __future__ import annotations

import pytest

from tune_jobs.elsewhere import Elsewhere


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def elsewhere(said: list[str]) -> Elsewhere:
    """Trials have come further on b."""
    elsewhere = Elsewhere(said.append)
    elsewhere.arrive("00000", "b", "10.0.0.2")
    elsewhere.epoch("00000")
    return elsewhere


def fail(elsewhere: Elsewhere, own_id: str, node: str = "a") -> None:
    elsewhere.arrive(own_id, node, "10.0.0.1")
    elsewhere.fail(own_id, "CUDA error: uncorrectable ECC error encountered")


def test_three_failures_of_two_trials_in_a_row_make_a_node_a_broken_one(elsewhere: Elsewhere, said: list[str]) -> None:
    fail(elsewhere, "00001")
    fail(elsewhere, "00001")
    assert not elsewhere.broken
    fail(elsewhere, "00002")
    assert elsewhere.broken == {"a"}
    fail(elsewhere, "00003")
    assert said == [
        "note: 10.0.0.1 gets no more trials: 3 in a row failed there, and others come further elsewhere; the last one: "
        "CUDA error: uncorrectable ECC error encountered"
    ]


def test_one_trial_that_fails_again_and_again_says_nothing_of_its_node(elsewhere: Elsewhere) -> None:
    for _ in range(5):
        fail(elsewhere, "00001")
    assert not elsewhere.broken


def test_an_epoch_between_the_failures_and_they_are_counted_anew(elsewhere: Elsewhere) -> None:
    fail(elsewhere, "00001")
    fail(elsewhere, "00002")
    elsewhere.arrive("00003", "a", "10.0.0.1")
    elsewhere.epoch("00003")
    fail(elsewhere, "00004")
    assert not elsewhere.broken


def test_where_no_trial_came_further_on_another_node_none_is_broken() -> None:
    elsewhere = Elsewhere(print)
    for number in range(5):
        fail(elsewhere, f"{number:05d}")
    assert not elsewhere.broken


def test_the_only_node_that_is_left_to_work_is_never_broken(elsewhere: Elsewhere) -> None:
    for number in range(3):
        fail(elsewhere, f"{number:05d}", "a")
    for number in range(3):
        fail(elsewhere, f"{number:05d}", "b")
    assert elsewhere.broken == {"a"}


def test_an_epoch_from_a_broken_node_and_it_is_none_any_more(elsewhere: Elsewhere) -> None:
    elsewhere.arrive("00009", "a", "10.0.0.1")
    for number in range(3):
        fail(elsewhere, f"{number:05d}")
    assert elsewhere.broken == {"a"}
    elsewhere.epoch("00009")
    assert not elsewhere.broken


def test_failed_on_is_forgotten_with_the_trial(elsewhere: Elsewhere) -> None:
    fail(elsewhere, "00001")
    assert elsewhere.failed_on("00001") == {"a"}
    elsewhere.forget("00001")
    assert elsewhere.failed_on("00001") == frozenset()
    assert elsewhere.node("00001", None) is None

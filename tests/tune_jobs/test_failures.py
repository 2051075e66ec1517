from __future__ import annotations

import pytest

from tune_jobs.failures import MOST_LOST, RULES, classify, may_retry, worker_in


@pytest.mark.parametrize(
    ("failures", "retries", "again"),
    [
        (["store_lost"] * 5, 0, True),
        (["store_lost"] * MOST_LOST, 0, True),  # the search stops
        (["worker_crashed"], 2, True),
        (["worker_crashed"] * 2, 2, True),
        (["worker_crashed"] * 3, 2, False),
        (["worker_crashed"], 0, False),
        (["out_of_memory", "error", "worker_crashed"], 2, False),
        (["node_lost"] * 5, 0, True),
        (["node_lost"] * MOST_LOST, 2, False),
        (["node_lost", "worker_crashed", "node_lost", "error"], 2, True),
        (["diverged"], 9, False),
        (["timeout"], 9, False),
        (["user_error"], 9, False),
    ],
)
def test_may_retry_by_class(failures: list[str], retries: int, again: bool) -> None:
    *before, failure = failures
    assert may_retry(before, before.count("node_lost"), failure, retries) is again


@pytest.mark.parametrize(
    ("text", "failure", "reason"),
    [
        (
            "Failure # 1 (occurred at x)\nThe actor died unexpectedly before finishing this task.\n\tclass_name: T\n",
            "worker_crashed",
            "its worker process died",
        ),
        (
            "Failure # 1 (occurred at x)\nray.exceptions.RayTaskError(OSError): ray::T.train()\n  File\nOSError: no\n",
            "error",
            "OSError: no",
        ),
        (
            "Failure # 1\nValueError: old\nFailure # 2\nray.exceptions.ActorDiedError: x\n"
            "Task was killed due to the node running low on memory.\n",
            "out_of_memory",
            "its node ran low on memory, and Ray ended its worker process",
        ),
        (
            "Failure # 1\n1 worker(s) were killed due to the node running low on memory. Memory on the node "
            "(IP: 1.2.3.4, ID: 06) was 4.72GB used / 23.54GB limit (0.200476)\n"
            "Selected to kill: (Task: job ID=01, pid=2, actual memory "
            "used=0.05GB, worker ID=dd)\n",
            "out_of_memory",
            "its node ran low on memory (4.72GB of 23.54GB used), and Ray ended its worker process, which used 0.05GB",
        ),
        (
            "Failure # 1\nThe actor died unexpectedly.\nThe actor died because its node has died. Node Id: 1\n",
            "node_lost",
            "the node that it ran on died",
        ),
        ("Failure # 1\n", "error", "Ray gave no reason"),
    ],
)
def test_classify_what_ray_says(text: str, failure: str, reason: str) -> None:
    assert classify(text) == (failure, reason)
    assert failure in RULES


def test_worker_in_the_text_of_one_that_died_its_id_and_of_another_failure_none() -> None:
    died = "The actor died unexpectedly.\n\tclass_name: TrialWorker\n\tactor_id: 1c05\n\tpid: 7"
    assert worker_in(f"Failure # 1 (occurred at 2026-11-22_19-24-56)\n{died}\n") == "1c05"
    assert worker_in("Failure # 1 (occurred at 2026-11-22_19-24-56)\nValueError: boom\n") is None

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.results.damage import read_whole
from tune_jobs.results.ledger import Ledger, TrialRecord, by_number, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.jsonl"


def write_trial(ledger: Ledger, trial: str, attempt: int = 1) -> None:
    ledger.append(trial, "state", state="RUNNING", attempt=attempt)
    for epoch in (1, 2):
        ledger.append(trial, "epoch", attempt=attempt, epoch=epoch, val_accuracy=epoch / 10)


def test_read_follows_a_trial_to_its_end(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append("00000", "state", state="WAITING", config={"model": "mlp"})
    assert read(path)["00000"].state == "WAITING"
    write_trial(ledger, "00000")
    running = read(path)["00000"]
    assert (running.state, running.attempts, len(running.epochs), running.finished) == ("RUNNING", 1, 2, False)
    ledger.append("00000", "state", state="COMPLETE", wall_time_s=3.0, result={"val_accuracy": 0.2})
    done = read(path)["00000"]
    assert (done.state, done.wall_time_s, done.result, done.finished) == ("COMPLETE", 3.0, {"val_accuracy": 0.2}, True)
    assert done.config == {"model": "mlp"}


def test_read_second_attempt_starts_its_epochs_anew(path: Path) -> None:
    ledger = Ledger(path)
    write_trial(ledger, "00000")
    ledger.append("00000", "state", state="WAITING", failure="error", reason="died")
    waiting = read(path)["00000"]
    assert (waiting.state, waiting.failure, waiting.reason) == ("WAITING", "error", "died")
    write_trial(ledger, "00000", attempt=2)
    ledger.append("00000", "epoch", attempt=1, epoch=3, val_accuracy=0.9)  # late word of the first attempt
    again = read(path)["00000"]
    assert [epoch["epoch"] for epoch in again.epochs] == [1, 2]
    assert (again.attempts, again.failure) == (2, None)


def test_append_writes_one_line_of_plain_json_at_once(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append("00000", "epoch", attempt=1, epoch=1, val_loss=math.nan, deep={"x": [math.inf, 1.5]})
    (line,) = path.read_text().splitlines()
    parsed = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert parsed["val_loss"] is None
    assert parsed["deep"] == {"x": [None, 1.5]}


@pytest.mark.parametrize("keep", [1, 10, 60])
def test_read_line_cut_by_a_crash_loses_that_line_alone(path: Path, keep: int) -> None:
    ledger = Ledger(path)
    for number in range(3):
        ledger.append(f"{number:05d}", "state", state="WAITING", config={"model": "mlp"})
    ledger.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert list(read(path)) == ["00000", "00001"]

    after = Ledger(path)
    after.append("00003", "state", state="WAITING", config={"model": "svm"})
    assert list(read(path)) == ["00000", "00001", "00003"]


def test_read_every_cut_of_the_file_is_readable(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append("00000", "state", state="WAITING", config={"model": "mlp", "note": "8×8"})
    write_trial(ledger, "00000")
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        trials = read(path)
        complete_lines = sum(end < cut for end in ends)
        last_is_whole = cut in ends
        assert (len(trials) == 1) == (complete_lines + last_is_whole > 0)


def test_read_passes_over_what_a_newer_version_may_write(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append("00000", "state", state="WAITING", config={"model": "mlp"})
    ledger.append("00000", "weather", temperature=20)
    ledger.append("00000", "state", mood="good")
    assert [(trial.id, trial.state) for trial in read(path).values()] == [("00000", "WAITING")]


def test_read_config_can_be_put_back(path: Path) -> None:
    ledger = Ledger(path)
    write_trial(ledger, "00000")  # its first line was lost
    with pytest.raises(UsageError, match="the config of trial 00000 is damaged; the search command that began it"):
        read_whole(path)
    ledger.append("00000", "config", config={"model": "mlp"})
    (trial,) = read_whole(path).values()
    assert (trial.config, trial.state, len(trial.epochs)) == ({"model": "mlp"}, "RUNNING", 2)


@pytest.mark.parametrize("line", ["[]", "1", "{}", '{"trial": "x"}', "\x00\x00", "null", "[" * 100_000])
def test_read_passes_over_what_is_no_line_of_ours(path: Path, line: str) -> None:
    path.write_text(line + "\n")
    assert read(path) == {}


def test_read_missing_file_is_an_empty_ledger(path: Path) -> None:
    assert read(path) == {}


def test_append_returns_what_reading_gives(path: Path) -> None:
    from tune_jobs.results.ledger import apply

    ledger = Ledger(path)
    own = TrialRecord("00000")
    apply(own, ledger.append("00000", "state", state="WAITING", config={"model": "mlp"}))
    apply(own, ledger.append("00000", "state", state="RUNNING", attempt=1))
    apply(own, ledger.append("00000", "epoch", attempt=1, epoch=1, val_accuracy=math.nan))
    apply(own, ledger.append("00000", "state", state="FAIL", failure="diverged", reason="nan", wall_time_s=1.0))
    assert read(path) == {"00000": own}


def test_nodes_lost_count_from_where_a_trial_last_came_further(path: Path) -> None:
    """A long trial on machines that are taken away every few hours is not what kills them."""
    ledger = Ledger(path)
    for attempt, epochs in enumerate([(1, 2), (2, 3), (3,), (3,)], 1):
        ledger.append("00000", "state", state="RUNNING", attempt=attempt)
        for epoch in epochs:
            ledger.append("00000", "epoch", attempt=attempt, epoch=epoch, val_accuracy=0.5)
        ledger.append("00000", "state", state="WAITING", failure="node_lost", reason="died")
    (own,) = read(path).values()
    assert own.lost == 3  # the one after epoch 3 came first, and the two that followed
    assert own.failures == ["node_lost"] * 4


def test_nodes_lost_count_anew_where_a_trial_had_to_begin_again(path: Path) -> None:
    """On another kind of card, say: its first epochs there are new ones too."""
    ledger = Ledger(path)
    for attempt, epochs in enumerate([(1, 2, 3), (1,), (2,)], 1):
        ledger.append("00000", "state", state="RUNNING", attempt=attempt)
        if attempt == 2:
            ledger.append("00000", "refused", reason="checkpoint: of another device")
        for epoch in epochs:
            ledger.append("00000", "epoch", attempt=attempt, epoch=epoch, val_accuracy=0.5)
        ledger.append("00000", "state", state="WAITING", failure="node_lost", reason="died")
    assert read(path)["00000"].lost == 1


def test_read_attempt_is_the_one_that_the_line_names_also_where_one_before_was_lost(path: Path) -> None:
    write_trial(Ledger(path), "00000", attempt=2)
    own = read(path)["00000"]
    assert (own.attempts, len(own.epochs)) == (2, 2)


def test_append_that_a_full_disk_takes_in_part_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, write = Ledger(path), os.write
    write_trial(ledger, "00000")
    before = path.read_bytes()

    def full(file: int, data: memoryview) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_trial(ledger, "00001")
    assert path.read_bytes() == before
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))  # as it may, without an error
    ledger.append("00001", "state", state="WAITING", config={"model": "mlp"})
    assert read(path)["00001"].config == {"model": "mlp"}


def test_read_keeps_what_a_trial_was_promised_and_forgets_where_it_ran(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append("00000", "state", state="RUNNING", attempt=1, request={"cpu": 1.0})
    ledger.append("00000", "place", attempt=1, node="10.0.0.7", slot=0, cards=["3"])
    assert read(path)["00000"].place == {"node": "10.0.0.7", "slot": 0, "cards": ["3"]}
    ledger.append("00000", "state", state="WAITING", failure="out_of_memory", reason="x", next_request={"cpu": 2.0})
    ledger.append("00000", "state", state="RUNNING", attempt=2, request={"cpu": 2.0})
    own = read(path)["00000"]
    assert (own.next_request, own.request, own.place) == ({"cpu": 2.0}, {"cpu": 2.0}, {})
    assert (own.failure, own.reason, own.failures) == (None, None, ["out_of_memory"])
    line = json.loads(path.read_text().splitlines()[-1])
    assert (own.started, own.since) == (line["time"], line["time"])


@pytest.mark.parametrize(
    "fields",
    [
        {"trial": "0/../1"},
        {"state": 3},
        {"time": "now"},
        {"config": ["mlp"]},
        {"attempt": "2"},
    ],
)
def test_read_passes_over_a_line_with_a_part_damaged(path: Path, fields: dict[str, object]) -> None:
    line = {"time": 1.0, "trial": "00000", "event": "state", "state": "RUNNING", "attempt": 1}
    path.write_text(json.dumps(line | fields) + "\n")
    assert read(path) == {}


def test_by_number_has_repeats_in_their_order_also_beyond_ten_of_them_and_many_trials() -> None:
    ids = ["100000-1", "99999-10", "99999-2", "99999-0", "100000-0"]
    found = by_number(map(TrialRecord, ids))
    assert {number: [trial.id for trial in group] for number, group in found.items()} == {
        99999: ["99999-0", "99999-2", "99999-10"],
        100000: ["100000-0", "100000-1"],
    }
    assert list(found) == [99999, 100000]

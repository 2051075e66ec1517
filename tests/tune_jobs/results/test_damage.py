from __future__ import annotations

from pathlib import Path

from tune_jobs.results.damage import told
from tune_jobs.results.ledger import Ledger, read


def test_damage_counts_what_is_lost_and_not_a_line_that_is_being_written(tmp_path: Path) -> None:
    path, run = tmp_path / "trials.jsonl", tmp_path.name
    assert told(path) == ""
    ledger = Ledger(path)
    ledger.append("00000", "state", state="WAITING", config={"model": "mlp"})
    ledger.append("00000", "weather", temperature=20)  # of a newer version
    with path.open("a") as file:
        file.write('{"time": 1')
    assert told(path) == ""
    Ledger(path).append("00000", "state", state="RUNNING", attempt=1)
    assert told(path).startswith(f"run {run}: 1 line of trials.jsonl is damaged and passed over")
    with path.open("a") as file:
        file.write('{"time": 1, "trial": "00000", "event": "state"}\n' + "\0\0")
    assert told(path).startswith(f"run {run}: 3 lines of trials.jsonl are damaged and passed over")
    assert read(path)["00000"].state == "RUNNING"

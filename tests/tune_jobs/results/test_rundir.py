from __future__ import annotations

import errno
import fcntl
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.results.rundir import RunDir, find, replacing, write_text

ROOT = Path(__file__).parents[3]


def test_locked_second_process_is_refused_and_a_dead_ones_lock_is_not_in_the_way(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    code = (
        "import sys, time; from pathlib import Path; from tune_jobs.results.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).locked():\n    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        owner = f"run run: process {holder.pid} on {socket.gethostname()} is running it"
        with pytest.raises(UsageError, match=rf"^{re.escape(owner)} \({run.path}\)$"), run.locked():
            pytest.fail("two held it")
        other = RunDir(tmp_path / "other")
        assert (run.running_beside(), other.running_beside()) == ([], ["run"])
        other.path.mkdir()
        write_text(other.ledger, "")
        with other.within("confirm-x").locked():
            assert run.running_beside() == ["other/confirm-x"]
            assert other.within("confirm-x").running_beside() == ["run"]
    finally:
        holder.kill()
        holder.communicate()
    assert RunDir(tmp_path / "other").running_beside() == []
    with run.locked():
        assert run.path.is_dir()


def test_locked_lets_whoever_asks_pass_by(tmp_path: Path) -> None:
    """`status --follow` asks each second whether somebody runs it, by a lock of a moment."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    with (run.path / ".lock").open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        gone = threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN))
        gone.start()
        with run.locked():
            assert run.is_running()
        gone.join()
    assert not run.is_running()


def test_locked_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"), RunDir(tmp_path / "file" / "run").locked():
        pytest.fail("made a directory in a file")


def test_find_by_path_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "trials.jsonl").write_text("")
    assert find("a", tmp_path).path == find(str(tmp_path / "a"), Path("/nowhere")).path == tmp_path / "a"
    with pytest.raises(UsageError, match=r"run b: no run directory of that path or name; runs under .*: a$"):
        find("b", tmp_path)
    with pytest.raises(UsageError, match=r"^RUN is empty: give the name of a run, its directory or its URI$"):
        find("", tmp_path)


def test_find_of_a_folder_without_a_ledger_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for run in ("b", str(tmp_path / "b")):
        with pytest.raises(UsageError, match=rf"^run {run}: {tmp_path / 'b'} has no trials.jsonl; there are no runs"):
            find(run, tmp_path)


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_text(path, "old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_find_of_a_benchmark_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "rows.jsonl").write_text("")
    for run in ("benchmark", str(tmp_path / "benchmark")):
        with pytest.raises(UsageError, match=r"^run .*benchmark: is a benchmark, no search"):
            find(run, tmp_path)


def test_find_expands_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file, no shell does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs" / "first").mkdir(parents=True)
    write_text(tmp_path / "runs" / "first" / "trials.jsonl", "")
    assert find("~/runs/first", tmp_path).path == tmp_path / "runs" / "first"
    with pytest.raises(UsageError, match=r"^~nosuchuser/first: Could not determine home directory"):
        find("~nosuchuser/first", tmp_path)


def test_read_experiment_names_its_file(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for text, line in (
        ("", "experiment.yaml: must be a mapping of keys to values"),
        ("trails: 3", "experiment.yaml: .*trails: there is no such key"),
    ):
        run.experiment.write_text(text)
        with pytest.raises(UsageError, match=line):
            run.read_experiment()


def test_check_place_refuses_a_file_and_takes_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match=rf"^run directory {path}: {tmp_path / 'file'} is no directory$"):
            RunDir(path).check_free()
    RunDir(tmp_path / "new" / "run").check_free()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_in_a_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "No locks available")

    run = RunDir(tmp_path / "run")
    with run.locked():
        pass
    monkeypatch.setattr(fcntl, "flock", flock)
    said = rf"^{re.escape(str(run.path))}/\.lock: the file system there has no locks \(No locks available\)"
    with pytest.raises(UsageError, match=said):
        run.check_free()
    with pytest.raises(UsageError, match=said), run.locked():
        pytest.fail("it was held")

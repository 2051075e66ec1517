from __future__ import annotations

import io
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import ray
import torch
from pyarrow import fs
from ray import cloudpickle
from ray.tune.logger import TBXLoggerCallback
from rich.console import Console

from datasets import DatasetConfig, load_splits
from models import TrainConfig
from models.training import fit
from profiling import rows
from profiling.rows import Row
from tests.profiling.conftest import MADE_UP
from tests.tune_jobs.s3_server import KEY, SECRET, S3Server, s3_server
from tune_jobs import follow, storage, yaml
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.cluster import shared_storage
from tune_jobs.cluster.shared_storage import look, refuse_unseen, to_ask
from tune_jobs.errors import UsageError
from tune_jobs.experiment import check
from tune_jobs.resources import Request
from tune_jobs.results import lease, ledger, mirror, rundir
from tune_jobs.results.lease import Lease
from tune_jobs.results.mirror import Mirror
from tune_jobs.results.report import all_rows, page
from tune_jobs.results.rundir import RunDir
from tune_jobs.running import loggers
from tune_jobs.sameness import check_same
from tune_jobs.space import parse as parse_space
from tune_jobs.storage import Store, StoreError, parse

if TYPE_CHECKING:
    import subprocess

    from tests.conftest import App


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """This process finds the server as a person's would; its working copies are machine one's."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    on_machine("one", tmp_path, monkeypatch)
    return server


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, working copies are those of another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def store(folder: str) -> Store:
    found = storage.parse(f"s3://bucket/{folder}")
    assert isinstance(found, Store)
    return found


def run_at(folder: str) -> RunDir:
    return rundir.at(store(folder).parent, folder.rpartition("/")[2])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def write_model(path: Path) -> None:
    path.write_bytes(b"model")


def never(line: str) -> None:
    pytest.fail(line)


# What a person may give


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("ftp://bucket/x", "storage ftp://: there is no such kind; give a directory, s3://bucket/folder or gs://"),
        ("file:///x", "storage file://: there is no such kind"),
        ("s3://", "give a directory, s3://bucket/folder"),
        ("s3:/bucket/x", "storage s3:/bucket/x: give a directory, s3://bucket/folder"),
        ("", "storage '': give a directory, s3://bucket/folder"),
        ("s3://bucket/../x", "give a directory, s3://bucket/folder"),
        ("s3://bucket/a//b", "give a directory, s3://bucket/folder"),
        ("s3://bucket/x#y", "give a directory, s3://bucket/folder"),
        ("s3://bucket/x?profile=me", "its query may say region, scheme, endpoint_override, not profile"),
        ("gs://bucket/x?region=eu", "its query may say scheme, endpoint_override, not region"),
    ],
)
def test_parse_what_is_no_storage_is_one_line_with_what_is_allowed(given: str, line: str) -> None:
    with pytest.raises(UsageError) as raised:
        storage.parse(given)
    assert line in str(raised.value)


def test_parse_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="credentials do not belong in a URI") as raised:
        storage.parse(f"s3://{KEY}:{SECRET}@bucket/x")
    assert KEY not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_parse_directory_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.parse("runs") == tmp_path / "runs"


def test_parse_gs_needs_no_network() -> None:
    found = storage.parse("gs://bucket/runs")
    assert isinstance(found, Store)
    assert (str(found / "x"), found.name, str(found.parent)) == ("gs://bucket/runs/x", "runs", "gs://bucket")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_parse_endpoint_of_the_environment_goes_to_other_machines_and_is_not_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv(variable, "http://10.0.0.1:9000/")
    found = store("runs/") / "x"
    assert str(found) == "s3://bucket/runs/x"
    assert found.uri == "s3://bucket/runs/x?scheme=http&endpoint_override=10.0.0.1:9000&region=eu-west-1"
    monkeypatch.delenv(variable)
    assert str(storage.parse(found.uri)) == found.uri


def test_parse_query_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.0.0.1:9000")
    found = storage.parse("s3://bucket/runs?endpoint_override=10.0.0.2:9000&scheme=https&region=a")
    assert isinstance(found, Store)
    assert dict(found.options) == {"endpoint_override": "10.0.0.2:9000", "scheme": "https", "region": "a"}


# A store that does not do it


def test_store_without_its_bucket_is_one_line(s3: S3Server) -> None:
    missing = storage.parse("s3://no-such-bucket/runs")
    assert isinstance(missing, Store)
    for ask in (missing.list, lambda: missing.folders_with("x"), lambda: missing.write("x", b"")):
        with pytest.raises(StoreError, match=r"^s3://no-such-bucket/runs: there is no such bucket$"):
            ask()


def test_store_where_nobody_listens_is_one_line() -> None:
    lost = storage.parse("s3://bucket/runs?endpoint_override=127.0.0.1:1&scheme=http&region=a")
    assert isinstance(lost, Store)
    with pytest.raises(StoreError, match=r"&region=a: cannot be reached$"):
        lost.list()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied", "access is denied; credentials"),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: No response", "access is denied"),
        (f"AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: key {KEY} {SECRET}", "access is denied"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadBucket operation", "another region"),
        (f"AWS Error INTERNAL_FAILURE during PutObject operation: {SECRET}", "the store says INTERNAL_FAILURE"),
        ("google::cloud::Status(UNAVAILABLE: x)", "cannot be reached"),
        (f"something new {SECRET}", "cannot be used (OSError)"),
    ],
)
def test_told_says_the_cause_in_our_words_and_nothing_of_the_request(text: str, words: str) -> None:
    with pytest.raises(StoreError) as raised, storage.told("s3://bucket/x"):
        raise OSError(text)
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


# The working copy


def write_ledger(run: RunDir, *lines: str) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    with run.ledger.open("a") as file:
        file.write("".join(line + "\n" for line in lines))


def test_locked_run_is_mirrored_and_found_from_another_machine(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_at("mirror/a")
    with run.locked(never, never):
        write_ledger(run, '{"n": 1}')
        run.study.write_text("study\n")
        (run.path / "00000-mlp").mkdir()
        (run.path / "00000-mlp" / "events.out.tfevents.1").write_text("events")
        for name in ("tuner.pkl", "experiment_state-2.json", ".hidden", "00000-mlp/params.pkl"):
            (run.path / name).write_text("only here")
        write_ledger(run, '{"n": 2}', '{"cut')
        with run.ledger.open("a") as file:
            file.write('{"being written')
        wait_for(lambda: "trials.jsonl" in s3.names("bucket/mirror/a"))
        run.best_model.write_text("weights")
    assert s3.names("bucket/mirror/a") == {
        "trials.jsonl", "optuna.journal", "00000-mlp/events.out.tfevents.1", "best.safetensors"
    }  # fmt: skip
    assert s3.read("bucket/mirror/a/trials.jsonl") == b'{"n": 1}\n{"n": 2}\n{"cut\n'

    on_machine("two", tmp_path, monkeypatch)
    found = rundir.find("a", store("mirror"))
    assert found.path != run.path
    assert found.ledger.read_bytes() == s3.read("bucket/mirror/a/trials.jsonl")
    assert sorted(path.name for path in found.path.iterdir() if not path.name.startswith(".")) == [
        "optuna.journal", "trials.jsonl"
    ]  # fmt: skip
    assert rundir.find("s3://bucket/mirror/a", Path("/nowhere")).path == found.path
    with pytest.raises(UsageError, match=r"run b: no run .*; runs under s3://bucket/mirror: a$"):
        rundir.find("b", store("mirror"))


def test_callbacks_of_a_run_on_a_store_can_be_pickled_as_tune_does(s3: S3Server) -> None:
    run = run_at("pickled/a")
    with run.locked(never, never):
        (callback,) = cloudpickle.loads(cloudpickle.dumps(loggers.callbacks(["tensorboard"], run, ["lr"])))
    assert isinstance(callback, TBXLoggerCallback)


def test_find_brings_what_another_machine_wrote_and_drops_what_it_removed(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_at("turns/a")
    with run.locked(never, never):
        write_ledger(run, "1")
        (run.path / "pareto").mkdir()
        (run.path / "pareto" / "00001.yaml").write_text("old")
    on_machine("two", tmp_path, monkeypatch)
    other = rundir.find("a", store("turns"))
    assert (other.path / "pareto" / "00001.yaml").read_text() == "old"
    with other.locked(never, never):
        write_ledger(other, "2")
        other.remove(other.path / "pareto" / "00001.yaml")
        other.best.write_text("best")
    assert s3.names("bucket/turns/a") == {"trials.jsonl", "best.yaml"}
    on_machine("one", tmp_path, monkeypatch)
    assert rundir.find("a", store("turns")).path == run.path
    assert run.ledger.read_text() == "1\n2\n"
    assert run.best.read_text() == "best"
    assert not (run.path / "pareto" / "00001.yaml").exists()


def test_fetch_keeps_a_working_copy_that_a_dead_driver_left_ahead_of_the_store(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_at("ahead/a")
    with run.locked(never, never):
        write_ledger(run, "1")
    write_ledger(run, "2")  # written, not pushed, and the driver was killed
    run.study.write_text("study\n")
    run.fetch()
    assert run.ledger.read_text() == "1\n2\n"
    with run.locked(never, never):
        assert run.ledger.read_text() == "1\n2\n"
    assert s3.read("bucket/ahead/a/trials.jsonl") == b"1\n2\n"

    write_ledger(run, "3")
    on_machine("two", tmp_path, monkeypatch)
    other = run_at("ahead/a")
    with other.locked(never, never):
        write_ledger(other, "4")  # went on without the line that was not pushed: that one never was
    on_machine("one", tmp_path, monkeypatch)
    run.fetch()
    assert run.ledger.read_text() == "1\n2\n4\n"


def test_fetch_run_that_is_gone_from_the_store_is_gone_here(s3: S3Server) -> None:
    run = run_at("gone/a")
    with run.locked(never, never):
        write_ledger(run, "1")
    s3.files.delete_dir("bucket/gone")
    run.fetch()
    assert not run.ledger.exists()
    assert run.path.with_name(".a.old").joinpath("trials.jsonl").read_text() == "1\n"


def test_fetch_keeps_what_a_driver_wrote_that_died_before_its_first_push(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has nothing of it; nor has one that was removed there, which is put aside."""
    run = run_at("unpushed/a")
    with monkeypatch.context() as dead:
        dead.setattr(mirror.Mirror, "_push", lambda _: None)
        with run.locked(never, never):
            write_ledger(run, "1")
    assert "trials.jsonl" not in s3.names("bucket/unpushed/a")
    run.fetch()
    with run.locked(never, never):
        assert run.ledger.read_text() == "1\n"
        write_ledger(run, "2")
    assert s3.read("bucket/unpushed/a/trials.jsonl") == b"1\n2\n"
    s3.files.delete_dir("bucket/unpushed")
    run.fetch()
    assert not run.ledger.exists()


def test_push_cut_off_anywhere_leaves_a_run_that_can_be_taken_up(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever number of objects the first push came to, another machine goes on from there."""
    asked = check({"name": "a", "dataset": {"name": "digits"}, "train": {"model": "mlp"}})
    space = parse_space(asked.space, asked.train, "grid")
    line = json.dumps({"time": 1, "trial": "00000", "event": "state", "state": "WAITING", "config": space.grid()[0]})
    texts = {
        "experiment.yaml": yaml.dump(asked.document(), "Made for a test."),
        "environment.json": json.dumps({"data_sha256": "a"}),
        "trials.jsonl": line + "\n",
        "optuna.journal": "{}\n",
        "best.yaml": "best",
    }
    write = Store.write
    for most in range(len(texts) + 1):
        on_machine("one", tmp_path, monkeypatch)
        run = run_at(f"cut{most}/a")
        written: list[str] = []

        def limited(self: Store, name: str, data: bytes, written: list[str] = written, most: int = most) -> None:
            if not self.root.endswith("/.lock"):
                if len(written) == most:
                    raise StoreError("gone")
                written.append(name)
            write(self, name, data)

        with monkeypatch.context() as dying:
            dying.setattr(Store, "write", limited)
            with run.locked(never, lambda _: None):
                for name, text in texts.items():
                    (run.path / name).write_text(text)
        assert len(s3.names(f"bucket/cut{most}/a")) == most
        on_machine("two", tmp_path, monkeypatch)
        other = run_at(f"cut{most}/a")
        with other.locked(never, never):
            check_same(asked, space, other, "a", ledger.read(other.ledger))


def test_push_of_an_empty_record_is_none(s3: S3Server) -> None:
    run = run_at("empty/a")
    with run.locked(never, never):
        run.ledger.touch()
        run.best.write_text("best")
    assert s3.names("bucket/empty/a") == {"best.yaml"}


def test_fetch_leaves_runs_within_a_run_and_names_that_climb_out_alone(s3: S3Server, tmp_path: Path) -> None:
    run = run_at("inner/a")
    with run.locked(never, never):
        write_ledger(run, "1")
    inner = run.within("confirm-x")
    with inner.locked(never, never):
        write_ledger(inner, "inner")
        inner.best.write_text("best")
        s3.write("bucket/inner/a/confirm-x/trials.jsonl", b"from the store\n")
        run.fetch()
        assert inner.ledger.read_text() == "inner\n"
    assert s3.read("bucket/inner/a/confirm-x/trials.jsonl") == b"inner\n"
    assert s3.read("bucket/inner/a/confirm-x/best.yaml") == b"best"
    assert not run.is_running()
    rogue = ["../b.yaml", "x/../../b.yaml", "/b.yaml", ".lock/x", "checkpoints/00000/model.safetensors", "ok.yaml"]
    assert list(mirror._mirrored({name: storage.Found(1, 0.0) for name in rogue})) == ["ok.yaml"]


@pytest.mark.parametrize("error", [StoreError("s3://x: cannot be reached"), OSError(5, "Input/output error")])
def test_locked_last_push_that_fails_is_told_the_run_given_back_and_nothing_here_lost(
    error: Exception, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    run = run_at(f"lost-{type(error).__name__}/a")
    with run.locked(never, told.append):
        write_ledger(run, "1")
        monkeypatch.setattr(Store, "write", lambda *_: (_ for _ in ()).throw(error))
    assert told == [f"{error}; what is not there yet is in {run.path}"]
    assert run.ledger.read_text() == "1\n"
    assert not run.is_running()


# Two drivers


def test_lease_living_driver_elsewhere_is_named_and_a_second_one_refused(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 1)
    run = run_at("two/a")
    said: list[str] = []
    with run.locked(never, never):
        write_ledger(run, "1")
        assert run.is_running()
        on_machine("two", tmp_path, monkeypatch)
        other = run_at("two/a")
        with pytest.raises(UsageError, match=r"^run a: process \d+ on .* is running it$"), other.locked(said.append):
            pytest.fail("two held it")
        assert len(said) == 1
        assert other.is_running()
        assert s3.names("bucket/two/a/.lock") == {run.path.joinpath(".claim").read_text()}
    assert not other.is_running()
    with other.locked(never, never):
        assert other.ledger.read_text() == "1\n"


def test_lease_dead_drivers_claim_is_waited_out_elsewhere_and_ignored_on_its_own_machine(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 4)
    run = run_at("dead/a")
    claims = store("dead/a/.lock")

    def die() -> None:
        claims.write("a" * 32, json.dumps({"host": "h", "pid": 1}).encode())
        run.path.mkdir(parents=True, exist_ok=True)
        run.path.joinpath(".claim").write_text("a" * 32)

    die()
    with run.locked(never, never):
        assert "a" * 32 not in claims.list()
    die()
    on_machine("two", tmp_path, monkeypatch)
    said: list[str] = []
    with run_at("dead/a").locked(said.append, never):
        assert len(claims.list()) == 1
        assert "a" * 32 not in claims.list()
    assert said == ["run a: process 1 on h had it last; waiting to see whether that one still lives"]


def test_lease_of_many_at_the_same_moment_one_at_most_has_it(s3: S3Server, tmp_path: Path) -> None:
    holders, most, refused = 0, 0, 0
    guard = threading.Lock()
    start = threading.Barrier(4)

    def drive(number: int) -> None:
        nonlocal holders, most, refused
        own = Lease(store("many/a"), tmp_path / f"claim-{number}")
        start.wait()
        try:
            own.take(lambda _: None, never)
        except UsageError:
            with guard:
                refused += 1
            return
        with guard:
            holders += 1
            most = max(most, holders)
        time.sleep(1)
        with guard:
            holders -= 1
        own.give_back()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 1
    assert store("many/a/.lock").list() == {}


def test_lease_that_was_removed_stops_its_driver_which_writes_no_more(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    told: list[str] = []
    run = run_at("removed/a")
    with run.locked(never, told.append):
        s3.files.delete_dir("bucket/removed/a/.lock")
        wait_for(lambda: bool(told))
        write_ledger(run, "late")
    assert told == ["run a: its lock in the store was removed"]
    assert s3.names("bucket/removed/a") == set()


def test_lease_that_ran_out_before_the_end_is_told_there(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the next beat would have: exit code 0 would say that the store has it all."""
    told: list[str] = []
    run = run_at("slept-at-the-end/a")
    now = lease._now
    with run.locked(never, told.append):
        write_ledger(run, "late")
        monkeypatch.setattr(lease, "_now", lambda: now() + 3600)
    assert told == [f"run a: this driver was held up for too long; what is not there yet is in {run.path}"]
    assert s3.names("bucket/slept-at-the-end/a") == set()


def test_a_push_that_took_long_is_followed_by_a_rest_as_much_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ledger and study go whole, and of thousands of trials over a slow line that takes seconds."""
    took: list[float | StoreError] = [0.01, 2.0, 20.0, StoreError("away"), 0.0]
    pauses: list[float] = []
    clock = 0.0

    def push() -> None:
        nonlocal clock
        now = took.pop(0)
        if isinstance(now, StoreError):
            raise now
        clock += now

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return not took

    pushed: Any = Mirror(tmp_path, None)  # type: ignore[arg-type]  # it asks no store
    pushed._push = push
    pushed._wake = SimpleNamespace(wait=lambda _: None, clear=lambda: None)
    monkeypatch.setattr(mirror, "time", SimpleNamespace(monotonic=lambda: clock))
    pushed._keep_pushing(SimpleNamespace(held=lambda: True), SimpleNamespace(wait=wait))
    assert pauses == pytest.approx([1, 1, 18, 60, 1, 1])


# A run watched from another machine


def test_follow_fetches_what_a_driver_elsewhere_pushes(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.05)
    monkeypatch.setattr(follow, "FETCH_S", 0.1)
    monkeypatch.setattr(mirror, "SOON_S", 0.1)
    run = run_at("followed/a")
    shown = io.StringIO()
    with run.locked(never, never):
        document = {"name": "a", "dataset": {"name": "digits"}, "train": {"model": "mlp"}}
        run.experiment.write_text(yaml.dump(check(document).document(), "Made for a test."))
        record = ledger.Ledger(run.ledger)
        record.append("00000", "state", state="WAITING", config={"model": "mlp", "epochs": 1})
        run.push_soon()
        wait_for(lambda: "trials.jsonl" in s3.names("bucket/followed/a"))
        on_machine("two", tmp_path, monkeypatch)
        other = rundir.find("a", store("followed"))
        watching = threading.Thread(target=follow.watch, args=(other, Console(file=shown, width=120)))
        watching.start()
        wait_for(lambda: "0 of 1 trials finished" in shown.getvalue())
        record.append(
            "00000", "state", state="COMPLETE", wall_time_s=1.0, result={"val_accuracy": 0.9, "train_time_s": 1.0}
        )
        run.push_soon()
        wait_for(lambda: "00000 COMPLETE" in shown.getvalue())
        record.append("00001", "state", state="FAIL", config={"model": "mlp", "epochs": 1}, failure="error", reason="x")
    watching.join()
    assert "00001 FAIL" in shown.getvalue()  # the last push, after which nobody runs it
    record.close()


# Checkpoints


def test_checkpoints_in_a_store_are_kept_loaded_and_dropped(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = store("checks").uri
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # a worker elsewhere has the URI alone
    for epoch in (1, 2, 3):
        Checkpoints(folder, "00000").save(epoch, lambda epoch=epoch: {"epoch": torch.tensor(epoch)})  # type: ignore[misc]
    names = sorted(s3.names("bucket/checks/00000"))
    assert [name[:11] for name in names] == ["epoch-00002", "epoch-00003"]
    s3.write(f"bucket/checks/00000/{names[1]}", b"damaged")
    assert [int(state["epoch"]) for state in Checkpoints(folder, "00000").load()] == [2]
    Checkpoints(folder, "00000").write_model(write_model, tmp_path)
    Checkpoints(folder, "00000").drop()
    assert s3.names("bucket/checks/00000") == {"model.safetensors"}
    assert Checkpoints(folder, "00000").read_model() == b"model"
    Checkpoints(folder, "00000").drop_all()
    assert s3.names("bucket/checks") == set()
    assert Checkpoints(folder, "00000").read_model() is None


def test_checkpoints_store_that_fails_costs_a_checkpoint_but_not_a_model(tmp_path: Path) -> None:
    lost = Checkpoints("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http&region=a", "00000")
    lost.save(1, lambda: {})
    with pytest.raises(StoreError, match="cannot be reached"):
        lost.write_model(write_model, tmp_path)


# Storage that every node must see


def node(name: str, cpus: float, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Resources": {"CPU": cpus}, "Alive": alive}


def test_to_ask_nodes_that_may_run_a_trial_but_not_this_one() -> None:
    nodes = [node("1", 4), node("2", 4), node("3", 0), node("4", 4, alive=False)]
    assert to_ask(nodes, [Request(cpu=1)], own="1") == {"2": "10.0.0.2"}
    assert to_ask(nodes, [Request(cpu=1)], own=None) == {"1": "10.0.0.1", "2": "10.0.0.2"}


def test_refuse_unseen_names_the_nodes_and_what_to_give_instead(s3: S3Server) -> None:
    refuse_unseen(Path("/runs"), {})
    with pytest.raises(UsageError) as raised:
        refuse_unseen(Path("/runs"), {"10.0.0.2": look("/runs-of-another", "t", "r")})
    assert str(raised.value) == (
        "storage /runs: trials may run on nodes that cannot use it: 10.0.0.2 (does not see what is written there "
        "elsewhere); give one that all nodes share: an NFS path, s3://bucket/folder or gs://bucket/folder"
    )
    with pytest.raises(UsageError, match=r"10\.0\.0\.2 \(no\); each node needs the credentials"):
        refuse_unseen(store("runs"), {"10.0.0.2": "no"})


def test_look_reads_and_writes(tmp_path: Path, s3: S3Server) -> None:
    (tmp_path / ".seen-t").write_text("t")
    assert look(str(tmp_path), "t", "reply") == ""
    assert (tmp_path / "reply").read_text() == "t"
    assert look(str(tmp_path), "other", "reply") == "does not see what is written there elsewhere"
    lost = "s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http&region=a"
    assert look(lost, "t", "reply") == "cannot be reached"


@pytest.mark.parametrize("is_written", [True, False])
def test_check_storage_seen_where_nothing_may_be_deleted_says_what_failed_first(
    is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept:
        """A store from which nothing may be deleted."""

        def get_file_info(self, _: str) -> Any:
            return SimpleNamespace(type=fs.FileType.File)

        def delete_file(self, _: str) -> None:
            raise OSError("AWS Error ACCESS_DENIED during DeleteObject operation: Access Denied")

    def write(*_: str) -> None:
        if not is_written:
            raise StoreError("s3://bucket/runs: cannot be reached")

    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "1"))
    monkeypatch.setattr(ray, "nodes", lambda: [node("2", 4)])
    monkeypatch.setattr(shared_storage, "file_system", lambda _: (Kept(), "bucket/runs"))
    monkeypatch.setattr(shared_storage, "_write", write)
    monkeypatch.setattr(shared_storage, "_ask", lambda *_: {})
    given: Any = SimpleNamespace(uri="s3://bucket/runs")
    with pytest.raises(StoreError) as error:
        shared_storage.check_storage_seen(given, [Request()])
    denied = "s3://bucket/runs: what was written there cannot be deleted: access is denied"
    assert str(error.value).partition(";")[0] == (denied if is_written else "s3://bucket/runs: cannot be reached")


# The whole of it, as a person runs it


def write_rows(run: RunDir, count: int) -> None:
    """A benchmark's files, of made-up rows."""
    found = [Row(**(MADE_UP | {"batch_size": 16 * (n + 1)})) for n in range(count)]
    run.rows.write_text("".join(json.dumps({"task": str(n), "row": {}}) + "\n" for n in range(count)))
    rows.write(rows.with_speedups(found), run.benchmark)
    facts: dict[str, Any] = {
        "python": "3.11", "versions": {}, "git_commit": None, "cpu": "none", "cpu_cores": 2, "memory_gib": 8,
        "gpus": [], "data_sha256": "a" * 64, "images": {"train": 7, "val": 1, "test": 2},
    }  # fmt: skip
    run.environment.write_text(json.dumps(facts))


def test_benchmark_on_a_store_is_found_reported_and_taken_up_from_another_machine(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = run_at("bench/a")
    with run.locked(never, never):
        write_rows(run, 2)
    on_machine("two", tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"run a: no run .*; there are no runs under s3://bucket/bench$"):
        rundir.find("a", store("bench"))
    found = rundir.find("s3://bucket/bench/a", tmp_path, benchmarks=True)
    assert found.is_benchmark
    page.write([found], found.report)
    found.publish(found.report)
    written = s3.read("bucket/bench/a/report.html").decode()
    assert "<code>s3://bucket/bench/a</code>" in written
    assert all_rows.csv([found]).count("\n") == 1 + 2
    with found.locked(never, never):
        assert found.rows.read_text() == run.rows.read_text()


def test_benchmark_that_a_dead_driver_left_ahead_of_the_store_is_kept(s3: S3Server) -> None:
    run = run_at("ahead/bench")
    with run.locked(never, never):
        write_rows(run, 1)
    write_rows(run, 2)  # and was killed before it pushed
    with run.locked(never, never):
        assert len(run.rows.read_text().splitlines()) == 2
    assert s3.read("bucket/ahead/bench/rows.jsonl").count(b"\n") == 2


@pytest.mark.slow
@pytest.mark.cluster
def test_benchmark_on_a_store_is_measured_and_reported(app: App, s3: S3Server) -> None:
    asked = ["--dataset", "digits", "--limit", "300", "--image-size", "8", "--models", "mlp", "--optimizers", "sgd"]
    cache = app.home / "bench"
    place = {"TUNE_JOBS_STORAGE": "s3://bucket/cli", "XDG_CACHE_HOME": str(cache)}
    on = replace(app, environment=s3.environment | place)
    measured = on("benchmark", *asked, "--name", "speed")
    assert (measured.returncode, measured.stderr) == (0, ""), measured.stdout
    assert measured.stdout.splitlines()[-1] == "run directory: s3://bucket/cli/speed"
    assert s3.names("bucket/cli/speed") == {
        "benchmark.json", "environment.json", "rows.jsonl", "benchmark.parquet", "benchmark.csv"
    }  # fmt: skip
    shutil.rmtree(cache)
    reported = on("report", "speed")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert reported.stdout == "report: s3://bucket/cli/speed/report.html\n"
    assert b"device benchmark" in s3.read("bucket/cli/speed/report.html")
    printed = on("report", "speed", "--format", "md")
    assert "| cpu |" in printed.stdout


def events_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.slow
@pytest.mark.cluster
def test_search_on_a_store_is_interrupted_taken_up_on_another_machine_exported_and_confirmed(
    app: App, s3: S3Server, tmp_path: Path
) -> None:
    one, two = (
        replace(
            app, environment=s3.environment | {"TUNE_JOBS_STORAGE": "s3://bucket/cli", "XDG_CACHE_HOME": str(cache)}
        )
        for cache in (app.home / "one", app.home / "two")
    )
    sets = ["model=baseline", "lr=1e-3", "optimizer=sgd", "epochs=1,2,24", "resources.cpu=1"]
    command = ["search", "digits-demo", "--name", "a", *(word for value in sets for word in ("--set", value))]

    def names() -> set[str]:
        return s3.names("bucket/cli/a")

    def events() -> list[dict[str, Any]]:
        data = s3.read("bucket/cli/a/trials.jsonl") if "trials.jsonl" in names() else b""
        return [json.loads(line) for line in data.splitlines()]

    def complete() -> list[str]:
        return [event["trial"] for event in events() if event.get("state") == "COMPLETE"]

    process = one.start(*command)
    wait_for(lambda: bool(complete()) and any(name.endswith(".pt") for name in names()), process)
    assert run_at("cli/a").is_running()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (4, ""), out
    assert out.startswith("run a: 3 trials, into s3://bucket/cli/a\n")
    assert any(name.startswith("checkpoints/00002/epoch-") for name in names())
    before = events()
    shutil.rmtree(app.home / "one")

    said = two("status", "s3://bucket/cli/a", "--storage", str(app.storage))
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1].startswith("no process runs it now")
    again = two(*command)
    assert (again.returncode, again.stderr) == (0, "")
    after = events()
    assert after[: len(before)] == before
    assert sorted(complete()) == ["00000", "00001", "00002"]
    first, second = (
        [event["epoch"] for event in after if event.get("attempt") == n and event["event"] == "epoch"
         and event["trial"] == "00002"] for n in (1, 2)
    )  # fmt: skip
    assert first == list(range(1, len(first) + 1))
    assert 1 < second[0] <= len(first) + 1  # from its last checkpoint, which not every epoch has
    assert second == list(range(second[0], 25))
    path = tmp_path / "trials.jsonl"
    path.write_bytes(s3.read("bucket/cli/a/trials.jsonl"))
    trial = ledger.read(path)["00002"]
    assert trial.attempts == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fresh = fit(
            TrainConfig(**trial.config), load_splits(DatasetConfig(name="digits")), torch.device("cpu"), lambda _: None
        )
    finally:
        torch.set_num_threads(threads)
    assert trial.result["val_loss"] == fresh.result.val_loss

    exported = one("export", "a")
    assert exported.returncode == 0, exported.stderr
    assert "written to s3://bucket/cli/a/best.yaml" in exported.stdout
    confirmed = one("confirm", "s3://bucket/cli/a", "--top", "1", "--seeds", "2", "--storage", str(app.storage))
    assert confirmed.returncode == 0, confirmed.stderr
    assert "written to s3://bucket/cli/a/confirm.json" in confirmed.stdout.splitlines()
    assert names() >= {
        "experiment.yaml", "environment.json", "trials.jsonl", "trials.parquet", "trials.csv", "optuna.journal",
        "best.yaml", "best.safetensors", "confirm.json", "report.html",
    }  # fmt: skip
    assert any(re.fullmatch(r"confirm-top1-seeds2-[0-9a-f]{8}/trials\.parquet", name) for name in names())
    assert any(name.startswith("00002-baseline/events.out.tfevents") for name in names())
    assert sum(name.startswith("confirm-top1-seeds2-") and "tfevents" in name for name in names()) == 2
    assert not [name for name in names() if name.endswith((".pkl", ".pt", ".tmp")) or ".lock" in name]
    assert not [name for name in s3.names("bucket/cli") if name.startswith(".seen")]
    outputs = [out, again.stdout, exported.stdout, confirmed.stdout]
    outputs += [s3.read(f"bucket/cli/a/{name}").decode(errors="replace") for name in names()]
    assert not [text for text in outputs if SECRET in text or KEY in text]


@pytest.mark.parametrize("given", ["s3://[bucket]/runs", "s3://[bucket"])
def test_parse_of_what_is_no_uri_is_one_line(given: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(given)
    assert str(error.value).startswith(f"storage {given}: is no URI (")


def test_parse_of_an_unknown_users_home_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^~nosuchuser/runs: Could not determine home directory"):
        parse("~nosuchuser/runs")


def test_lease_is_lost_by_a_machine_that_slept(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have taken the run meanwhile."""
    own = Lease(store("slept/a"), tmp_path / "claim")
    own.take(lambda _: None, lambda _: None)
    assert own.held()
    now = lease._now
    monkeypatch.setattr(lease, "_now", lambda: now() + 3600)
    assert not own.held()
    own.give_back()

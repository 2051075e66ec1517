"""What would be sent, checked before anything is; and how a job's end becomes an exit code."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from profiling.machine import COMMIT_VARIABLE, git_commit
from tune_jobs import experiment as experiments
from tune_jobs import submit, yaml
from tune_jobs.__main__ import app
from tune_jobs.cluster import shipping, tokens
from tune_jobs.errors import UsageError

FILE = """
name: mine
dataset: {name: digits}
space: {lr: {grid: [1e-2, 1e-3]}}
train: {model: mlp, epochs: 1}
"""


def planned(experiment: str = "digits-demo", *overrides: str, **more: Any) -> submit.Plan:
    asked = {"name": None, "storage": None, "data_dir": None, "options": []} | more
    return submit.plan(experiment, overrides, **asked)


def test_plan_of_a_shipped_experiment_goes_by_its_name() -> None:
    plan = planned("digits-demo", "lr=1e-2,1e-3", "model=mlp", name="mine", options=["--wait-for-nodes", "--extend"])
    assert shlex.split(plan.entrypoint) == [
        "python", "-m", "tune_jobs", "search", "digits-demo", "--set", "lr=1e-2,1e-3", "--set", "model=mlp",
        "--name", "mine", "--wait-for-nodes", "--extend",
    ]  # fmt: skip
    assert (plan.run, plan.files) == ("mine", {})
    assert plan.metadata["run"] == "mine"
    assert plan.metadata["experiment"] == "digits-demo"


def test_plan_of_a_quick_run_has_its_name() -> None:
    assert planned(options=["--quick"]).entrypoint.endswith("search digits-demo --name digits-demo-quick --quick")
    assert planned(options=["--quick"], name="mine").run == "mine"


def test_plan_entrypoint_quotes_what_a_shell_would_read() -> None:
    plan = planned("digits-demo", "description=$(touch gone); x")
    assert "'description=$(touch gone); x'" in plan.entrypoint


def test_plan_of_a_file_carries_it_as_it_is_resolved_here(tmp_path: Path) -> None:
    (tmp_path / "a file.yaml").write_text(FILE)
    plan = planned(str(tmp_path / "a file.yaml"), "epochs=3", "retries=0")
    assert plan.entrypoint == "python -m tune_jobs search experiment.yaml --name mine"
    sent = experiments.check(yaml.parse(plan.files["experiment.yaml"], "sent"))
    assert sent == experiments.load(str(tmp_path / "a file.yaml"), ["epochs=3", "retries=0"])


def test_plan_environment_has_how_to_stop_and_only_the_places_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret")
    stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "30", "RAY_DEDUP_LOGS": "0"}
    commit = git_commit()
    sent_from = {} if commit is None else {COMMIT_VARIABLE: commit}
    assert planned().environment == stop | sent_from
    given = planned(storage="/shared/runs", data_dir="~/data").environment
    assert given == stop | sent_from | {"TUNE_JOBS_STORAGE": "/shared/runs", "TUNE_JOBS_DATA": "~/data"}
    assert "a-secret" not in str(planned())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"storage": "runs"}, "--storage runs: give an absolute path"),
        ({"data_dir": "./data"}, "--data-dir ./data: give an absolute path"),
        ({"storage": "s3://key:secret@bucket/runs"}, "keep credentials out of it"),
        ({"name": "../x"}, "--name '../x'"),
        ({"name": ""}, "--name ''"),
        ({"storage": "ftp://x/y"}, "--storage ftp://: there is no such kind; give a directory, s3://"),
        ({"experiment": "gone.yaml"}, "experiment gone.yaml: no such file"),
    ],
)
def test_plan_refuses_what_cannot_be_sent(more: dict[str, str], line: str) -> None:
    with pytest.raises(UsageError, match=line) as refused:
        planned(**more)
    assert "secret" not in str(refused.value)


def test_submit_checks_the_experiment_before_the_address() -> None:
    ran = CliRunner().invoke(app, ["submit", "digits-demo", "--set", "lr=fast", "--address", "http://127.0.0.1:1"])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: ")
    assert "lr" in ran.stderr
    assert "127.0.0.1" not in ran.stderr


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_submit_unreachable_address_is_one_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back afterwards
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = form.format(listener.getsockname()[1])
    with pytest.raises(
        UsageError, match=rf"^--address={address}: no Ray cluster answers there \(Connection refused\)$"
    ):
        submit.Cluster(address)


def test_submit_with_ray_of_its_own_asked_for_goes_to_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_ADDRESS=local keeps a search out of others' clusters; Ray's client takes it for the one that runs here."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda: pytest.fail("it was asked"))
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS=local: names no cluster; give --address$"):
        submit.Cluster(None)


class AsksForToken:
    """A job server that lets in whoever uses a token."""

    asked = 0

    def __init__(self) -> None:
        type(self).asked += 1
        if os.environ.get("RAY_AUTH_MODE") != "token":
            raise AuthenticationError("Authentication required: Unauthorized")

    def get_address(self) -> str:
        return "http://head:8265"


@pytest.mark.parametrize(
    ("address", "set_mode", "prefix", "asked"),
    [
        (None, None, "RAY_AUTH_MODE=token ", 1),
        ("http://localhost:8265", None, "RAY_AUTH_MODE=token ", 2),
        ("127.0.0.2:6379", None, "RAY_AUTH_MODE=token ", 2),
        ("http://[::1]:8265", None, "RAY_AUTH_MODE=token ", 2),
        ("http://h", "token", "", 1),
    ],
)
def test_submit_uses_the_token_that_is_here_where_one_is_asked_for(
    address: str | None, set_mode: str | None, prefix: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start` asks for one as soon as a search has left one in the home, and RAY_AUTH_MODE is not set anywhere."""

    def switch_on() -> bool:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        return True

    for name in ("RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    if set_mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", set_mode)
    monkeypatch.setattr(submit, "JobSubmissionClient", AsksForToken)
    monkeypatch.setattr(submit, "check_reachable", lambda *_: None)
    monkeypatch.setattr(submit, "is_gone", lambda: False)
    monkeypatch.setattr(tokens, "switch_on", switch_on)
    before = AsksForToken.asked
    cluster = submit.Cluster(address)
    assert AsksForToken.asked - before == asked
    assert cluster.command("stop", "a b") == f"{prefix}ray job stop 'a b' --address http://head:8265"


@pytest.mark.parametrize("address", ["http://head:8265", "head:6379", "http://10.0.0.7", "http://127.0.0.1.example"])
def test_submit_gives_no_other_machine_a_token_unless_it_is_told_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it may run code on the cluster that it is of."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back afterwards
    monkeypatch.setattr(submit, "JobSubmissionClient", AsksForToken)
    monkeypatch.setattr(submit, "check_reachable", lambda *_: None)
    monkeypatch.setattr(tokens, "switch_on", lambda: pytest.fail("it was to be sent"))
    with pytest.raises(UsageError, match="the cluster asks for a token"):
        submit.Cluster(address)


def test_submit_without_the_token_that_is_asked_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back afterwards
    monkeypatch.setattr(submit, "JobSubmissionClient", AsksForToken)
    monkeypatch.setattr(submit, "check_reachable", lambda *_: None)
    with pytest.raises(UsageError, match=r"^--address: the cluster asks for a token, .*: RAY_AUTH_MODE=token, and"):
        submit.Cluster("http://head")


@pytest.mark.parametrize(
    ("status", "driver", "error_type", "code", "line"),
    [
        (JobStatus.SUCCEEDED, 0, None, 0, ""),
        (JobStatus.FAILED, 3, "JOB_ENTRYPOINT_COMMAND_ERROR", 3, ""),
        (JobStatus.FAILED, -9, "JOB_ENTRYPOINT_COMMAND_ERROR", 137, ""),
        (JobStatus.FAILED, None, "RUNTIME_ENV_SETUP_FAILURE", 2, "did not run its command: why"),
        (JobStatus.FAILED, None, "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", 2, "did not run its command: why"),
        (JobStatus.FAILED, None, "JOB_SUPERVISOR_ACTOR_DIED", 4, "was lost (why); the same command takes the run up"),
        (JobStatus.FAILED, None, None, 4, "was lost (why); the same command takes the run up"),
        (JobStatus.STOPPED, None, None, 4, ""),
    ],
)
def test_exit_code_is_the_jobs_own(
    status: JobStatus, driver: int | None, error_type: str | None, code: int, line: str
) -> None:
    """A job whose supervisor was killed may have trained for hours; one whose environment failed has not begun."""
    details: Any = SimpleNamespace(
        status=status, driver_exit_code=driver, error_type=error_type, message="why",
        driver_agent_http_address=None, driver_info=None,
    )  # fmt: skip
    assert (submit.exit_code(details), submit.failure(details)) == (code, line)


@pytest.mark.parametrize(
    ("error_type", "known"),
    [
        ("JOB_SUPERVISOR_ACTOR_START_FAILURE", {"driver_agent_http_address": "http://10.0.0.7:52365"}),
        ("JOB_ENTRYPOINT_COMMAND_START_ERROR", {"driver_info": {"pid": "7"}}),
    ],
)
def test_exit_code_of_a_job_that_did_run_though_ray_says_that_it_did_not_start(
    error_type: str, known: dict[str, Any]
) -> None:
    """Ray's manager says the first of each supervisor that it does not find after its own restart."""
    nothing = {"driver_agent_http_address": None, "driver_info": None}
    fields = {"status": JobStatus.FAILED, "driver_exit_code": None, "error_type": error_type, "message": "why"}
    lost: Any = SimpleNamespace(**fields, **(nothing | known))
    assert (submit.exit_code(lost), submit.failure(lost)) == (4, "was lost (why); the same command takes the run up")
    never: Any = SimpleNamespace(**fields, **nothing)
    assert (submit.exit_code(never), submit.failure(never)) == (2, "did not run its command: why")


def test_runtime_env_has_the_packages_and_the_files_and_is_gone_afterwards() -> None:
    with shipping.runtime_env({"experiment.yaml": FILE}) as runtime_env:
        folder = Path(runtime_env["working_dir"])
        assert {path.name for path in folder.iterdir()} == {*shipping.PACKAGES, "experiment.yaml"}
        assert (folder / "tune_jobs" / "__main__.py").is_file()
    assert not folder.exists()
    assert (shipping.ROOT / "tune_jobs").is_dir()


def test_packages_are_those_that_the_import_rules_know() -> None:
    import tomllib

    rules = tomllib.loads((shipping.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(shipping.PACKAGES) == set(rules["root_packages"])

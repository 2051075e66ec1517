"""The same search as a Ray job: checked here, sent with its code, followed to its end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobErrorType, JobStatus, JobSubmissionClient

from datasets.reasons import first_line
from profiling.machine import COMMIT_VARIABLE, git_commit
from tune_jobs import experiment as experiments
from tune_jobs import space, yaml
from tune_jobs.cluster import check_reachable, is_gone, shipping, tokens
from tune_jobs.errors import UsageError
from tune_jobs.experiment.checks import check_experiment
from tune_jobs.storage import ALLOWED, OPTIONS, split
from tune_jobs.typed import typed

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

EXPERIMENT_FILE = "experiment.yaml"
"""The name under which a person's experiment file travels."""
STOP_WAIT_S = 30
"""How long Ray waits between asking a job to stop and killing it."""


_NOWHERE = "no Ray cluster runs here: give --address, or set RAY_ADDRESS"


@dataclass(frozen=True)
class Plan:
    """A search as it is to run on a cluster."""

    run: str
    entrypoint: str
    """The shell command."""
    environment: dict[str, str]
    """Of the driver and the workers."""
    metadata: dict[str, str]
    files: dict[str, str]
    """Texts beside the code, by their names."""


def plan(
    experiment: str,
    overrides: Sequence[str],
    name: str | None,
    storage: str | None,
    data_dir: str | None,
    options: Sequence[str],
) -> Plan:
    """Check all that can be checked without the data and the cluster, and say what would be sent.

    One of the experiments that ship goes by its name; a file goes as it is resolved here, overrides and all.
    `options`: of `search`, as they are, without values.  Raises UsageError.
    """
    asked = experiments.load(experiment, overrides)
    checked = space.of(asked)
    check_experiment(asked, checked)
    own = experiments.named(asked.name, "-quick") if "--quick" in options else asked.name
    run = experiments.check_name(own if name is None else name)

    words = ["search"]
    files = {}
    if Path(experiment).is_file():
        files[EXPERIMENT_FILE] = yaml.dump(
            asked.document(), "The experiment as it was resolved where it was submitted."
        )
        words.append(EXPERIMENT_FILE)
    else:
        words += [experiment, *(word for override in overrides for word in ("--set", override))]
    words += ["--name", run, *options]

    commit = git_commit()
    environment = {
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        "RAY_DEDUP_LOGS": "0",
    }
    for variable, value in (
        ("TUNE_JOBS_STORAGE", _on_the_cluster("--storage", storage)),
        ("TUNE_JOBS_DATA", _on_the_cluster("--data-dir", data_dir)),
        (COMMIT_VARIABLE, commit),
    ):
        if value is not None:
            environment[variable] = value
    metadata = {"experiment": asked.name, "run": run} | ({} if commit is None else {"git_commit": commit})
    return Plan(run, typed(*words), environment, metadata, files)


def _on_the_cluster(option: str, given: str | None) -> str | None:
    """A place as the cluster's nodes see it.  Raises UsageError for one that only makes sense here, or has a secret."""
    if given is None:
        return None
    if "://" in given:
        parts = split(given, option)
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                f"{option}: a job's environment is shown to who may see the job; keep credentials out of it"
            )
        if parts.scheme not in OPTIONS:
            raise UsageError(f"{option} {parts.scheme}://: there is no such kind; give {ALLOWED}")
    elif not given.startswith(("/", "~")):
        raise UsageError(f"{option} {given}: give an absolute path (or a URI) that is the same on the cluster's nodes")
    return given


class Cluster:
    """A cluster's job server."""

    def __init__(self, address: str | None) -> None:
        """`address`: http://host:port of the dashboard, host:port of the cluster or `auto`; null for what
        RAY_API_SERVER_ADDRESS or RAY_ADDRESS says, or the cluster that runs here.

        Raises UsageError where nobody answers, or not to us.
        """
        for name in ("ray.dashboard", "ray._private.runtime_env"):
            _quieten(name)
        if address is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # else Ray lets RAY_ADDRESS overrule it
        name = next((name for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS") if os.environ.get(name)), "")
        where = os.environ.get(name, "")
        if where == "local":
            raise UsageError(f"{name}=local: names no cluster; give --address")
        self._called = "--address" if address is not None else name or "the cluster that runs here"
        check_reachable(where, self._called)
        is_unnamed = where in ("", "auto")
        if is_unnamed and is_gone():
            raise UsageError(_NOWHERE)
        with self._one_line():
            self._has_switched_on = is_unnamed and tokens.switch_on()
            try:
                self._client = self._connected(where)
            except ConnectionError as error:
                place = f"{self._called}={where}: no Ray cluster answers there" if where else _NOWHERE
                raise UsageError(place) from error
        self.address = self._client.get_address()

    def _connected(self, where: str) -> JobSubmissionClient:
        """With the token that is here, where this machine's end asks for one: whoever has it may run code on the
        cluster that it is of, so that no other machine is given it without RAY_AUTH_MODE."""
        try:
            return JobSubmissionClient()
        except AuthenticationError:
            if not _is_of_this_machine(where) or not tokens.switch_on():
                raise
            self._has_switched_on = True
            return JobSubmissionClient()

    def command(self, *words: str) -> str:
        """One of Ray's commands about this cluster's jobs, as it is typed where this process was started."""
        mode = f"{tokens.MODE}=token " if self._has_switched_on else ""
        return mode + shlex.join(["ray", "job", *words, "--address", self.address])

    def submit(self, plan: Plan) -> str:
        """Send the job.  Returns its id."""
        with shipping.runtime_env(plan.files) as runtime_env, self._one_line():
            job: str = self._client.submit_job(
                submission_id=f"{plan.run}-{uuid.uuid4().hex[:8]}",
                entrypoint=plan.entrypoint,
                runtime_env=runtime_env | {"env_vars": plan.environment},
                metadata=plan.metadata,
            )
        return job

    def follow(self, job: str, write: Callable[[str], None]) -> JobDetails:
        """Write the job's log as it comes, until the job has ended.  Returns how it ended.

        Raises ConnectionError where the cluster is lost on the way.
        """

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job):
                write(text)

        try:
            asyncio.run(tail())
            for _ in range(20):  # the log ends a moment before the job's state is written
                details = self._client.get_job_info(job)
                if details.status.is_terminal():
                    return details
                time.sleep(0.5)
        except (RuntimeError, requests.RequestException, aiohttp.ClientError) as error:
            raise ConnectionError(f"the connection to {self.address} is lost") from error
        raise ConnectionError(f"{self.address} has stopped sending the log")

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise UsageError(
                f"{self._called}: the cluster asks for a token, and has not got the right one: {tokens.WANTED}"
            ) from error
        except (RayError, RuntimeError, ValueError, requests.RequestException) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{self._called}: {first_line(error)}") from error


def _is_of_this_machine(address: str) -> bool:
    """Whether nothing sent to it leaves this machine, unless by a tunnel of the user's own."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or "localhost"
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


_NEVER_RAN = (
    JobErrorType.RUNTIME_ENV_SETUP_FAILURE,
    JobErrorType.JOB_SUPERVISOR_ACTOR_START_TIMEOUT,
    JobErrorType.JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE,
)
"""What a job fails with whose command was never started."""


def _never_ran(details: JobDetails) -> bool:
    """Ray says that a supervisor did not start also of one that it no longer finds after its own restart, and that a
    command did not start of whatever goes wrong until its end: of those that ran it knows an agent, or a driver."""
    match details.error_type:
        case JobErrorType.JOB_SUPERVISOR_ACTOR_START_FAILURE:
            return details.driver_agent_http_address is None
        case JobErrorType.JOB_ENTRYPOINT_COMMAND_START_ERROR:
            return details.driver_info is None
    return details.error_type in _NEVER_RAN


def exit_code(details: JobDetails) -> int:
    """The exit code of the job's command; 2 where it never ran.

    A command that was stopped by `ray job stop`, or lost with what watches it, has none that Ray keeps, and counts as
    interrupted; one that a signal ended counts as in a shell: 128 and the signal's number.
    """
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return 4
    code: int | None = details.driver_exit_code
    if code is None:
        return 2 if _never_ran(details) else 4
    return 128 - code if code < 0 else code


def failure(details: JobDetails) -> str:
    """What became of a command that did not come to its own end; empty for one that did, whose log says it."""
    if details.status != JobStatus.FAILED or details.driver_exit_code is not None:
        return ""
    why = details.message or details.error_type or "Ray does not say why"
    if _never_ran(details):
        return f"did not run its command: {why}"
    return f"was lost ({why.splitlines()[0]}); the same command takes the run up"  # the log has the others


def _quieten(name: str) -> None:
    """Ray's modules set their own loggers to INFO when they are imported."""
    for known in list(logging.root.manager.loggerDict):
        if known == name or known.startswith(f"{name}."):
            logging.getLogger(known).setLevel(logging.WARNING)

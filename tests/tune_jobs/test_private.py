"""What the service uses of Ray and of loggers that they do not promise: a version without it is named here."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import ray

from tune_jobs.cluster import membership

THERE = [
    ("running/broken_nodes.py", "ray._private.state", "actors"),
    ("cluster/__init__.py", "ray._private.resource_and_label_spec", "ResourceAndLabelSpec.resolve"),
    ("cluster/__init__.py", "ray._private.resource_and_label_spec", "ResourceAndLabelSpec.to_resource_dict"),
    ("cluster/__init__.py", "ray._private.services", "canonicalize_bootstrap_address"),
    ("cluster/__init__.py", "ray._private.utils", "get_num_cpus"),
    ("cluster/membership.py", "ray._private.worker", "global_worker"),
    ("cluster/membership.py", "ray._private.services", "start_ray_process"),
    ("cluster/membership.py", "ray._private.node", "Node.start_api_server"),
    ("cluster/membership.py", "ray._private.node", "Node.start_monitor"),
    ("cluster/membership.py", "ray._private.node", "Node.webui_url"),
    ("cluster/membership.py", "ray._private.utils", "get_dashboard_dependency_error"),
    ("cluster/tokens.py", "ray._private.authentication.authentication_token_setup", "generate_and_save_token"),
    ("cluster/tokens.py", "ray._private.authentication.authentication_token_setup", "_get_default_token_path"),
    (
        "cluster/tokens.py",
        "ray._private.authentication.authentication_token_setup",
        "maybe_enable_token_auth_if_token_available",
    ),
    (
        "cluster/tokens.py",
        "ray._private.authentication.authentication_token_generator",
        "generate_new_authentication_token",
    ),
    ("cluster/tokens.py", "ray._raylet", "AuthenticationTokenLoader.instance"),
    ("cluster/tokens.py", "ray._raylet", "AuthenticationTokenLoader.has_token"),
    ("cluster/tokens.py", "ray._raylet", "AuthenticationTokenLoader.reset_cache"),
    ("running/registry.py", "ray.tune.registry", "_global_registry.get"),
    ("running/registry.py", "ray.tune.registry", "_global_registry.contains"),
    ("running/tuning.py", "ray.air._internal.usage", "tag_callbacks"),
    ("running/tuning.py", "ray.tune.execution.class_cache", "DEFAULT_ENV_VARS.clear"),
]
"""Who uses it, the module, and the name there."""

SET = [
    ("cluster/membership.py", "ray._private.worker", "connect", "core_worker"),
    ("cluster/membership.py", "ray._private.node", "Node", "_ray_params"),
    ("cluster/membership.py", "ray._private.parameter", "RayParams", "dashboard_agent_listen_port"),
    ("cluster/membership.py", "ray._private.parameter", "RayParams", "include_log_monitor"),
    ("cluster/membership.py", "ray._private.parameter", "RayParams", "worker_path"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_live_trials"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_stopped_trials"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_failed_trials"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_trials_to_cache"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_trial_metadata"),
    ("running/forgetting.py", "ray.tune.execution.tune_controller", "TuneController", "_actor_manager"),
    (
        "running/forgetting.py",
        "ray.air.execution._internal.actor_manager",
        "RayActorManager",
        "_pending_actors_to_enqueued_actor_tasks",
    ),
    (
        "running/forgetting.py",
        "ray.air.execution._internal.actor_manager",
        "RayActorManager",
        "_pending_actors_to_attrs",
    ),
    ("running/recorder.py", "ray.tune.experiment.trial", "_TemporaryTrialState", "ray_actor"),
    ("running/tuning.py", "ray.tune.search.optuna", "OptunaSearch", "_ot_trials"),
    ("running/loggers.py", "ray.tune.logger", "TBXLoggerCallback", "_trial_writer"),
    ("running/loggers.py", "ray.tune.logger", "TBXLoggerCallback", "_trial_result"),
    ("running/loggers.py", "ray.tune.logger", "TBXLoggerCallback", "_summary_writer_cls"),
    ("running/loggers.py", "ray.air.integrations.mlflow", "MLflowLoggerCallback", "_trial_runs"),
    ("running/loggers.py", "ray.air.integrations.wandb", "WandbLoggerCallback", "_upload_timeout"),
    ("running/loggers.py", "tensorboardX.event_file_writer", "EventsWriter", "_py_recordio_writer"),
    ("running/loggers.py", "tensorboardX.record_writer", "RecordWriter", "_writer"),
]
"""Who uses it, the module, the class or function, and the attribute that it sets."""


@pytest.mark.parametrize(("user", "module", "name"), THERE, ids=lambda value: value.rpartition(".")[2])
def test_names_that_are_not_promised_are_there(user: str, module: str, name: str) -> None:
    found = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"Ray {ray.__version__}: {module} has no {name}, which {user} uses"
        found = getattr(found, part)


@pytest.mark.parametrize(("user", "module", "kind", "name"), SET)
def test_attributes_that_are_not_promised_are_set(user: str, module: str, kind: str, name: str) -> None:
    source = inspect.getsource(getattr(importlib.import_module(module), kind))
    is_set = any(f".{name}{sign}" in source for sign in (" = ", ": "))
    assert is_set, f"Ray {ray.__version__}: no {kind} of {module} has {name}, which {user} uses"


def test_the_script_that_a_forked_worker_goes_on_as_is_there() -> None:
    script = Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py"
    assert script.is_file(), f"Ray {ray.__version__}: {script} is missing, which forking/worker.py runs"


def test_whoever_imports_what_is_private_is_named_here() -> None:
    folder = Path(__file__).parents[2] / "tune_jobs"
    private = ("from ray._", "from ray.air._", "import ray._", "ray.tune.execution import", "ray.tune import registry")
    users = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(name in path.read_text() for name in private)
    }
    assert users == {user for user, *_ in THERE}


def test_packages_of_the_dashboard_are_those_that_ray_imports_for_it() -> None:
    """Ray looks whether they are there by importing them, at the start of each search; we look for them."""
    import ray.dashboard.optional_deps

    source = inspect.getsource(ray.dashboard.optional_deps)
    imported = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import", "from"))
    }
    assert imported == set(membership.OF_THE_DASHBOARD), f"Ray {ray.__version__}"


def test_a_dashboard_without_its_packages_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert membership._missing() is None
    monkeypatch.setattr(membership, "OF_THE_DASHBOARD", ("aiohttp", "no_such_package"))
    assert str(membership._missing()) == "the dashboard needs no_such_package"

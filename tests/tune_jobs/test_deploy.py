"""The deployment files against the schemas of what reads them."""

from __future__ import annotations

import copy
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tune_jobs import space
from tune_jobs.cluster.shipping import PACKAGES
from tune_jobs.experiment import load
from tune_jobs.submit import STOP_WAIT_S

DEPLOY = ROOT / "tune_jobs" / "deploy"
CRD = Path(__file__).parent / "data" / "rayjob-crd.json"


def documents(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all((DEPLOY / name).read_text()))


@pytest.fixture
def rayjob() -> dict[str, Any]:
    claim, job = documents("rayjob.yaml")
    assert claim["kind"] == "PersistentVolumeClaim"
    return job


def crd() -> jsonschema.Draft202012Validator:
    schema = json.loads(CRD.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in ({"head": cluster["headGroupSpec"]} | groups).items()}


def test_rayjob_is_one_by_its_crd(rayjob: dict[str, Any]) -> None:
    crd().validate(rayjob)
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize("path", ["spec.backofLimit", "spec.rayClusterSpec.headGroupSpec.template.spec.volume"])
def test_rayjob_crd_refuses_what_it_does_not_know(rayjob: dict[str, Any], path: str) -> None:
    *sections, last = path.split(".")
    here = rayjob
    for section in sections:
        here = here[section]
    here[last] = 1
    with pytest.raises(jsonschema.ValidationError, match=f"'{last}' was unexpected"):
        crd().validate(rayjob)


def test_rayjob_entrypoint_is_a_search_that_checks_out(rayjob: dict[str, Any]) -> None:
    words = shlex.split(rayjob["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "tune_jobs", "search"]
    asked = load(words[4], [words[n + 1] for n, word in enumerate(words) if word == "--set"])
    space.of(asked)
    assert rayjob["spec"]["metadata"] == {"experiment": asked.name, "run": asked.name}
    assert asked.resources.gpu


def test_rayjob_trials_run_on_workers_that_share_a_volume_and_behind_a_token(rayjob: dict[str, Any]) -> None:
    claim, _ = documents("rayjob.yaml")
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert rayjob["spec"]["backoffLimit"] > 0
    environment = YAML(typ="safe", pure=True).load(rayjob["spec"]["runtimeEnvYAML"])["env_vars"]
    assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_WAIT_S)
    for pod in pods(rayjob).values():
        (container,), (volume,) = pod["containers"], pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert environment["TUNE_JOBS_STORAGE"].startswith(mount["mountPath"] + "/")
    gpus = {
        name: pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for name, pod in pods(rayjob).items()
    }
    assert gpus == {"head": None, "cpu": None, "gpu": "1"}


def test_dockerfile_has_every_package_and_the_rayjob_its_image(rayjob: dict[str, Any]) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert set(re.findall(r"^COPY --chown=ray:users (\w+) \1$", text, re.MULTILINE)) == set(PACKAGES)
    (image,) = re.findall(r"-t (\S+) ", text)
    assert {pod["containers"][0]["image"] for pod in pods(rayjob).values()} == {image}


def test_cluster_file_is_one_for_ray_up() -> None:
    (config,) = documents("cluster.yaml")
    filled = prepare_config(copy.deepcopy(config))  # as `ray up` does, before it validates
    validate_config(filled)
    with pytest.raises(jsonschema.ValidationError, match="'max_worker' was unexpected"):
        validate_config(filled | {"max_worker": 1})
    assert filled["available_node_types"]["head"]["resources"]["CPU"] == 0
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    started = [command for command in commands if "ray start" in command]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in started)
    for local in config["file_mounts"].values():
        assert local.startswith("~") or (ROOT / local).is_file()


def test_versions_of_ray_are_one_and_within_what_is_asked_for(rayjob: dict[str, Any]) -> None:
    (config,) = documents("cluster.yaml")
    text = (DEPLOY / "Dockerfile").read_text() + config["docker"]["image"]
    tags = re.findall(r"rayproject/ray:(\d+\.\d+\.\d+)-py311", text)
    assert {*tags, rayjob["spec"]["rayClusterSpec"]["rayVersion"]} == {tags[0]}
    assert len(tags) == 2
    assert int(version("ray").split(".")[0]) == int(tags[0].split(".")[0])


def test_page_shows_pictures_that_are_there_and_small() -> None:
    page = (DEPLOY / "README.md").read_text()
    for picture in (DEPLOY / "pictures").iterdir():
        assert f"pictures/{picture.name}" in page
        assert picture.stat().st_size < 250_000
    for link in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (DEPLOY / link).exists(), link

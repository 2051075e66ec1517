"""The JSON schema of an experiment file, and the page made from it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from tune_jobs import space, yaml
from tune_jobs.__main__ import app
from tune_jobs.errors import UsageError
from tune_jobs.experiment import check, load, reference, schema, shipped

DOCS = Path(schema.__file__).parents[1] / "docs"
VALIDATOR = jsonschema.Draft7Validator(schema.schema())
DOCUMENT: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}, "space": {"model": "mlp"}}
OPTUNA = {"method": "optuna", "trials": 3}


def parse(document: dict[str, Any]) -> None:
    """As a search checks it before it looks at the data.  Raises UsageError."""
    experiment = check(document)
    space.of(experiment)


def blocks(language: str) -> list[str]:
    page = (DOCS / "experiment.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_schema_is_a_draft_7_schema() -> None:
    jsonschema.Draft7Validator.check_schema(schema.schema())


def test_committed_schema_is_what_the_code_makes() -> None:
    """As JSON: versions of pydantic differ in the order of keys, and in 0 and 0.0."""
    committed = json.loads((DOCS / "experiment.schema.json").read_text(encoding="utf-8"))
    assert committed == schema.schema(), "run `make docs`"


def test_committed_page_is_what_the_code_makes() -> None:
    assert (DOCS / "experiment.md").read_text(encoding="utf-8") == reference.page(), "run `make docs`"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_schema_takes_what_ships_as_it_is_and_as_resolved(name: str) -> None:
    VALIDATOR.validate(yaml.read(shipped()[name]))
    VALIDATOR.validate(load(name).document())


@pytest.mark.parametrize("path", sorted(shipped().values()), ids=lambda path: path.stem)
def test_shipped_experiment_names_the_schema_in_its_first_line(path: Path) -> None:
    named = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == (DOCS / "experiment.schema.json").resolve()


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {"cpu": 0.3, "gpu": 0.25}},
        {"resources": {"gpu": 2, "memory_mib": "auto", "custom": {"fast_disk": 0.1}}},
        {"resources": {"gpu": "auto", "by_model": {"svm": {"gpu": 0}, "mlp": {"memory_mib": 512.5}}}},
        {"dataset": {"name": "npz", "path": "a.npz", "split": "official"}},
        {"dataset": {"name": "digits", "path": None, "split": {"train": 800, "val": 100, "test": 100}}},
        {"space": {"model": {"grid": ["svm", "mlp"]}, "gamma": {"grid": ["scale", 0.1]}}},
        {"space": {"model": "mlp", "optimizer": "sgd", "lr": {"grid": [0.1], "when": {"optimizer": ["sgd", "adam"]}}}},
        {"space": {"model": "mlp", "lr": {"loguniform": [1e-4, 0.1]}, "epochs": {"int": [1, 3]}}, "search": OPTUNA},
        {"space": {"model": {"choice": ["mlp"]}, "hidden_units": {"logint": [8, 64]}}, "search": OPTUNA},
        {
            "space": {"model": "svm", "gamma": {"uniform": [0.1, 1]}},
            "search": OPTUNA | {"enqueue": [{"gamma": 0.5}], "objectives": {"macs": "min", "val_accuracy": "max"}},
        },
        {"train": {"seed": None, "max_iter": -1, "epochs": 2.0}},
        {"loggers": [], "budget": {"minutes": 0.5, "trial_minutes": None}},
        {"space": {"model": {"grid": ["mlp", "svm"]}}, "search": None, "resources": None, "budget": None},
        {"scheduler": None, "train": None, "search": {"objectives": {"macs": "min", "val_loss": "min"}}},
        {"space": None, "train": {"model": "mlp"}},
    ],
)
def test_schema_takes_what_a_search_takes(change: dict[str, Any]) -> None:
    VALIDATOR.validate(DOCUMENT | change)
    parse(DOCUMENT | change)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"nam": "x"}, "$"),
        ({"name": "../x"}, "$.name"),
        ({"retries": -1}, "$.retries"),
        ({"repeats": 0}, "$.repeats"),
        ({"loggers": ["tensorboard", "tensorboard"]}, "$.loggers"),
        ({"published": ["F/x/y"]}, "$.published[0]"),
        ({"budget": {"minutes": 0}}, "$.budget.minutes"),
        ({"resources": {"gpu": 1.5}}, "$.resources.gpu"),
        ({"resources": {"cpu": 0}}, "$.resources.cpu"),
        ({"resources": {"memory_mib": -1}}, "$.resources.memory_mib"),
        ({"resources": {"by_model": {"svn": {"cpu": 1}}}}, "$.resources.by_model"),
        ({"resources": {"by_model": {"svm": {"cpus": 1}}}}, "$.resources.by_model.svm"),
        ({"dataset": {"name": "digits", "split": [0.7, 0.3]}}, "$.dataset.split"),
        ({"dataset": {"name": "digits", "split": [0.7, 0.3, 0]}}, "$.dataset.split"),
        ({"train": {"epoch": 1}}, "$.train"),
        ({"train": {"epochs": 0}}, "$.train.epochs"),
        ({"train": {"epochs": True}}, "$.train.epochs"),
        ({"train": {"momentum": 1}}, "$.train.momentum"),
        ({"train": {"max_iter": 0}}, "$.train.max_iter"),
        ({"train": {"gamma": "scaled"}}, "$.train.gamma"),
        ({"train": {"gamma": -1}}, "$.train.gamma"),
        ({"space": {"model": "resnet19"}}, "$.space.model"),
        ({"space": {"model": "mlp", "lr": [0.1, 0.2]}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"grid": []}}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"grid": [0.1, 0.1]}}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"grid": [-0.1]}}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"when": {"optimizer": "sgd"}}}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"grid": [0.1], "when": {"optimiser": "sgd"}}}}, "$.space.lr"),
        ({"space": {"model": "mlp", "lr": {"choice": [0.1]}}}, "$.space.lr"),
        ({"space": {"model": {"grid": ["mlp"]}, "lr": {"uniform": [0.1, 1]}}, "search": OPTUNA}, "$.space.model"),
        ({"space": {"model": "mlp", "lr": {"loguniform": [0, 1]}}, "search": OPTUNA}, "$.space.lr"),
        ({"space": {"model": "mlp", "momentum": {"loguniform": [0, 0.5]}}, "search": OPTUNA}, "$.space.momentum"),
        ({"space": {"model": "mlp", "epochs": {"uniform": [1, 3]}}, "search": OPTUNA}, "$.space.epochs"),
        ({"search": {"method": "luck"}}, "$.search.method"),
        ({"search": {"method": "random"}}, "$.search"),
        ({"search": {"trials": 3}}, "$.search.trials"),
        ({"search": {"warm_start": "before"}}, "$.search.warm_start"),
        ({"search": {"objectives": {}}}, "$.search.objectives"),
        ({"search": {"objectives": {"speed": "max"}}}, "$.search.objectives"),
        (
            {"scheduler": {"name": "asha"}, "search": {"objectives": {"macs": "min", "val_loss": "min"}}},
            "$.search.objectives",
        ),
        ({"scheduler": {"reduction_factor": 1}}, "$.scheduler.reduction_factor"),
    ],
)
def test_schema_refuses_what_a_search_refuses(change: dict[str, Any], where: str) -> None:
    assert {error.json_path for error in VALIDATOR.iter_errors(DOCUMENT | change)} == {where}
    with pytest.raises(UsageError):
        parse(DOCUMENT | change)


@pytest.mark.parametrize("dataset", [{"name": "cifar"}, {"name": "folder"}, {"name": "mnist", "path": "a.npz"}])
def test_schema_refuses_a_dataset_that_cannot_be_loaded(dataset: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(DOCUMENT | {"dataset": dataset}))


def test_schema_says_of_every_key_what_it_means() -> None:
    made = schema.schema()
    sections = {"file": made} | {
        name: section for name, section in made["definitions"].items() if section.get("properties") and name != "when"
    }

    def described(key: dict[str, Any]) -> bool:
        target = made["definitions"][key["$ref"].rpartition("/")[2]] if "$ref" in key else {}
        return "description" in target | key

    missing = [f"{name}.{key}" for name, section in sections.items() for key in section["properties"]
               if not described(section["properties"][key])]  # fmt: skip
    assert missing == ["SplitSizes.train", "SplitSizes.val", "SplitSizes.test"]


def test_page_example_is_an_experiment_with_the_trials_it_says(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    said = re.search(r"(\d+) trials", block)
    assert said is not None
    (tmp_path / "x.yaml").write_text(block, encoding="utf-8")
    experiment = load(str(tmp_path / "x.yaml"))
    assert len(space.of(experiment).grid()) == int(said[1])
    VALIDATOR.validate(yaml.parse(block, "page"))
    assert (DOCS / block.splitlines()[0].partition("$schema=")[2]).is_file()


def test_page_command_writes_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert command[:3] == ["python", "-m", "tune_jobs"]
    ran = CliRunner().invoke(app, command[3:])
    assert ran.exit_code == 0, ran.output
    assert json.loads((tmp_path / "experiment.schema.json").read_text(encoding="utf-8")) == schema.schema()


def test_schema_command_prints_either_form_and_refuses_another() -> None:
    assert CliRunner().invoke(app, ["schema"]).stdout == schema.text()
    assert CliRunner().invoke(app, ["schema", "--format", "md"]).stdout == reference.page()
    ran = CliRunner().invoke(app, ["schema", "--format", "xml"])
    assert (ran.exit_code, ran.stderr) == (2, "error: --format xml: there is no such format; there are json, md\n")

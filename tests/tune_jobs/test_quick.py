from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from datasets.config import SplitSizes
from tune_jobs import yaml
from tune_jobs.errors import UsageError
from tune_jobs.experiment import Quick, check, load
from tune_jobs.experiment.quick import scaled_down

if TYPE_CHECKING:
    from tests.conftest import App

DOCUMENT: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}, "train": {"model": "mlp", "epochs": 20}}


def test_quick_says_what_it_left() -> None:
    found = scaled_down(check(DOCUMENT | {"description": "some"}), None)
    assert found.name == "x-quick"
    assert found.description == "some (quick: 1,797 of 1,797 images, 4 of 20 epochs)"
    assert (found.dataset.limit, found.train["epochs"]) == (1797, 4)
    assert check(found.document()) == found


def test_quick_keeps_shares_of_a_split_in_numbers() -> None:
    found = scaled_down(load("published-d-architectures"), None)
    assert found.dataset.split == SplitSizes(train=3000, val=500, test=500)
    assert found.dataset.limit is None
    assert str(found.quick) == "quick: 4,000 of 8,000 images, 10 of 50 epochs"


def test_quick_of_svms_has_no_epochs() -> None:
    found = scaled_down(load("published-ab-svm-mnist"), None)
    assert str(found.quick) == "quick: 3,998 of 21,000 images"
    assert "epochs" not in found.train


@pytest.mark.parametrize(
    ("epochs", "left", "most"),
    [
        ({"grid": [3, 5, 10]}, {"grid": [1, 2]}, 2),
        ({"grid": [1, 2]}, {"grid": [1]}, 1),
    ],
)
def test_quick_scales_an_axis_of_epochs(epochs: dict[str, Any], left: dict[str, Any], most: int) -> None:
    found = scaled_down(check(DOCUMENT | {"space": {"epochs": epochs}, "train": {"model": "mlp"}}), None)
    assert found.space["epochs"] == left
    assert found.quick is not None
    assert (found.quick.epochs, found.quick.of_epochs) == (most, max(epochs["grid"]))


def test_quick_keeps_a_range_a_range() -> None:
    search = {"method": "random", "trials": 2}
    space = {"epochs": {"int": [2, 6]}}
    found = scaled_down(check(DOCUMENT | {"space": space, "train": {"model": "mlp"}, "search": search}), None)
    assert found.space["epochs"] == {"int": [1, 2]}


def test_quick_scales_epochs_where_points_and_conditions_name_them_and_leaves_out_a_warm_start() -> None:
    space = {
        "model": "mlp", "epochs": {"choice": [5, 10, 20]},
        "hidden_units": {"int": [8, 64], "when": {"epochs": [10, 20]}},
        "lr": {"loguniform": [1e-3, 0.1], "when": {"epochs": 5}},
    }  # fmt: skip
    search = {"method": "optuna", "trials": 3, "enqueue": [{"epochs": 20}, {"lr": 0.01}], "warm_start": "earlier"}
    document = {"name": "x", "dataset": DOCUMENT["dataset"], "space": space, "search": search}
    found = scaled_down(check(document), None)
    assert found.space["epochs"] == {"choice": [1, 2, 4]}
    assert found.space["hidden_units"]["when"] == {"epochs": [2, 4]}
    assert found.space["lr"]["when"] == {"epochs": [1]}
    assert found.search.enqueue == [{"epochs": 4}, {"lr": 0.01}]
    assert found.search.warm_start is None


def test_quick_of_a_limit_is_of_that_limit() -> None:
    found = scaled_down(check(DOCUMENT | {"dataset": {"name": "digits", "limit": 500}}), None)
    assert found.quick is not None
    assert (found.quick.images, found.quick.of_images) == (500, 500)


def test_quick_of_a_folder_opens_no_picture(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not read")
    found = scaled_down(check(DOCUMENT | {"dataset": {"name": "folder", "path": str(tmp_path)}}), None)
    assert found.dataset.limit == 3


def test_quick_of_a_wrong_space_is_told_as_ever() -> None:
    with pytest.raises(UsageError, match=r"^space\.epoch: there is no such field"):
        scaled_down(check(DOCUMENT | {"space": {"epoch": 3}}), None)


@pytest.mark.slow
@pytest.mark.cluster
def test_search_quick_is_named_and_marked_so(app: App) -> None:
    ran = app(
        "search", "digits-demo", "--quick", "--set", "model=mlp", "--set", "dataset.limit=300", "--set", "lr=1e-2"
    )
    assert ran.returncode == 0, ran.stderr
    run = app.storage / "digits-demo-quick"
    said = "quick: 300 of 300 images, 1 of 4 epochs"
    assert check(yaml.read(run / "experiment.yaml")).quick == Quick(images=300, of_images=300, epochs=1, of_epochs=4)
    assert said in (run / "report.html").read_text()
    assert said in app("report", "digits-demo-quick", "--format", "md").stdout
    planned = app("plan", "digits-demo", "--quick", "--set", "model=mlp")
    assert planned.stdout.startswith("experiment digits-demo-quick, run ")
    refused = app("report", "digits-demo-quick", "--published")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --published: no finished trial of digits-demo-quick is a cell of a ")
    assert app("report", "digits-demo-quick", "--published", "--format", "csv").returncode == 2

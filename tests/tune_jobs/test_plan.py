from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer

from datasets import DatasetConfig, Splits, load_splits
from models import TrainConfig
from models.precision import choose_precision
from tune_jobs import cost, yaml
from tune_jobs import space as spaces
from tune_jobs.commands import searching
from tune_jobs.cost import work_macs
from tune_jobs.errors import UsageError
from tune_jobs.estimate import Estimate, Known, estimate
from tune_jobs.experiment import Experiment, check, load
from tune_jobs.plan import lines, makespan, plan
from tune_jobs.resources import Request
from tune_jobs.results import ledger, rundir
from tune_jobs.running import loggers
from tune_jobs.space import relevant

if TYPE_CHECKING:
    from tests.conftest import App

SMALL = {"name": "digits", "image_size": 8}


def timed(*seconds: float, request: Request | None = None) -> list[tuple[Request, Estimate]]:
    return [(request or Request(), Estimate(value, "measured", ("x",))) for value in seconds]


def test_makespan_puts_the_longest_first() -> None:
    assert makespan(timed(1, 1, 1, 1, 4), [{"CPU": 2}], at_once=10) == 4
    assert (
        makespan(timed(3, 3, 2, 2, 2), [{"CPU": 2}], at_once=10) == 7
    )  # Graham's own example of how far from 6 it may be
    assert makespan([], [{"CPU": 2}], at_once=10) == 0


def test_makespan_of_thousands_is_as_that_of_few() -> None:
    work = timed(*(1.0 for _ in range(6000)), request=Request(cpu=0.5)) + timed(*(3.0 for _ in range(1000)))
    assert makespan(work, [{"CPU": 4}], at_once=10) == 1500
    assert makespan(timed(2, 2, 2), [{"CPU": 4}], at_once=2) == 4


def test_makespan_of_mixed_requests() -> None:
    work = timed(10, 10, 10, 10, 10, request=Request(gpu=0.25)) + timed(5, 5)
    assert makespan(work, [{"CPU": 8, "GPU": 1}], at_once=10) == 20  # four quarters at once, never five
    assert makespan(work, [{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 1}], at_once=10) == 10
    with pytest.raises(UsageError, match="no node has room"):
        makespan(timed(1, request=Request(cpu=9)), [{"CPU": 8}], at_once=10)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(DatasetConfig.model_validate(SMALL))


def test_estimate_prefers_what_is_most_alike_and_says_so(splits: Splits) -> None:
    point = {"model": "mlp", "batch_size": 32, "epochs": 4, "hidden_units": 20}
    work = work_macs(point, splits)
    own = choose_precision(TrainConfig(**point), torch.device("cpu"))
    alike = Known("mlp", 32, 8, "cpu", work / 2, 3.0, own, "run a")
    same = Known("mlp", 16, 8, "cpu", work, 1.0, own, "run b")
    other = Known("baseline", 32, 8, "cpu", work * 10, 1.0, own, "run c")
    svm = Known("svm", None, 8, "cpu", work, 50.0, "fp64", "run d")
    cuda = Known("mlp", 32, 8, "cuda", work, 0.1, "bf16", "benchmark e")
    assert estimate(point, Request(), splits, [svm, other, same, alike, cuda]) == Estimate(6.0, "measured", ("run a",))
    assert estimate(point, Request(), splits, [svm, other, same]) == Estimate(1.0, "scaled", ("run b",))
    found = estimate(point, Request(), splits, [svm, other])
    assert (found.basis, found.sources) == ("scaled", ("run c",))
    assert found.seconds == pytest.approx(0.1)
    assert estimate(point, Request(gpu=1), splits, [alike, cuda]).sources == ("benchmark e",)
    twice = [alike, replace(alike, source="run f"), alike]
    assert estimate(point, Request(), splits, twice).sources == ("run a", "run f")
    guess = estimate(point, Request(), splits, [svm, cuda])
    assert (guess.basis, guess.sources) == ("guess", ())
    assert estimate({"model": "svm"}, Request(gpu=1), splits, [other, alike]).basis == "guess"


def test_estimate_tells_precisions_apart(splits: Splits) -> None:
    point = {"model": "mlp", "batch_size": 32, "epochs": 4, "hidden_units": 20}
    work = work_macs(point, splits)
    full = Known("mlp", 32, 8, "cpu", work, 2.0, "fp32", "run a")
    reduced = replace(full, seconds=1.0, precision="bf16", source="run b")

    def asked(*known: Known, gpu: bool = False, **fields: Any) -> tuple[float, str]:
        found = estimate(point | fields, Request(gpu=int(gpu)), splits, known)
        return found.seconds, found.basis

    assert asked(full, reduced, amp=False) == (2.0, "measured")
    assert asked(full, reduced, amp_dtype="bf16") == (1.0, "measured")
    assert asked(reduced, amp=False) == (1.0, "scaled")
    assert asked(replace(reduced, precision=None), amp=False) == (1.0, "measured")  # an older row
    on_card = [replace(one, kind="cuda") for one in (full, reduced)]
    assert asked(*on_card, gpu=True) == (1.0, "measured")
    assert asked(*on_card, gpu=True, amp=False) == (2.0, "measured")
    assert asked(*on_card, gpu=True, amp_dtype="fp16") == (1.5, "scaled")


def test_estimate_from_other_threads_or_channels_is_scaled(splits: Splits) -> None:
    point = {"model": "mlp", "batch_size": 32, "epochs": 4, "hidden_units": 20, "amp": False}
    here = Known("mlp", 32, 8, "cpu", work_macs(point, splits), 2.0, "fp32", "run a", channels=1, threads=1)

    def basis(known: Known, **asked: Any) -> str:
        return estimate(point, Request(**asked), splits, [known]).basis

    assert basis(here) == basis(replace(here, threads=8), cpu=8) == "measured"
    assert basis(here, cpu=8) == basis(replace(here, threads=8)) == basis(replace(here, channels=3)) == "scaled"
    assert basis(replace(here, kind="cuda", threads=4), gpu=1) == "measured"


def test_work_grows_with_what_is_trained(splits: Splits) -> None:
    mlp = {"model": "mlp", "batch_size": 32, "epochs": 4, "hidden_units": 20}
    assert work_macs(mlp, splits) == 3 * (64 * 20 + 20 * 10) * len(splits.train) * 4
    assert work_macs(mlp | {"epochs": 8}, splits) == 2 * work_macs(mlp, splits)
    assert work_macs({"model": "svm"}, splits) == len(splits.train) ** 2 * 64
    order = [{"model": name, "batch_size": 32, "epochs": 1} for name in ("mlp", "resnet18", "resnet50")]
    costs = [work_macs(point, splits) for point in order]
    assert costs == sorted(costs)


def test_shapes_of_a_space_are_counted_before_their_trials_are_ordered(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"model": {"grid": ["mlp", "svm"]}, "hidden_units": {"grid": [21, 22]}, "lr": {"grid": [0.1, 0.2]}}
    space = spaces.parse(axes, {"epochs": 2}, "grid")
    cost.count_shapes(space, splits)
    monkeypatch.setattr(cost, "_count", lambda *_: pytest.fail("it was not counted"))
    assert len({work_macs(point, splits) for point in space.grid()}) == 3


def test_plan_refuses_what_a_search_would_refuse(splits: Splits, tmp_path: Path) -> None:
    def asked(**changes: Any) -> Experiment:
        space = {"lr": {"grid": [1e-2, 1e-3]}}
        return check({"name": "x", "dataset": SMALL, "space": space, "train": {"model": "mlp"}} | changes)

    run_dir = rundir.at(tmp_path, "x")
    run_dir.path.mkdir()
    run_dir.experiment.write_text(yaml.dump(asked().document(), "As a search leaves it."))
    run_dir.environment.write_text(json.dumps({"data_sha256": splits.sha256}))
    record = ledger.Ledger(run_dir.ledger)
    record.append("00000", "state", state="WAITING", config=relevant({"model": "mlp", "lr": 1e-2}))
    record.close()
    assert plan(asked(), run_dir, None).trials == 2
    assert plan(asked(space={"lr": {"grid": [1e-2, 1e-3, 1e-4]}}), run_dir, None).trials == 3
    with pytest.raises(UsageError, match=r"^run x exists with another experiment \(train.epochs: "):
        plan(asked(train={"model": "mlp", "epochs": 2}), run_dir, None)
    run_dir.environment.write_text(json.dumps({"data_sha256": "of others"}))
    with pytest.raises(UsageError, match=r"\(the images or labels themselves\)"):
        plan(asked(), run_dir, None)
    with pytest.raises(UsageError, match=r"^search\.objectives: an svm has no params"):
        plan(asked(train={"model": "svm"}, space={}, search={"objectives": {"params": "min"}}), run_dir, None)


@pytest.mark.parametrize(("epochs", "shorter"), [(3, False), (4, True)])
def test_plan_promises_no_early_stopping_within_the_grace_epochs(epochs: int, shorter: bool, tmp_path: Path) -> None:
    train = {"model": "mlp", "epochs": epochs}
    asked = check({"name": "x", "dataset": SMALL, "train": train, "scheduler": {"name": "asha", "grace_epochs": 3}})
    assert plan(asked, rundir.at(tmp_path, "x"), None).stopped_early == shorter


def test_plan_refuses_a_run_that_cannot_warm_start_it(tmp_path: Path) -> None:
    search = {"method": "optuna", "trials": 2, "warm_start": "none"}
    space = {"lr": {"uniform": [0.01, 0.1]}}
    asked = check({"name": "x", "dataset": SMALL, "space": space, "train": {"model": "mlp"}, "search": search})
    with pytest.raises(UsageError, match=r"^search\.warm_start: run none: no run directory"):
        plan(asked, rundir.at(tmp_path, "x"), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_usable": 3}, r"^min_usable: 3, and there are 2 configs$"),
        (
            {"search": {"method": "random", "trials": 1, "enqueue": [{"lr": 0.02}, {"lr": 0.03}]}},
            r"^search\.enqueue: 2 points, more than are tried: 1$",
        ),
    ],
)
def test_plan_refuses_more_than_there_are_trials(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    lr = {"uniform": [0.01, 0.1]} if "search" in change else {"grid": [1e-2, 1e-3]}
    document = {"name": "x", "dataset": SMALL, "space": {"lr": lr}, "train": {"model": "mlp"}}
    with pytest.raises(UsageError, match=said):
        plan(check(document | change), rundir.at(tmp_path, "x"), None)


@pytest.mark.parametrize("method", ["grid", "random"])
def test_plan_refuses_repeats_that_two_seeds_of_the_space_would_share(method: str, tmp_path: Path) -> None:
    def planned(*seeds: int | None) -> int:
        kind, search = ("grid", {}) if method == "grid" else ("choice", {"method": method, "trials": 2})
        document = {
            "name": "x", "dataset": SMALL, "space": {"seed": {kind: list(seeds)}}, "train": {"model": "mlp"},
            "search": search, "repeats": 3,
        }  # fmt: skip
        return plan(check(document), rundir.at(tmp_path, "x"), None).trials

    shared = r"^repeats: 3 trains a config under its seed and the 2 after it, and seeds 5 and 7 of space\.seed "
    with pytest.raises(UsageError, match=shared):
        planned(7, 1, None, 5)
    assert planned(1, None, 4) == (9 if method == "grid" else 6)


def test_plan_refuses_repeats_that_seeds_share_only_where_nothing_else_differs(tmp_path: Path) -> None:
    document = {"name": "x", "dataset": SMALL, "train": {"model": "mlp"}, "repeats": 2}
    random = {"search": {"method": "random", "trials": 2}}

    def trials(space: dict[str, Any], **more: Any) -> int:
        return plan(check(document | {"space": space} | more), rundir.at(tmp_path, "x"), None).trials

    units = {"hidden_units": {"grid": [10, 20]}}
    other_units = {"seed": {"grid": [1, 2]}, "hidden_units": {"grid": [10, 20], "when": {"seed": 1}}}
    with pytest.raises(UsageError, match=r"^repeats: 2 .*, and seeds 1 and 2 of"):
        trials({"seed": {"grid": [1, 2]}} | units)
    assert trials(other_units) == 6
    with pytest.raises(UsageError, match=r"^repeats: 2 .*, and seeds 1 and 2 of"):
        trials({"seed": {"int": [1, 9]}}, **random)
    assert trials({"seed": {"int": [1, 9]}, "lr": {"uniform": [0.1, 0.2]}}, **random) == 4


@pytest.mark.parametrize(
    ("space", "fits"),
    [
        ({"momentum": {"choice": [0.9, 0]}, "nesterov": {"choice": [False, True]}}, False),
        ({"momentum": {"uniform": [0, 0.9]}, "nesterov": True}, False),
        (
            {
                "input": {"choice": ["resident", "stream"]},
                "momentum": {"choice": [0.9, 0]},
                "nesterov": {"choice": [False, True], "when": {"input": "stream"}},
            },
            False,
        ),
        ({"momentum": {"choice": [0.9, 0]}, "nesterov": {"choice": [False, True], "when": {"momentum": 0.9}}}, True),
    ],
)
def test_plan_refuses_sampled_values_that_may_meet_and_do_not_go_together(
    space: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    train = {"model": "mlp", "optimizer": "sgd"}
    search = {"method": "random", "trials": 1}
    asked = check({"name": "x", "dataset": SMALL, "space": space, "train": train, "search": search})
    if fits:
        assert plan(asked, rundir.at(tmp_path, "x"), None).trials == 1
        return
    with pytest.raises(UsageError, match=r"^nesterov needs a momentum above 0$"):
        plan(asked, rundir.at(tmp_path, "x"), None)


def test_plan_of_a_space_that_ends_is_all_of_it(tmp_path: Path) -> None:
    space = {"model": {"choice": ["mlp", "svm"]}, "lr": {"choice": [0.1, 0.2]}}
    document = {
        "name": "x",
        "dataset": SMALL,
        "space": space,
        "search": {"method": "random", "trials": 9},
        "repeats": 2,
    }
    found = plan(check(document), rundir.at(tmp_path, "x"), None)
    assert (found.trials, found.sampled) == (6, False)
    assert sum(one.trials for one in found.asked) == 6
    assert "note: search.trials is 9, and the space ends after 3" in lines(found)
    part = plan(check(document | {"search": {"method": "random", "trials": 2}}), rundir.at(tmp_path, "x"), None)
    same = "svm reads no seed: its 2 repeats give the same numbers"
    assert (part.trials, part.sampled, part.notes) == (4, True, (same,))


def test_plan_refuses_a_benchmarks_name(tmp_path: Path) -> None:
    run_dir = rundir.at(tmp_path, "x")
    run_dir.path.mkdir()
    run_dir.rows.touch()
    asked = check({"name": "x", "dataset": SMALL, "train": {"model": "mlp"}})
    with pytest.raises(UsageError, match=r"^run x is a benchmark; give the search another --name$"):
        plan(asked, run_dir, None)


def test_plan_refuses_a_logger_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loggers.EXTRAS, "mlflow", "no_such_package")
    asked = check({"name": "x", "dataset": SMALL, "train": {"model": "mlp"}, "loggers": ["mlflow"]})
    with pytest.raises(UsageError, match=r"^loggers: mlflow is not installed"):
        plan(asked, rundir.at(tmp_path, "x"), None)


@pytest.mark.cluster
def test_plan_command_starts_nothing_and_says_what_would_run(app: App, tmp_path: Path) -> None:
    planned = app("plan", "digits-demo", "--set", "resources.by_model.mlp.cpu=0.5")
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout.splitlines()
    assert said[1] == "8 trials"
    assert said[2].startswith("node 0 of this machine, where Ray would be started: cpu ")
    assert any(line.startswith("4 trials ask for cpu 0.5: ") for line in said)
    assert any(line.startswith("expected: ") for line in said)
    assert "  of the trials' times, 8 are guesses: nothing like them was measured" in said
    assert not (app.home / "ray").exists()
    assert not app.storage.exists()

    refused = app("plan", "digits-demo", "--set", "resources.gpu=0.5")
    assert refused.returncode == 2
    assert "a trial asks for cpu 1, gpu 0.5, which no node can serve" in refused.stderr
    assert refused.stderr.rstrip().endswith("; cpu 1 would fit")

    again = app("search", "digits-demo", "--set", "model=mlp", "--name", "measured")
    assert again.returncode == 0, again.stderr
    planned = app("plan", "digits-demo", "--set", "resources.memory_mib=99999999", "--set", "epochs=2")
    assert planned.returncode == 2
    assert "memory 99999999 MiB, which no node can serve" in planned.stderr
    planned = app("plan", "digits-demo", "--set", "epochs=2")
    said = planned.stdout.splitlines()
    assert "  of the trials' times, 4 rest on the same model, shape and precision measured" in said
    assert "  of the trials' times, 4 are scaled from another model, shape or precision by multiply-accumulates" in said
    assert "  from run measured" in said


def test_plan_of_what_extends_a_run_asks_only_that_the_whole_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*overrides: str, extend: bool = True) -> str:
        searching.plan("digits-demo", list(overrides), storage=str(tmp_path), extend=extend)
        return capsys.readouterr().out

    with pytest.raises(typer.Exit) as ended:
        planned("model=svm")
    assert ended.value.exit_code == 2
    assert "space.optimizer: is read by none of the trials asked for (models: svm)" in capsys.readouterr().err

    asked = load("digits-demo")
    run_dir = rundir.at(tmp_path, "digits-demo")
    run_dir.path.mkdir()
    run_dir.experiment.write_text(yaml.dump(asked.document()))
    run_dir.environment.write_text(json.dumps({"data_sha256": load_splits(asked.dataset).sha256}))
    record = ledger.Ledger(run_dir.ledger)
    for number, point in enumerate(spaces.of(asked).grid()):
        record.append(ledger.trial_id(number), "state", state="COMPLETE", config=point)
    assert "9 trials, 8 of them finished" in planned("model=svm")
    assert "12 trials, 8 of them finished" in planned("momentum=0.5")
    with pytest.raises(typer.Exit):
        planned("momentum=0.5", extend=False)
    told = " ".join(capsys.readouterr().err.split())
    assert "(train.momentum: 0.9 -> 0.5)" in told
    assert told.endswith("or, where it is to add grid values to the run, --extend")


def test_plan_of_one_trial_speaks_of_one(tmp_path: Path) -> None:
    asked = check({"name": "x", "dataset": SMALL, "train": {"model": "mlp"}})
    said = lines(plan(asked, rundir.at(tmp_path, "x"), None))
    assert said[0] == "1 trial"
    assert "  of the trials' times, 1 is a guess: nothing like it was measured" in said

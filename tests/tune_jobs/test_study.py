"""The run's Optuna study, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from tune_jobs.errors import UsageError
from tune_jobs.experiment import Experiment, check
from tune_jobs.results.ledger import TrialRecord
from tune_jobs.space import Space, parse
from tune_jobs.study import Study
from tune_jobs.study.warm_start import Known


def experiment(search: dict[str, Any], space: dict[str, Any]) -> tuple[Experiment, Space]:
    asked = check({"name": "x", "dataset": {"name": "digits"}, "space": space, "search": search})
    return asked, parse(asked.space, asked.train, asked.search.method)


GRID = {"model": "mlp", "lr": {"grid": [0.1, 0.01, 0.001]}}


def opened(path: Path, space: dict[str, Any] | None = None) -> Study:
    return Study(path, *experiment({"method": "grid"}, space or GRID))


def record(number: int, state: str, **fields: Any) -> TrialRecord:
    return TrialRecord(f"{number:05d}", {"model": "mlp", "lr": 0.1}, state, **fields)


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.optuna.trials]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def test_point_of_a_waiting_and_of_a_running_trial_is_the_one_added(path: Path) -> None:
    study = opened(path)
    points = study.space.grid()
    assert [study.add(point) for point in points] == [0, 1, 2]
    study.start(1, [])
    study.start(1, [])
    assert states(study) == ["WAITING", "RUNNING", "WAITING"]
    assert [study.point(number) for number in range(3)] == points
    with pytest.raises(UsageError, match="has no trial 3"):
        study.point(3)


def test_start_brings_the_epochs_to_a_study_that_was_made_anew(path: Path) -> None:
    study = opened(path)
    number = study.add(study.space.grid()[0])
    study.start(number, [{"epoch": 1, "val_accuracy": 0.5}, {"epoch": 2, "val_accuracy": 0.6}])
    assert study.optuna.trials[number].intermediate_values == {1: 0.5, 2: 0.6}


def test_report_of_an_epoch_that_was_trained_again_is_not_told_twice(path: Path) -> None:
    """Optuna would warn on a person's screen (and pytest makes an error of it)."""
    study = opened(path)
    number = study.add(study.space.grid()[0])
    study.start(number, [])
    for _ in range(2):
        study.report(number, {"epoch": 1, "val_accuracy": 0.5})
    assert study.optuna.trials[number].intermediate_values == {1: 0.5}


def test_tell_each_ending(path: Path) -> None:
    study = opened(path)
    for point in study.space.grid():
        study.start(study.add(point), [])
    study.tell([record(0, "COMPLETE", result={"val_accuracy": 0.9})])
    study.report(1, {"epoch": 1, "val_accuracy": 0.4})
    study.report(1, {"epoch": 2, "val_accuracy": None})
    study.tell([record(1, "PRUNED")])
    study.tell([record(2, "FAIL", failure="diverged", reason="nan")])
    assert states(study) == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [trial.value for trial in study.optuna.trials] == [0.9, 0.4, None]
    assert study.optuna.trials[2].user_attrs["trials"] == {"00002": {"failure": "diverged", "reason": "nan"}}
    study.tell([record(0, "FAIL")])  # what was told stands
    assert study.optuna.trials[0].value == 0.9


def test_tell_all_that_are_finished_share_the_choices_also_when_opened_again(path: Path) -> None:
    """Of a grid of a thousand values each trial would have a thousand."""
    study = opened(path)
    for point in study.space.grid():
        study.start(study.add(point), [])
    study.tell([record(0, "COMPLETE", result={"val_accuracy": 0.9})])
    study.tell([record(1, "FAIL", failure="diverged", reason="nan")])
    for found in (study, opened(path)):
        trials = found.optuna.get_trials(deepcopy=False)
        (name,) = [key for key, value in trials[0].distributions.items() if len(getattr(value, "choices", ())) > 1]
        one, two, running = (trial.distributions[name] for trial in trials)
        assert one is two
        assert running is not one
        assert running == one
        assert [trial.params[name] for trial in trials] == [point[name] for point in study.space.grid()]


def test_tell_of_repeats_is_their_mean_and_needs_them_all(path: Path) -> None:
    study = opened(path)
    for point in study.space.grid()[:2]:
        study.start(study.add(point), [])
    whole = [TrialRecord(f"00000-{fold}", {}, "COMPLETE", result={"val_accuracy": 0.8 + fold / 10}) for fold in (0, 1)]
    study.tell(whole)
    study.tell(
        [TrialRecord("00001-0", {}, "COMPLETE", result={"val_accuracy": 0.9}), TrialRecord("00001-1", {}, "FAIL")]
    )
    assert study.optuna.trials[0].value == pytest.approx(0.85)
    assert states(study) == ["COMPLETE", "FAIL"]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("diverged", "PRUNED"), ("timeout", "PRUNED"), ("out_of_memory", "PRUNED"), ("user_error", "PRUNED"),
        ("error", "FAIL"), ("worker_crashed", "FAIL"), ("node_lost", "FAIL"),
    ],
)  # fmt: skip
def test_tell_of_a_failure_that_is_its_configs_doing_samplers_are_not_to_leave_it_out(
    path: Path, failure: str, told: str
) -> None:
    study = opened(path)
    study.start(study.add(study.space.grid()[0]), [])
    study.tell([record(0, "FAIL", failure=failure)])
    assert states(study) == [told]


def test_tpe_leaves_a_region_alone_where_all_trials_diverge(path: Path) -> None:
    """Above 0.1, a quarter of the range.  Left out of what tpe is told, it drew 20 to 25 of the last 25 from it."""
    search = {"method": "optuna", "trials": 40}
    study = Study(path, *experiment(search, {"model": "mlp", "lr": {"loguniform": [1e-4, 1.0]}}))
    drawn = []
    for number in range(40):
        point = study.space.suggest(study.optuna.ask())
        drawn.append(point["lr"])
        if point["lr"] > 0.1:
            study.tell([record(number, "FAIL", failure="diverged")])
        else:
            study.tell([record(number, "COMPLETE", result={"val_accuracy": 0.9 - abs(point["lr"] - 0.01)})])
    assert sum(lr > 0.1 for lr in drawn[15:]) <= 8


def test_complete_without_its_objective_is_told_as_pruned(path: Path) -> None:
    study = opened(path)
    study.start(study.add(study.space.grid()[0]), [])
    study.tell([record(0, "COMPLETE", result={"val_accuracy": None})])
    assert states(study) == ["PRUNED"]


def test_follow_makes_a_lost_study_anew_from_the_ledger(path: Path) -> None:
    points = opened(path).space.grid()
    path.unlink()
    trials = {
        "00000": TrialRecord(
            "00000", points[0], "COMPLETE", 1, [{"epoch": 1, "val_accuracy": 0.7}], {"val_accuracy": 0.7}
        ),
        "00001": TrialRecord("00001", points[1], "WAITING"),
        "00002": TrialRecord("00002", points[2], "FAIL", failure="error"),
    }
    study = opened(path)
    study.follow(trials)
    assert states(study) == ["COMPLETE", "WAITING", "FAIL"]
    assert [study.point(number) for number in range(3)] == points
    assert study.optuna.trials[0].intermediate_values == {1: 0.7}
    study.follow(trials)
    assert states(study) == ["COMPLETE", "WAITING", "FAIL"]


def test_follow_of_a_grid_that_has_grown_keeps_the_numbers(path: Path) -> None:
    study = opened(path, {"model": "mlp", "lr": {"grid": [0.1, 0.01]}})
    points = study.space.grid()
    trials = {f"{study.add(point):05d}": TrialRecord("", point, "WAITING") for point in points}
    trials = {id_: TrialRecord(id_, trial.config, "WAITING") for id_, trial in trials.items()}
    grown = opened(path)
    grown.follow(trials)
    assert [grown.point(number) for number in range(2)] == points


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc", "nsga2"])
def test_sampler_same_seed_same_points_also_when_taken_up_in_the_middle(sampler: str, tmp_path: Path) -> None:
    space = {"model": "mlp", "lr": {"loguniform": [1e-4, 0.1]}, "hidden_units": {"int": [8, 64]}}
    search = {"method": "optuna", "trials": 8, "sampler": sampler, "seed": 5, "startup_trials": 3}

    def points(name: str, number: int) -> list[float]:
        study = Study(tmp_path / name, *experiment(search, space))
        found = []
        for _ in range(number):
            trial = study.optuna.ask()
            found.append(study.space.suggest(trial)["lr"])
            study.optuna.tell(trial, found[-1])
        return found

    first = points("a", 6)
    assert points("b", 6) == first
    assert len(set(first[:3])) == 3
    assert points("c", 4) + points("c", 2) == first


def test_enqueued_points_come_first(path: Path) -> None:
    search = {"method": "optuna", "trials": 3, "enqueue": [{"lr": 0.05}]}
    study = Study(path, *experiment(search, {"model": "mlp", "lr": {"uniform": [0.001, 0.1]}}))
    study.follow({})
    assert study.space.suggest(study.optuna.ask())["lr"] == 0.05


def test_enqueued_points_are_tried_as_what_they_mean(path: Path) -> None:
    """`on` is a word in YAML 1.2, and true to a field that is true or false."""
    search = {"method": "optuna", "trials": 3, "enqueue": [{"amp": "on", "batch_size": "16"}]}
    study = Study(
        path, *experiment(search, {"model": "mlp", "amp": {"choice": [False, True]}, "batch_size": {"choice": [8, 16]}})
    )
    study.follow({})
    point = study.space.suggest(study.optuna.ask())
    assert (point["amp"], point["batch_size"]) == (True, 16)


@pytest.mark.parametrize(
    ("space", "left"),
    [
        ({"lr": {"choice": [0.1, 0.01]}, "batch_size": {"int": [16, 4_015]}}, (0.01, 3_711)),  # one of 8,000 is left
        ({"lr": {"choice": [0.1, 0.01]}, "batch_size": {"int": [16, 17]}}, (0.1, 17)),
    ],
)
def test_add_another_finds_the_one_that_is_left(space: dict[str, Any], left: tuple[float, int], path: Path) -> None:
    study = Study(path, *experiment({"method": "random", "trials": 3}, {"model": "mlp"} | space))
    study.add_another(lambda point: (point["lr"], point["batch_size"]) == left)
    found = study.space.suggest(study.optuna.ask())
    assert (found["lr"], found["batch_size"]) == left


def test_pass_over_fails_it_and_names_the_first(path: Path) -> None:
    asked = experiment({"method": "optuna", "trials": 3}, {"model": "mlp", "lr": {"choice": [0.1, 0.2]}})
    study = Study(path, *asked)
    for _ in range(2):
        study.space.suggest(study.optuna.ask())
    study.optuna.tell(0, 0.5)
    study.pass_over(1, same_as=0)
    assert states(study) == ["COMPLETE", "FAIL"]
    assert study.optuna.trials[1].user_attrs == {"same_as": 0}
    again = Study(path, *asked)
    again.follow({"00000": record(0, "COMPLETE", result={"val_accuracy": 0.5})})
    assert states(again) == ["COMPLETE", "FAIL"]


def test_follow_of_a_lost_study_leaves_nothing_waiting_for_numbers_that_no_trial_has(path: Path) -> None:
    asked = experiment({"method": "random", "trials": 3}, {"model": "mlp", "lr": {"choice": [0.1, 0.2]}})
    study = Study(path, *asked)
    study.follow({"00000": record(0, "COMPLETE", result={"val_accuracy": 0.5}), "00003": record(3, "WAITING")})
    assert states(study) == ["COMPLETE", "FAIL", "FAIL", "RUNNING"]
    assert study.optuna.ask().number == 4  # and a sampler that is asked while 00003 waits does not take its number


def test_follow_puts_in_the_points_to_try_first_that_no_trial_has(path: Path) -> None:
    search = {"method": "optuna", "trials": 5, "enqueue": [{"lr": 0.05}, {"lr": 0.02}, {"lr": 0.03}]}
    asked = experiment(search, {"model": "mlp", "lr": {"uniform": [0.001, 0.1]}})
    done = TrialRecord("00000", {"model": "mlp", "lr": 0.02}, "COMPLETE", 1, [], {"val_accuracy": 0.7})
    study = Study(path, *asked)
    study.follow({"00000": done})  # the study was lost, the ledger was not
    assert study.space.suggest(study.optuna.ask())["lr"] == 0.05  # and this driver died before it wrote that down
    again = Study(path, *asked)
    again.follow({"00000": done})
    again.follow({"00000": done})
    assert states(again) == ["COMPLETE", "FAIL", "WAITING", "WAITING"]
    assert sorted(again.space.suggest(again.optuna.ask())["lr"] for _ in range(2)) == [0.03, 0.05]


CONDITIONAL = {
    "model": "mlp",
    "optimizer": {"choice": ["sgd", "adamw"]},
    "weight_decay": {"loguniform": [1e-6, 1e-2], "when": {"optimizer": "adamw"}},
    "lr": {"loguniform": [1e-4, 1e-1], "when": {"optimizer": "sgd"}},
}
"""A config of adamw has lr, and one of sgd weight_decay, all the same: their defaults."""


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_begin_with_configs_that_have_defaults_of_what_they_were_not_asked_for(path: Path, optimizer: str) -> None:
    asked = experiment({"method": "optuna", "trials": 3}, CONDITIONAL)
    given = {"optimizer": optimizer} | ({"lr": 0.01} if optimizer == "sgd" else {"weight_decay": 1e-4})
    point = asked[1].suggest(optuna.trial.FixedTrial(given))
    assert {"lr", "weight_decay"} <= point.keys()
    assert asked[1].contains(point)
    study = Study(path, *asked)
    study.begin([Known(point, (0.9,), "earlier/00000")], {})
    assert study.optuna.trials[0].params == given


def test_begin_of_a_study_whose_driver_died_there_puts_in_the_rest(path: Path) -> None:
    asked = experiment({"method": "optuna", "trials": 3}, {"model": "mlp", "lr": {"uniform": [0.001, 0.1]}})
    earlier = [Known({"model": "mlp", "lr": lr}, (lr,), f"earlier/{lr}") for lr in (0.01, 0.02, 0.03)]
    Study(path, *asked).begin(earlier[:1], {})
    study = Study(path, *asked)
    study.begin(earlier, {})
    assert [trial.value for trial in study.optuna.trials] == [0.01, 0.02, 0.03]
    study.optuna.ask()
    study.begin([*earlier, *earlier], {})
    assert len(study.optuna.trials) == 4


def test_nsga2_has_warm_given_and_rebuilt_trials_in_its_population(path: Path) -> None:
    search = {"method": "optuna", "trials": 9, "sampler": "nsga2", "startup_trials": 2}
    asked = experiment(search, {"model": "mlp", "lr": {"uniform": [0.001, 0.1]}})
    study = Study(path, *asked)
    study.begin([Known({"model": "mlp", "lr": 0.01}, (0.5,), "earlier/00000")], {})
    study.follow({"00001": record(1, "COMPLETE", result={"val_accuracy": 0.6})})
    study.add(study.space.suggest(optuna.trial.FixedTrial({"lr": 0.02})))
    study.start(2, [])
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in study.optuna.trials]
    assert generations == [0, 0, 1]


def test_lock_of_a_driver_that_was_killed_holds_nobody_up(path: Path) -> None:
    """It is a link to the journal by its absolute path, which dangles once the run directory is moved, and Optuna would
    wait for ever."""
    opened(path)
    lock = path.with_name("optuna.journal.lock")
    lock.symlink_to(path.with_name("elsewhere"))
    opened(path).add(opened(path).space.grid()[0])
    assert not lock.is_symlink()


def test_follow_leaves_no_trial_of_a_dead_driver_running(path: Path) -> None:
    study = opened(path)
    points = study.space.grid()
    for point in points[:2]:
        study.start(study.add(point), [])
    study.follow({"00000": TrialRecord("00000", points[0], "WAITING")})
    assert states(study) == ["RUNNING", "FAIL"]  # the first is to be run again, the second was never written down


@pytest.mark.parametrize(
    ("point", "line"),
    [
        ({"speed": 1}, "search.enqueue.speed: is no choice and no range of the space"),
        ({"model": "mlp"}, "search.enqueue.model: is no choice and no range of the space"),
        ({"lr": 0.5}, "search.enqueue.lr: 0.5: is outside 0.001 to 0.1"),
        ({"gamma": "scale"}, "search.enqueue.gamma: 'scale': is outside 0.01 to 1.0"),
        ({"lr": "a"}, "search.enqueue.lr: 'a': must be a number"),
        ({"optimizer": "adamw"}, "search.enqueue.optimizer: 'adamw': is none of sgd, adam"),
    ],
)
def test_enqueued_point_outside_the_space_is_refused_by_name(point: dict[str, Any], line: str) -> None:
    space = {"model": "mlp", "lr": {"uniform": [0.001, 0.1]}, "optimizer": {"choice": ["sgd", "adam"]}}
    if "gamma" in point:
        space = {"model": "svm", "gamma": {"uniform": [0.01, 1]}}
    search = {"method": "optuna", "trials": 3, "enqueue": [point]}
    with pytest.raises(UsageError) as error:
        experiment(search, space)[1].check_enqueued([point])
    assert str(error.value).startswith(line)


def test_study_opens_with_optuna_alone(path: Path) -> None:
    study = opened(path)
    study.start(study.add(study.space.grid()[0]), [])
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    (name,) = optuna.study.get_all_study_names(storage)
    assert name == "x"
    assert optuna.load_study(study_name=name, storage=storage).trials[0].params == {"lr": 0.1}

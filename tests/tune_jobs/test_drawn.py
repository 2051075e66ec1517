"""That no config is drawn twice, without Ray's processes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import RandomSampler
from ray.tune.search import Searcher

from tune_jobs.experiment import Experiment, check
from tune_jobs.experiment.repeats import total
from tune_jobs.results.ledger import TrialRecord, by_number, number_of, trial_id
from tune_jobs.running import waiting
from tune_jobs.running.broken_nodes import BrokenNodes
from tune_jobs.running.tuning import ASKED, _Searcher
from tune_jobs.space import Point, Space, parse
from tune_jobs.study import Study
from tune_jobs.study.drawn import Drawn, to_draw


class First(RandomSampler):
    """Draws the first choice, for ever."""

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002 - Optuna's signature
        trial: optuna.trial.FrozenTrial,  # noqa: ARG002
        name: str,  # noqa: ARG002
        distribution: BaseDistribution,
    ) -> Any:
        assert isinstance(distribution, CategoricalDistribution)
        return distribution.choices[0]


class Waiting(list[tuple[int, Point]]):
    """Stands for `tune_jobs.running.waiting.Waiting`."""

    out: tuple[()] = ()
    put = list.append

    def room(self, _: Any) -> int:
        return 1

    def has_place(self, _: Any) -> bool:
        return True


def asked_for(trials: int, repeats: int = 1, **fields: Any) -> tuple[Experiment, Space]:
    asked = check(
        {
            "name": "x",
            "dataset": {"name": "digits"},
            "space": {"model": "mlp", "lr": {"choice": [0.1, 0.2, 0.3]}},
            "train": fields,
            "search": {"method": "optuna", "trials": trials, "max_concurrent": 1},
            "repeats": repeats,
        }
    )
    return asked, parse(asked.space, asked.train, asked.search.method)


def searcher(path: Path, asked: Experiment, space: Space) -> tuple[_Searcher, Study, list[tuple[int, Point]]]:
    """One that hands out to nobody, its study, and what it has added."""
    study = Study(path, asked, space)
    study.sampler = First()
    added: list[tuple[int, Point]] = []
    waiting = Waiting()

    def add(number: int, point: Point) -> list[tuple[int, Point]]:
        added.append((number, point))
        return [added[-1]]

    def hand_out(trial_id: str) -> Point | None:
        return waiting.pop()[1] if waiting else None

    recorder: Any = SimpleNamespace(
        waiting=waiting,
        record=SimpleNamespace(groups={}),
        to_ask=lambda: to_draw(asked, space, {}),
        add=add,
        hand_out=hand_out,
    )
    stop: Any = SimpleNamespace(leave_if_asked=lambda: None)
    return _Searcher(study, recorder, asked, [], stop), study, added


def test_sampler_that_keeps_to_one_config_is_given_others(tmp_path: Path) -> None:
    own, study, added = searcher(tmp_path / "study", *asked_for(20))
    handed = [own.suggest(f"ray{number}") for number in range(3)]
    more: Any = own.suggest("ray3")
    assert more == Searcher.FINISHED
    assert sorted(point["lr"] for point in handed if point is not None) == [0.1, 0.2, 0.3]
    numbers = [0, ASKED + 1, 2 * (ASKED + 1)]
    assert [number for number, _ in added] == numbers
    for trial in study.optuna.trials:
        is_new = trial.number in numbers
        assert trial.state.name == ("RUNNING" if is_new else "FAIL")
        assert trial.user_attrs == ({} if is_new else {"same_as": 0})


@pytest.mark.parametrize(
    ("search", "most"),
    [
        ({"method": "random"}, math.inf),
        ({"method": "optuna", "sampler": "random"}, math.inf),
        ({"method": "optuna", "sampler": "tpe"}, 7),
        ({"method": "optuna", "sampler": "qmc"}, 7),
        ({"method": "random", "max_concurrent": 2}, 2),
    ],
)
def test_more_than_there_is_room_for_is_asked_for_where_nothing_is_learnt(
    search: dict[str, Any], most: float, tmp_path: Path
) -> None:
    """What waits at Ray's makes a cluster grow; a sampler that learns is asked when there is room."""
    space = {"model": "mlp", "lr": {"uniform": [0.1, 0.2]}}
    asked = check({"name": "x", "dataset": {"name": "digits"}, "space": space, "search": {"trials": 9} | search})
    parsed = parse(asked.space, asked.train, asked.search.method)
    waiting = SimpleNamespace(room=lambda _: 7)
    recorder: Any = SimpleNamespace(waiting=waiting, record=SimpleNamespace(groups={}), to_ask=lambda: 9)
    stop: Any = None
    own = _Searcher(Study(tmp_path / "study", asked, parsed), recorder, asked, [], stop)
    assert own._most() == most


def test_trainings_without_a_seed_may_be_alike(tmp_path: Path) -> None:
    own, study, added = searcher(tmp_path / "study", *asked_for(4, seed=None))
    for number in range(4):
        own.suggest(f"ray{number}")
    assert [number for number, _ in added] == [0, 1, 2, 3]
    assert {point["lr"] for _, point in added} == {0.1}
    assert {trial.state.name for trial in study.optuna.trials} == {"RUNNING"}


@pytest.mark.parametrize(
    ("trials", "have", "left"),
    [
        (2, [], 2),
        (20, [], 3),
        (20, [0.1, 0.2], 1),
        (20, [0.1, 0.1, 0.1, 0.2], 1),  # of a version that drew some twice
        (4, [0.1, 0.1, 0.1], 1),
        (20, [0.3, 0.1, 0.2], 0),
        (2, [0.3, 0.1, 0.2], 0),
    ],
)
def test_to_draw_is_what_is_asked_for_and_there(trials: int, have: list[float], left: int) -> None:
    asked, space = asked_for(trials, repeats=2)
    points = [space.suggest(optuna.trial.FixedTrial({"lr": lr})) for lr in have]
    groups = {number: [TrialRecord(f"{number:05d}-0", point)] for number, point in enumerate(points)}
    assert to_draw(asked, space, groups) == left
    assert total(asked, space) == 2 * min(trials, 3)
    assert [Drawn(groups).same_as(point) for point in points] == [have.index(lr) for lr in have]


class Cluster:
    """A search over two kinds of trials, on a node with 32 cores and one GPU, as its searcher hands them out."""

    def __init__(self, path: Path, method: str, trials: dict[str, TrialRecord] | None = None) -> None:
        asked = check(
            {
                "name": "x",
                "dataset": {"name": "digits"},
                "space": {
                    "model": {"choice": ["resnet18", "svm"]},
                    "lr": {"loguniform": [1e-4, 1e-1]},
                    "C": {"loguniform": [0.1, 100]},
                },
                "search": {"method": method, "trials": 200},
                "resources": {"by_model": {"resnet18": {"gpu": 1}}},
            }
        )
        space = parse(asked.space, asked.train, method)
        self.trials = trials or {}
        groups = by_number(self.trials.values())
        self.study = Study(path, asked, space)
        self.study.follow(self.trials)
        self.waiting = waiting.Waiting(lambda config: asked.resources.of(config["model"]), BrokenNodes(print))
        for own in self.trials.values():
            self.waiting.put(own)
        recorder: Any = SimpleNamespace(
            waiting=self.waiting, record=SimpleNamespace(groups=groups), add=self.add, hand_out=self.hand_out,
            to_ask=lambda: to_draw(asked, space, groups),
        )  # fmt: skip
        stop: Any = SimpleNamespace(leave_if_asked=lambda: None)
        requests = [asked.resources.of(model) for model in ("resnet18", "svm")]
        self.searcher = _Searcher(self.study, recorder, asked, requests, stop)

    def add(self, number: int, point: Point) -> list[TrialRecord]:
        own = TrialRecord(trial_id(number), point)
        self.trials[own.id] = own
        return [own]

    def hand_out(self, ray_id: str) -> Point | None:
        own = self.waiting.next(ray_id)
        if own is None:
            return None
        self.study.start(number_of(own.id), [])
        return own.config

    def models(self) -> list[str]:
        """Of the trials that Tune is given, asked as often as it would ask in a few steps."""
        given = [self.searcher.suggest(f"{len(self.trials)}-{asked}") for asked in range(100)]
        return [point["model"] for point in given if point is not None]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 32.0, "GPU": 1.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


@pytest.mark.usefixtures("node")
def test_trials_of_a_kind_that_is_full_keep_no_place_of_another_free(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "study", "random")
    given = cluster.models()
    assert (given.count("svm"), given.count("resnet18")) == (32, 1)
    numbers = [number_of(own_id) for own_id in cluster.trials]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 200  # what no place is free for is not drawn
    assert cluster.models() == []


@pytest.mark.usefixtures("node")
def test_a_sampler_that_learns_is_asked_for_no_more_ahead_than_run_at_once(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "study", "optuna")
    given = cluster.models()
    assert given.count("resnet18") == 1
    assert given.count("svm") > 9
    assert len(cluster.trials) == 32


@pytest.mark.usefixtures("node")
def test_what_waits_keeps_its_number_and_point_where_the_study_is_made_anew(tmp_path: Path) -> None:
    whole, first = (Cluster(tmp_path / name, "random") for name in ("whole", "first"))
    whole.models()
    drawn = {own_id: own.config for own_id, own in whole.trials.items()}
    first.searcher._to_ask = 20
    first.models()
    again = Cluster(
        tmp_path / "anew", "random", {own_id: TrialRecord(own_id, c.config) for own_id, c in first.trials.items()}
    )
    again.models()
    assert len(again.trials) > 20
    assert {own_id: own.config for own_id, own in again.trials.items()} == drawn
    for own_id, config in drawn.items():
        assert again.study.point(number_of(own_id)) == config

"""What an experiment would run: trials, requests against each node, expected time.  Starts nothing."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from datasets import Splits, load_splits
from profiling import machine
from tune_jobs import space as spaces
from tune_jobs.cluster import connect, is_there, this_machine
from tune_jobs.errors import UsageError
from tune_jobs.estimate import Basis, Estimate, estimate, known
from tune_jobs.experiment import Experiment
from tune_jobs.experiment.checks import check_experiment, check_loggers, check_shapes
from tune_jobs.experiment.notes import notes, notes_on, stops_early
from tune_jobs.experiment.repeats import repeated, total
from tune_jobs.requests import Requests, at_least, requests_of
from tune_jobs.resources import Request, alive, card_kinds, check_servable, fits, in_words
from tune_jobs.results import damage, ledger
from tune_jobs.results.ledger import by_number
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.words import duration
from tune_jobs.sameness import check_same
from tune_jobs.space import Point, Space
from tune_jobs.space.axis import key
from tune_jobs.space.points import Points
from tune_jobs.study import warm_start
from tune_jobs.study.drawn import Drawn, to_draw

DRAWS = 10_000
"""So many configs of a sampled space stand for more."""


@dataclass(frozen=True)
class Asked:
    """One distinct request, and where it can run."""

    request: Request
    trials: int
    """Those still to be run; of a sampled space, in a random draw of it."""
    slots: tuple[int, ...]
    """How many fit on each node at once, empty as it is."""


@dataclass(frozen=True)
class Plan:
    """What would run."""

    trials: int
    finished: int
    """Of them, in the run of that name."""
    nodes: tuple[str, ...]
    """Each node's resources in words."""
    cluster: bool
    """Whether the nodes are a cluster's, or this machine's without Ray."""
    asked: tuple[Asked, ...]
    unmeasured: int
    """Probes that a search would run first, for `auto`."""
    seconds: float
    """Expected, from the first trial's start to the last one's end."""
    core_hours: float
    gpu_hours: float
    basis: Mapping[Basis, int]
    """How many trials' times rest on what."""
    sources: tuple[str, ...]
    sampled: bool
    """Whether the configs are a random draw, since the sampler decides as it goes."""
    notes: tuple[str, ...]
    stopped_early: bool
    """Whether a scheduler will make it shorter."""


def plan(experiment: Experiment, run_dir: RunDir, data_dir: Path | None) -> Plan:
    """Raises UsageError as a search would, also for a request that no node can serve."""
    space = spaces.of(experiment)
    splits = load_splits(experiment.dataset, data_dir)
    check_shapes(space, splits)
    check_experiment(experiment, space)
    check_loggers(experiment)
    run_dir.check_place()
    trials = damage.read_whole(run_dir.ledger)
    check_same(experiment, space, run_dir, splits.sha256, trials)
    if experiment.search.warm_start is not None and not trials:
        warm_start.read(experiment, space, run_dir.storage, splits.sha256)
    cluster = is_there()
    nodes = _nodes(cluster)
    requests = requests_of(experiment, space, splits)
    requests.cards = card_kinds(nodes)
    unmeasured = len(requests.unmeasured())
    if unmeasured:
        check_servable(at_least(experiment.resources, space), nodes)
    else:
        check_servable(requests.distinct(), nodes)

    left = _left(experiment, space, trials)
    measured = known(run_dir.path.parent, machine.cpu_name(), splits)
    # Of each config once: a sampled search may have a million trials.
    each = [(*_work(point, experiment, requests, unmeasured, splits, measured), count) for point, count in left]
    counts: Counter[str] = Counter()
    for request, _, count in each:
        counts[str(request)] += count
    distinct = {str(request): request for request, _, _ in each}
    work = [(request, time) for request, time, count in each for _ in range(count)]
    return Plan(
        trials=total(experiment, space),
        finished=sum(trial.finished for trial in trials.values()),
        nodes=tuple(in_words(node) for node in alive(nodes)),
        cluster=cluster,
        asked=tuple(
            Asked(request, counts[name], tuple(fits(request, node) for node in alive(nodes)))
            for name, request in distinct.items()
        ),
        unmeasured=unmeasured,
        seconds=makespan(work, alive(nodes), at_once=experiment.search.max_concurrent or len(work)),
        core_hours=sum(request.cpu * time.seconds for request, time in work) / 3600,
        gpu_hours=sum(float(request.gpu) * time.seconds for request, time in work) / 3600,
        basis=Counter(time.basis for _, time in work),
        sources=tuple(dict.fromkeys(name for _, time in work for name in time.sources)),
        notes=(*notes(experiment, space), *notes_on(splits)),
        sampled=experiment.search.trials is not None and experiment.search.trials < space.size(),
        stopped_early=stops_early(experiment, space),
    )


def makespan(work: Sequence[tuple[Request, Estimate]], nodes: Sequence[Mapping[str, float]], *, at_once: int) -> float:
    """Seconds until the last trial ends, each started, the longest first, as soon as a node has room for it.

    Graham's list scheduling (1969) with the longest processing time first, which is what a search does with a grid.
    """
    free = [dict(node) for node in nodes]
    running: list[tuple[float, int, int, Request]] = []
    now = 0.0
    waiting: dict[str, deque[tuple[int, Request, float]]] = {}
    for number, (request, time) in enumerate(sorted(work, key=lambda item: -item[1].seconds)):
        waiting.setdefault(str(request), deque()).append((number, request, time.seconds))
    while waiting or running:
        full: set[str] = set()  # where one finds no room, none that asks for the same does
        while len(running) < at_once and (
            heads := [(queue[0], name) for name, queue in waiting.items() if name not in full]
        ):
            (number, request, seconds), name = min(heads, key=lambda head: head[0][0])
            place = next((index for index, node in enumerate(free) if fits(request, node)), None)
            if place is None:
                full.add(name)
                continue
            _take(free[place], request, -1)
            heapq.heappush(running, (now + seconds, number, place, request))
            waiting[name].popleft()
            if not waiting[name]:
                del waiting[name]
        if not running:
            raise UsageError("resources: no node has room for a trial")
        now, _, place, request = heapq.heappop(running)
        _take(free[place], request, 1)
    return now


def _take(node: dict[str, float], request: Request, sign: int) -> None:
    for name, amount in request.bundle().items():
        node[name] = round(node[name] + sign * amount, 6)


def _left(experiment: Experiment, space: Space, trials: Mapping[str, ledger.TrialRecord]) -> list[tuple[Point, int]]:
    """The configs still to be run, and how often each, whatever its seed; of a sampled space that has more, a random
    draw of as many, or of DRAWS for all."""
    begun = [(trial.config, 1) for trial in trials.values() if not trial.finished and trial.config]
    groups = by_number(trials.values())
    if experiment.search.trials is None:
        have = {key(trial.config) for trial in trials.values()}
        every = [own for point in space.grid() for own in repeated(point, experiment.repeats)]
        return begun + [(point, 1) for point in every if key(point) not in have]
    if experiment.search.trials >= space.size():
        has = Drawn(groups)
        drawn = [(point, experiment.repeats) for point in space.every() if has.same_as(point) is None]
    else:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=experiment.search.seed))
        wanted = to_draw(experiment, space, groups)
        draws = [space.suggest(study.ask()) for _ in range(min(wanted, DRAWS))]
        of_each, rest = divmod(wanted, len(draws)) if draws else (0, 0)
        drawn = [(point, experiment.repeats * (of_each + (index < rest))) for index, point in enumerate(draws)]
    return begun + drawn


def _work(
    point: Point, experiment: Experiment, requests: Requests, unmeasured: int, splits: Splits, measured: Any
) -> tuple[Request, Estimate]:
    # Until it is measured, the most that it may come to.
    (request,) = at_least(experiment.resources, Points((), {}, (point,))) if unmeasured else [requests.of(point)]
    return request, estimate(point, request, splits, measured)


def _nodes(cluster: bool) -> list[Mapping[str, Any]]:
    """The cluster's nodes, or this machine as Ray would find it."""
    if cluster:
        import ray

        connect()
        found: list[Mapping[str, Any]] = ray.nodes()
        return found
    return [this_machine()]


_BASES: dict[Basis, tuple[str, str]] = {
    "measured": ("rests on the same model, shape and precision measured",
                 "rest on the same model, shape and precision measured"),
    "scaled": ("is scaled from another model, shape or precision by multiply-accumulates",
               "are scaled from another model, shape or precision by multiply-accumulates"),
    "guess": ("is a guess: nothing like it was measured", "are guesses: nothing like them was measured"),
}  # fmt: skip
"""Of one trial's time and of several."""


def lines(found: Plan) -> list[str]:
    """The plan in words."""
    where = "the cluster" if found.cluster else "this machine, where Ray would be started"
    trials = f"{found.trials} trial{'s' * (found.trials != 1)}"
    said = [f"{trials}, {found.finished} of them finished" if found.finished else trials]
    said += [f"note: {note}" for note in found.notes]
    said += [f"node {index} of {where}: {node}" for index, node in enumerate(found.nodes)]
    for asked in found.asked:
        at_once = ", ".join(f"{count} at once on node {index}" for index, count in enumerate(asked.slots) if count)
        ask = "trial asks" if asked.trials == 1 else "trials ask"
        said.append(f"{asked.trials} {ask} for {asked.request}: {at_once}")
    if found.unmeasured:
        shapes = "shape is" if found.unmeasured == 1 else "shapes are"
        said.append(f"{found.unmeasured} {shapes} to be measured first (auto); until then of a card all is reckoned")
    gpu = f", {found.gpu_hours:.2f} GPU-hours" if found.gpu_hours else ""
    less = "; early stopping makes it shorter" if found.stopped_early else ""
    said.append(f"expected: {duration(found.seconds)}, {found.core_hours:.2f} core-hours{gpu}{less}")
    said += [f"  of the trials' times, {count} {_BASES[basis][count > 1]}" for basis, count in found.basis.items()]
    if found.sources:
        said.append(f"  from {', '.join(found.sources)}")
    if found.sampled:
        said.append("  the configs are a random draw of the space: the sampler decides as it goes")
    return said

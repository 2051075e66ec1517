"""best.yaml: the config that was chosen, with all it takes to run it again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets import DatasetConfig
from tune_jobs import space, yaml
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.errors import UsageError, one_line
from tune_jobs.experiment import Experiment, override
from tune_jobs.resources import Request
from tune_jobs.results import selection
from tune_jobs.results.atomic import write_bytes, write_text
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.table import Row


class Config(BaseModel):
    """One config that `train` runs: best.yaml, or a file with `dataset` and `train` that a person wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetConfig
    """Which images, and how they are split."""
    train: dict[str, Any] = Field(min_length=1)
    """Fields of TrainConfig; `model` at least."""
    resources: Request | None = None
    """Its threads and device, which the numbers depend on to the last digit; null takes what the machine has."""
    data_sha256: str | None = None
    """Of the images and labels that it was trained on."""
    experiment: str | None = None
    run: str | None = None
    trial: str | None = None
    rule: str | None = None
    """The rule that chose it."""
    reason: str | None = None
    """Why it was chosen."""
    result: dict[str, Any] = {}
    """What it reached in the search."""
    environment: dict[str, Any] = {}
    """Versions, hardware and commit of the search."""


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Raises UsageError, one line that names the key at fault."""
    document = yaml.read(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: a config is a mapping with the keys dataset and train")
    document = override(document, overrides)
    if document.pop("space", None):
        raise UsageError(f"{path}: one config is trained, not a space; for several, use search")
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{path}: {one_line(error, Config)}") from error
    (point,) = space.parse({}, config.train, "grid").grid()
    # With an override it is another config, and the recorded result is not its own.
    return config.model_copy(update={"train": point, "result": {} if overrides else config.result})


def check_rule(rule: str) -> None:
    """Raises UsageError for an unknown rule."""
    if rule not in selection.RULES:
        raise UsageError(f"--rule {rule}: there is no such rule; there are {', '.join(selection.RULES)}")


def choose(rows: Sequence[Row], rule: str, within: float | None = None) -> tuple[Row, str]:
    """The row that the rule chooses, of a repeated config its first, and the reason.

    `rows` have at least one candidate.  Raises UsageError for an unknown rule or one that lacks its `within`.
    """
    check_rule(rule)
    chosen, reason = selection.RULES[rule](selection.candidates(rows), within)
    return chosen.rows[0], reason


def write_front(run: RunDir, experiment: Experiment, rows: Sequence[Row]) -> list[Path]:
    """Write each config on the Pareto front into a folder of its own; none where the search has one objective."""
    members = [row for row in rows if row.pareto and row.fold == 0]
    folder = run.path / "pareto"
    if members:
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.yaml"):
            run.remove(old)
    objectives = " and ".join(f"{name} ({way})" for name, way in experiment.search.objectives.items())
    complete = [row for candidate in selection.candidates(rows) for row in candidate.rows]
    beside = selection.shared_differently(complete) if "train_time_s" in experiment.search.objectives else ""
    for row in members:
        reason = f"one of {len(members)} configs on the Pareto front of {objectives}{beside}"
        write(run, experiment, row, "pareto", reason, folder / f"{row.id}.yaml")
    return [folder / f"{row.id}.yaml" for row in members]


def write_model(run: RunDir, row: Row) -> None:
    """Put the row's weights beside best.yaml; where they were not kept, no other config's weights stay there."""
    kept = Checkpoints(run.checkpoints, row.id).read_model()
    if kept is None:
        run.remove(run.best_model)
    else:
        write_bytes(run.best_model, kept)
        run.publish(run.best_model)


def write(run: RunDir, experiment: Experiment, row: Row, rule: str, reason: str, path: Path) -> None:
    """Write the row's config as a file that `train` runs."""
    environment = run.read_environment()
    result = {
        key: value
        for key, value in dataclasses.asdict(row).items()
        if key not in ("id", "state", "config", "seed", "failure", "reason")
        and not (value is None or (isinstance(value, float) and math.isnan(value)))
    }
    config = Config(
        experiment=experiment.name,
        run=run.name,
        trial=row.id,
        rule=rule,
        reason=reason,
        dataset=experiment.dataset,
        train=row.config | ({} if row.seed is None else {"seed": row.seed}),
        resources=_granted(experiment, row),
        data_sha256=environment.pop("data_sha256"),
        result=result,
        environment=environment,
    )
    order = ("experiment", "run", "trial", "rule", "reason", "result", "dataset", "train", "resources")
    document = config.model_dump(mode="json")
    document = {key: document[key] for key in order} | document
    comment = f"Chosen from run {run.name}.  Train it again with: python -m tune_jobs train {path.name}"
    write_text(path, yaml.dump(document, comment))
    run.publish(path)


def _granted(experiment: Experiment, row: Row) -> Request:
    """What its trial asked for: what the experiment names, with what was measured or grew since."""
    asked = experiment.resources.of(row.config["model"])
    return asked if row.cpu is None else asked.model_copy(update={"cpu": row.cpu, "gpu": row.gpu})

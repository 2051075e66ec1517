"""best.yaml: the config that was chosen, with all it takes to run it again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets import DatasetConfig
from models import TrainConfig
from tune_jobs import space, yaml
from tune_jobs.checkpoints import Checkpoints
from tune_jobs.errors import UsageError, one_line
from tune_jobs.experiment import Experiment, override
from tune_jobs.resources import Request
from tune_jobs.results import confirmation, selection
from tune_jobs.results.atomic import write_bytes, write_text
from tune_jobs.results.confirmation import Confirmation, Confirmed
from tune_jobs.results.rundir import RunDir
from tune_jobs.results.table import Row
from tune_jobs.typed import typed


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


def data_option(data_dir: Path | None) -> list[str]:
    """The option for data in a folder that a person named."""
    return [] if data_dir is None else ["--data-dir", str(data_dir)]


def again(run: RunDir, trial: str, data_dir: Path | None) -> str:
    """The command that trains best.yaml's config, which is `trial`, again.

    Of a run on an object store it writes a file first: the working copy is this machine's alone.
    """
    if run.mirror is None:
        return typed("train", str(run.best), *data_option(data_dir))
    name = run.best.name
    export = typed("export", str(run), "--trial", trial, "--output", name)
    return f"{export} && {typed('train', name, *data_option(data_dir))}"


def choose(rows: Sequence[Row], rule: str, within: float | None = None) -> tuple[Row, str]:
    """The row that the rule chooses, of a repeated config its first, and the reason.

    `rows` have at least one candidate.  Raises UsageError for an unknown rule or one that lacks its `within`.
    """
    check_rule(rule)
    chosen, reason = selection.RULES[rule](selection.candidates(rows), within)
    return chosen.rows[0], reason


def by_rule(rows: Sequence[Row], rule: str, within: float | None, found: Confirmation | None) -> tuple[Row, str]:
    """As `choose`; without `within`, rules cheapest and smallest choose within half the interval of a confirmed run's
    best, among those that the confirmation did not find worse."""
    if rule != "best" and within is None and found is not None:
        within = confirmation.half_width(found)
        rows = [row for row in rows if not found.refutes(row)]
    return choose(rows, rule, within)


def named(rows: Sequence[Row], trial: str) -> tuple[Row, str]:
    """The row of this id, and that it was asked for.  Raises UsageError where it is none that may be chosen."""
    row = next((row for row in rows if row.id == trial), None)
    if row is None:
        ids = f"from {rows[0].id} to {rows[-1].id}" if rows else "none yet"
        raise UsageError(f"--trial {trial}: there is no such trial; the ids are {ids}")
    if row.state != "COMPLETE" or math.isnan(row.val_accuracy):
        raise UsageError(f"--trial {trial}: is {row.state}, and not COMPLETE with an accuracy")
    candidate = next((one for one in selection.candidates(rows) if row in one.rows), None)
    if candidate is None:
        raise UsageError(f"--trial {trial}: not all repeats of its config are COMPLETE")
    return row, f"asked for by its id; validation accuracy {candidate.in_words}"


def better(run: RunDir, found: Confirmation, own: Confirmed | None) -> str:
    """What the confirmation found instead of a config that it refutes, and the command that writes that; else empty."""
    if own is None or not found.is_worse(own):
        return ""
    first = found.configs[0]
    command = typed("export", str(run), "--trial", first.trial)
    return (
        f"the confirmation found trial {own.trial}, mean {own.val.mean:.2%}, {found.verdict(own)} than trial "
        f"{first.trial}, {first.val.mean:.2%}: {command}"
    )


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


def write_model(run: RunDir, row: Row, say: Callable[[str], None]) -> None:
    """Put the row's weights beside its best.yaml; where they were not kept, or are damaged, no other config's weights
    stay there."""
    kept = Checkpoints(run.checkpoints, row.id).read_model()
    if kept is not None and _is_damaged(kept):
        say(f"note: the weights that were kept of trial {row.id} are damaged; `train` makes them again")
        kept = None
    if kept is None:
        if not _is_of(run.best_model, row):  # else `train` wrote them
            run.remove(run.best_model)
    else:
        write_bytes(run.best_model, kept)
        run.publish(run.best_model)


def _is_damaged(weights: bytes) -> bool:
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    try:
        load_arrays(weights)
    except SafetensorError:
        return True
    return False


def is_exported(run: RunDir) -> bool:
    """Whether its best.yaml was written by `export`, for a config of another rule than the search's own."""
    try:
        return run.best.exists() and load(run.best).rule != "best"
    except UsageError:  # damaged; a person's, maybe
        return True


def set_aside(run: RunDir, rows: Sequence[Row], row: Row) -> Path | None:
    """Before other weights take their place: those beside best.yaml that no checkpoint could give back, as a person
    trained them, get another name, which is returned."""
    if not run.best_model.exists() or _is_of(run.best_model, row):
        return None
    kept = (other for other in rows if _is_of(run.best_model, other))
    if any(Checkpoints(run.checkpoints, other.id).read_model() is not None for other in kept):
        return None
    data = run.best_model.read_bytes()
    path = run.best_model.with_name(f"best-{hashlib.sha256(data).hexdigest()[:8]}.safetensors")
    write_bytes(path, data)
    run.publish(path)
    return path


def header(path: Path) -> dict[str, str]:
    """What a weights file says of itself, its config among it.  Raises UsageError where it says nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            metadata: dict[str, str] | None = opened.metadata()
    except SafetensorError as error:
        raise UsageError(f"{path.name}: is damaged ({error})") from error
    if metadata is None or "config" not in metadata:
        raise UsageError(f"{path.name}: does not say of which config it is")
    return metadata


def _is_of(weights: Path, row: Row) -> bool:
    """False too of those that do not say of which config they are, or of one of another version's fields."""
    if not weights.exists():
        return False
    try:
        return TrainConfig(**json.loads(header(weights)["config"])) == TrainConfig(**_trained(row))
    except (UsageError, ValueError, TypeError):
        return False


def _trained(row: Row) -> dict[str, Any]:
    return row.config | ({} if row.seed is None else {"seed": row.seed})


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
        train=_trained(row),
        resources=_granted(experiment, row),
        data_sha256=environment.pop("data_sha256"),
        result=result,
        environment=environment,
    )
    order = ("experiment", "run", "trial", "rule", "reason", "result", "dataset", "train", "resources")
    document = config.model_dump(mode="json")
    document = {key: document[key] for key in order} | document
    given = path.name if run.mirror is not None and path.is_relative_to(run.path) else str(path)
    comment = (
        f"Chosen from run {run.name}.  Train it again with: {shlex.join(['python', '-m', 'tune_jobs', 'train', given])}"
    )
    write_text(path, yaml.dump(document, comment))
    run.publish(path)


def _granted(experiment: Experiment, row: Row) -> Request:
    """What its trial asked for: what the experiment names, with what was measured or grew since."""
    asked = experiment.resources.of(row.config["model"])
    return asked if row.cpu is None else asked.model_copy(update={"cpu": row.cpu, "gpu": row.gpu})

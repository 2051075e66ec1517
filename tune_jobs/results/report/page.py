"""The page: one file that needs nothing else, from a jinja2 template that escapes all it is given."""

from __future__ import annotations

import base64
import gzip
import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tune_jobs.errors import UsageError
from tune_jobs.results import best
from tune_jobs.results.confirmation import Confirmation, Confirmed
from tune_jobs.results.report import benchmarked, drawing, predictions, timing
from tune_jobs.results.report import confirmed as confirmed_table
from tune_jobs.results.report.benchmarked import Benchmark
from tune_jobs.results.report.cells import Cell, Column, count, of_trials
from tune_jobs.results.report.compared import Line, lines, times
from tune_jobs.results.report.drawing import Figure
from tune_jobs.results.report.effects import effects
from tune_jobs.results.report.figures import comparison as comparison_of
from tune_jobs.results.report.figures import figures
from tune_jobs.results.report.finding import Finding, wilson
from tune_jobs.results.report.findings import findings
from tune_jobs.results.report.loaded import Loaded, load
from tune_jobs.results.report.outcomes import outcomes
from tune_jobs.results.report.predictions import Predictions
from tune_jobs.results.report.published import beside_table
from tune_jobs.results.report.published_table import Shown, shown
from tune_jobs.results.report.standing import confirm_again
from tune_jobs.results.report.wording import label
from tune_jobs.results.rundir import RunDir, write_text
from tune_jobs.results.table import Row
from tune_jobs.results.words import duration, percent
from tune_jobs.typed import typed

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """All that the page shows of one run."""

    key: str
    name: str
    loaded: Loaded
    headline: dict[str, Any]
    findings: list[Finding]
    confirmed: Shown | None
    """The configs that were trained again."""
    figures: list[Figure]
    whole: set[str]
    """Keys of those that take the page's whole width; the others stand two by two."""
    columns: list[Column]
    table: list[tuple[Row, list[Cell]]]
    constant: dict[str, str]
    times: str
    """Whether the training times of all its trials compare; empty where they do."""
    predictions: Predictions | None
    confusions: str
    """What images they are of; where there are none why, or how to get them."""
    published: list[Shown]
    """The published tables that its experiment does again."""


def write(runs: Sequence[RunDir], path: Path, data_dir: Path | None = None, look: bool = True) -> None:
    """Write the report of one run, or of several side by side; a run is a search or a benchmark.

    `look`: whether weights that `train` wrote may be run on the test part, if that was not done before.
    Raises UsageError or ProfilingError where a run's files are missing or damaged.
    """
    searches = [run for run in runs if not run.is_benchmark]
    sections = [_section(f"r{index}", load(run), data_dir, look) for index, run in enumerate(searches)]
    benchmarks = [
        benchmarked.load(f"b{index}", run) for index, run in enumerate(run for run in runs if run.is_benchmark)
    ]
    write_text(path, render(sections, benchmarks))


def render(sections: Sequence[Section], benchmarks: Sequence[Benchmark] = ()) -> str:
    """The page as text; benchmarks after the searches."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "duration": duration, "count": count}
    several = [(section.name, section.loaded) for section in sections]
    comparison = comparison_of(several) if len(sections) > 1 else None
    specs = {f"{section.key}-{figure.key}": figure.spec for section in sections for figure in section.figures}
    for section in sections:
        if section.predictions is not None:
            specs[f"{section.key}-confusion"] = _confusion(section.predictions)
    for benchmark in benchmarks:
        if benchmark.figure is not None:
            specs[f"{benchmark.key}-{benchmark.figure.key}"] = benchmark.figure.spec
    if comparison is not None:
        specs[comparison.key] = comparison.spec
    compared: list[Line] = lines(several) if comparison else []
    return environment.get_template("page.html.j2").render(
        title=" · ".join([section.name for section in sections] + [benchmark.run.name for benchmark in benchmarks]),
        sections=sections,
        benchmarks=benchmarks,
        comparison=comparison,
        compared=compared,
        compared_times=times([section.loaded for section in sections]),
        specs=specs,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        plotly=_plotly(),
        png=predictions.png,
        zip=zip,
    )


def _section(key: str, loaded: Loaded, data_dir: Path | None, look: bool) -> Section:
    found, words = _predictions(loaded, data_dir, look)
    columns, table = of_trials(loaded)
    drawn = figures(loaded, effects(loaded, outcomes(loaded)))
    return Section(
        key=key,
        name=loaded.run.name,
        loaded=loaded,
        headline=_headline(loaded, data_dir),
        findings=findings(loaded),
        confirmed=confirmed_table.shown(loaded.confirmation) if loaded.confirmation else None,
        figures=drawn,
        whole=_whole(drawn),
        columns=columns,
        table=table,
        constant=_constant(loaded),
        times=loaded.times(loaded.rows),
        predictions=found,
        confusions=words,
        published=[shown(beside_table(name, [loaded])) for name in loaded.experiment.published],
    )


def _whole(drawn: Sequence[Figure]) -> set[str]:
    """Of the others the last one too, where it would have no neighbour."""
    broad = {"heat", "parallel", "timeline"}
    others = [figure.key for figure in drawn if figure.key not in broad]
    return broad | set(others[-1:] if len(others) % 2 else [])


def _headline(loaded: Loaded, data_dir: Path | None) -> dict[str, Any]:
    """The best config's standing, its cost and its command."""
    ends = [attempt.end for attempt in loaded.attempts]
    states = Counter(row.state for row in loaded.rows)
    run = {
        "states": {state: states[state] for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")},
        "train_time_s": timing.spent(loaded.rows),
        "wall_time_s": max(ends) - loaded.attempts[0].start if ends else math.nan,
        "running": loaded.run.is_running(),
    }
    choice = loaded.choice
    if choice is None:
        return run | {"choice": None}
    row, confirmed = choice.row, _confirmed(loaded, choice.row)
    own = confirmed["confirmed"]
    command = best.again(loaded.run, row.id, data_dir) if choice.exported else typed("export", str(loaded.run))
    headline = {
        "choice": choice,
        "repeats": len(choice.candidate.rows),
        "epochs": f"{choice.candidate.value('epochs'):.3g}",
        "images": wilson(loaded, own.val.mean if own else choice.candidate.accuracy),
        "config": [(f, label(row.config[f])) for f in loaded.fields if f in row.config],
        "command": command,
        "confirm": confirm_again(loaded),
    }
    return run | confirmed | headline


def _confirmed(loaded: Loaded, row: Row) -> dict[str, Any]:
    """What the confirmation says of the named config, and whether another one has a higher mean."""
    found = loaded.confirmation
    own = found.of(row) if found else None
    if found is None or own is None:
        return {"confirmed": None}
    first = found.configs[0]
    test = found.test_accuracy(own)
    return {
        "confirmed": own,
        "test": math.nan if test is None else test.mean,
        "higher": first if _right(found, first) > _right(found, own) else None,
        "better": typed("export", str(loaded.run), "--trial", first.trial) if found.refutes(row) else None,
    }


def _right(found: Confirmation, config: Confirmed) -> int:
    """Images named rightly, over all seeds: means of one sum in another order may differ in their last digit."""
    return round(config.val.mean * config.val.n * found.images)


def _constant(loaded: Loaded) -> dict[str, str]:
    """Fields that have one value in all trials which read them."""
    found = {}
    for row in loaded.rows:
        for field, value in row.config.items():
            if field not in loaded.fields and field != "seed":
                found[field] = label(value)
    if len(seeds := {row.seed for row in loaded.rows if row.seed is not None}) == 1:
        found["seed"] = str(seeds.pop())
    return found


def _predictions(loaded: Loaded, data_dir: Path | None, look: bool) -> tuple[Predictions | None, str]:
    from datasets import DataError
    from models import ModelError

    run = loaded.run
    weights, report = run.best_model, typed("report", str(run), *best.data_option(data_dir))
    try:
        found = predictions.look(run, data_dir) if look else predictions.known(run)
    except (DataError, ModelError, UsageError) as error:
        return None, f"{weights.name} is here, but: {error}"
    if found is None:
        why = "is of another config, or was not looked at yet" if weights.exists() else "is not here"
        if run.mirror is not None and not weights.exists():  # what `train` writes is no part of it
            return None, f"{weights.name} {why}: it is where the search ran."
        train = typed("train", str(run.best), *best.data_option(data_dir))
        again = f"{report}, or first {train}" if weights.exists() else f"{train}, then {report}"
        return None, f"{weights.name} {why}. To see what it confuses: {again}."
    what = f"Its {found.of:,} test images"
    if not found.whole:
        what = f"{len(found.numbers):,} of its {found.of:,} test images, drawn at random; {report} looks at all"
    kept = f" They could not be kept for the next report ({found.unkept})." if found.unkept else ""
    return found, f"{what}: how many of each class it named what. Nothing was chosen by them.{kept}"


def _confusion(found: Predictions) -> dict[str, Any]:
    import plotly.graph_objects as go

    matrix = found.matrix()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    names = [html.escape(name) for name in found.classes]
    small = len(names) <= 20
    figure = go.Figure(
        go.Heatmap(
            z=(100 * shares).tolist(), x=names, y=names, colorscale=drawing.SEQUENTIAL, zmin=0, zmax=100,
            text=[[str(value) if value else "" for value in row] for row in matrix.tolist()],
            texttemplate="%{text}" if small else None, xgap=1, ygap=1, customdata=matrix.tolist(),
            hovertemplate="%{y}, called %{x}<br>%{customdata} images, %{z:.1f} % of the class<extra></extra>",
            colorbar={"title": {"text": "% of class"}, "thickness": 12, "outlinewidth": 0},
        )
    )  # fmt: skip
    kind = {"type": "category", "automargin": True}
    height = max(360, 150 + 32 * len(names)) if small else 640
    down = {"title": {"text": "true", "standoff": 12}, "autorange": "reversed"}  # else among the longest names
    return drawing.spec(figure, height, xaxis=drawing.axis("named", **kind), yaxis=down | kind) | {
        "wide": 200 + 34 * len(names)
    }


def _plotly() -> str:
    """plotly.js from the installed package, packed: the page unpacks it when the first figure comes into view."""
    source = resources.files("plotly").joinpath("package_data/plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, 6, mtime=0)).decode()

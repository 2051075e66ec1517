"""The report's figures, as plotly makes them: Optuna's own where it has one, the rest from the rows.

Accuracies are shown in percent.
"""

from __future__ import annotations

import html
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator

from tune_jobs import space as spaces
from tune_jobs.axis import Axis
from tune_jobs.results import selection
from tune_jobs.results.report.drawing import Figure, axis, grouped, spec
from tune_jobs.results.report.effects import Effect, label, levels
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.slots import time_line
from tune_jobs.results.selection import Candidate
from tune_jobs.results.table import Row

optuna.logging.set_verbosity(optuna.logging.ERROR)

FEWEST_FOR_IMPORTANCE = 30
"""Complete configs: fewer have no best tenth to tell from the rest."""
MOST_LEVELS = 12
"""Of an axis of the heat map: numbers with more are shown in parts of equal counts."""


def figures(loaded: Loaded, effects: Sequence[Effect]) -> list[Figure]:
    """Those that the run has something to show for, in the order of the page."""
    if not loaded.rows:
        return []
    return [
        *_curves(loaded),
        *_history(loaded),
        *_importance(loaded, effects),
        *_heat(loaded),
        *_parallel(loaded),
        *_trade_offs(loaded),
        *_objectives(loaded),
        *time_line(loaded),
    ]


def models_of(loaded: Loaded) -> dict[str, dict[str, str]]:
    """Model -> its colour and its symbol, the same in all figures of a run."""
    return grouped([row.config["model"] for row in loaded.rows if "model" in row.config])


def _curves(loaded: Loaded) -> Iterator[Figure]:
    chosen = loaded.choice.row.id if loaded.choice else None
    for key, title, metric, scale in (
        ("accuracy", "Validation accuracy over epochs", "val_accuracy", 100),
        ("loss", "Validation loss over epochs", "val_loss", 1),
    ):
        figure = _curves_of(loaded, metric, scale, chosen)
        if figure is None:
            continue
        best = f" The thick line is trial {chosen}." if chosen else ""
        yield Figure(
            key,
            title,
            f"A line a trial; one that was stopped or failed ends early.{best}",
            spec(figure, xaxis=axis("epoch", dtick=_whole_ticks(loaded)), yaxis=axis(_in_words(metric))),
        )


def _curves_of(loaded: Loaded, metric: str, scale: float, chosen: str | None) -> go.Figure | None:
    """All lines of a model are one trace, parted by gaps: a thousand traces would take seconds to draw."""
    by_model: dict[str, list[tuple[str, int | None, float | None]]] = {}
    for trial in loaded.trials:
        points = [(e["epoch"], e[metric]) for e in trial.epochs if e.get(metric) is not None]
        if not points or "model" not in trial.config:
            continue
        line = by_model.setdefault(trial.config["model"], [])
        line += [(trial.id, epoch, scale * value) for epoch, value in points]
        line.append((trial.id, None, None))
    if not by_model:
        return None
    many = len(loaded.trials) > 60
    looks = models_of(loaded)
    figure = go.Figure()
    for model, line in by_model.items():
        ids, x, y = zip(*line, strict=True)
        figure.add_scatter(
            x=x, y=y, text=ids, name=html.escape(model), mode="lines+markers", line_color=looks[model]["color"],
            line_width=1, marker={"size": 3 if many else 5, "symbol": looks[model]["symbol"]},
            opacity=0.35 if many else 0.8, hovertemplate="trial %{text}<br>epoch %{x}: %{y:.4g}",
        )  # fmt: skip
    thick = [p for model, line in by_model.items() for p in line if p[0] == chosen]
    if thick:
        ids, x, y = zip(*thick, strict=True)
        figure.add_scatter(
            x=x, y=y, text=ids, name=f"trial {chosen}", mode="lines+markers", line_color="var(--ink)", line_width=3,
            hovertemplate="trial %{text}<br>epoch %{x}: %{y:.4g}",
        )  # fmt: skip
    return figure


def _whole_ticks(loaded: Loaded) -> int | None:
    return 1 if max((row.epochs for row in loaded.rows), default=0) <= 15 else None


def _in_words(metric: str) -> str:
    names = {
        "val_accuracy": "validation accuracy, %", "val_loss": "validation loss", "train_time_s": "training time, s",
        "params": "trainable parameters", "macs": "multiply-accumulates an image",
    }  # fmt: skip
    return names[metric]


# --- Optuna's -----------------------------------------------------------------------------------------------------


def study(loaded: Loaded) -> optuna.Study:
    """The run's complete configs as a study in memory, the mean over the repeats of each.

    Made from the ledger, which is ahead of the journal after a crash and is read many times faster.
    """
    objectives = loaded.experiment.search.objectives
    found = optuna.create_study(directions=["maximize" if way == "max" else "minimize" for way in objectives.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found.set_metric_names([_in_words(name) for name in objectives])
    axes = spaces.parse(loaded.experiment.space, loaded.experiment.train, loaded.experiment.search.method).axes
    declared = {item.field: item for item in axes if item.kind != "value"}
    trials = []
    for candidate in sorted(loaded.candidates, key=lambda candidate: candidate.rows[0].id):
        values = [candidate.value(name) * (100 if name == "val_accuracy" else 1) for name in objectives]
        if not all(map(math.isfinite, values)):
            continue
        config = candidate.rows[0].config
        params = {name: config[name] for name in declared if name in config}
        trials.append(
            optuna.trial.create_trial(
                values=values,
                params=params,
                distributions={name: _distribution(declared[name]) for name in params},
                user_attrs={"trial": candidate.rows[0].id},
            )
        )
    found.add_trials(trials)
    return found


def _distribution(declared: Axis) -> BaseDistribution:
    low, high = declared.values[0], declared.values[-1]
    match declared.kind:
        case "uniform" | "loguniform":
            return FloatDistribution(low, high, log=declared.kind == "loguniform")
        case "int" | "logint":
            return IntDistribution(low, high, log=declared.kind == "logint")
    return CategoricalDistribution(declared.values)


def _history(loaded: Loaded) -> Iterator[Figure]:
    if loaded.experiment.search.method == "grid" or len(loaded.experiment.search.objectives) > 1:
        return
    if len(loaded.candidates) < 2:
        return
    figure = optuna.visualization.plot_optimization_history(study(loaded))
    for trace, colour in zip(figure.data, ("var(--c0)", "var(--ink)"), strict=False):
        trace.update(marker_color=colour, line_color=colour)
    (name,) = loaded.experiment.search.objectives
    yield Figure(
        "history",
        "How the search went",
        "Complete configs in the order they were asked for, and the best until then (Optuna)."
        + _on_times(loaded, [name]),
        spec(figure, xaxis=axis("complete config"), yaxis=axis(_in_words(name))),
    )


def _importance(loaded: Loaded, effects: Sequence[Effect]) -> Iterator[Figure]:
    """Each field's share of the variance; of many sampled configs, Optuna's PED-ANOVA."""
    sampled = loaded.experiment.search.method != "grid"
    figure = _ped_anova(loaded) if sampled and len(loaded.candidates) >= FEWEST_FOR_IMPORTANCE else _shares(effects)
    if figure is None:
        return
    if not sampled:
        x = axis("share of the variance, %")
        caption = "The share of the variance between its matched cells that goes with each field alone."
        rest = 100 * (1 - sum(effect.share for effect in effects))
        if len({effect.n * len(effect.groups) for effect in effects}) == 1 and rest > 0:  # all of the same cells
            caption = caption.replace("its matched", "matched").rstrip(".")
            caption += f"; interactions and noise have what is left ({rest:.0f} %)."
    elif len(loaded.candidates) < FEWEST_FOR_IMPORTANCE:
        x = axis("share of the variance of ranks, %")
        caption = "Epsilon squared of the Kruskal-Wallis tests; which of them are told from chance, the findings say."
    else:
        x = axis("relative importance")
        name = _in_words(next(iter(loaded.experiment.search.objectives))).split(",")[0]
        caption = (
            f"PED-ANOVA (Optuna; Watanabe et al. 2023) of {len(loaded.candidates)} complete configs, for {name}: what "
            "sets the best tenth apart from all that the sampler tried. Relative; whether a field is told from chance, "
            "the findings say."
        )
        caption += _on_times(loaded, list(loaded.experiment.search.objectives)[:1])
    figure.update_traces(marker_color="var(--c0)", hovertemplate="%{y}: %{x:.3g}<extra></extra>")
    height = 120 + 34 * len(figure.data[0].y)
    yield Figure("importance", "What mattered", caption, spec(figure, height, xaxis=x))


def _shares(effects: Sequence[Effect]) -> go.Figure | None:
    ranked = sorted(effects, key=lambda effect: effect.share)
    if not ranked:
        return None
    shares, names = [100 * effect.share for effect in ranked], [effect.field for effect in ranked]
    return go.Figure(go.Bar(x=shares, y=names, orientation="h"))


def _ped_anova(loaded: Loaded) -> go.Figure:
    """For the first objective."""
    name, way = next(iter(loaded.experiment.search.objectives.items()))
    target = None
    if len(loaded.experiment.search.objectives) > 1:  # with a target of one's own, PED-ANOVA looks for its low end
        sign = -1 if way == "max" else 1
        target = lambda trial: sign * trial.values[0]  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which fields have few trials; the caption says so of all
        return optuna.visualization.plot_param_importances(
            study(loaded), evaluator=PedAnovaImportanceEvaluator(), target=target, target_name=_in_words(name)
        )


def _objectives(loaded: Loaded) -> Iterator[Figure]:
    objectives = list(loaded.experiment.search.objectives)
    if len(objectives) not in (2, 3) or len(loaded.candidates) < 2:
        return
    figure = optuna.visualization.plot_pareto_front(study(loaded))
    for trace, colour in zip(figure.data, ("var(--c0)", "var(--c1)"), strict=False):
        trace.marker.update(color=colour, colorscale=None, showscale=False)
        trace.update(hovertemplate="<br>".join(f"{_in_words(n)}: %{{{a}}}" for n, a in zip(objectives, "xyz")))  # noqa: B905
    scene = {f"{a}axis": axis(_in_words(name)) for name, a in zip(objectives, "xyz", strict=False)}
    layout = scene if len(objectives) == 2 else {"scene": scene}
    caption = f"Every complete config; the best trade-offs apart (Optuna).{_on_times(loaded, objectives)}"
    yield Figure("objectives", "The search's objectives", caption, spec(figure, showlegend=True, **layout))


# --- from the rows ------------------------------------------------------------------------------------------------


def _parallel(loaded: Loaded) -> Iterator[Figure]:
    """plotly's, since Optuna's leaves out every trial that lacks one of the fields."""
    found = loaded.candidates
    if len(found) < 2:
        return
    dimensions = [_dimension(name, [c.rows[0].config.get(name) for c in found]) for name in loaded.fields]
    accuracy = [100 * candidate.accuracy for candidate in found]
    dimensions.append({"label": "accuracy, %", "values": accuracy})
    # A few very bad trials would take all the colours: the scale covers the upper three quarters.
    ends = float(np.quantile(accuracy, 0.25)), max(accuracy)
    line = {
        "color": accuracy,
        "colorscale": [[0, "var(--l0)"], [1, "var(--l1)"]],
        "cmin": ends[0],
        "cmax": ends[1],
        "showscale": False,
    }
    figure = go.Figure({"type": "parcoords", "dimensions": dimensions, "line": line}, skip_invalid=False)
    yield Figure(
        "parallel",
        "All configs at once",
        "A line a complete config, lighter or darker by accuracy. Drag along an axis to pick a range; “not read” is "
        "where the model has no such field.",
        spec(figure, 420, margin={"t": 60, "l": 70, "r": 50, "b": 30}) | {"wide": 110 * len(dimensions)},
    )


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis; numbers over more than two decades by their logarithm."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    distinct = levels([value for value in values if value is not None])
    if len(numbers) == len(values) and len(distinct) > MOST_LEVELS:
        if min(numbers) > 0 and max(numbers) / min(numbers) > 100:
            decades = range(math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers))) + 1)
            return {
                "label": name, "values": [math.log10(value) for value in numbers],
                "tickvals": list(decades), "ticktext": [f"{10.0**decade:g}" for decade in decades],
            }  # fmt: skip
        return {"label": name, "values": numbers}
    ordered = ([None] if None in values else []) + distinct
    # Of many values, those of numbers that only some models read, a tick for a few.
    every = math.ceil(len(ordered) / MOST_LEVELS)
    places = {repr(value): place for place, value in enumerate(ordered)}
    return {
        "label": name,
        "values": [places[repr(value)] for value in values],
        "tickvals": list(range(len(ordered)))[::every],
        "ticktext": [html.escape(label(value)) for value in ordered][::every],
    }


def _heat(loaded: Loaded) -> Iterator[Figure]:
    """The page itself makes it, of the two axes that a person chooses."""
    found = loaded.candidates
    axes = {}
    for name in loaded.fields:
        places, labels = _levels(loaded, name)
        if len(labels) > 1:
            axes[name] = {"labels": labels, "of": places}
    if len(axes) < 2:
        return
    preferred = [name for name in ("lr", "batch_size") if name in axes]
    values = {
        "validation accuracy, %": [100 * candidate.accuracy for candidate in found],
        "training time, s": [c.train_time_s if math.isfinite(c.train_time_s) else None for c in found],
    }
    first = (preferred + [name for name in axes if name not in preferred])[:2]
    yield Figure(
        "heat",
        "Any two fields against each other",
        "The mean, or the best, over all complete configs in a cell; ranges are cut into parts of equal counts."
        + _on_times(loaded),
        {"axes": axes, "values": values, "first": first},
    )


def _levels(loaded: Loaded, name: str) -> tuple[list[int | None], list[str]]:
    """For each candidate the number of its level, None where it does not read the field; and the levels' names."""
    values = [candidate.rows[0].config.get(name) for candidate in loaded.candidates]
    distinct = levels([value for value in values if value is not None])
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    if not numbers or len(distinct) <= MOST_LEVELS:
        places = {repr(value): place for place, value in enumerate(distinct)}
        return [places.get(repr(value)) for value in values], [label(value) for value in distinct]
    parts = np.array_split(np.array(distinct), 6)
    ends = [part[-1] for part in parts]
    of = [None if value is None else int(np.searchsorted(ends, value)) for value in values]
    return of, [f"{label(part[0].item())} to {label(part[-1].item())}" for part in parts]


def _trade_offs(loaded: Loaded) -> Iterator[Figure]:
    for key, title, metric, more in (
        ("time", "Accuracy against training time", "train_time_s", _on_times(loaded)),
        ("macs", "Accuracy against multiply-accumulates", "macs", " An svm's are support vectors × features."),
    ):
        found = [c for c in loaded.candidates if math.isfinite(c.value(metric)) and c.value(metric) > 0]
        if len({c.value(metric) for c in found}) < 2:
            continue
        figure = _trade_off(loaded, found, metric)
        caption = f"Every complete config; the line joins those that none beats in both.{more}"
        x = axis(_in_words(metric), **({"type": "log", "dtick": 1} if _decades(found, metric) > 1 else {}))
        yield Figure(key, title, caption, spec(figure, xaxis=x, yaxis=axis(_in_words("val_accuracy"))))


def _on_times(loaded: Loaded, objectives: Iterable[str] = ("train_time_s",)) -> str:
    """What has to be known of the complete configs' times, as the end of a caption; empty where they play no part."""
    if "train_time_s" not in objectives:
        return ""
    return f" {loaded.times([row for c in loaded.candidates for row in c.rows])}".rstrip()


def _decades(found: Sequence[Candidate], metric: str) -> float:
    values = [candidate.value(metric) for candidate in found]
    return math.log10(max(values) / min(values))


def _trade_off(loaded: Loaded, found: Sequence[Candidate], metric: str) -> go.Figure:
    figure = go.Figure()
    for model, look in models_of(loaded).items():
        own = [c for c in found if c.rows[0].config["model"] == model]
        if not own:
            continue
        figure.add_scatter(
            x=[c.value(metric) for c in own],
            y=[100 * c.accuracy for c in own],
            text=[_hover(loaded, c.rows[0]) for c in own],
            name=html.escape(model),
            mode="markers",
            marker=look | {"size": 9, "opacity": 0.85},
            hovertemplate="%{text}<br>%{y:.2f} %, %{x:.4g}<extra></extra>",
        )
    front = selection.pareto_front(found, {"val_accuracy": "max", metric: "min"})
    front = sorted(front, key=lambda c: c.value(metric))
    figure.add_scatter(
        x=[c.value(metric) for c in front],
        y=[100 * c.accuracy for c in front],
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": "var(--ink)", "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    return figure


def _hover(loaded: Loaded, row: Row) -> str:
    config = "<br>".join(
        f"{html.escape(name)}: {html.escape(label(row.config[name]))}" for name in loaded.fields if name in row.config
    )
    return f"trial {html.escape(row.id)}<br>{config}"


# --- several runs -------------------------------------------------------------------------------------------------


def comparison(runs: Sequence[tuple[str, Loaded]]) -> Figure:
    """How the best of each run rose over its trials; `runs` are names, all different, with what was read."""
    looks = grouped([name for name, _ in runs])
    figure = go.Figure()
    for (name, loaded), dash in zip(runs, itertools.cycle(("solid", "dash", "dot", "dashdot")), strict=False):
        ended = sorted((t for t in loaded.trials if t.finished), key=lambda trial: trial.since)
        scores = {row.id: row.val_accuracy for row in loaded.rows if row.state == "COMPLETE"}
        best = list(itertools.accumulate((100 * scores.get(t.id, math.nan) for t in ended), np.fmax))
        figure.add_scatter(
            x=list(range(1, len(best) + 1)), y=best, mode="lines", name=html.escape(name),
            line={"shape": "hv", "width": 2.5, "color": looks[name]["color"], "dash": dash},
        )  # fmt: skip
    return Figure(
        "runs",
        "The best so far, over trials",
        "By the number of trials that had ended; single scores.",
        spec(figure, xaxis=axis("trials ended"), yaxis=axis(_in_words("val_accuracy"))),
    )

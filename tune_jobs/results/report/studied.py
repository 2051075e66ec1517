"""The run as a study of Optuna's, and the figures that Optuna draws of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import optuna
import plotly.graph_objects as go
from optuna.trial import FixedTrial

from tune_jobs.results.report.drawing import Figure, axis, spec
from tune_jobs.results.report.effects import Effect
from tune_jobs.results.report.loaded import Loaded
from tune_jobs.results.report.views import opened, range_of
from tune_jobs.results.report.wording import in_words, on_times

optuna.logging.set_verbosity(optuna.logging.ERROR)

FEWEST_FOR_IMPORTANCE = 30
"""Complete configs: fewer have no best tenth to tell from the rest."""


def study(loaded: Loaded) -> optuna.Study:
    """The run's complete configs as a study in memory, the mean over the repeats of each.

    Made from the ledger, which is ahead of the journal after a crash and is read many times faster.
    """
    objectives = loaded.experiment.search.objectives
    found = optuna.create_study(directions=["maximize" if way == "max" else "minimize" for way in objectives.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found.set_metric_names([in_words(name) for name in objectives])
    axes = loaded.axes
    trials = []
    for candidate in sorted(loaded.candidates, key=lambda candidate: candidate.rows[0].id):
        values = [candidate.value(name) * (100 if name == "val_accuracy" else 1) for name in objectives]
        if not all(map(math.isfinite, values)):
            continue
        params = loaded.space.params(candidate.rows[0].config)
        asked = FixedTrial(params)
        for name in params:
            axes[name].suggest(asked)
        trials.append(
            optuna.trial.create_trial(
                values=values,
                params=params,
                distributions=asked.distributions,
                user_attrs={"trial": candidate.rows[0].id},
            )
        )
    found.add_trials(trials)
    return found


def history(loaded: Loaded) -> Iterator[Figure]:
    if loaded.experiment.search.method == "grid" or len(loaded.experiment.search.objectives) > 1:
        return
    if len(loaded.candidates) < 2:
        return
    made = study(loaded)
    figure = optuna.visualization.plot_optimization_history(made)
    for trace, colour in zip(figure.data, ("var(--c0)", "var(--ink)"), strict=False):
        trace.update(marker_color=colour, line_color=colour)
    ((name, way),) = loaded.experiment.search.objectives.items()
    values = [trial.values[0] for trial in made.trials]
    view = opened(values, "below" if way == "max" else "above")
    yield Figure(
        "history",
        "How the search went",
        "Complete configs in the order they were asked for, and the best until then (Optuna)."
        + ("" if view is None else view.told(sum(not view.has(value) for value in values), "config"))
        + on_times(loaded, [name]),
        spec(figure, xaxis=axis("complete config"), yaxis=axis(in_words(name), **range_of(view))),
    )


def importance(loaded: Loaded, effects: Sequence[Effect]) -> Iterator[Figure]:
    """Each field's share of the variance; of many sampled configs, Optuna's PED-ANOVA."""
    sampled = loaded.experiment.search.method != "grid"
    if sampled and len(loaded.candidates) >= FEWEST_FOR_IMPORTANCE:
        figure: go.Figure = _ped_anova(loaded)
        title = "relative importance"
        name = in_words(next(iter(loaded.experiment.search.objectives))).split(",")[0]
        caption = (
            f"PED-ANOVA (Optuna; Watanabe et al. 2023) of {len(loaded.candidates)} complete configs, for {name}: what "
            "sets the best tenth apart from all that the sampler tried. Relative; whether a field is told from chance, "
            "the findings say."
        )
        caption += on_times(loaded, list(loaded.experiment.search.objectives)[:1])
    elif effects:
        figure = _shares(effects)
        title, caption = _of_shares(effects)
    else:
        return
    figure.update_traces(marker_color="var(--c0)", hovertemplate="%{y}: %{x:.3g}<extra></extra>")
    height = 120 + 34 * len(figure.data[0].y)
    yield Figure("importance", "What mattered", caption, spec(figure, height, xaxis=axis(title)))


def _shares(effects: Sequence[Effect]) -> go.Figure:
    ranked = sorted(effects, key=lambda effect: effect.share)
    shares, names = [100 * effect.share for effect in ranked], [effect.field for effect in ranked]
    return go.Figure(go.Bar(x=shares, y=names, orientation="h"))


def _of_shares(effects: Sequence[Effect]) -> tuple[str, str]:
    """What the shares are of, for the axis and as the caption: a grid, too, may have fields without matched cells, and
    a search fields with them."""
    ranks = (
        "the scores' ranks that goes with each field (eta squared of the Kruskal-Wallis tests). Which fields are "
        "told from chance, the findings say."
    )
    unmatched = [effect.field for effect in effects if not effect.matched]
    if len(unmatched) == len(effects):
        return "share of the variance of ranks, %", f"The share of the variance between {ranks}"
    if unmatched:
        caption = "The share of the variance between its matched cells that goes with each field alone; of "
        caption += f"{', '.join(unmatched)}, without matched cells, the share of the variance between {ranks}"
        return "share of the variance, %", caption
    rest = 100 * (1 - sum(effect.share for effect in effects))
    if len({effect.n * len(effect.groups) for effect in effects}) == 1 and rest > 0:  # all of the same cells
        caption = "The share of the variance between matched cells that goes with each field alone"
        return "share of the variance, %", f"{caption}; interactions and noise have what is left ({rest:.0f} %)."
    caption = "The share of the variance between its matched cells that goes with each field alone."
    return "share of the variance, %", caption


def _ped_anova(loaded: Loaded) -> go.Figure:
    """For the first objective."""
    from optuna.importance import PedAnovaImportanceEvaluator  # and scikit-learn, for another one, half a second

    name, way = next(iter(loaded.experiment.search.objectives.items()))
    target = None
    if len(loaded.experiment.search.objectives) > 1:  # with a target of one's own, PED-ANOVA looks for its low end
        sign = -1 if way == "max" else 1
        target = lambda trial: sign * trial.values[0]  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which fields have few trials; the caption says so of all
        return optuna.visualization.plot_param_importances(
            study(loaded), evaluator=PedAnovaImportanceEvaluator(), target=target, target_name=in_words(name)
        )


def objectives(loaded: Loaded) -> Iterator[Figure]:
    objectives = list(loaded.experiment.search.objectives)
    if len(objectives) not in (2, 3) or len(loaded.candidates) < 2:
        return
    figure = optuna.visualization.plot_pareto_front(study(loaded))
    for trace, colour in zip(figure.data, ("var(--c0)", "var(--c1)"), strict=False):
        trace.marker.update(color=colour, colorscale=None, showscale=False)
        trace.update(hovertemplate="<br>".join(f"{in_words(n)}: %{{{a}}}" for n, a in zip(objectives, "xyz")))  # noqa: B905
    scene = {f"{a}axis": axis(in_words(name)) for name, a in zip(objectives, "xyz", strict=False)}
    layout = scene if len(objectives) == 2 else {"scene": scene}
    caption = f"Every complete config; the best trade-offs apart (Optuna).{on_times(loaded, objectives)}"
    yield Figure("objectives", "The search's objectives", caption, spec(figure, showlegend=True, **layout))

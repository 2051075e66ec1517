"""What one execution of an experiment is made of, whichever function it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Splits
from tune_jobs.experiment import Experiment
from tune_jobs.results.rundir import RunDir
from tune_jobs.running.listener import Listener
from tune_jobs.space import Space


@dataclass(frozen=True)
class Run:
    """One execution, as it was asked for."""

    experiment: Experiment
    space: Space
    """Its trials' configs, which need not be the experiment's own: `confirm` has them already."""
    directory: RunDir
    splits: Sequence[Splits]
    """Repeat number n of a config sees `splits[n]`, or the last one."""
    listener: Listener
    wait_for_nodes: bool = False
    """Whether a request that no node can serve is waited with until one joins the cluster."""

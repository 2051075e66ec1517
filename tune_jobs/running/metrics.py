"""What a run shows in Ray's dashboard and to Prometheus: gauges with the tags `run` and `trial` or `state`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

SERIES_AFTER_S = 10
"""A trial that is over sooner has no gauges of its own.  Ray exports every ten seconds, so that they would show little;
and a time series is kept for ever in the driver, 4 to 5 KiB of it, and on the node."""
STATES = ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")


class Metrics:
    """The gauges of one run; Ray exports each under `ray_` and its name."""

    def __init__(self, run: str, images: int) -> None:
        """`images` is how many an epoch trains on."""
        self._run = run
        self._images = images
        of_trial = ("run", "trial")
        self._accuracy = Gauge("tune_jobs_val_accuracy", "Validation accuracy of the last epoch, 0 to 1.", of_trial)
        self._epoch_time_s = Gauge("tune_jobs_epoch_time_s", "Training time of the last epoch, seconds.", of_trial)
        self._images_per_s = Gauge("tune_jobs_images_per_s", "Images trained on in a second, last epoch.", of_trial)
        self._trials = Gauge("tune_jobs_trials", "Trials in a state.", ("run", "state"))

    def epoch(self, trial: str, ran_s: float, epoch: Mapping[str, Any]) -> None:
        """After an epoch of a trial that has run for so long."""
        if ran_s < SERIES_AFTER_S:
            return
        tags = {"run": self._run, "trial": trial}
        self._accuracy.set(epoch["val_accuracy"], tags)
        self._epoch_time_s.set(epoch["epoch_time_s"], tags)
        if epoch["epoch_time_s"] > 0:
            self._images_per_s.set(self._images / epoch["epoch_time_s"], tags)

    def states(self, counts: Counter[str]) -> None:
        """After a change of state: how many trials are in each."""
        for state in STATES:
            self._trials.set(counts[state], {"run": self._run, "state": state})

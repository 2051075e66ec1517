"""What each trial of an experiment asks for, once all that is to be measured is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_jobs.resources import Request, Resources
from tune_jobs.space import Space


class Requests:
    """Config -> the request of its trial."""

    def __init__(self, resources: Resources, space: Space) -> None:
        self._resources = resources
        self._shapes = space.shapes()

    def of(self, config: Mapping[str, Any]) -> Request:
        """What a trial of this config asks for."""
        return self._resources.of(config["model"])

    def distinct(self) -> list[Request]:
        """The different requests that trials of the space make."""
        return list({str(request): request for request in map(self.of, self._shapes)}.values())

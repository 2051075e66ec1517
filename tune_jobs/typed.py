"""Commands as a person types them."""

from __future__ import annotations

import shlex


def typed(*words: str) -> str:
    """The line of a shell that runs this application with these words: a subcommand, and what it takes."""
    return shlex.join(["python", "-m", "tune_jobs", *words])

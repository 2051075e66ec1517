"""What a model costs.  Knows no Ray."""

from __future__ import annotations

import sys
from typing import NoReturn


class ProfilingError(ValueError):
    """What was asked cannot be measured or read; the message is one line for the person who asked."""


def end_outside(package: str = "typer") -> NoReturn:
    """End a command that was started by a Python without what it needs, with one line on stderr and exit code 2."""
    sys.stderr.write(
        f"error: {sys.executable} lacks {package}, and perhaps more of what this needs: use the environment that "
        "`make demo` sets up (source .venv/bin/activate); for jobs, Ray is to be started in such a one\n"
    )
    sys.exit(2)

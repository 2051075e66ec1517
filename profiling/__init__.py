"""What a model costs.  Knows no Ray."""

from __future__ import annotations


class ProfilingError(ValueError):
    """What was asked cannot be measured or read; the message is one line for the person who asked."""

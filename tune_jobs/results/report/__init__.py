"""What a run has found, for a person to look at: report.html, Markdown or CSV."""

from __future__ import annotations

FORMATS = ("html", "md", "csv")
"""Of `report --format`."""

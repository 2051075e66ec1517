"""report.html: what a run has found, for a person to look at; the same as Markdown or CSV."""

"""The subcommands of `python -m tune_jobs`, one function each.

What a subcommand needs is imported when it runs: `--help` answers without loading PyTorch or Ray.
"""

"""Why this process has got no Ray, in a person's words."""

from __future__ import annotations

import os
import platform

from ray.exceptions import AuthenticationError, RuntimeEnvSetupError

from datasets.reasons import in_a_line
from tune_jobs.cluster import tokens
from tune_jobs.errors import UsageError

ALONE = "RAY_ADDRESS=local starts a Ray of the search's own"
"""The way out for whoever did not mean the cluster that was found."""


def line(error: Exception, address: str) -> str | None:
    """What ray.init raised where RAY_ADDRESS is `address`, as one line; None for a fault of ours or of Ray's."""
    place = f"RAY_ADDRESS={address}" if address else "this machine"
    if isinstance(error, AuthenticationError) and "RAY_AUTH_TOKEN_PATH is set" in str(error):
        return f"RAY_AUTH_TOKEN_PATH={os.environ.get('RAY_AUTH_TOKEN_PATH')}: there is no token in it"
    if isinstance(error, AuthenticationError | ConnectionError):
        return f"{place}: no Ray cluster can be joined there; one with tokens wants {tokens.WANTED}; {ALONE}"
    if isinstance(error, RuntimeEnvSetupError) or (
        isinstance(error, RuntimeError) and "Version mismatch" in str(error)
    ):
        return f"{place}: the cluster there cannot be joined: {in_a_line(error).rstrip('.')}; {ALONE}"
    if isinstance(error, OSError):
        return _cannot_keep_files(error)
    if isinstance(error, ValueError) and not isinstance(error, UsageError) and address not in ("", "auto", "local"):
        return f"RAY_ADDRESS={address}: is no address of a cluster; give HOST:PORT, auto or local"
    return None


def _cannot_keep_files(error: OSError) -> str:
    """Ray keeps sockets and logs in a temporary folder; the kernel takes no socket whose path is longer than some
    hundred bytes, of which Ray's own part takes some 65."""
    read = ("RAY_TMPDIR", "TMPDIR") if platform.system() == "Linux" else ("RAY_TMPDIR",)
    name = next((name for name in read if name in os.environ), "")
    folder = os.environ.get(name, "/tmp")
    place = f"{name}={folder}" if name else folder
    why = error.strerror or str(error)
    if "AF_UNIX" in str(error):
        return (
            f"{place}: too long a path for Ray's sockets; set RAY_TMPDIR to a folder with a shorter one, such as /tmp"
        )
    if error.filename and not str(error.filename).startswith(folder):
        return f"{error.filename}: {why}; Ray needs it and does not start"
    return f"{place}: Ray cannot keep its files there ({why}); set RAY_TMPDIR to another folder"

"""The token that Ray's ports ask for: who uses which."""

from __future__ import annotations

import contextlib
import logging
import os

from ray._private.authentication import authentication_token_setup as setup
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # it is compiled

MODE = "RAY_AUTH_MODE"
WANTED = f"{MODE}=token, and the cluster's in RAY_AUTH_TOKEN_PATH, RAY_AUTH_TOKEN or ~/.ray/auth_token"
"""What a client of a cluster with tokens needs in its environment."""


def switch_on() -> bool:
    """Use the token that is here, where RAY_AUTH_MODE does not say whether to.  Returns whether that changed anything.

    Ray itself does so in `ray start --head` and where it joins this machine's cluster, not in a client of a job server:
    whoever has once had a Ray of his own has a token, and could not send a job to the cluster that he starts next.
    """
    if MODE in os.environ:
        return False
    _quieten()
    return setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def provide() -> str:
    """Have a token for a Ray that this process starts, where that is to use one and there is none.

    As Ray itself does it, in ~/.ray/auth_token, for the browser and for other commands.  Where that cannot be written,
    Ray would not start; then this process and those that it starts have one in their environment.  Returns why, or
    nothing.  Raises RayError for a RAY_AUTH_TOKEN_PATH without a token.
    """
    loader = AuthenticationTokenLoader.instance()
    if os.environ.get(MODE, "token").lower() != "token" or loader.has_token(ignore_auth_mode=True):
        return ""
    _quieten()
    why = ""
    try:
        setup.generate_and_save_token()
        with contextlib.suppress(OSError):  # some file systems have no modes
            setup._get_default_token_path().chmod(0o600)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        os.environ["RAY_AUTH_TOKEN"] = generate_new_authentication_token()
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    loader.reset_cache()
    return why


def _quieten() -> None:
    """Ray says on stderr that it has made a token, and warns of tokens being on."""
    logging.getLogger(setup.__name__).setLevel(logging.ERROR)

"""How trials fail, and what follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What follows from a failure of one class."""

    retry: bool
    """Whether the trial is started again, from its last checkpoint."""
    counted: bool = True
    """Whether that counts against the experiment's `retries`."""
    more_memory: bool = False
    """Whether it asks for more memory then; where no node has more, it FAILs."""
    by_node: bool = False
    """Whether its node may have done it, which gets no more trials where that goes on."""
    by_config: bool = False
    """Whether its config did it, and one like it would too: samplers are told so."""


RULES = {
    "out_of_memory": Rule(retry=True, more_memory=True, by_config=True),
    "diverged": Rule(retry=False, by_config=True),
    "timeout": Rule(retry=False, by_config=True),
    "user_error": Rule(retry=False, by_config=True),
    "node_lost": Rule(retry=True, counted=False),  # not its fault
    "store_lost": Rule(retry=True, counted=False),
    "worker_crashed": Rule(retry=True, by_node=True),
    "error": Rule(retry=True, by_node=True),
}
"""Class of a failure -> its rule.  `disk_full` is none: it stops the search, and the trial is taken up with it."""

MOST_LOST = 10
"""A trial that lost its node so often without a new epoch between FAILs, whatever `retries` says: it may be what kills
them.  Where one has lost its store so often, the search stops."""

STORE_PAUSE_S = 5
"""So long a trial whose store fails waits before it says so and is started again."""
STORE_AWAY_S = 30
"""Where trials have failed by their store for so long, and no epoch came between, the search stops."""


NODE_LOST = "the node that it ran on died"
"""Or was to run on: a trial says where it runs when it begins."""


def may_retry(before: list[str], lost: int, failure: str, retries: int) -> bool:
    """Whether a trial that failed so is started again.

    `before`: all its failures before this one; `lost`: how many nodes it had lost by then since it last came further.
    """
    if not RULES[failure].retry or lost + (failure == "node_lost") >= MOST_LOST:
        return False
    return sum(RULES[name].counted for name in [*before, failure] if name in RULES) <= retries


def classify(text: str) -> tuple[str, str]:
    """The class of a failure that Ray saw from outside and its reason in a line, from the text that Ray wrote down.

    A node's death is told so only where Ray knew of it: within its first seconds it looks like a crashed worker.
    """
    attempts = text.split("Failure # ")
    lines = [line.strip() for line in attempts[-1].splitlines()[1:] if line.strip()]
    if any(re.search(r"running low on memory|OutOfMemoryError", line) for line in lines):
        return "out_of_memory", _low_on_memory(attempts[-1])
    if any(re.search(r"node has died|node was terminated|NodeDied", line) for line in lines):
        return "node_lost", NODE_LOST
    errors = [line for line in lines if _ERROR.match(line)]
    if errors:
        return "error", errors[-1]
    if any(line.startswith("The actor ") for line in lines):  # RayActorError: no word from the trial itself
        return "worker_crashed", "its worker process died"
    return "error", lines[-1] if lines else "Ray gave no reason"


def worker_in(text: str) -> str | None:
    """Ray's id of the worker that died, from the same text; None where it was not that which failed."""
    found = re.findall(r"^\s*actor_id: ([0-9a-f]+)$", text.split("Failure # ")[-1], re.MULTILINE)
    return found[-1] if found else None


def _low_on_memory(text: str) -> str:
    """What Ray's monitor of main memory did, with the figures that it gives: the node's, and the one worker's."""
    node = re.search(r" was ([\d.]+GB) used / ([\d.]+GB) limit", text)
    own = re.findall(r"actual memory used=([\d.]+GB)", text)
    of_node = f" ({node[1]} of {node[2]} used)" if node else ""
    of_worker = f", which used {own[0]}" if len(own) == 1 else ""
    return f"its node ran low on memory{of_node}, and Ray ended its worker process{of_worker}"


_ERROR = re.compile(r"(?!ray\.)[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt): ")
"""The line of a traceback that names the exception; its message may go on for more lines."""

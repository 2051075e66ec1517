"""This process as a driver of Ray: its beginning beside other work, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import App

_LEAVING = """
import time
import ray
from tune_jobs import cluster

cluster.begin()
assert cluster.connect()
assert cluster.connect()  # again, of the same one
references = [ray.put(number) for number in range(2000)]
cluster.leave()
while references:
    references.pop()
    time.sleep(0.0005)
print("alive")
"""


@pytest.mark.cluster
def test_references_dropped_while_ray_ends_cost_no_exit_code(app: App) -> None:
    """Ray ends a process that drops one while the connection is being closed: exit code 1 after all had gone well."""
    script = app.home / "leaving.py"
    script.write_text(_LEAVING)
    ran = app.script(script)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr

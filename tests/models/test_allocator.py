"""Freed memory is kept where it is asked for, and given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import platform, resource, sys
from models import allocator
if platform.libc_ver()[0] != "glibc":
    sys.exit(77)
if sys.argv[1] == "kept":
    allocator.keep_freed_memory()

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

def use():
    [bytearray(20 * 2**20) for _ in range(5)]

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident_mib()
allocator.give_back()
print(faults, held - resident_mib())
"""


def look(how: str) -> tuple[int, int]:
    """Page faults while the same 100 MiB are used ten times over, and MiB given back in the end."""
    ran = subprocess.run([sys.executable, "-c", LOOK, how], capture_output=True, text=True, check=False)
    if ran.returncode == 77:
        pytest.skip("another C library than glibc")
    assert ran.returncode == 0, ran.stderr
    faults, given = ran.stdout.split()
    return int(faults), int(given)


def test_freed_memory_is_kept_for_the_next_step_and_given_back() -> None:
    faults, given = look("kept")
    assert faults < 2_000  # pages of 4 KiB; ten times 100 MiB are 256,000
    assert given > 80
    faults, given = look("not kept")
    assert faults > 20_000  # or the allocator no longer does what it is told not to
    assert given < 80

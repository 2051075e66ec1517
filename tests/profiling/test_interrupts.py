"""Signals at moments that Python cannot take them at, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def said(code: str, *arguments: str) -> tuple[str, str]:
    """What a process that runs the code wrote on stdout and stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return ran.stdout, ran.stderr


AT_ANY_MOMENT = """
import _imp, importlib, random, signal, sys, time
from pathlib import Path
from profiling import interrupts

folder, names = Path(sys.argv[1]), [f"empty{number}" for number in range(50)]
for name in names:
    (folder / f"{name}.py").write_text("")
sys.path.insert(0, str(folder))
signal.signal(signal.SIGALRM, interrupts.interrupt)
interrupts.AGAIN_S = float(sys.argv[2])
heard = locked = 0
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-3))
        for name in names:
            sys.modules.pop(name, None)
            importlib.import_module(name)
        time.sleep(5)
    except KeyboardInterrupt:
        heard += 1
    locked += _imp.lock_held()
print(heard, locked)
"""


@pytest.mark.parametrize("again_s", ["0", "0.01"])
def test_interrupt_at_any_moment_of_an_import_leaves_imports_unlocked(again_s: str, tmp_path: Path) -> None:
    """With a handler that raises at once some two in a hundred leave the lock of all imports behind."""
    assert said(AT_ANY_MOMENT, str(tmp_path), again_s) == ("300 0\n", "")


STUCK = """
import signal, time
from types import FunctionType
from profiling import interrupts

interrupts.MOST = 20
code = compile("while True: sleep(1)", "<frozen importlib._bootstrap>", "exec")
signal.signal(signal.SIGALRM, interrupts.interrupt)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    FunctionType(code, {"sleep": time.sleep})()
except KeyboardInterrupt:
    print("heard")
"""


def test_interrupt_of_an_import_that_hangs_is_heard_in_the_end() -> None:
    assert said(STUCK) == ("heard\n", "")


FORGOTTEN = """
import signal, sys, time
from profiling import interrupts

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Faulty:
    def __del__(self):
        raise ValueError("of its own")

signal.signal(signal.SIGINT, signal.default_int_handler)
with interrupts.heard():
    Faulty()
    try:
        Interrupted()
        time.sleep(60)
    except KeyboardInterrupt:
        print("heard")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert sys.unraisablehook is sys.__unraisablehook__
"""


def test_interrupt_that_python_forgets_is_heard_and_other_errors_are_told() -> None:
    out, err = said(FORGOTTEN)
    assert out == "heard\n"
    assert err.startswith("Exception ignored ")
    assert "Faulty.__del__" in err.splitlines()[0]
    assert "KeyboardInterrupt" not in err
    assert err.splitlines()[-1] == "ValueError: of its own"

"""A process that was asked to end knows it, also where the exception was lost on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from heal_core import interruption

LOST = """
import os, signal, sys
from heal_core import interruption

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(1000):
            pass  # the handler runs here, and its exception is ignored

signal.signal({number}, signal.default_int_handler)
interruption.listen()
interruption.check()
print(interruption.has_come())
Finalised()
print("goes on")
try:
    interruption.check()
except KeyboardInterrupt:
    print("is told", interruption.has_come())
"""


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_whose_exception_is_lost_is_remembered(number: signal.Signals) -> None:
    assert run(LOST.format(number=int(number))) == ["False", "goes on", "is told True"]


def test_other_signals_mean_nothing() -> None:
    code = "import os, signal; from heal_core import interruption; interruption.listen()"
    code += "; signal.signal(signal.SIGUSR1, lambda *_: print('came')); os.kill(os.getpid(), signal.SIGUSR1)"
    assert run(f"{code}; print(interruption.has_come())") == ["came", "False"]


def test_what_comes_where_signals_have_another_meaning_is_not_remembered() -> None:
    code = (
        "import os, signal\nfrom heal_core import interruption\ninterruption.listen()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('came'))\n"
        "with interruption.unheard():\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "print(interruption.has_come())\nos.kill(os.getpid(), signal.SIGINT)\nprint(interruption.has_come())"
    )
    assert run(code) == ["came", "False", "came", "True"]


def test_a_thread_may_ask_but_not_listen() -> None:
    code = (
        "import threading\nfrom heal_core import interruption\n"
        "thread = threading.Thread(target=lambda: (interruption.listen(), print(interruption.has_come())))\n"
        "thread.start(); thread.join()"
    )
    assert run(code) == ["False"]
    assert threading.current_thread() is threading.main_thread()
    interruption.check()  # nothing has come here

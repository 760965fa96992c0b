"""Signals end the process, wherever the main thread waits and whatever the others do."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys, threading, time
from queue import SimpleQueue
from mirrortools.cli.stopping import end_when_told
end_when_told(lambda text: print(text, file=sys.stderr, flush=True), grace_s=float(sys.argv[1]))
"""
# A signal that the system gives to this thread, or to the process at a moment when the main one does not hear of it.
MEANT_FOR_ANOTHER = """
def send():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=send).start()
"""
WAITS = {
    "a queue": "SimpleQueue().get()",
    "a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a condition": "with (changed := threading.Condition()): changed.wait()",
    "a thread": "other = threading.Thread(target=time.sleep, args=(1000,), daemon=True); other.start(); other.join()",
    "a pipe": "os.read(os.pipe()[0], 1)",
    "a program": "import subprocess; subprocess.Popen(['cat'], stdin=subprocess.PIPE).wait()",
}


def run(script: str, grace_s: float) -> subprocess.CompletedProcess[str]:
    """Run a Python script until it ends by itself."""
    command = [sys.executable, "-c", BEGIN + script, str(grace_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_that_another_thread_gets_wakes_the_main_thread(wait: str) -> None:
    """Whatever it waits for without a limit."""
    done = run(f"{MEANT_FOR_ANOTHER}\ntry:\n  {WAITS[wait]}\nexcept KeyboardInterrupt:\n  os._exit(7)", grace_s=90)

    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_what_does_not_let_go_is_left_alone(name: str, status: int) -> None:
    """A thread that waits for something outside of this program, as for a disk or a name server."""
    script = "threading.Thread(target=time.sleep, args=(1000,), name='deaf').start()\n"
    done = run(f"{script}signal.signal(signal.SIGTERM, sys.exit)\nsignal.raise_signal(signal.{name})", grace_s=0.3)

    assert done.returncode == status
    assert f"stopped ({name}) by force: MainThread, deaf did not end within 0 s; run it again" in done.stderr


def test_other_signals_end_nothing() -> None:
    """The window changes its size, a child ends: all goes on."""
    script = "signal.signal(signal.SIGWINCH, lambda *_: None)\nsignal.raise_signal(signal.SIGWINCH)\ntime.sleep(1)"
    done = run(script, grace_s=0.1)

    assert (done.returncode, done.stderr) == (0, "")

"""A process that is told to end by a signal does end, whatever its threads wait for.

Python runs the handlers of signals in the main thread, between two instructions. When the system gives a signal to
another thread, or just before the main thread begins to wait for a lock, that may be never. So a thread that knows
nothing of the rest wakes the main thread again and again once a signal has come. What does not let go even then (a name
server that does not answer, a disk) is left alone: whatever a run is at, it may be killed without harm.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

GRACE_S: Final = 10.0
_AGAIN_S: Final = 0.1
_LAST_WORDS_S: Final = 1.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
# What nobody sends. With a handler that does nothing it ends whatever a thread waits for, to be begun again.
_WAKING: Final = signal.SIGURG


def end_when_told(complain: Callable[[str], None], grace_s: float = GRACE_S) -> None:
    """From now on see to it that the main thread, which calls this, hears of signals wherever it waits.

    `complain` is told which threads did not let go within `grace_s`; then the process is ended. A child that is forked
    must not tell this process of its signals: `signal.set_wakeup_fd(-1)`.
    """
    news, told = os.pipe()
    os.set_blocking(told, False)
    signal.signal(_WAKING, _do_nothing)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    # Not one of `threading`: nobody waits for it, and it does not count where it matters whether others run.
    _thread.start_new_thread(_stand_by, (news, threading.get_ident(), complain, grace_s))


def _do_nothing(_number: int, _frame: object) -> None:
    """To be woken is all."""


def _stand_by(news: int, main: int, complain: Callable[[str], None], grace_s: float) -> None:
    number = 0
    while number not in _ENDING:
        (number,) = os.read(news, 1)
    ends_s = time.monotonic() + grace_s
    while time.monotonic() < ends_s:
        signal.pthread_kill(main, _WAKING)
        time.sleep(_AGAIN_S)
    # In a thread of its own, as nobody may be left to read what it says.
    _thread.start_new_thread(_say_last, (signal.Signals(number), complain, grace_s))
    time.sleep(_LAST_WORDS_S)
    os._exit(128 + number)


def _say_last(number: signal.Signals, complain: Callable[[str], None], grace_s: float) -> None:
    import faulthandler

    names = ", ".join(sorted({thread.name for thread in threading.enumerate()}))
    complain(f"stopped ({number.name}) by force: {names} did not end within {grace_s:.0f} s; run it again")
    if faulthandler.is_enabled():
        faulthandler.dump_traceback()

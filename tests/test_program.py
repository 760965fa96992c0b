"""Programs that run for a pull are ended with all that they started."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mirrortools.upstreams.program import end_programs, run_program

# As git does: a helper that does not notice that git has gone, and has its pipes.
WITH_A_HELPER = "sleep 1000 & echo begun > begun; wait"


def test_a_helper_that_holds_the_pipes_is_ended_too(tmp_path: Path) -> None:
    """Whoever waits for the program sees it fail, and waits no longer."""
    is_over = threading.Event()

    def end() -> None:
        while not is_over.wait(0.05):
            if (tmp_path / "begun").exists():
                end_programs()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(end)
        done = run_program(["sh", "-c", WITH_A_HELPER], cwd=tmp_path, timeout_s=90)
        is_over.set()

    assert done.returncode == -signal.SIGTERM

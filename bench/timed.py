"""Run a command and write down what it took: timed.py REPORT COMMAND…

A process of its own, and a small one, because the kernel counts the memory of who forks into the peak of the child.
"""

import json
import os
import sys
import time


def main() -> int:
    report, command = sys.argv[1], sys.argv[2:]
    started_s = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    took_s = time.monotonic() - started_s
    document = {
        "wall_s": took_s,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with open(report, "w") as file:  # noqa: PTH123  (pathlib would cost memory)
        json.dump(document, file)
    return os.waitstatus_to_exitcode(status) & 0xFF


sys.exit(main())

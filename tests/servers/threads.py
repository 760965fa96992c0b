"""What the small servers of the tests have in common: they accept in a thread of their own, and end with it."""

from __future__ import annotations

import socketserver
from threading import Thread
from types import TracebackType
from typing import Self


class InThreads(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A context manager: it serves between entering and leaving, and leaving waits for whom it serves."""

    daemon_threads = False  # so that server_close waits for them
    _thread: Thread

    def __enter__(self) -> Self:
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name=type(self).__name__)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.let_go()
        self.server_close()

    def let_go(self) -> None:
        """End what would hold up those that are still served."""

"""How fast something grows: the rate of the last moments."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 20.0
_LEAST_S: Final = 2.0
_STEP_S: Final = 0.5


class Speed:
    """Bytes over the last moments. Times are seconds of any clock; not thread-safe."""

    def __init__(self) -> None:
        self._window: deque[tuple[float, int]] = deque()
        self._now_bytes = 0

    def at(self, total_bytes: int, now_s: float) -> None:
        """So many bytes are here by now."""
        self._now_bytes = total_bytes
        if not self._window or now_s - self._window[-1][0] >= _STEP_S:
            self._window.append((now_s, total_bytes))
            while now_s - self._window[0][0] > WINDOW_S and len(self._window) > 2:
                self._window.popleft()

    def rate(self, now_s: float) -> float:
        """Bytes a second; 0 while too little is known, and when nothing comes."""
        if not self._window:
            return 0.0
        first_s, first_bytes = self._window[0]
        elapsed_s = now_s - first_s
        return (self._now_bytes - first_bytes) / elapsed_s if elapsed_s >= _LEAST_S else 0.0

    def left_s(self, left_bytes: int, now_s: float) -> float | None:
        """How long `left_bytes` take at that rate; None when nobody can tell."""
        rate = self.rate(now_s)
        return left_bytes / rate if rate > 0 and left_bytes else None

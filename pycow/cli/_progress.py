# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: one line on stderr that is written over, on a terminal only."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from pycow.cli._format import human_size, printable, truncated

__all__ = ["Line", "meter", "ticking"]

_INTERVAL_S = 0.1
_BAR_WIDTH = 24
_CLEAR = "\r\x1b[K"


class Line:
    """The line. Nothing is written when the stream is no terminal. Usable from several threads."""

    def __init__(self, stream: IO[str] | None = None, *, interval_s: float = _INTERVAL_S) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._shown = False
        self._next = 0.0
        self.active = self._stream.isatty()

    def show(self, text: str, *, force: bool = False) -> None:
        """Replaces the line, at most ten times a second unless forced."""
        if not self.active:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._next and not force:
                return
            self._next = now + self._interval_s
            self._write(_CLEAR + truncated(printable(text), shutil.get_terminal_size().columns - 1))
            self._shown = True

    def clear(self) -> None:
        """Takes the line away."""
        with self._lock:
            if self._shown:
                self._write(_CLEAR)
                self._shown = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # progress must never stop the work
            self.active = False


@contextlib.contextmanager
def meter(stream: IO[str] | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, bytes done, bytes in all or 0) that draws a bar."""
    line = Line(stream)

    def update(stage: str, done: int, total: int) -> None:
        if not line.active:
            return
        if total <= 0:
            line.show(f"{stage}: {human_size(done, 3)}")
            return
        filled = min(done, total) * _BAR_WIDTH // total
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        line.show(f"{stage} [{bar}] {human_size(done, 3)}/{human_size(total, 3)}", force=done >= total)

    try:
        yield update
    finally:
        line.clear()


@contextlib.contextmanager
def ticking(what: str, amount: Callable[[], str], stream: IO[str] | None = None) -> Iterator[None]:
    """Shows what is done, how much of it (asked every 0.2 s from another thread) and for how long."""
    line = Line(stream)
    if not line.active:
        yield
        return
    stop = threading.Event()
    start = time.monotonic()

    def tick() -> None:
        while not stop.wait(2 * _INTERVAL_S):
            line.show(f"{what}: {amount()}, {time.monotonic() - start:.1f} s")

    thread = threading.Thread(target=tick, name="pycow-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        line.clear()

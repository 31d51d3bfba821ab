# SPDX-License-Identifier: Apache-2.0
"""Progress is shown on a terminal only, and goes away."""

from __future__ import annotations

import io
import time

from pycow.cli._progress import Line, meter, ticking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(Terminal):
    def write(self, text: str) -> int:
        raise OSError("gone")


def test_nothing_is_written_elsewhere() -> None:
    out = io.StringIO()
    with meter(out) as update:
        update("layer", 1, 2)
    with ticking("copying", lambda: "1B", out):
        pass
    assert out.getvalue() == ""


def test_a_bar() -> None:
    out = Terminal()
    with meter(out) as update:
        update("layer 1/2", 500_000, 1_000_000)
        update("layer 1/2", 1_000_000, 1_000_000)
        update("unknown\x1b", 3, 0)
    text = out.getvalue()
    assert "layer 1/2 [############------------] 500kB/1MB" in text
    assert "[########################] 1MB/1MB" in text
    assert text.endswith("\r\x1b[K")


def test_lines_are_not_shown_too_often() -> None:
    out = Terminal()
    line = Line(out, interval_s=60)
    for number in range(100):
        line.show(str(number))
    assert out.getvalue() == "\r\x1b[K0"


def test_a_tick() -> None:
    out = Terminal()
    with ticking("checking", lambda: "5 nodes", out):
        time.sleep(0.5)
    assert "checking: 5 nodes, " in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K")


def test_a_broken_terminal_does_not_stop_the_work() -> None:
    with meter(Broken()) as update:
        update("layer", 1, 2)
        update("layer", 2, 2)

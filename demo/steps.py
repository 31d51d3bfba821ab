# SPDX-License-Identifier: Apache-2.0
"""Numbered steps with their times, checks that end the demo, and what a directory takes on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from rootfs import BadStep

__all__ = ["Steps", "disk_bytes", "human_time", "need", "timed"]

P = ParamSpec("P")
T = TypeVar("T")


def need(condition: bool, what: str) -> None:
    """The step is not as it should be unless the condition holds."""
    if not condition:
        raise BadStep(what)


def human_time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


def timed(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """(what the call returns, seconds)."""
    start = time.perf_counter()
    value = call(*args, **kwargs)
    return value, time.perf_counter() - start


def disk_bytes(path: Path) -> int:
    """What the host charges for all files below path: st_blocks, as du counts."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


class Steps:
    """Prints a heading for each step and its time at the end of it."""

    def __init__(self) -> None:
        self.count = 0
        self.start = time.perf_counter()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.count += 1
        print(f"\n== {self.count}. {title}", flush=True)
        start = time.perf_counter()
        yield
        print(f"   ok in {human_time(time.perf_counter() - start)}", flush=True)

    def say(self, text: str) -> None:
        for line in text.splitlines():
            print(f"   {line}", flush=True)

    def shell(self, command: str, output: str) -> None:
        """What a command of the command line would print."""
        self.say(f"$ {command}\n{output}")

    def cost(self, what: str, seconds: float, more: str = "") -> None:
        self.say(f"{what}: {human_time(seconds)}{more and ', '}{more}")

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

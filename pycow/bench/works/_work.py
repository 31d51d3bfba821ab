# SPDX-License-Identifier: Apache-2.0
"""What a work is, and how much of it a run does.

A work's function is a generator: each value that it yields is one sample in the work's unit. The runner asks the
subjects in turn for their next sample, so a busy moment of the machine meets all of them, and takes the median. What
stands after the last yield tidies up. Works that follow each other and have the same function are one run: it yields
{part: value}, and each work takes its part.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pycow.bench.base import MIB

__all__ = ["COMMITTED", "OPEN", "READ", "Clock", "Runner", "Scale", "Work", "median_us"]

OPEN, COMMITTED, READ = "not committed", "committed", ""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of the works. The defaults are those of the whole comparison, small() those of `pycow bench`."""

    rounds: int = 5
    boxes: int = 30  # containers made in one round
    big_bytes: int = 1024 * MIB
    area_bytes: int = 64 * MIB  # of random writes and reads
    ops: int = 16384  # 4 KiB operations in one round
    files: int = 2000  # small files in one round
    depths: tuple[int, ...] = (1, 10, 60, 120)
    changes: tuple[int, ...] = (1, 10, 100, 1000)
    entries: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    forks: tuple[int, ...] = (10, 100, 1_000, 10_000)
    peer_forks: int = 1_000  # the peers make no more than this
    threads: tuple[int, ...] = (1, 8, 64)
    overwrites: int = 20_000  # before the fragmented file is read
    sync_seconds: float = 0.4

    @classmethod
    def small(cls, big_bytes: int = 64 * MIB) -> Scale:
        return cls(
            rounds=3, boxes=20, big_bytes=big_bytes, area_bytes=16 * MIB, ops=4096, files=1000, depths=(1, 120),
            changes=(10,), entries=(1_000, 100_000), forks=(10, 1000), peer_forks=100, threads=(1, 8), overwrites=4000,
            sync_seconds=0.2,
        )  # fmt: skip


Runner: TypeAlias = Callable[[Any, Scale], Any]  # a generator of float or {part: float}


@dataclasses.dataclass(frozen=True)
class Work:
    key: str
    topic: str
    title: str
    unit: str
    mode: str
    run: Runner
    more: bool = False  # more is better
    part: str = ""


class Clock:
    """with clock: ...; then clock.ns."""

    ns: int = 0

    def __enter__(self) -> Clock:
        self._started = time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.ns = time.perf_counter_ns() - self._started

    def per_second(self, count: int) -> float:
        """In thousands."""
        return count / self.ns * 1e6

    def mb_per_second(self, count_bytes: int) -> float:
        return count_bytes / self.ns * 1e3

    @property
    def us(self) -> float:
        return self.ns / 1e3

    @property
    def ms(self) -> float:
        return self.ns / 1e6


def median_us(times_ns: Sequence[int]) -> float:
    return statistics.median(times_ns) / 1e3

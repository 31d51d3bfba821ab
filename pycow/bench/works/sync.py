# SPDX-License-Identifier: Apache-2.0
"""fsync: one 4 KiB write and a sync, by many threads at once, each with a file of its own; and two threads that read
and write at the same time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

from pycow.bench.subject import BLOCK, Open
from pycow.bench.volumes import SMALL_BYTES, Volume
from pycow.bench.works._work import COMMITTED, OPEN, Clock, Scale, Work

__all__ = ["SYNC_WORKS"]

TOPIC = "fsync and threads"


def _in_threads(count: int, body: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            body(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _fsync(threads: int) -> Callable[[Volume, Scale], Iterator[float]]:
    """Synced writes a second, of all threads together."""

    def run(volume: Volume, scale: Scale) -> Iterator[float]:
        files = [volume.small(1000 * threads + number) for number in range(threads)]
        volume.file.sync()
        data = b"f" * BLOCK
        for _ in range(min(3, scale.rounds)):
            done = [0] * threads
            until = time.perf_counter() + scale.sync_seconds

            def body(number: int, done: list[int] = done, until: float = until) -> None:
                file = files[number]
                write = file.writer()
                while time.perf_counter() < until:
                    write(done[number] % (SMALL_BYTES // BLOCK) * BLOCK, data)
                    file.sync()
                    done[number] += 1

            with Clock() as clock:
                _in_threads(threads, body)
            yield clock.per_second(sum(done)) * 1000
        for file in files:
            file.close()

    return run


def _mixed(volume: Volume, scale: Scale) -> Iterator[float]:
    """Two threads on one file, each in its half: 7 of 10 operations read."""
    half = scale.area_bytes // BLOCK // 2

    def work(file: Open, number: int, operations: int) -> None:
        chosen = random.Random(number)
        write, read = file.writer(), file.reader()
        data, buffer = b"m" * BLOCK, bytearray(BLOCK)
        for _ in range(operations):
            offset = (number * half + chosen.randrange(half)) * BLOCK
            if chosen.random() < 0.7:
                read(offset, buffer)
            else:
                write(offset, data)

    for _ in range(scale.rounds):
        with Clock() as clock:
            _in_threads(2, lambda number: work(volume.file, number, scale.ops // 2))
        yield clock.per_second(scale.ops)
        volume.file.sync()


def _works() -> Iterator[Work]:
    for threads in (1, 8, 64):
        title = f"4 KiB write + fsync, {threads} thread{'s' * (threads > 1)}"
        yield Work(f"fsync_{threads}", TOPIC, title, "/s", COMMITTED, _fsync(threads), more=True)
    yield Work("mixed", TOPIC, "2 threads, 70 % random reads, 30 % writes", "k/s", OPEN, _mixed, more=True)


SYNC_WORKS = tuple(_works())

# SPDX-License-Identifier: Apache-2.0
"""4 KiB blocks and streams in one large file that the subject's container owns (it was copied up before), and the same
in a plain file, a mapped file and LMDB. Everything is in the page cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pycow.bench.base import MIB
from pycow.bench.subject import BLOCK
from pycow.bench.volumes import Volume
from pycow.bench.works._work import COMMITTED, OPEN, READ, Clock, Scale, Work

__all__ = ["BLOCK_WORKS"]

TOPIC = "Blocks"
BATCH = 1024


def _blocks(scale: Scale, seed: int) -> np.ndarray:
    """Each block at most once in a round where the area has so many; no order."""
    count = scale.area_bytes // BLOCK
    order = np.random.default_rng(seed).permutation(count).astype(np.uint64)
    return np.resize(order, scale.ops)


def _single(write: bool, commit: bool = False) -> Callable[[Volume, Scale], Iterator[float]]:
    def run(volume: Volume, scale: Scale) -> Iterator[float]:
        data, buffer = b"r" * BLOCK, bytearray(BLOCK)
        for seed in range(scale.rounds):
            offsets = (_blocks(scale, seed) * np.uint64(BLOCK)).tolist()
            call, what = (volume.file.writer(), data) if write else (volume.file.reader(), buffer)
            with Clock() as clock:
                for offset in offsets:
                    call(offset, what)
                if commit:
                    volume.file.sync()
            yield clock.per_second(len(offsets))
            if write and not commit:
                volume.file.sync()
                for offset in offsets:  # own them again, so that a rewrite is one
                    call(offset, what)

    return run


def _same(volume: Volume, scale: Scale) -> Iterator[float]:
    data = b"s" * BLOCK
    write = volume.file.writer()
    write(0, data)
    for _ in range(scale.rounds):
        with Clock() as clock:
            for _ in range(scale.ops):
                write(0, data)
        yield clock.us / scale.ops


def _copy_up(volume: Volume, scale: Scale) -> Iterator[float]:
    """Blocks that the last commit has: the first write to each after it."""
    data = b"t" * BLOCK
    write = volume.file.writer()
    for seed in range(scale.rounds):
        offsets = (_blocks(scale, seed)[: scale.area_bytes // BLOCK] * np.uint64(BLOCK)).tolist()
        volume.file.sync()
        with Clock() as clock:
            for offset in offsets:
                write(offset, data)
        yield clock.per_second(len(offsets))


def _batched(write: bool) -> Callable[[Volume, Scale], Iterator[float]]:
    def run(volume: Volume, scale: Scale) -> Iterator[float]:
        data = np.full((BATCH, BLOCK), 98, dtype=np.uint8)
        call = volume.file.write_many if write else volume.file.read_many
        for seed in range(scale.rounds):
            blocks = _blocks(scale, seed)
            batches = [blocks[i : i + BATCH] for i in range(0, len(blocks) - BATCH + 1, BATCH)]
            if write:
                for batch in batches:
                    call(batch, data)
            with Clock() as clock:
                for batch in batches:
                    call(batch, data)
            yield clock.per_second(len(batches) * BATCH)

    return run


def _stream(write: bool, commit: bool = False) -> Callable[[Volume, Scale], Iterator[float]]:
    def run(volume: Volume, scale: Scale) -> Iterator[float]:
        data, buffer = bytes(range(256)) * (MIB // 256), bytearray(MIB)
        call, what = (volume.file.writer(), data) if write else (volume.file.reader(), buffer)
        for _ in range(scale.rounds):
            with Clock() as clock:
                for offset in range(0, scale.area_bytes, MIB):
                    call(offset, what)
                if commit:
                    volume.file.sync()
            yield clock.mb_per_second(scale.area_bytes)
        if write:
            volume.file.sync()

    return run


BLOCK_WORKS = (
    Work("stream_write", TOPIC, "sequential write, 1 MiB a call", "MB/s", OPEN, _stream(True), more=True),
    Work("stream_write_committed", TOPIC, "sequential write, then fsync", "MB/s", COMMITTED, _stream(True, True), True),
    Work("stream_read", TOPIC, "sequential read, 1 MiB a call", "MB/s", READ, _stream(False), more=True),
    Work("rewrite", TOPIC, "the same 4 KiB block again", "us", OPEN, _same),
    Work("random_write", TOPIC, "random 4 KiB writes, one call each", "k/s", OPEN, _single(True), more=True),
    Work(
        "random_write_committed", TOPIC, "random 4 KiB writes, then fsync", "k/s", COMMITTED, _single(True, True),
        more=True,
    ),
    Work("random_first", TOPIC, "random 4 KiB writes, each the first since a commit", "k/s", OPEN, _copy_up, more=True),
    Work("random_read", TOPIC, "random 4 KiB reads, one call each", "k/s", READ, _single(False), more=True),
    Work("batch_write", TOPIC, "random 4 KiB writes, 1,024 a batch (numpy)", "k/s", OPEN, _batched(True), more=True),
    Work("batch_read", TOPIC, "random 4 KiB reads, 1,024 a batch (numpy)", "k/s", READ, _batched(False), more=True),
)  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""4 KiB blocks and streams in a 64 MiB file that a container owns: one call each, in batches, in a row, fragmented.

Not committed, unless a name says so. One round is ROUND_BLOCKS blocks or the whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pycow._native import BLOCK_BYTES, NativeStore, Tree

from .conftest import S_IFREG

MIB = 1 << 20
FILE_BYTES = 64 * MIB
ROUND_BLOCKS = 4096
BATCH = 1024


@pytest.fixture(scope="module")
def owned(native: NativeStore) -> Iterator[tuple[Tree, int]]:
    tree = native.create_tree()
    ino = tree.make(1, "file", S_IFREG)
    for offset in range(0, FILE_BYTES, MIB):
        tree.write(ino, offset, bytes(range(256)) * 4096)
    native.commit()
    yield tree, ino
    tree.close()


def chosen(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(FILE_BYTES // BLOCK_BYTES)[:ROUND_BLOCKS].astype(np.uint64)


@pytest.mark.parametrize("operation", ["read", "write", "write_committed", "first_write"])
def test_random_one_by_one(
    counted: Callable[..., Any], native: NativeStore, owned: tuple[Tree, int], operation: str
) -> None:
    tree, ino = owned
    offsets = (chosen() * np.uint64(BLOCK_BYTES)).tolist()
    data, buffer = b"r" * BLOCK_BYTES, bytearray(BLOCK_BYTES)

    def read() -> None:
        for offset in offsets:
            tree.read_into(ino, offset, buffer)

    def write() -> None:
        for offset in offsets:
            tree.write(ino, offset, data)

    def write_committed() -> None:
        write()
        native.commit()

    if operation == "first_write":
        counted(write, setup=native.commit, rounds=5)
    else:
        write()
        counted({"read": read, "write": write, "write_committed": write_committed}[operation], rounds=5)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_random_in_batches(counted: Callable[..., Any], owned: tuple[Tree, int], operation: str) -> None:
    tree, ino = owned
    batches = np.split(chosen(), ROUND_BLOCKS // BATCH)
    rows = np.zeros((BATCH, BLOCK_BYTES), dtype=np.uint8)
    call = tree.write_blocks if operation == "write" else tree.read_blocks

    def work() -> None:
        for batch in batches:
            call(ino, batch, rows)

    work()
    counted(work, rounds=10)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_in_a_row(counted: Callable[..., Any], owned: tuple[Tree, int], operation: str) -> None:
    tree, ino = owned
    data, buffer = bytes(MIB), bytearray(MIB)

    def work() -> None:
        for offset in range(0, FILE_BYTES, MIB):
            if operation == "write":
                tree.write(ino, offset, data)
            else:
                tree.read_into(ino, offset, buffer)

    counted(work, rounds=5)


def test_read_in_a_row_after_random_overwrites(
    counted: Callable[..., Any], native: NativeStore, owned: tuple[Tree, int]
) -> None:
    """Each second block was written in another order: extents of one block."""
    tree, ino = owned
    box = tree.fork()
    data = b"o" * BLOCK_BYTES
    for block in np.random.default_rng(2).permutation(FILE_BYTES // BLOCK_BYTES // 2).tolist():
        box.write(ino, 2 * block * BLOCK_BYTES, data)
    native.commit()
    buffer = bytearray(MIB)

    def read() -> None:
        for offset in range(0, FILE_BYTES, MIB):
            box.read_into(ino, offset, buffer)

    counted(read, rounds=5)
    box.delete()
    box.close()

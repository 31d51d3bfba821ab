# SPDX-License-Identifier: Apache-2.0
"""The first write to shared data, and rewrites of what a tree owns. One call each from Python, not committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycow._native import NativeStore, Tree

from .conftest import S_IFREG

MIB = 1 << 20
SIZES = {"4KiB": 4096, "1MiB": MIB, "64MiB": 64 * MIB, "1GiB": 1024 * MIB}


@pytest.fixture(scope="module")
def base(native: NativeStore) -> Iterator[tuple[Tree, dict[str, int]]]:
    tree = native.create_tree()
    inodes = {}
    piece = bytes(range(256)) * 4096
    for name, size in SIZES.items():
        ino = inodes[name] = tree.make(1, name, S_IFREG)
        for offset in range(0, size, MIB):
            tree.write(ino, offset, piece[: min(size, MIB)])
    tree.seal()
    native.commit()
    yield tree, inodes
    tree.close()


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("length", [1, 4096])
def test_first_write(counted: Callable[..., Any], base: tuple[Tree, dict[str, int]], size: str, length: int) -> None:
    tree, inodes = base
    data = b"x" * length
    boxes = []

    def box() -> tuple[tuple[Tree], dict[str, Any]]:
        boxes.append(tree.fork(base=True))
        return (boxes[-1],), {}

    counted(lambda box: box.write(inodes[size], 0, data), setup=box, rounds=300)
    for one in boxes:
        one.delete()
        one.close()


def test_chmod_of_an_untouched_file(counted: Callable[..., Any], base: tuple[Tree, dict[str, int]]) -> None:
    tree, inodes = base
    boxes = []

    def box() -> tuple[tuple[Tree], dict[str, Any]]:
        boxes.append(tree.fork(base=True))
        return (boxes[-1],), {}

    counted(lambda box: box.set(inodes["1GiB"], mode=0o600), setup=box, rounds=300)
    for one in boxes:
        one.delete()
        one.close()


@pytest.mark.parametrize("operation", ["rewrite", "read"])
def test_owned_block(counted: Callable[..., Any], base: tuple[Tree, dict[str, int]], operation: str) -> None:
    tree, inodes = base
    box = tree.fork(base=True)
    data = b"y" * 4096
    buffer = bytearray(4096)
    ino = inodes["1MiB"]
    box.write(ino, 8192, data)
    if operation == "rewrite":
        counted(lambda: box.write(ino, 8192, data), rounds=50, iterations=1000)
    else:
        counted(lambda: box.read_into(ino, 8192, buffer), rounds=50, iterations=1000)
    box.close()

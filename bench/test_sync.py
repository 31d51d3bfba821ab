# SPDX-License-Identifier: Apache-2.0
"""fsync: every thread writes 4 KiB into a file of its own and syncs it; a round is SYNCS of them a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pycow._native import NativeStore

from .conftest import S_IFREG

SYNCS = 5


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_fsync(counted: Callable[..., Any], native: NativeStore, threads: int) -> None:
    """extra_info has the syncs and commits of a round: waiters share them."""
    tree = native.create_tree()
    inodes = [tree.make(1, f"file-{i}", S_IFREG) for i in range(threads)]

    def body(ino: int) -> None:
        for i in range(SYNCS):
            tree.write(ino, i * 4096, b"f" * 4096)
            tree.sync(ino)

    def work() -> None:
        running = [threading.Thread(target=body, args=(ino,)) for ino in inodes]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    counted(work, rounds=3)
    tree.delete()
    tree.close()

# SPDX-License-Identifier: Apache-2.0
"""diff and commit after 10 changes, and lookups, in a tree of 10 entries and of a million."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pycow._native import NativeStore, Tree

from .conftest import ENTRIES, S_IFREG

SIZES = [10, ENTRIES]


@pytest.mark.parametrize("entries", SIZES)
def test_diff_of_ten_changes(counted: Callable[..., Any], sized_trees: dict[int, Tree], entries: int) -> None:
    box = sized_trees[entries].fork(base=True)
    for i in range(10):
        box.make(1, f"new-{i}", S_IFREG)
    changes = counted(lambda: list(box.diff(sized_trees[entries])), rounds=500)
    assert len(changes) == 10
    box.close()


@pytest.mark.parametrize("entries", SIZES)
def test_commit_of_ten_changes(
    counted: Callable[..., Any], native: NativeStore, sized_trees: dict[int, Tree], entries: int
) -> None:
    """Durable: written and synced."""
    box = sized_trees[entries].fork(base=True)
    rounds = iter(range(10**9))

    def change() -> None:
        for _ in range(10):
            box.make(1, f"new-{next(rounds)}", S_IFREG)

    counted(native.commit, setup=change, rounds=50)
    box.close()


@pytest.mark.parametrize("depth", [1, 10, 120])
def test_walk_through_layers(counted: Callable[..., Any], native: NativeStore, depth: int) -> None:
    """A path of four components in an image of 1 to 120 layers."""
    tree = native.create_tree()
    folder = 1
    for name in ("usr", "share", "doc"):
        folder = tree.make(folder, name, 0o040755)
    tree.make(folder, "copyright", S_IFREG)
    for layer in range(depth):
        tree.seal()
        above = tree.fork(base=True)
        tree.close()
        tree = above
        tree.make(1, f"layer-{layer}", S_IFREG)
    counted(lambda: tree.walk("/usr/share/doc/copyright"), rounds=50, iterations=1000)
    tree.close()

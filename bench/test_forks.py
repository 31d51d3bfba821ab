# SPDX-License-Identifier: Apache-2.0
"""create, fork, snapshot, rollback, delete: the same for 10 entries and for a million. Not committed, and committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pycow._native import NativeStore, Tree

from .conftest import ENTRIES, S_IFREG

SIZES = [10, ENTRIES]


@pytest.mark.parametrize("entries", SIZES)
@pytest.mark.parametrize("kind", ["create", "fork", "snapshot"])
def test_fork(counted: Callable[..., Any], sized_trees: dict[int, Tree], kind: str, entries: int) -> None:
    tree = sized_trees[entries]
    flags = {"create": {"base": True}, "fork": {}, "snapshot": {"sealed": True}}[kind]
    counted(lambda: tree.fork(**flags).close(), rounds=2000)


@pytest.mark.parametrize("entries", SIZES)
def test_fork_committed(
    counted: Callable[..., Any], native: NativeStore, sized_trees: dict[int, Tree], entries: int
) -> None:
    def work() -> None:
        sized_trees[entries].fork(base=True).close()
        native.commit()

    counted(work, rounds=100)


@pytest.mark.parametrize("entries", SIZES)
def test_rollback(counted: Callable[..., Any], sized_trees: dict[int, Tree], entries: int) -> None:
    box = sized_trees[entries].fork(base=True)
    snapshot = box.fork(sealed=True)
    counted(lambda: box.reset(snapshot), rounds=2000)
    for tree in (box, snapshot):
        tree.close()


@pytest.mark.parametrize("entries", SIZES)
def test_rollback_of_ten_changes(counted: Callable[..., Any], sized_trees: dict[int, Tree], entries: int) -> None:
    box = sized_trees[entries].fork(base=True)
    snapshot = box.fork(sealed=True)

    def change() -> None:
        for i in range(10):
            box.make(1, f"new-{i}", S_IFREG)

    counted(lambda: box.reset(snapshot), setup=change, rounds=200)
    for tree in (box, snapshot):
        tree.close()


@pytest.mark.parametrize("entries", SIZES)
def test_delete_of_ten_changes(counted: Callable[..., Any], sized_trees: dict[int, Tree], entries: int) -> None:
    def changed() -> tuple[tuple[Tree], dict[str, Any]]:
        box = sized_trees[entries].fork(base=True)
        for i in range(10):
            box.make(1, f"new-{i}", S_IFREG)
        return (box,), {}

    def delete(box: Tree) -> None:
        box.delete()
        box.close()

    counted(delete, setup=changed, rounds=200)

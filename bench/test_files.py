# SPDX-License-Identifier: Apache-2.0
"""Many small files: a round is FILES of them. Not committed, unless a name says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycow._native import NativeStore, Tree

from .conftest import S_IFDIR, S_IFREG, fill

FILES = 1000
DATA = b"s" * 1000


@pytest.fixture
def box(native: NativeStore) -> Iterator[Tree]:
    tree = native.create_tree()
    yield tree
    tree.delete()
    tree.close()


@pytest.fixture
def folders(box: Tree) -> Iterator[int]:
    """A fresh directory each time."""
    return (box.make(1, f"round-{number}", S_IFDIR) for number in range(10**9))


def create(tree: Tree, folder: int) -> None:
    for i in range(FILES):
        tree.write(tree.make(folder, f"file-{i}", S_IFREG), 0, DATA)


@pytest.mark.parametrize("committed", [False, True], ids=["open", "committed"])
def test_create(
    counted: Callable[..., Any], native: NativeStore, box: Tree, folders: Iterator[int], committed: bool
) -> None:
    def work() -> None:
        create(box, next(folders))
        if committed:
            native.commit()

    counted(work, rounds=5)


@pytest.mark.parametrize("operation", ["stat", "read"])
def test_by_path(counted: Callable[..., Any], box: Tree, folders: Iterator[int], operation: str) -> None:
    create(box, next(folders))
    paths = [f"/round-0/file-{i}" for i in range(FILES)]

    def work() -> None:
        for path in paths:
            attr = box.walk_attr(path)
            if operation == "read":
                box.read(attr.ino, 0, attr.size)

    counted(work, rounds=10)


def test_remove(counted: Callable[..., Any], box: Tree, folders: Iterator[int]) -> None:
    def filled() -> tuple[tuple[int], dict[str, Any]]:
        folder = next(folders)
        create(box, folder)
        return (folder,), {}

    def work(folder: int) -> None:
        for i in range(FILES):
            box.remove(folder, f"file-{i}")

    counted(work, setup=filled, rounds=5)


@pytest.mark.parametrize("how", ["read_dir", "scan"])
def test_list_with_attributes(counted: Callable[..., Any], box: Tree, how: str) -> None:
    fill(box, 5000)
    folders = [entry.ino for entry in box.read_dir(1)]

    def work() -> int:
        if how == "scan":
            return len(box.scan()[0])
        return len(folders) + sum(len(box.read_dir(folder, attrs=True)) for folder in folders)

    assert counted(work, rounds=10) == 5005

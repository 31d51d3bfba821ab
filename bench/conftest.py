# SPDX-License-Identifier: Apache-2.0
"""Shared pieces of the benches. Each bench puts the store's counters beside its times (extra_info)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycow._native import NativeStore, Tree
from pycow.bench.works.growth import fill

ENTRIES = int(os.environ.get("PYCOW_BENCH_ENTRIES", "1000000"))
S_IFREG, S_IFDIR = 0o100644, 0o040755


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeStore]:
    path: Path = tmp_path_factory.mktemp("bench") / "store"
    store = NativeStore(str(path), readonly=False, create=True, commit_interval_ms=0)
    yield store
    store.close()


@pytest.fixture(scope="module")
def sized_trees(native: NativeStore) -> Iterator[dict[int, Tree]]:
    """Sealed trees of 10 entries and of a million (PYCOW_BENCH_ENTRIES)."""
    trees = {}
    for entries in (10, ENTRIES):
        tree = native.create_tree()
        fill(tree, entries)
        tree.seal()
        native.commit()
        trees[entries] = tree
    yield trees
    for tree in trees.values():
        tree.close()


@pytest.fixture
def counted(benchmark: Any, native: NativeStore) -> Callable[..., Any]:
    """Runs a benchmark with the growth of each counter per round in extra_info."""

    def run(target: Callable[..., Any], **pedantic: Any) -> Any:
        before = native.stats()
        result = benchmark.pedantic(target, **pedantic)
        rounds = pedantic.get("rounds", 1) * pedantic.get("iterations", 1)
        for name, value in native.stats().items():
            if value != before[name] and name != "host_bytes":
                benchmark.extra_info[name] = round((value - before[name]) / rounds, 3)
        return result

    return run

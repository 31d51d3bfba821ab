# SPDX-License-Identifier: Apache-2.0
"""Many forks with a changed block each: time, and disk and memory in extra_info; and opening a store over its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycow._native import NativeStore
from pycow.bench import probe

from .conftest import fill


@pytest.mark.parametrize("count", [10, 100, 1000, 10_000])
def test_forks_with_a_change_each(benchmark: Any, tmp_path: Path, count: int) -> None:
    found = benchmark.pedantic(lambda: probe.main(str(tmp_path / "store"), count), rounds=1)
    benchmark.extra_info.update({f"{name}_each": round(value, 2) for name, value in found.items()})


@pytest.mark.parametrize("entries", [10, 100_000])
def test_open(benchmark: Any, tmp_path: Path, entries: int) -> None:
    path = tmp_path / "store"
    with_tree = NativeStore(path, commit_interval_ms=0)
    with with_tree.create_tree() as tree:
        fill(tree, entries)
    with_tree.close()
    benchmark.pedantic(lambda: NativeStore(path, readonly=True, create=False).close(), rounds=20)

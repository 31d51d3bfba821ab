# SPDX-License-Identifier: Apache-2.0
"""Import and export of a layer: a synthetic root file system of 1,000 files (10 MB), plain and compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pycow
from pycow._native import NativeStore
from pycow.bench.base import MIB, Base, make_base
from pycow.oci.files import file_blob
from pycow.oci.stream import LayerStream


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("layers"), big_bytes=MIB, folders=100)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("committed", [False, True], ids=["open", "committed"])
def test_untar(counted: Callable[..., Any], native: NativeStore, base: Base, kind: str, committed: bool) -> None:
    trees = []

    def work() -> None:
        tree = native.create_tree()
        with LayerStream(file_blob(str(base.tars[kind]))) as stream, tree.untar() as untar:
            for chunk in stream:
                untar.feed(chunk)
            untar.finish()
        if committed:
            native.commit()
        trees.append(tree)

    counted(work, rounds=5)
    for tree in trees:
        tree.delete()
        tree.close()


def test_tar(counted: Callable[..., Any], native: NativeStore, base: Base) -> None:
    with native.create_tree() as tree:
        with tree.untar() as untar:
            untar.feed(base.tars["plain"].read_bytes())
            untar.finish()
        counted(lambda: sum(len(chunk) for chunk in tree.tar()), rounds=5)
        tree.delete()


def test_image_of_a_layer(benchmark: Any, tmp_path: Path, base: Base) -> None:
    """With names, digests and the commit at its end."""
    with pycow.open(tmp_path / "store", commit_interval=0) as store:
        names = iter(range(10**9))

        def work() -> None:
            image = store.images.build_on(None, [base.tars["gzip"]], f"bench:{next(names)}", created=next(names))
            store.images.remove(image.tags[0])

        benchmark.pedantic(work, rounds=5)

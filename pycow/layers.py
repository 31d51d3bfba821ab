# SPDX-License-Identifier: Apache-2.0
"""Layers: the sealed trees that images are made of. Each holds the whole file tree of its stack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pycow._native import Tree
from pycow.catalog import Document
from pycow.errors import AmbiguousError, NotFoundError
from pycow.fs import FileSystem

if TYPE_CHECKING:
    from pycow.store import Store

__all__ = ["Layer", "Layers"]

_HEX = re.compile(r"[0-9a-f]{1,64}")
_HEX_DIGITS = 64


class Layers:
    """The layers of a store, by chainID. They come with images and go with the last image that has them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, chain_id: str) -> Layer:
        """By chainID ("sha256:..." or hex), or a prefix of it that fits one layer only.

        NotFoundError when there is none, AmbiguousError when there are several.
        """
        key = chain_id.removeprefix("sha256:")
        catalog = self._store._catalog
        if _HEX.fullmatch(key):
            found = [key] if len(key) == _HEX_DIGITS else [k for k in catalog.keys("layers") if k.startswith(key)]
            if len(found) > 1:
                raise AmbiguousError(f"{len(found)} layers have a chainID that begins with {key}")
            if found and (document := catalog.find("layers", found[0])) is not None:
                return Layer(self._store, found[0], document)
        raise NotFoundError(f"no such layer: {chain_id}")

    def list(self) -> list[Layer]:
        """All layers, oldest first."""
        found = [Layer(self._store, key, document) for key, document in self._store._catalog.items("layers")]
        return sorted(found, key=lambda layer: (layer.created, layer.chain_id))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._store._catalog.keys("layers"))

    def __contains__(self, chain_id: object) -> bool:
        try:
            return isinstance(chain_id, str) and self.get(chain_id) is not None
        except NotFoundError:
            return False


class Layer:
    """A layer, on top of a certain stack of others."""

    def __init__(self, store: Store, key: str, document: Document) -> None:
        self._store = store
        self._parent: str | None = document["parent"]
        self._tree: Tree | None = None
        self._tree_id: int = document["tree"]
        self.chain_id = f"sha256:{key}"
        self.diff_id: str = document["diff_id"]  # of its uncompressed tar, "sha256:..."
        self.size: int = document["size"]  # bytes of the files that it adds or changes
        self.tar_bytes: int = document["tar_bytes"]  # of its uncompressed tar
        self.created: int = document["created"]  # when it came into the store, ns

    def __repr__(self) -> str:
        return f"<Layer {self.chain_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self.chain_id == other.chain_id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self.chain_id)

    @property
    def parent(self) -> Layer | None:
        """The layer below; None for the lowest."""
        return self._store.layers.get(self._parent) if self._parent is not None else None

    def tree(self) -> Tree:
        """The sealed tree: this layer and all below it. Raises NotFoundError when the layer was removed."""
        if self._tree is None or self._tree.closed:
            self._tree = self._store._native.open_tree(self._tree_id)
        return self._tree

    @property
    def fs(self) -> FileSystem:
        """Read-only: this layer and all below it."""
        return FileSystem(self.tree())

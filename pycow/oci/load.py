# SPDX-License-Identifier: Apache-2.0
"""Layers and images into the store, all of them or nothing.

An Import makes a temporary tree for each new layer (a fork of the one below, with the layer's tar applied); a crash
before the end drops them when the store is next opened, an error at once. Its last step is one transaction that keeps
the trees and writes all documents. Layers whose chainID the store knows, or another import adds meanwhile, are used as
they are.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pycow._native import NativeStore, Tree
from pycow.catalog import Catalog, Document
from pycow.errors import Error, ImageError, NotFoundError, StaleError
from pycow.oci.config import ImageConfig
from pycow.oci.digest import Digest, chain_id, short
from pycow.oci.files import Blob, Progress
from pycow.oci.source import ImageSource
from pycow.oci.stream import LayerStream

__all__ = ["EMPTY_TREE", "BaseLayerGone", "Import", "StoreParts", "layer_tree_id"]

#: Key of the document ("trees") of the empty tree, which images without layers have.
EMPTY_TREE = "empty"


class StoreParts(Protocol):
    """What an import needs of a store."""

    _native: NativeStore
    _catalog: Catalog

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]: ...
    def commit(self) -> None: ...


class BaseLayerGone(ImageError):
    """A layer that the import builds on was removed meanwhile; it should start again."""

    def __init__(self, chain: str) -> None:
        super().__init__(f"the layer sha256:{chain} was removed meanwhile")


@dataclass(frozen=True, slots=True)
class _NewLayer:
    tree: Tree
    chain: str
    parent: str | None
    diff_id: str
    size: int
    tar_bytes: int
    created: int

    def document(self) -> Document:
        return {
            "tree": self.tree.id,
            "diff_id": self.diff_id,
            "parent": self.parent,
            "size": self.size,
            "tar_bytes": self.tar_bytes,
            "created": self.created,
        }


@dataclass(frozen=True, slots=True)
class _NewImage:
    config: ImageConfig
    tags: tuple[str, ...]


def layer_tree_id(catalog: Catalog, chain: str | None) -> int | None:
    """The tree of a stack of layers (None: of no layers), or None when the store does not have it."""
    document = catalog.find("layers", chain) if chain is not None else catalog.find("trees", EMPTY_TREE)
    tree_id: int | None = document["tree"] if document is not None else None
    return tree_id


class Import:
    """New layers and images; a context manager, which takes back what finish() has not made lasting."""

    def __init__(self, store: StoreParts) -> None:
        self._native = store._native
        self._catalog = store._catalog
        self._store = store
        self._layers: dict[str, _NewLayer] = {}  # by chainID, children after their parents
        self._images: dict[str, _NewImage] = {}  # by id

    def __enter__(self) -> Import:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop(self._layers.values())
        self._layers.clear()

    # ---- Layers

    def known(self, chain: str) -> bool:
        """The store, or this import, has the stack of layers."""
        return chain in self._layers or self._catalog.find("layers", chain) is not None

    def add_image_source(self, image: ImageSource, tags: Sequence[str], progress: Progress) -> None:
        """An image of an archive: those of its layers that are not known yet, and its config."""
        chains = image.config.chains
        first = len(chains)
        while first > 0 and not self.known(chains[first - 1]):
            first -= 1
        for index in range(first, len(chains)):
            layer = image.layers[index]
            stage = f"layer {index + 1}/{len(chains)} {short(layer.diff_id)}"
            parent = chains[index - 1] if index else None
            self.add_tar(parent, layer.blob, progress, stage, digest=layer.digest, diff_id=layer.diff_id)
        self.add_image(image.config, tags)

    def add_tar(
        self,
        parent: str | None,
        blob: Blob,
        progress: Progress,
        stage: str,
        *,
        digest: Digest | None = None,
        diff_id: str | None = None,
    ) -> tuple[str, str]:
        """A layer on top of the chain parent from a tar, plain or compressed. Returns its chainID and diffID.

        ImageError when the tar is damaged or hostile, or not what digest (of the blob) and diff_id say.
        """
        tree = self._fork(parent)
        try:
            with LayerStream(blob, digest) as stream, _naming(blob), tree.untar(layer=True) as untar:
                for chunk in stream:
                    untar.feed(chunk)
                    progress(stage, stream.done, blob.size)
                result = untar.finish()
            if diff_id is not None and diff_id != stream.diff_id:
                raise ImageError(f"{blob.name}: wrong diffID: it is {stream.diff_id}, the config says {diff_id}")
            tree.seal()
        except BaseException:
            _delete(tree)
            raise
        return self.add_tree(parent, tree, stream.diff_id, result.tar_bytes), stream.diff_id

    def add_tree(self, parent: str | None, tree: Tree, diff_id: str, tar_bytes: int) -> str:
        """A layer on top of the chain parent whose temporary, sealed tree is there already; it is this import's then.

        Returns its chainID.
        """
        chain = chain_id(parent, diff_id)
        if self.known(chain):
            _delete(tree)
        else:
            size = tree.info().size_bytes
            self._layers[chain] = _NewLayer(tree, chain, parent, diff_id, size, tar_bytes, time.time_ns())
        return chain

    def _fork(self, parent: str | None) -> Tree:
        if parent is None:
            return self._native.create_tree(temp=True)
        new = self._layers.get(parent)
        if new is not None:
            return new.tree.fork(base=True, temp=True)
        tree_id = layer_tree_id(self._catalog, parent)
        if tree_id is None:
            raise BaseLayerGone(parent)
        try:
            with self._native.open_tree(tree_id) as tree:
                return tree.fork(base=True, temp=True)
        except (NotFoundError, StaleError):
            raise BaseLayerGone(parent) from None

    # ---- Images

    def add_image(self, config: ImageConfig, tags: Sequence[str]) -> None:
        """An image whose layers are known."""
        known = self._images.get(config.id)
        names = (*known.tags, *tags) if known is not None else tuple(tags)
        self._images[config.id] = _NewImage(config, tuple(dict.fromkeys(names)))

    def finish(self) -> list[str]:
        """Makes everything lasting and durable; returns the ids (hex) of the images.

        BaseLayerGone when a layer below was removed meanwhile: nothing is done then.
        """
        with self._store.transaction(durable=False):
            spare = self._register_layers()
            for image_id, image in self._images.items():
                self._register_image(image_id, image)
        self._layers.clear()  # they are the store's now, also when the commit fails
        self._drop(spare)
        self._store.commit()
        return list(self._images)

    def _register_layers(self) -> list[_NewLayer]:
        """Returns the layers that another import has added meanwhile."""
        spare = []
        for layer in self._layers.values():
            if self._catalog.find("layers", layer.chain) is not None:
                spare.append(layer)
                continue
            if layer.parent is not None and self._catalog.find("layers", layer.parent) is None:
                raise BaseLayerGone(layer.parent)
            layer.tree.keep()
            self._catalog.create("layers", layer.chain, layer.document())
        return spare

    def _register_image(self, image_id: str, image: _NewImage) -> None:
        if self._catalog.find("images", image_id) is None:
            size = 0
            for chain in image.config.chains:
                layer = self._catalog.find("layers", chain)
                if layer is None:
                    raise BaseLayerGone(chain)
                size += layer["size"]
            if not image.config.chains:
                self._make_empty_tree()
            document: Document = {
                "config": image.config.raw.decode("utf-8"),
                "layers": list(image.config.chains),
                "created": image.config.created,
                "loaded": time.time_ns(),
                "size": size,
            }
            self._catalog.create("images", image_id, document)
        for tag in image.tags:
            self._catalog.put("tags", tag, {"image": image_id})

    def _make_empty_tree(self) -> None:
        if self._catalog.find("trees", EMPTY_TREE) is None:
            with self._native.create_tree() as tree:
                tree.seal()
                self._catalog.create("trees", EMPTY_TREE, {"tree": tree.id})

    @staticmethod
    def _drop(layers: Iterable[_NewLayer]) -> None:
        for layer in reversed(list(layers)):  # children first
            _delete(layer.tree)


def _delete(tree: Tree) -> None:
    """A temporary tree away; when that fails, it goes when the store is next opened."""
    with contextlib.suppress(Error):
        tree.delete()
    tree.close()


@contextlib.contextmanager
def _naming(blob: Blob) -> Iterator[None]:
    """Errors of the archive say which layer they are about."""
    try:
        yield
    except ImageError as error:
        if blob.name in str(error):
            raise
        raise ImageError(f"{blob.name}: {error}") from error

# SPDX-License-Identifier: Apache-2.0
"""Images: loaded from archives, built on others, committed from containers; their names, history and removal."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pycow._native import Tree
from pycow.catalog import Document
from pycow.errors import AmbiguousError, InUseError, InvalidError, NotFoundError
from pycow.fs import FileSystem
from pycow.oci.archive import read_archive
from pycow.oci.config import ImageConfig, Step, format_time
from pycow.oci.files import Progress, file_blob
from pycow.oci.load import BaseLayerGone, Import, layer_tree_id
from pycow.oci.reference import normalize
from pycow.results import HistoryEntry

if TYPE_CHECKING:
    from pycow.containers import Container
    from pycow.store import Store

__all__ = ["Image", "Images"]

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_ID_DIGITS = 64
_SHORT_ID = 12
_TRIES = 5
_MISSING = "<missing>"

_T = TypeVar("_T")


def _no_progress(stage: str, done: int, total: int) -> None:
    pass


class Images:
    """The images of a store. They are found by reference ("busybox", "acme/app:1.0"), id, or unique prefix of an id."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ---- Finding

    def get(self, key: str) -> Image:
        """The image of a reference, an id ("sha256:..." or hex) or a prefix of an id that fits one image only.

        NotFoundError when there is none, AmbiguousError when there are several, BadReferenceError when key is neither.
        """
        image_id = self._resolve(key)[0]
        document = self._store._catalog.find("images", image_id)
        if document is None:
            raise NotFoundError(f"no such image: {key}")
        return Image(self._store, image_id, document)

    def list(self) -> list[Image]:
        """All images, newest first. The tags of these objects are read here, once for all."""
        catalog = self._store._catalog
        tags: dict[str, list[str]] = {}
        for tag, document in catalog.items("tags"):
            tags.setdefault(document["image"], []).append(tag)
        found = [Image(self._store, key, doc, tuple(tags.get(key, ()))) for key, doc in catalog.items("images")]
        return sorted(found, key=lambda image: (image.created, image.id), reverse=True)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._store._catalog.keys("images"))

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self.get(key) is not None
        except NotFoundError:
            return False

    def _resolve(self, key: str) -> tuple[str, str | None]:
        """The image's id in hex, and the tag when key is one."""
        catalog = self._store._catalog
        match = _ID.fullmatch(key)
        if match is not None and len(match[1]) == _ID_DIGITS:
            return match[1], None
        if match is None or not key.startswith("sha256:"):
            tag = normalize(key)
            named = catalog.find("tags", tag)
            if named is not None:
                return named["image"], tag
        if match is not None:
            found = [full for full in catalog.keys("images") if full.startswith(match[1])]
            if len(found) > 1:
                raise AmbiguousError(f"{len(found)} images have an id that begins with {match[1]}")
            if found:
                return found[0], None
        raise NotFoundError(f"no such image: {key}")

    # ---- Making

    def load(self, path: str | os.PathLike[str], *, tag: str | None = None, progress: Progress | None = None) -> Image:
        """Loads an archive, and returns its last image; see load_all."""
        return self.load_all(path, tag=tag, progress=progress)[-1]

    def load_all(
        self, path: str | os.PathLike[str], *, tag: str | None = None, progress: Progress | None = None
    ) -> builtins.list[Image]:
        """Loads the images of what `docker save` wrote, or of an OCI layout (a directory or a tar of one).

        The archive and the layers may each be plain, gzip or zstd. All digests are verified; layers that the store has
        are not read. All images come in with one durable commit, or none. tag names the last image in place of the
        names that the archive gives it. progress is called with what is done, bytes done and bytes in all (0:
        unknown). A name that another image has is taken from it.

        Raises ImageError when the archive is damaged, hostile or not one, BadReferenceError for a bad tag.
        """
        own_tag = normalize(tag) if tag is not None else None
        report = progress or _no_progress
        with read_archive(os.fspath(path), self._store.path, report) as sources:

            def work() -> list[str]:
                with Import(self._store) as new:
                    for source in sources:
                        last = source is sources[-1]
                        new.add_image_source(source, [own_tag] if own_tag and last else source.tags, report)
                    new.finish()
                return [source.config.id for source in sources]

            ids = _again_when_base_goes(work)
        return [self.get(image_id) for image_id in dict.fromkeys(ids)]

    def build_on(
        self,
        base: Image | str | None,
        layers: Iterable[str | os.PathLike[str] | None],
        ref: str | None = None,
        *,
        created_by: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        author: str = "",
        comment: str = "",
        created: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """An image made of a base (None: from nothing) and further steps, and gives it the name ref.

        Each item of layers is a step: the path of a layer's tar (plain, gzip or zstd), or None for a step that changes
        metadata only. created_by says, step by step, what the history shows for them; it may be shorter. config goes
        into the image's "config" ({"Cmd": ["sh"], "Env": [...]}). created is in ns and defaults to now.

        Raises ImageError for a bad tar, NotFoundError for an unknown base, BadReferenceError for a bad ref.
        """
        tags = [normalize(ref)] if ref is not None else []
        below = self._image(base) if base is not None else None
        steps = [os.fspath(layer) if layer is not None else None for layer in layers]
        if len(created_by) > len(steps):
            raise InvalidError(f"created_by has {len(created_by)} items for {len(steps)} steps")
        texts = [*created_by, *("" for _ in range(len(steps) - len(created_by)))]
        now = created if created is not None else time.time_ns()
        report = progress or _no_progress
        parent_config = below.parsed_config() if below is not None else ImageConfig.scratch()

        def work() -> str:
            with Import(self._store) as new:
                chain = parent_config.chains[-1] if parent_config.chains else None
                diff_ids = []
                for number, path in enumerate(steps, 1):
                    if path is not None:
                        stage = f"step {number}/{len(steps)}"
                        chain, diff_id = new.add_tar(chain, file_blob(path), report, stage)
                        diff_ids.append(diff_id)
                history = [
                    Step(text, comment, author, now, path is None) for text, path in zip(texts, steps, strict=True)
                ]
                made = parent_config.extended(diff_ids, history, created=now, author=author, overrides=config)
                new.add_image(made, tags)
                return new.finish()[0]

        return self.get(_again_when_base_goes(work))

    def commit(
        self,
        container: Container,
        ref: str | None = None,
        *,
        message: str = "",
        author: str = "",
        command: str | Sequence[str] | None = None,
    ) -> Image:
        """An image of a container's present state: its image and one layer of what it changed, and the name ref.

        Costs what was changed. command (by default the container's) is what the history shows. The layer's diffID is
        that of the tar of the changes, which is the same for the same changes.

        Raises BadReferenceError for a bad ref, NotFoundError when the container was removed.
        """
        tags = [normalize(ref)] if ref is not None else []
        below = container.image
        now = time.time_ns()
        words = container.command if command is None else command
        step = Step(words if isinstance(words, str) else " ".join(words), message, author, now)
        parent_config = below.parsed_config()
        self._store._write_back()
        with Import(self._store) as new:
            tree = container.tree.fork(sealed=True, temp=True)
            try:
                diff_id, tar_bytes = _diff_id(tree, below.tree())
            except BaseException:
                tree.delete()
                raise
            new.add_tree(parent_config.chains[-1] if parent_config.chains else None, tree, diff_id, tar_bytes)
            made = parent_config.extended([diff_id], [step], created=now, author=author)
            new.add_image(made, tags)
            image_id = new.finish()[0]
        return self.get(image_id)

    def _image(self, image: Image | str) -> Image:
        return self.get(image) if isinstance(image, str) else image

    # ---- Names and removal

    def tag(self, image: Image | str, ref: str) -> str:
        """Gives an image one more name; takes it from the image that has it. Returns the name in full.

        BadReferenceError when ref is not valid, NotFoundError when there is no such image.
        """
        name = normalize(ref)
        image_id = self._resolve(image)[0] if isinstance(image, str) else image._key
        with self._store.transaction(durable=False):
            if self._store._catalog.find("images", image_id) is None:
                raise NotFoundError(f"no such image: {image if isinstance(image, str) else image.id}")
            self._store._catalog.put("tags", name, {"image": image_id})
        return name

    def remove(self, ref: Image | str, *, force: bool = False) -> builtins.list[str]:
        """Removes a name, and with the last name the image and the layers that no other image has.

        Returns what was done, as docker words it: "Untagged: busybox:latest", "Deleted: sha256:...". An id that has
        several names needs force. Raises InUseError when containers use the image; with force it then loses its names
        only. NotFoundError when there is none.
        """
        with self._store.transaction(durable=True):
            key = ref if isinstance(ref, str) else ref.id
            image_id, tag = self._resolve(key)
            catalog = self._store._catalog
            document = catalog.find("images", image_id)
            if document is None:
                raise NotFoundError(f"no such image: {key}")
            tags = self._tags_of(image_id)
            if tag is not None and len(tags) > 1:
                return self._untag([tag])
            if len(tags) > 1 and not force:
                names = ", ".join(tags)
                raise InUseError(f"image {image_id[:_SHORT_ID]} has several names: {names}; force removes all")
            users = self._users_of(image_id)
            if users and not force:
                raise InUseError(f"image {key} is used by {users}")
            done = self._untag(tags)
            return done if users else done + self._delete(image_id, document)

    def _untag(self, tags: Sequence[str]) -> builtins.list[str]:
        for tag in tags:
            self._store._catalog.delete("tags", tag)
        return [f"Untagged: {tag}" for tag in tags]

    def _delete(self, image_id: str, document: Document) -> builtins.list[str]:
        catalog = self._store._catalog
        catalog.delete("images", image_id)
        used = {chain for _, other in catalog.items("images") for chain in other["layers"]}
        done = [f"Deleted: sha256:{image_id}"]
        for chain in reversed(document["layers"]):  # children first
            layer = catalog.find("layers", chain)
            if chain in used or layer is None:
                continue
            catalog.delete("layers", chain)
            try:
                with self._store._native.open_tree(layer["tree"]) as tree:
                    tree.delete()
            except NotFoundError:
                pass
            done.append(f"Deleted: sha256:{chain}")
        return done

    def _tags_of(self, image_id: str) -> tuple[str, ...]:
        items = self._store._catalog.items("tags")
        return tuple(tag for tag, document in items if document["image"] == image_id)

    def _users_of(self, image_id: str) -> str:
        """Names of the containers that use the image, for people; "" when there are none."""
        items = self._store._catalog.items("containers")
        names = [document["name"] for _, document in items if document["image"] == image_id]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"container {', '.join(names[:3])}{more}" if names else ""


def _again_when_base_goes(work: Callable[[], _T]) -> _T:
    """Does work again when another thread removed a layer on which it builds."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BaseLayerGone):
            return work()
    return work()


def _diff_id(tree: Tree, below: Tree) -> tuple[str, int]:
    """The diffID and length of the tar of what tree changes."""
    digest = hashlib.sha256()
    length = 0
    with tree.tar(below) as tar:
        for chunk in tar:
            digest.update(chunk)
            length += len(chunk)
    return f"sha256:{digest.hexdigest()}", length


class Image:
    """An image of a store. What an image is never changes; its names do."""

    def __init__(self, store: Store, key: str, document: Document, tags: tuple[str, ...] | None = None) -> None:
        self._store = store
        self._key = key
        self._config: str = document["config"]
        self._chains: tuple[str, ...] = tuple(document["layers"])
        self._tags = tags
        self._tree: Tree | None = None
        self.id = f"sha256:{key}"
        self.created: int = document["created"]  # ns; 0 when the image does not say
        self.loaded: int = document["loaded"]  # when it came into the store, ns
        self.size: int = document["size"]  # bytes: the sum of its layers

    def __repr__(self) -> str:
        return f"<Image {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.id == other.id and self._store is other._store

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def short_id(self) -> str:
        """The first 12 hex digits of the id."""
        return self._key[:_SHORT_ID]

    @property
    def tags(self) -> tuple[str, ...]:
        """Its names in full ("busybox:latest"), sorted."""
        return self._tags if self._tags is not None else self._store.images._tags_of(self._key)

    @property
    def layers(self) -> tuple[str, ...]:
        """The diffID of each layer, lowest first."""
        return self.parsed_config().diff_ids

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The chainID of each layer, lowest first."""
        return tuple(f"sha256:{chain}" for chain in self._chains)

    @property
    def config(self) -> dict[str, Any]:
        """The whole config document; a copy of your own."""
        return self.parsed_config().document

    def parsed_config(self) -> ImageConfig:
        """The config, read and checked."""
        return ImageConfig.parse(self._config.encode("utf-8"))

    def tree(self) -> Tree:
        """The sealed tree of its top layer, which holds the whole image. NotFoundError when the image was removed."""
        if self._tree is None or self._tree.closed:
            tree_id = layer_tree_id(self._store._catalog, self._chains[-1] if self._chains else None)
            if tree_id is None:
                raise NotFoundError(f"no such image: {self.id}")
            self._tree = self._store._native.open_tree(tree_id)
        return self._tree

    @property
    def fs(self) -> FileSystem:
        """Read-only."""
        return FileSystem(self.tree())

    def history(self) -> list[HistoryEntry]:
        """How it was made, newest step first, as ``docker history`` shows it."""
        catalog = self._store._catalog
        sizes = [catalog.get("layers", chain)["size"] for chain in self._chains]
        rows = self.parsed_config().sized_steps(sizes)
        return [
            HistoryEntry(
                id=self.short_id if number == 0 else _MISSING,
                created=step.created,
                created_by=step.created_by,
                size=size,
                comment=step.comment,
                empty_layer=step.empty_layer,
            )
            for number, (step, size) in enumerate(reversed(rows))
        ]

    def tag(self, ref: str) -> str:
        """Gives it one more name; takes it from the image that has it. Returns the name in full.

        BadReferenceError when ref is not valid, NotFoundError when the image was removed.
        """
        name = self._store.images.tag(self, ref)
        self._tags = None
        return name

    def inspect(self) -> dict[str, Any]:
        """In the shape of ``docker inspect``."""
        parsed = self.parsed_config()
        document = parsed.document
        last = parsed.steps[-1] if parsed.steps else Step()
        found = {
            "Id": self.id,
            "RepoTags": list(self.tags),
            "RepoDigests": [],
            "Parent": "",
            "Comment": last.comment,
            "Created": format_time(self.created) if self.created else "0001-01-01T00:00:00Z",
            "Author": document.get("author") or "",
            "Config": document.get("config") or {},
            "Architecture": document.get("architecture") or "",
            "Os": document.get("os") or "",
            "Size": self.size,
            "VirtualSize": self.size,
            "GraphDriver": {"Name": "pycow", "Data": {"Tree": str(self.tree().id)}},
            "RootFS": {"Type": "layers", "Layers": list(parsed.diff_ids)},
            "ChainIds": list(self.chain_ids),
            "Metadata": {"LoadedTime": format_time(self.loaded)},
        }
        if variant := document.get("variant"):
            found["Variant"] = variant
        return found

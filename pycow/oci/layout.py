# SPDX-License-Identifier: Apache-2.0
"""OCI image layouts (image-spec, image-layout.md): index.json names manifests by digest, and so on down to the layers.

Indexes may be nested; of the images of several platforms the one for this machine is taken, or the only one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pycow.errors import BadReferenceError, ImageError
from pycow.oci.config import ImageConfig
from pycow.oci.digest import Digest, parse_digest
from pycow.oci.documents import Object, as_object, items, object_at, parse_object, text
from pycow.oci.files import Blob, Files
from pycow.oci.platform import host_architecture
from pycow.oci.reference import normalize, repository_word
from pycow.oci.source import ImageSource, make_source, tag_of

__all__ = ["layout_images"]

_INDEX = "index.json"
_DEPTH_MAX = 4  # of indexes in indexes
_DESCRIPTORS_MAX = 10_000

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER_TYPE = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?"
)
_TAG_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE_TYPE = "vnd.docker.reference.type"  # of build attestations, which are not images


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """A checked descriptor, and the name that an image gets from it."""

    media_type: str
    digest: Digest
    size: int
    os: str
    architecture: str
    variant: str
    tag: str | None
    attestation: bool

    @property
    def name(self) -> str:
        return f"blobs/{self.digest.algorithm}/{self.digest.hex}"


def layout_images(files: Files, marker: Blob) -> list[ImageSource]:
    """The images of the layout's index.json."""
    version = text(parse_object(marker.read_all(), marker.name), "imageLayoutVersion", marker.name)
    if not version.startswith("1."):
        raise ImageError(f"{marker.name}: unknown version {version[:100]!r} of the layout")
    index = files.find(_INDEX)
    if index is None:
        raise ImageError(f"the archive lacks {_INDEX!r}")
    layout = _Layout(files)
    return layout.images(parse_object(index.read_all(), _INDEX))


class _Layout:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._descriptors = 0

    def images(self, index: Object) -> list[ImageSource]:
        # Entries with one name are one image for several platforms; without names they are if they tell platforms.
        groups: dict[str | None, list[_Descriptor]] = {}
        for descriptor in self._manifests(index, _INDEX):
            if not descriptor.attestation:
                groups.setdefault(descriptor.tag, []).append(descriptor)
        found: list[ImageSource] = []
        for tag, group in groups.items():
            one = len(group) > 1 and (tag is not None or all(d.architecture for d in group))
            chosen = [self._choose(group, _INDEX)] if one else group
            found.extend(self._image(descriptor, tag, _DEPTH_MAX) for descriptor in chosen)
        return _merged(found)

    def _manifests(self, index: Object, what: str) -> list[_Descriptor]:
        if index.get("schemaVersion") != 2:
            raise ImageError(f"{what}: schemaVersion is not 2")
        values = items(index, "manifests", what)
        self._count(values, what)
        return [self._descriptor(value, what, (*_INDEX_TYPES, *_MANIFEST_TYPES)) for value in values]

    def _count(self, values: list[Any], what: str) -> None:
        self._descriptors += len(values)
        if self._descriptors > _DESCRIPTORS_MAX:
            raise ImageError(f"{what}: more than {_DESCRIPTORS_MAX} descriptors")

    def _descriptor(self, value: Any, what: str, types: Iterable[str] | re.Pattern[str]) -> _Descriptor:
        value = as_object(value, f"{what}: descriptor")
        media_type = text(value, "mediaType", what)
        known = types.fullmatch(media_type) if isinstance(types, re.Pattern) else media_type in types
        if not known:
            raise ImageError(f"{what}: unknown media type {media_type[:200]!r}")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ImageError(f"{what}: the descriptor has no valid 'size'")
        platform = object_at(value, "platform", what)
        annotations = object_at(value, "annotations", what)
        return _Descriptor(
            media_type=media_type,
            digest=parse_digest(value.get("digest"), what),
            size=size,
            os=text(platform, "os", what),
            architecture=text(platform, "architecture", what),
            variant=text(platform, "variant", what),
            tag=self._tag(annotations, what),
            attestation=_REFERENCE_TYPE in annotations,
        )

    def _tag(self, annotations: Object, what: str) -> str | None:
        """A full reference as it is; a bare word is the tag of an image that is named as the archive is."""
        if name := text(annotations, _FULL_NAME, what):
            return tag_of(name, what)
        name = text(annotations, _REF_NAME, what)
        if not _TAG_WORD.fullmatch(name):
            try:  # the grammar of this annotation allows more than references do
                return normalize(name)
            except BadReferenceError:
                return None
        repository = repository_word(self._files.stem)
        return normalize(f"{repository}:{name}") if repository is not None else None

    # ---- Down from a descriptor

    def _blob(self, descriptor: _Descriptor) -> Blob:
        """The blob, whose size is checked; what reads it checks the digest."""
        blob = self._files.find(descriptor.name)
        if blob is None:
            raise ImageError(f"the archive lacks {descriptor.name!r}")
        if blob.size != descriptor.size:
            raise ImageError(f"{descriptor.name}: {blob.size} bytes, but the descriptor says {descriptor.size}")
        return blob

    def _document(self, descriptor: _Descriptor) -> bytes:
        data = self._blob(descriptor).read_all()
        found = descriptor.digest.of(data)
        if found != descriptor.digest:
            raise ImageError(f"{descriptor.name}: wrong digest: it is {found}")
        return data

    def _typed(self, descriptor: _Descriptor) -> Object:
        document = parse_object(self._document(descriptor), descriptor.name)
        if text(document, "mediaType", descriptor.name) not in ("", descriptor.media_type):
            raise ImageError(f"{descriptor.name}: its media type is not that of the descriptor")
        return document

    def _image(self, descriptor: _Descriptor, tag: str | None, depth: int) -> ImageSource:
        if descriptor.media_type in _INDEX_TYPES:
            if depth == 0:
                raise ImageError(f"{descriptor.name}: too many indexes in indexes")
            manifests = self._manifests(self._typed(descriptor), descriptor.name)
            candidates = [d for d in manifests if not d.attestation]
            return self._image(self._choose(candidates, descriptor.name), tag, depth - 1)
        return self._from_manifest(descriptor, tag)

    def _from_manifest(self, descriptor: _Descriptor, tag: str | None) -> ImageSource:
        what = descriptor.name
        manifest = self._typed(descriptor)
        if manifest.get("schemaVersion") != 2:
            raise ImageError(f"{what}: schemaVersion is not 2")
        config = self._descriptor(manifest.get("config"), f"{what}: config", _CONFIG_TYPES)
        values = items(manifest, "layers", what)
        self._count(values, what)
        layers = [self._descriptor(value, f"{what}: layers", _LAYER_TYPE) for value in values]
        blobs = [(self._blob(layer), layer.digest) for layer in layers]
        parsed = ImageConfig.parse(self._document(config), config.name)
        return make_source(parsed, blobs, [tag] if tag else [], what)

    def _choose(self, candidates: list[_Descriptor], what: str) -> _Descriptor:
        """The image for this machine, or the only one."""
        if len(candidates) == 1:
            return candidates[0]
        wanted = host_architecture()
        fitting = [d for d in candidates if d.architecture == wanted and d.os == "linux"]
        if not fitting:
            others = ", ".join(f"{d.os}/{d.architecture}" for d in candidates if d.architecture) or "none that says so"
            raise ImageError(f"{what}: no image for linux/{wanted} (there: {others[:200]})")
        # The plain variant runs everywhere; others (amd64/v3) may need a newer processor.
        return min(fitting, key=lambda d: d.variant not in ("", "v1", "v8"))


def _merged(sources: list[ImageSource]) -> list[ImageSource]:
    """An image that is there under several names, once."""
    merged: dict[str, ImageSource] = {}
    for source in sources:
        known = merged.get(source.config.id)
        tags = (*known.tags, *source.tags) if known is not None else source.tags
        merged[source.config.id] = ImageSource(source.config, source.layers, tuple(dict.fromkeys(tags)))
    return list(merged.values())

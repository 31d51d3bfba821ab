# SPDX-License-Identifier: Apache-2.0
"""Archives of `docker save`: manifest.json lists images, each with a config, layers and tags by name of a member."""

from __future__ import annotations

import posixpath
import re

from pycow.errors import ImageError
from pycow.oci.config import ImageConfig
from pycow.oci.digest import Digest
from pycow.oci.documents import Object, as_object, parse, text, texts
from pycow.oci.files import Blob, Files, get
from pycow.oci.source import ImageSource, make_source, tag_of

__all__ = ["docker_images"]

_MANIFEST = "manifest.json"
_CONFIG_ID = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_BLOB = re.compile(r"blobs/(sha256)/([0-9a-f]{64})")


def docker_images(files: Files, manifest: Blob) -> list[ImageSource]:
    """The images that manifest.json lists."""
    entries = parse(manifest.read_all(), _MANIFEST)
    if not isinstance(entries, list):
        raise ImageError(f"{_MANIFEST}: a JSON array was expected")
    return [_image(files, as_object(entry, _MANIFEST)) for entry in entries]


def _image(files: Files, entry: Object) -> ImageSource:
    name = text(entry, "Config", _MANIFEST)
    if not name:
        raise ImageError(f"{_MANIFEST}: an image has no 'Config'")
    config = ImageConfig.parse(get(files, name).read_all(), name)
    # The config's name is the image's id; where it is not written as one there is nothing to compare with.
    named = _CONFIG_ID.fullmatch(posixpath.normpath(name))
    if named is not None and named[1] != config.id:
        raise ImageError(f"{name}: wrong digest: it is sha256:{config.id}")
    blobs = [(get(files, layer), _digest(layer)) for layer in texts(entry, "Layers", _MANIFEST)]
    tags = [tag_of(tag, _MANIFEST) for tag in texts(entry, "RepoTags", _MANIFEST)]
    return make_source(config, blobs, tags, _MANIFEST)


def _digest(layer: str) -> Digest | None:
    match = _BLOB.fullmatch(posixpath.normpath(layer))
    return Digest(match[1], match[2]) if match is not None else None

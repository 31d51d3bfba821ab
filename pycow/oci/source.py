# SPDX-License-Identifier: Apache-2.0
"""An image as an archive holds it, ready to be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pycow.errors import BadReferenceError, ImageError
from pycow.oci.config import ImageConfig
from pycow.oci.digest import Digest
from pycow.oci.files import Blob
from pycow.oci.reference import normalize

__all__ = ["ImageSource", "LayerSource", "make_source", "tag_of"]


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer: a tar, plain or compressed. digest is that of the blob as it is stored, None where none is given."""

    blob: Blob
    diff_id: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image: its checked config, its layers (lowest first) and its normalized names."""

    config: ImageConfig
    layers: tuple[LayerSource, ...]
    tags: tuple[str, ...]


def make_source(
    config: ImageConfig, blobs: Sequence[tuple[Blob, Digest | None]], tags: Sequence[str], what: str
) -> ImageSource:
    """ImageError when the layers are not as many as the config says."""
    if len(blobs) != len(config.diff_ids):
        raise ImageError(f"{what}: {len(blobs)} layers, but the config has {len(config.diff_ids)} diff_ids")
    pairs = zip(blobs, config.diff_ids, strict=True)
    layers = tuple(LayerSource(blob, diff_id, digest) for (blob, digest), diff_id in pairs)
    return ImageSource(config, layers, tuple(dict.fromkeys(tags)))


def tag_of(reference: str, what: str) -> str:
    """A reference of an archive, normalized; ImageError when it is not valid."""
    try:
        return normalize(reference)
    except BadReferenceError as error:
        raise ImageError(f"{what}: {error}") from None

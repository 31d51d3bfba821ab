# SPDX-License-Identifier: Apache-2.0
"""The images of an archive, whichever format it has: what `docker save` writes, or an OCI image layout.

Everything but the layers' content is read and checked here; the layers themselves come as blobs, see load.py. What
`docker save` has written since version 25 is both formats; manifest.json goes first, since it has the tags.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pycow.errors import ImageError
from pycow.oci.docker import docker_images
from pycow.oci.files import Files, Progress, open_files
from pycow.oci.layout import layout_images
from pycow.oci.source import ImageSource

__all__ = ["read_archive"]


@contextlib.contextmanager
def read_archive(path: str, scratch_dir: str, progress: Progress) -> Iterator[list[ImageSource]]:
    """The images of the archive, in its order; their layers can be read inside of the context.

    A compressed archive is decompressed into a nameless temporary file in scratch_dir. Raises ImageError when it is
    not an image archive, lacks something, or is not what its digests say.
    """
    files = open_files(path, scratch_dir, progress)
    try:
        yield _images(files, path)
    finally:
        files.close()


def _images(files: Files, path: str) -> list[ImageSource]:
    manifest = files.find("manifest.json")
    if manifest is not None:
        images = docker_images(files, manifest)
    else:
        marker = files.find("oci-layout")
        if marker is None:
            raise ImageError(f"{path}: not an image archive: it has neither manifest.json nor oci-layout")
        images = layout_images(files, marker)
    if not images:
        raise ImageError(f"{path}: there is no image in it")
    return images

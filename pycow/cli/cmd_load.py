# SPDX-License-Identifier: Apache-2.0
"""``pycow load``: an image archive into the store."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli._describe import image_value
from pycow.cli._progress import meter
from pycow.oci.reference import normalize

__all__ = ["command"]


@_command("load")
@click.option("-i", "--input", "option", metavar="FILE", help="The archive, or - for standard input.")
@click.option("-t", "--tag", metavar="REFERENCE", help="Name the image so, whatever the archive says.")
@click.argument("file", required=False)
def command(app: App, option: str | None, tag: str | None, file: str | None) -> None:
    """Load images from FILE: a `docker save` archive or an OCI layout (directory or tar), plain, gzip or zstd.

    Every digest is verified; layers that the store holds already are not read again. A load that fails or is cut
    off leaves nothing behind.
    """
    if option is not None and file is not None:
        usage_error("the archive is given twice")
    name = option if option is not None else file
    if name is None and sys.stdin.isatty():
        usage_error("name an archive, or pipe one in")
    with _source(name or "-") as path, app.open(create=True) as store, meter() as progress:
        images = store.images.load_all(path, tag=tag, progress=progress)
        values = [image_value(image) for image in images]
    lines = []
    for value in values:
        names = value["tags"] if tag is None else [normalize(tag)]
        lines += [f"Loaded image: {name}" for name in names] or [f"Loaded image ID: {value['id']}"]
    app.result(values, *lines)


@contextlib.contextmanager
def _source(name: str) -> Iterator[Path]:
    """The archive as a path; standard input goes through a temporary file, since archives are read out of order."""
    if name != "-":
        path = Path(name)
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", name)
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="pycow-load-", suffix=".tar") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        spool.flush()
        yield Path(spool.name)

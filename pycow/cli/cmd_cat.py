# SPDX-License-Identifier: Apache-2.0
"""``pycow cat``: a file of a container."""

from __future__ import annotations

import base64
import json
import sys
from typing import IO

import click

import pycow
from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli.cmd_ls import locate

__all__ = ["command"]

_CHUNK_BYTES = 3 << 18  # a multiple of 3: base64 of the parts is base64 of the whole


@_command("cat")
@click.argument("container")
@click.argument("path", required=False)
def command(app: App, container: str, path: str | None) -> None:
    """Write a file of CONTAINER to standard output: CONTAINER:PATH, or CONTAINER PATH. With --json in base64."""
    name, inside = locate(container, path)
    if inside is None:
        usage_error("missing argument 'PATH'")
    out = sys.stdout.buffer
    with app.open() as store, store.containers.get(name).fs.open(inside, "rb") as file:
        if app.json:
            _write_json(file, inside, out)
        else:
            while chunk := file.read(_CHUNK_BYTES):
                out.write(chunk)
    out.flush()


def _write_json(file: pycow.File, path: str, out: IO[bytes]) -> None:
    # In parts, so that memory does not grow with the file.
    out.write(f'{{"path": {json.dumps(path)}, "encoding": "base64", "content": "'.encode())
    while chunk := file.read(_CHUNK_BYTES):  # short only at the end
        out.write(base64.b64encode(chunk))
    out.write(b'"}\n')

# SPDX-License-Identifier: Apache-2.0
"""``pycow tag``: one more name for an image."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import image_value

__all__ = ["command"]


@_command("tag")
@click.argument("image")
@click.argument("reference")
def command(app: App, image: str, reference: str) -> None:
    """Name IMAGE also REFERENCE (NAME[:TAG]); an image that had this name loses it."""
    with app.open(write=True) as store:
        store.images.get(image).tag(reference)
        value = image_value(store.images.get(reference))
    app.result(value)

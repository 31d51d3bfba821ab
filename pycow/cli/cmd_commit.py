# SPDX-License-Identifier: Apache-2.0
"""``pycow commit``: an image of a container."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import image_value

__all__ = ["command"]


@_command("commit")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why; shown by history as the comment.")
@click.option("-a", "--author", default="", metavar="TEXT", help="Who.")
@click.argument("container")
@click.argument("reference", required=False)
def command(app: App, message: str, author: str, container: str, reference: str | None) -> None:
    """Make an image of CONTAINER's changes, name it REFERENCE (NAME[:TAG]), and print its id."""
    with app.open(write=True) as store:
        image = store.containers.get(container).commit(reference, message=message, author=author)
        value = image_value(image)
    app.result(value, value["id"])

# SPDX-License-Identifier: Apache-2.0
"""``pycow rmi``: images away."""

from __future__ import annotations

import click

from pycow.cli._app import App, Failures
from pycow.cli._app import command as _command

__all__ = ["command"]


@_command("rmi")
@click.option("-f", "--force", is_flag=True, help="Take off all names; an image in use then stays without one.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
def command(app: App, force: bool, names: tuple[str, ...]) -> int:
    """Remove images, and the layers that no other image has. A name of an image with others is only taken off."""
    failures = Failures()
    done: list[str] = []
    with app.open(write=True) as store:
        for name in names:
            with failures.caught():
                done += store.images.remove(name, force=force)
    app.result(done, *done)
    return failures.code

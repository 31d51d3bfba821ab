# SPDX-License-Identifier: Apache-2.0
"""``pycow rm``: containers away."""

from __future__ import annotations

import click

import pycow
from pycow.cli._app import App, Failures
from pycow.cli._app import command as _command

__all__ = ["command"]


@_command("rm")
@click.option("-f", "--force", is_flag=True, help="Say nothing about containers that do not exist.")
@click.argument("names", metavar="CONTAINER...", nargs=-1, required=True)
def command(app: App, force: bool, names: tuple[str, ...]) -> int:
    """Remove containers with their snapshots."""
    failures = Failures()
    ignored = (pycow.NotFoundError,) if force else ()
    removed = []
    with app.open(write=True) as store:
        for name in names:
            with failures.caught(*ignored):
                store.containers.get(name).remove()
                removed.append(name)
    app.result(removed, *removed)
    return failures.code

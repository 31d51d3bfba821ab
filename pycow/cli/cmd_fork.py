# SPDX-License-Identifier: Apache-2.0
"""``pycow fork``: a twin of a container as it is now."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import Known, container_value

__all__ = ["command"]


@_command("fork")
@click.argument("container")
@click.argument("name", required=False)
def command(app: App, container: str, name: str | None) -> None:
    """Make a container with the content of CONTAINER, called NAME, and print its id. Nothing is copied."""
    with app.open(write=True) as store:
        twin = store.containers.get(container).fork(name)
        value = container_value(twin, Known(store))
    app.result(value, value["id"])

# SPDX-License-Identifier: Apache-2.0
"""``pycow rollback``: a container back to a snapshot."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import usage_value

__all__ = ["command"]


@_command("rollback")
@click.argument("container")
@click.argument("snapshot")
def command(app: App, container: str, snapshot: str) -> None:
    """Put CONTAINER back to the state of SNAPSHOT; what came after it is lost. Nothing is copied."""
    with app.open(write=True) as store:
        box = store.containers.get(container)
        box.rollback(snapshot)
        value = {"container": box.id, "snapshot": snapshot, "usage": usage_value(box.usage())}
    app.result(value, snapshot)

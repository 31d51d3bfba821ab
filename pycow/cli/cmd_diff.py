# SPDX-License-Identifier: Apache-2.0
"""``pycow diff``: what a container changed in its image."""

from __future__ import annotations

import click

from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._format import printable

__all__ = ["command"]


@_command("diff")
@click.argument("container")
def command(app: App, container: str) -> None:
    """List what CONTAINER added (A), changed (C) and deleted (D)."""
    with app.open() as store:
        changes = store.containers.get(container).diff()
    values = [
        {
            "kind": change.kind,
            "path": change.path,
            "blocks": [{"first": first, "count": count} for first, count in change.blocks],
        }
        for change in changes
    ]
    app.result(values, *(f"{change.kind} {printable(change.path)}" for change in changes))

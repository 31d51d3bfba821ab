# SPDX-License-Identifier: Apache-2.0
"""``pycow snapshot``: states of a container to go back to."""

from __future__ import annotations

import click

from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli._describe import snapshot_value
from pycow.cli._format import human_age, list_size

__all__ = ["command"]

HEADERS = ("SNAPSHOT", "CREATED", "SIZE")


@_command("snapshot")
@click.option("--list", "listing", is_flag=True, help="List the snapshots of CONTAINER.")
@click.option("--rm", "remove", is_flag=True, help="Remove the snapshot NAME.")
@click.argument("container")
@click.argument("name", required=False)
def command(app: App, listing: bool, remove: bool, container: str, name: str | None) -> None:
    """Keep the state of CONTAINER as NAME; `pycow rollback` goes back to it. Nothing is copied."""
    if listing and remove:
        usage_error("--list and --rm exclude each other")
    if listing:
        if name is not None:
            usage_error("--list takes a container only")
        _list(app, container)
        return
    if name is None:
        usage_error("missing argument 'NAME'")
    with app.open(write=True) as store:
        box = store.containers.get(container)
        if remove:
            box.get_snapshot(name).remove()
            value = {"container": box.id, "removed": name}
        else:
            value = snapshot_value(box.snapshot(name))
    app.result(value, name)


def _list(app: App, container: str) -> None:
    with app.open() as store:
        snapshots = store.containers.get(container).snapshots()
        values = [snapshot_value(snapshot) for snapshot in snapshots]
        rows = [
            (snapshot.name, human_age(snapshot.created), list_size(value["usage"]["size"]))
            for snapshot, value in zip(snapshots, values, strict=True)
        ]
    app.rows(HEADERS, rows, values)

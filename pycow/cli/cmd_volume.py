# SPDX-License-Identifier: Apache-2.0
"""``pycow volume``: trees that belong to no image."""

from __future__ import annotations

from typing import Any

import click

import pycow
from pycow.cli._app import App, Failures, Group
from pycow.cli._app import command as _command
from pycow.cli._describe import usage_value
from pycow.cli._format import human_age, iso_time, list_size

__all__ = ["command"]

HEADERS = ("VOLUME NAME", "CREATED", "SIZE")


@click.group("volume", cls=Group)
def command() -> None:
    """Create, list and remove volumes."""


@_command("create")
@click.argument("name")
def create(app: App, name: str) -> None:
    """Create an empty volume."""
    with app.open(create=True) as store:
        value = _value(store.volumes.create(name))
    app.result(value, name)


@_command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def list_(app: App, quiet: bool) -> None:
    """List volumes."""
    with app.open() as store:
        volumes = sorted(store.volumes.list(), key=lambda volume: volume.name)
        values = [_value(volume) for volume in volumes]
        rows = [(volume.name, human_age(volume.created), list_size(volume.usage().size)) for volume in volumes]
    names = [volume.name for volume in volumes]
    if quiet:
        app.result(names, *names)
        return
    app.rows(HEADERS, rows, values)


@_command("rm")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
def remove(app: App, names: tuple[str, ...]) -> int:
    """Remove volumes with all that they hold."""
    failures = Failures()
    removed = []
    with app.open(write=True) as store:
        for name in names:
            with failures.caught():
                store.volumes.get(name).remove()
                removed.append(name)
    app.result(removed, *removed)
    return failures.code


def _value(volume: pycow.Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "created": iso_time(volume.created),
        "labels": dict(volume.labels),
        "usage": usage_value(volume.usage()),
    }


command.add_command(create)
command.add_command(list_)
command.add_command(remove)

# SPDX-License-Identifier: Apache-2.0
"""``pycow inspect``: all about containers and images."""

from __future__ import annotations

from typing import Any

import click

import pycow
from pycow.cli._app import App, Failures
from pycow.cli._app import command as _command
from pycow.cli._describe import Known, inspect_container

__all__ = ["command"]


@_command("inspect")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def command(app: App, names: tuple[str, ...]) -> int:
    """Print containers and images as a JSON array, in docker's shape. A name is tried as a container first."""
    failures = Failures()
    values = []
    with app.open() as store:
        for name in names:
            with failures.caught():
                values.append(_describe(store, name))
    app.print_json(values)
    return failures.code


def _describe(store: pycow.Store, name: str) -> dict[str, Any]:
    try:
        container = store.containers.get(name)
    except pycow.NotFoundError:
        pass
    else:
        return inspect_container(container, Known(store))
    try:
        return store.images.get(name).inspect()
    except (pycow.NotFoundError, pycow.BadReferenceError):
        raise pycow.NotFoundError(f"no such container or image: {name}") from None

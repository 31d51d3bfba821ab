# SPDX-License-Identifier: Apache-2.0
"""``pycow create``: a container of an image."""

from __future__ import annotations

import click

from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli._describe import Known, container_value
from pycow.cli.cmd_quota import quota_option

__all__ = ["command"]


@_command("create", context_settings={"allow_interspersed_args": False})
@click.option("--name", metavar="NAME", help="The container's name; made up otherwise.")
@click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label; may be given often.")
@click.option("--quota", metavar="SIZE", callback=quota_option, help="What it may hold by itself: 500MB, 2GiB.")
@click.argument("image")
@click.argument("command_line", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(
    app: App,
    name: str | None,
    labels: tuple[str, ...],
    quota: int | None,
    image: str,
    command_line: tuple[str, ...],
) -> None:
    """Create a container of IMAGE and print its id. It takes the same time for any image."""
    parsed = dict(_label(text) for text in labels)
    with app.open(write=True) as store:
        made = store.containers.create(
            store.images.get(image), name=name, command=list(command_line) or None, labels=parsed, quota=quota
        )
        value = container_value(made, Known(store))
    app.result(value, value["id"])


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        usage_error(f"a label needs a name: {text!r}")
    return key, value

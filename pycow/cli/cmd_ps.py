# SPDX-License-Identifier: Apache-2.0
"""``pycow ps``: the containers of the store."""

from __future__ import annotations

import click

import pycow
from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import Known, container_value, usage_value
from pycow.cli._format import command_text, human_age, size_column

__all__ = ["command", "container_row"]

HEADERS = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")


@_command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted for docker's sake: all are shown anyway.")
@click.option("-s", "--size", is_flag=True, help="Show what each holds by itself, and with its image.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids and commands.")
def command(app: App, everything: bool, size: bool, quiet: bool, no_trunc: bool) -> None:
    """List containers, the newest first."""
    del everything
    with app.open() as store:
        known = Known(store)
        containers = sorted(store.containers.list(), key=lambda container: -container.created)
        if quiet:
            ids = [container.id for container in containers]
            app.result(ids, *(one if no_trunc else one[:12] for one in ids))
            return
        rows, values = [], []
        for container in containers:
            usage = container.usage() if size else None
            rows.append(container_row(container, known, usage, full=no_trunc))
            values.append(container_value(container, known) | (usage_value(usage) if usage else {}))
    app.rows((*HEADERS, "SIZE") if size else HEADERS, rows, values)


def container_row(
    container: pycow.Container, known: Known, usage: pycow.Usage | None = None, *, full: bool = False
) -> tuple[str, ...]:
    """One row of the table, with a SIZE column when there is a usage."""
    row = (
        container.id if full else container.short_id,
        known.name(container),
        command_text(known.command(container), full=full),
        human_age(container.created),
        "Created",
        "",
        container.name,
    )
    return row if usage is None else (*row, size_column(usage.size, usage.virtual_size, usage.quota))

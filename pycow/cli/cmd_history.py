# SPDX-License-Identifier: Apache-2.0
"""``pycow history``: how an image was made."""

from __future__ import annotations

import click

import pycow
from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._format import human_age, iso_time, list_size, truncated

__all__ = ["command", "history_rows"]

HEADERS = ("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT")
_CREATED_BY_WIDTH = 45


@_command("history")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids and commands.")
@click.argument("image")
def command(app: App, quiet: bool, no_trunc: bool, image: str) -> None:
    """Show the steps that made IMAGE, the newest first; a step without a layer has 0B."""
    with app.open() as store:
        found = store.images.get(image)
        entries = found.history()
        rows = history_rows(entries, full_id=found.id if no_trunc else None)
    if quiet and not app.json:
        for row in rows:
            app.print(row[0])
        return
    values = [
        {
            "id": row[0],
            "created": iso_time(entry.created),
            "created_by": entry.created_by,
            "size": entry.size,
            "comment": entry.comment,
            "empty_layer": entry.empty_layer,
        }
        for row, entry in zip(rows, entries, strict=True)
    ]
    app.rows(HEADERS, rows, [value["id"] for value in values] if quiet else values)


def history_rows(entries: list[pycow.HistoryEntry], *, full_id: str | None = None) -> list[tuple[str, ...]]:
    """Rows of the table; with full_id that id and whole commands."""
    return [
        (
            entry.id if entry.id == "<missing>" or full_id is None else full_id,
            human_age(entry.created),
            _one_line(entry.created_by, full=full_id is not None),
            list_size(entry.size),
            entry.comment,
        )
        for entry in entries
    ]


def _one_line(created_by: str, *, full: bool) -> str:
    text = " ".join(created_by.split()) if not full else created_by.replace("\t", " ")
    return text if full else truncated(text, _CREATED_BY_WIDTH)

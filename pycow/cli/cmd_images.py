# SPDX-License-Identifier: Apache-2.0
"""``pycow images``: the images of the store."""

from __future__ import annotations

import click

import pycow
from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import image_value
from pycow.cli._format import human_age, list_size, split_tag

__all__ = ["command", "image_rows"]

HEADERS = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")


@_command("images")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids.")
@click.argument("repository", required=False)
def command(app: App, quiet: bool, no_trunc: bool, repository: str | None) -> None:
    """List images, the newest first; with REPOSITORY[:TAG] only those."""
    with app.open() as store:
        images = sorted(store.images.list(), key=lambda image: -image.created)
        if repository is not None:
            images = [image for image in images if any(_fits(tag, repository) for tag in image.tags)]
        values = [image_value(image) for image in images]
        rows = [row for image in images for row in image_rows(image, repository=repository, full=no_trunc)]
    if quiet and not app.json:
        for identifier in dict.fromkeys(row[2] for row in rows):
            app.print(identifier)
        return
    app.rows(HEADERS, rows, (value["id"] for value in values) if quiet else values)


def image_rows(image: pycow.Image, *, repository: str | None = None, full: bool = False) -> list[tuple[str, ...]]:
    """One row for each tag of the image."""
    tags = [tag for tag in image.tags if repository is None or _fits(tag, repository)]
    names = [split_tag(tag) for tag in tags] or [("<none>", "<none>")]
    identifier = image.id if full else image.short_id
    return [(name, tag, identifier, human_age(image.created), list_size(image.size)) for name, tag in names]


def _fits(tag: str, wanted: str) -> bool:
    return wanted in (tag, split_tag(tag)[0])

# SPDX-License-Identifier: Apache-2.0
"""``pycow cp``: files and trees between the host and a container."""

from __future__ import annotations

import os

import click

from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli._format import human_size
from pycow.cli._progress import ticking
from pycow.cli._target import Target, inner_path, parse_target

__all__ = ["command"]


@_command("cp")
@click.argument("source")
@click.argument("destination")
def command(app: App, source: str, destination: str) -> None:
    """Copy a file or tree into a container, or out of one: one of the two is CONTAINER:PATH.

    As with docker: into a directory that exists the copy goes below it, SOURCE/. copies the content of a
    directory. Modes, owners and times are kept. A host path with a colon is written ./a:b.
    """
    here, there = parse_target(source), parse_target(destination)
    if here.container is None and there.container is not None:
        _copy_in(app, here.path, there)
    elif here.container is not None and there.container is None:
        _copy_out(app, here, there.path)
    else:
        both = here.container is not None
        usage_error("copying between containers is not supported" if both else "one side must be CONTAINER:PATH")
    app.result({"source": source, "destination": destination})


def _copy_in(app: App, source: str, target: Target) -> None:
    if not os.path.lexists(source):
        raise FileNotFoundError(2, "No such file or directory", source)
    with app.open(write=True) as store:
        box = store.containers.get(target.container or "")
        start = store.stats().bytes_written
        with ticking(f"copying {source}", lambda: human_size(store.stats().bytes_written - start, 3) + " written"):
            box.fs.copy_in(source, inner_path(target.path))


def _copy_out(app: App, source: Target, target: str) -> None:
    with app.open() as store:
        box = store.containers.get(source.container or "")
        start = store.stats().bytes_read
        with ticking(f"copying {source.path}", lambda: human_size(store.stats().bytes_read - start, 3) + " read"):
            box.fs.copy_out(inner_path(source.path), target)

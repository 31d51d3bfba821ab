# SPDX-License-Identifier: Apache-2.0
"""``pycow ls``: a directory of a container."""

from __future__ import annotations

import datetime
import os
import stat
from typing import Any

import click

import pycow
from pycow.cli._app import App, usage_error
from pycow.cli._app import command as _command
from pycow.cli._format import iso_time, printable
from pycow.cli._target import inner_path, parse_target

__all__ = ["command", "locate"]


@_command("ls")
@click.option("-l", "long", is_flag=True, help="Show mode, links, owner, size and time.")
@click.argument("container")
@click.argument("path", required=False)
def command(app: App, long: bool, container: str, path: str | None) -> None:
    """List a directory of CONTAINER (or one file): CONTAINER:PATH, or CONTAINER PATH; the root without a path."""
    name, inside = locate(container, path)
    with app.open() as store:
        top = store.containers.get(name).fs / (inside or "/")
        entries = _entries(top)
    if app.json:
        app.print_json([entry.value() for entry in entries])
    elif long:
        _print_long(app, entries)
    else:
        for entry in entries:
            app.print(printable(entry.name))


def locate(container: str, path: str | None) -> tuple[str, str | None]:
    """(container, path) of CONTAINER:PATH, or of the two apart; path is None when there is none."""
    target = parse_target(container)
    if target.container is None:
        return container, inner_path(path) if path is not None else None
    if path is not None:
        usage_error("the path is given twice")
    return target.container, target.path


def _entries(top: pycow.Path) -> list[_Entry]:
    attr = top.stat()
    if not attr.is_dir():
        return [_Entry(top.name, attr, None)]
    return sorted(
        (_Entry(child.name, child.attr or (top / child.name).lstat(), top) for child in top.scandir()),
        key=lambda entry: os.fsencode(entry.name),
    )


class _Entry:
    """One line, read while the store is open."""

    def __init__(self, name: str, attr: pycow.Attr, directory: pycow.Path | None) -> None:
        self.name = name
        self.attr = attr
        self.target = (directory / name).readlink() if directory is not None and attr.is_symlink() else None

    def value(self) -> dict[str, Any]:
        attr = self.attr
        value = {
            "name": self.name,
            "mode": stat.filemode(attr.mode),
            "permissions": f"{attr.permissions:04o}",
            "inode": attr.ino,
            "links": attr.nlink,
            "uid": attr.uid,
            "gid": attr.gid,
            "size": attr.size,
            "modified": iso_time(attr.mtime_ns),
        }
        if self.target is not None:
            value["target"] = self.target
        if _is_device(attr.mode):
            value["device"] = [os.major(attr.rdev), os.minor(attr.rdev)]
        return value

    def columns(self) -> tuple[str, ...]:
        attr = self.attr
        size = f"{os.major(attr.rdev)}, {os.minor(attr.rdev)}" if _is_device(attr.mode) else str(attr.size)
        when = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
            seconds=attr.mtime_ns // 1_000_000_000
        )
        return (
            stat.filemode(attr.mode),
            str(attr.nlink),
            str(attr.uid),
            str(attr.gid),
            size,
            f"{when:%Y-%m-%d %H:%M}",
        )


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _print_long(app: App, entries: list[_Entry]) -> None:
    columns = [entry.columns() for entry in entries]
    widths = [max((len(line[i]) for line in columns), default=0) for i in range(6)]
    for entry, line in zip(entries, columns, strict=True):
        arrow = f" -> {printable(entry.target)}" if entry.target is not None else ""
        left = " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        app.print(f"{left} {printable(entry.name)}{arrow}")

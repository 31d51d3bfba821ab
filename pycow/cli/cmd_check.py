# SPDX-License-Identifier: Apache-2.0
"""``pycow check``: is the store sound?"""

from __future__ import annotations

import dataclasses

import click

import pycow
from pycow.cli._app import App, Exit
from pycow.cli._app import command as _command
from pycow.cli._format import human_size, printable
from pycow.cli._progress import ticking

__all__ = ["command", "verdict"]


@_command("check")
@click.option("--no-data", is_flag=True, help="Do not read file data: trees, counts and free space only.")
def command(app: App, no_data: bool) -> int:
    """Walk the whole store and compare reference counts, free space and the checksum of every block.

    It needs the store for itself. The exit code is 6 when anything is wrong.
    """
    with app.open(write=True) as store:

        def amount() -> str:
            stats = store.stats()
            return f"{stats.nodes_visited} nodes, {human_size(stats.blocks_verified * 4096, 3)} of data"

        with ticking("checking", amount):
            report = store.check(verify_data=not no_data)
    app.result(dataclasses.asdict(report), *(f"error: {printable(error)}" for error in report.errors), verdict(report))
    return Exit.OK if report.ok else Exit.DAMAGED


def verdict(report: pycow.CheckReport) -> str:
    """One line about a check."""
    return (
        f"{'ok' if report.ok else 'DAMAGED'}: {report.trees} trees, {report.nodes} nodes, {report.inodes} inodes, "
        f"{report.extents} extents, {report.blocks} blocks"
    )

# SPDX-License-Identifier: Apache-2.0
"""``pycow scrub``: read everything, slowly, and name the files that the medium has damaged."""

from __future__ import annotations

import dataclasses

import click

from pycow.cli._app import App, Exit
from pycow.cli._app import command as _command
from pycow.cli._format import human_size
from pycow.cli._progress import meter
from pycow.cli.cmd_check import lines_of

__all__ = ["command"]


@_command("scrub")
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="MIB",
    help="Read at most so many MiB a second (0, the default: as fast as it goes).",
)
def command(app: App, rate: float) -> int:
    """Read and verify every block in use at the last commit; works beside a process that writes.

    The exit code is 6 when damage was found; the damaged files are named.
    """
    with app.open() as store, meter() as show:
        report = store.scrub(rate=rate * (1 << 20), progress=lambda done, total: show("scrub", done, total))
    size = human_size(report.blocks * 4096, 3)
    last = f"{'ok' if report.ok else 'DAMAGED'}: {size} read, {report.damaged} damaged blocks"
    app.result(dataclasses.asdict(report), *lines_of(report.findings), last)
    return Exit.OK if report.ok else Exit.DAMAGED

# SPDX-License-Identifier: Apache-2.0
"""``pycow bench``: how fast pycow is on this machine, and beside its peers."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from pycow.bench.plots import need_matplotlib, plot
from pycow.bench.report import Report
from pycow.bench.short import short_run
from pycow.bench.tables import HEADERS, terminal_rows
from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._format import table

__all__ = ["command"]

_FOLDER = click.Path(path_type=Path, file_okay=False)


@_command("bench")
@click.option("--compare", is_flag=True, help="Also measure overlayfs, btrfs, fuse-overlayfs and copies (as root).")
@click.option("--plot", "plots", type=_FOLDER, metavar="DIR", help="Write plots (PNG, SVG) there; needs pycow[bench].")
@click.option("--dir", "folder", type=_FOLDER, metavar="DIR", help="Work below this directory (the temporary one).")
def command(app: App, compare: bool, plots: Path | None, folder: Path | None) -> None:
    """Measure the usual work: containers, first writes, blocks, files, layers, fsync.

    It works in a scratch store, which is removed afterwards, and does not touch the store of --store. Times are the
    medians of samples taken in turn, and hold for this machine at this moment. RATIO says how many times better pycow
    is than the best of the others; below 1 it loses. "committed" figures are durable when they are taken.
    """
    if plots is not None:
        need_matplotlib()
    with tempfile.TemporaryDirectory(prefix="pycow-bench-", dir=folder) as scratch:
        report = short_run(Path(scratch) / "work", compare=compare, progress=_progress)
    _end_progress()
    written = plot(report, plots) if plots is not None else []
    if app.json:
        app.print_json(report.as_dict())
        return
    _print(app, report)
    for path in written:
        app.print(f"Wrote {path}")


def _print(app: App, report: Report) -> None:
    app.print(", ".join(f"{name}: {value}" for name, value in report.machine.items()))
    for topic, rows in terminal_rows(report):
        app.print()
        app.print(topic)
        app.print(table(HEADERS, rows))
    if report.missing:
        app.print()
    for name, reason in report.missing.items():
        app.print(f"Not measured: {name}: {reason}")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)


def _end_progress() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)

# SPDX-License-Identifier: Apache-2.0
"""``pycow check``: is the store sound? With ``--repair``: make it so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click

import pycow
from pycow.cli._app import App, Exit
from pycow.cli._app import command as _command
from pycow.cli._format import human_size, printable
from pycow.cli._progress import ticking

__all__ = ["command", "lines_of", "verdict"]


@_command("check")
@click.option("--no-data", is_flag=True, help="Do not read file data: trees, counts, names and free space only.")
@click.option("--whole", is_flag=True, help="Compare names and inodes of forks in full, not only what they changed.")
@click.option("--repair", is_flag=True, help="Set right what can be, save what can be read; nobody may use the store.")
def command(app: App, no_data: bool, whole: bool, repair: bool) -> int:
    """Walk the whole store and compare counts, names, free space and the checksum of every block.

    It needs the store for itself. The exit code is 6 when anything is wrong; with --repair, when anything was lost,
    could not be verified, or stays unreadable.
    """
    if repair:
        return _repair(app)
    with app.open(write=True) as store:

        def amount() -> str:
            stats = store.stats()
            return f"{stats.nodes_visited} nodes, {human_size(stats.blocks_verified * 4096, 3)} of data"

        with ticking("checking", amount):
            report = store.check(verify_data=not no_data, whole=whole)
    texts = [finding.text for finding in report.findings]
    lines = lines_of(report.findings) + [f"error: {printable(e)}" for e in report.errors if e not in texts]
    app.result(dataclasses.asdict(report), *lines, verdict(report))
    return Exit.OK if report.ok else Exit.DAMAGED


def _repair(app: App) -> int:
    with ticking("repairing", lambda: str(app.path)):
        report = pycow.repair(app.path)
    last = f"{'ok' if report.ok else 'DAMAGED'}: {report.found} found, {report.repaired} repaired, {report.lost} lost, "
    last += f"{report.damaged} stay damaged, {report.unverified} blocks unverified"
    app.result(dataclasses.asdict(report), *lines_of(report.findings), last)
    return Exit.OK if report.ok else Exit.DAMAGED


def lines_of(findings: Sequence[pycow.Finding]) -> list[str]:
    """A line for each finding."""
    lines = []
    for finding in findings:
        where = f" [{printable(finding.path)}]" if finding.path else ""
        lines.append(f"{'repaired' if finding.repaired else 'error'}: {printable(finding.text)}{where}")
    return lines


def verdict(report: pycow.CheckReport) -> str:
    """One line about a check."""
    return (
        f"{'ok' if report.ok else 'DAMAGED'}: {report.trees} trees, {report.nodes} nodes, {report.inodes} inodes, "
        f"{report.extents} extents, {report.blocks} blocks"
    )

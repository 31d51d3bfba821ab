# SPDX-License-Identifier: Apache-2.0
"""The command line, ``pycow``: docker's verbs over a store. docs/CLI.md describes it; one file per command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import pycow
from pycow.cli import (
    cmd_bench,
    cmd_cat,
    cmd_check,
    cmd_commit,
    cmd_cp,
    cmd_create,
    cmd_df,
    cmd_diff,
    cmd_fork,
    cmd_history,
    cmd_images,
    cmd_inspect,
    cmd_load,
    cmd_ls,
    cmd_mount,
    cmd_ps,
    cmd_quota,
    cmd_rm,
    cmd_rmi,
    cmd_rollback,
    cmd_scrub,
    cmd_snapshot,
    cmd_tag,
    cmd_umount,
    cmd_volume,
)
from pycow.cli._app import App, Group, run_command

__all__ = ["cli", "main", "run"]


@click.group(
    cls=Group,
    environment=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict or in use, 5 store locked, "
    "6 store damaged, 7 no space.",
)
@click.version_option(pycow.__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Container images and containers in a copy-on-write store."""
    ctx.ensure_object(App)


for _module in (
    cmd_load,
    cmd_images,
    cmd_history,
    cmd_inspect,
    cmd_tag,
    cmd_create,
    cmd_ps,
    cmd_quota,
    cmd_diff,
    cmd_commit,
    cmd_fork,
    cmd_snapshot,
    cmd_rollback,
    cmd_cp,
    cmd_ls,
    cmd_cat,
    cmd_mount,
    cmd_umount,
    cmd_rm,
    cmd_rmi,
    cmd_volume,
    cmd_df,
    cmd_check,
    cmd_scrub,
    cmd_bench,
):
    cli.add_command(_module.command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    return run_command(cli, arguments)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""``pycow umount``: ends a mount."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import click

import pycow
from pycow.cli._app import App
from pycow.cli._app import command as _command

__all__ = ["command"]

_WAIT_S = 10.0


@_command("umount")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-l", "--lazy", is_flag=True, help="Also while files are open there; they become useless.")
def command(app: App, directory: Path, lazy: bool) -> None:
    """Unmount what `pycow mount` mounted, and wait until its server has committed and gone.

    It waits for the store of the command line, at most 10 seconds.
    """
    path = os.path.abspath(directory)
    program = ["umount", *(["-l"] if lazy else [])] if os.geteuid() == 0 else ["fusermount3", "-uz" if lazy else "-u"]
    done = subprocess.run([*program, "--", path], capture_output=True, text=True, errors="surrogateescape", check=False)
    if done.returncode != 0:
        raise pycow.BusyError(done.stderr.strip() or f"{program[0]} failed")
    if app.path.exists():
        _wait(app.path)


def _wait(store: Path) -> None:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        try:
            pycow.open(store, create=False, commit_interval=0).close()
            return
        except pycow.LockedError:
            time.sleep(0.02)

# SPDX-License-Identifier: Apache-2.0
"""``pycow mount``: a container, or the whole store, as a file system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

import pycow
from pycow.cli._app import App, Exit, usage_error
from pycow.cli._app import command as _command
from pycow.cli._format import printable

__all__ = ["command"]

_OPTIONS = ("ro", "rw", "allow_other", "dev", "suid", "write_through")
_LOOK_S = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@_command("mount")
@click.argument("places", nargs=-1, metavar="[CONTAINER] DIRECTORY")
@click.option("-o", "options", multiple=True, metavar="OPTION[,...]", help="ro, allow_other, dev, suid, write_through.")
@click.option("-d", "--detach", is_flag=True, help="Serve in the background, and return when it is mounted.")
def command(app: App, places: tuple[str, ...], options: tuple[str, ...], detach: bool) -> int:
    """Mount a container, or (without one) the whole store, and serve it until it is unmounted.

    SIGTERM, SIGINT and `pycow umount` unmount it and commit. A mount whose server was killed is cleared first.
    """
    if len(places) not in (1, 2):
        usage_error("a container and a directory, or a directory alone")
    container = places[0] if len(places) == 2 else None
    directory = Path(places[-1])
    chosen = {word for option in options for word in option.split(",") if word}
    if unknown := sorted(chosen.difference(_OPTIONS)):
        usage_error(f"unknown mount option: {', '.join(unknown)}")
    if detach:
        return _in_background(app, container, directory, chosen)
    ended = threading.Event()
    with _signals(ended), app.open(write="ro" not in chosen) as store:
        what = None if container is None else store.containers.get(container)
        with store.mount(
            directory,
            what,
            readonly="ro" in chosen,
            allow_other="allow_other" in chosen,
            dev="dev" in chosen,
            suid="suid" in chosen,
            write_through="write_through" in chosen,
        ) as mount:
            app.print(f"{printable(container or str(app.path))} is mounted at {printable(mount.path)}")
            sys.stdout.flush()
            while not ended.is_set() and not mount.wait(0.0):
                ended.wait(_LOOK_S)  # a signal ends it at once, an unmount from outside is seen by looking
    return Exit.OK


@contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    """Signals that end a program set the event instead."""

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_background(app: App, container: str | None, directory: Path, options: set[str]) -> int:
    arguments = ["--store", str(app.path.absolute()), "mount"]
    for option in sorted(options):
        arguments += ["-o", option]
    arguments += ["--", *([container] if container is not None else []), str(directory.absolute())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    server = subprocess.Popen(
        [sys.executable, "-m", "pycow.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=True,
        env=environment,
        cwd="/",
    )
    assert server.stdout is not None
    assert server.stderr is not None
    with server.stdout, server.stderr:
        line = server.stdout.readline()
        if line:
            app.print(line.rstrip("\n"))
            return Exit.OK
        text = server.stderr.read().strip().removeprefix("pycow: ")
    code = server.wait()
    click.echo(f"pycow: {text or pycow.Error('the server ended')}", err=True)
    return code or Exit.FAILED

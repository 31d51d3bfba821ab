# SPDX-License-Identifier: Apache-2.0
"""Mounts, loop devices and file-system images for the peers, all of which go away again, whatever happens.

A :class:`Workshop` is a context manager over one scratch folder. Everything that it sets up is pushed on a stack and
undone in reverse order when it is left: by an exception, Ctrl-C or SIGTERM too. What could not be undone is said on
stderr, and the folder is then left for the user to look at.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pycow.bench.subject import Unsupported

__all__ = ["Workshop", "find_program", "is_root", "mount", "syncfs", "unmount"]

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_MNT_DETACH = 2
_UNMOUNT_TRIES = 20


def _check(rc: int, what: str) -> None:
    if rc != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str | Path, kind: str, options: str = "", flags: int = 0) -> None:
    """mount(2), without the cost of starting mount(8)."""
    _check(
        _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()),
        f"mount {kind} on {target}",
    )


def unmount(target: str | Path) -> None:
    _check(_libc.umount2(os.fsencode(target), 0), f"umount {target}")


def syncfs(fd: int) -> None:
    _check(_libc.syncfs(fd), "syncfs")


def is_root() -> bool:
    return os.geteuid() == 0


def find_program(name: str, package: str) -> str:
    """Path of a program; Unsupported when it is missing."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Unsupported(f"{name} is not installed (Debian: {package})")
    return found


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Unsupported(f"{Path(command[0]).name} failed: {said[-1] if said else done.returncode}")
    return done.stdout.strip()


class Workshop:
    """A scratch folder with what was set up in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack: list[tuple[str, Callable[[], object]]] = []
        self._old_term: object = None

    def __enter__(self) -> Workshop:
        self.folder.mkdir(parents=True)

        def stop(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        with contextlib.suppress(ValueError):  # not in the main thread
            self._old_term = signal.signal(signal.SIGTERM, stop)
        return self

    def __exit__(self, *_: object) -> None:
        old_int = None
        with contextlib.suppress(ValueError):
            old_int = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not stop the cleaning up
        failed = False
        while self._stack:
            what, undo = self._stack.pop()
            try:
                undo()
            except Exception as error:
                failed = True
                print(f"pycow bench: cannot undo: {what}: {error}", file=sys.stderr)
        if not failed:
            shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(ValueError, TypeError):
            signal.signal(signal.SIGINT, old_int or signal.default_int_handler)
            signal.signal(signal.SIGTERM, self._old_term or signal.SIG_DFL)  # type: ignore[arg-type]

    def undo_with(self, what: str, undo: Callable[[], object]) -> None:
        self._stack.append((what, undo))

    def mounted(self, target: Path) -> None:
        """Registers a mount, which may be gone by then."""
        self.undo_with(f"mount of {target}", lambda: _unmount_surely(target))

    def image(self, name: str, mkfs: list[str], kind: str, size_bytes: int) -> Path:
        """A file system of its own in an image file, mounted through a loop device; returns where it is mounted.

        Unsupported with the reason when the machine cannot.
        """
        if not is_root():
            raise Unsupported("mounting needs root")
        image, target = self.folder / f"{name}.img", self.folder / name
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _run(*mkfs, image)
        device = _run(find_program("losetup", "mount"), "--find", "--show", image)
        self.undo_with(f"loop device {device}", lambda: _run(find_program("losetup", "mount"), "--detach", device))
        target.mkdir()
        try:
            mount(device, target, kind)
        except OSError as error:
            raise Unsupported(str(error)) from None
        self.mounted(target)
        return target


def _unmount_surely(target: Path) -> None:
    """Waits for what still uses it; in the end detaches it."""
    for _ in range(_UNMOUNT_TRIES):
        if not os.path.ismount(target):
            return
        try:
            unmount(target)
        except OSError:
            time.sleep(0.1)
    if os.path.ismount(target):
        _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")

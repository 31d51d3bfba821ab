# SPDX-License-Identifier: Apache-2.0
"""The peers: what container engines use instead. Each raises Unsupported where the machine cannot run it.

Mounts and snapshots are system calls made in this process (mount(2), BTRFS_IOC_SNAP_CREATE_V2), as an engine makes
them; starting mount(8) or btrfs(8) would add a millisecond that is not theirs. fuse-overlayfs and full copies are
processes by nature.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycow.bench.host import HostBox, HostSubject, copy_tree, walk
from pycow.bench.mounts import Workshop, find_program, is_root, mount, unmount
from pycow.bench.subject import Box, Subject, Unsupported

__all__ = ["PEERS", "make_peers"]

IMAGE_BYTES = 24 << 30  # sparse


# ---- overlayfs, and the same through FUSE


class Overlay(HostSubject):
    """A container is an upper and a work directory and a mount."""

    def __init__(self, name: str, workshop: Workshop, folder: Path, base: Path) -> None:
        super().__init__(folder, base)
        self.name = name
        self.workshop = workshop
        self._boxes = folder / "boxes"
        self._boxes.mkdir()

    def attach(self, lower: str, box: Path) -> None:
        options = f"lowerdir={lower},upperdir={box}/upper,workdir={box}/work"
        mount("overlay", box / "merged", "overlay", options)

    def detach(self, box: Path) -> None:
        unmount(box / "merged")

    def make(self, lower: str, upper: str | None = None, within: Path | None = None) -> _OverlayBox:
        """within: the directory that lower's names are relative to."""
        box = self._boxes / self.next_name()
        for part in ("", "work", "merged"):
            os.mkdir(box / part if part else box)
        if upper is None:
            os.mkdir(box / "upper")
        else:
            copy_tree(upper, f"{box}/upper")
        if within is None:
            self.attach(lower, box)
        else:  # mount(2) takes one page of options, too little for many absolute names
            with contextlib.chdir(within):
                self.attach(lower, box)
        self.workshop.mounted(box / "merged")
        return _OverlayBox(self, box, lower, within)

    def create(self) -> Box:
        return self.make(str(self.base))

    def stack(self, depth: int) -> Box:
        layers = self.folder / f"s{depth}"
        bottom = layers / "0" / "usr/share/doc"
        bottom.mkdir(parents=True)
        (bottom / "copyright").write_bytes(b"text")
        for layer in range(1, depth):
            (layers / str(layer)).mkdir()
            (layers / str(layer) / f"layer-{layer}").touch()
        names = [str(layer) for layer in reversed(range(depth))]
        return self.make(":".join(names), within=layers)


class _OverlayBox(HostBox):
    def __init__(self, subject: Overlay, box: Path, lower: str, within: Path | None) -> None:
        super().__init__(f"{box}/merged")
        self._subject, self._box, self._lower, self._within = subject, box, lower, within
        self._snapshots = 0

    def fork(self) -> Box:
        return self._subject.make(self._lower, f"{self._box}/upper", self._within)

    def snapshot(self) -> Any:
        self._snapshots += 1
        kept = f"{self._box}/snapshot-{self._snapshots}"
        copy_tree(f"{self._box}/upper", kept)
        return kept

    def rollback(self, snapshot: Any) -> None:
        self._subject.detach(self._box)
        shutil.rmtree(self._box / "upper")
        copy_tree(snapshot, f"{self._box}/upper")
        self._subject.attach(self._lower, self._box)

    def drop(self, snapshot: Any) -> None:
        shutil.rmtree(snapshot)

    def delete(self) -> None:
        self._subject.detach(self._box)
        shutil.rmtree(self._box)

    def changes(self) -> int:
        """The upper directory has what changed; names alone, as `docker diff` needs them."""
        return walk(f"{self._box}/upper")


class FuseOverlay(Overlay):
    def leaves_out(self, work: str) -> str:
        return "as overlay, ext4" if work.startswith(("import", "export")) else ""

    def __init__(self, name: str, workshop: Workshop, folder: Path, base: Path) -> None:
        self._program = find_program("fuse-overlayfs", "fuse-overlayfs")
        if not os.path.exists("/dev/fuse"):
            raise Unsupported("no /dev/fuse")
        super().__init__(name, workshop, folder, base)

    def attach(self, lower: str, box: Path) -> None:
        options = f"lowerdir={lower},upperdir={box}/upper,workdir={box}/work"
        done = subprocess.run(
            [self._program, "-o", options, str(box / "merged")], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Unsupported(f"fuse-overlayfs: {' '.join(done.stderr.split())[-200:]}")


# ---- btrfs


_SNAP_CREATE_V2, _SNAP_DESTROY, _SUBVOL_CREATE = 0x50009417, 0x5000940F, 0x5000940E
_SUBVOL_RDONLY = 2


class Btrfs(HostSubject):
    """A container is a snapshot of the base's subvolume."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(folder)
        self.name = name
        self._send: str | None = None
        with contextlib.suppress(Unsupported):
            self._send = find_program("btrfs", "btrfs-progs")
        self._ioctl(_SUBVOL_CREATE, struct.pack("=q4088s", 0, b"origin"))
        self.base = folder / "origin"

    def _ioctl(self, request: int, argument: bytes) -> None:
        fcntl.ioctl(self._fd, request, bytearray(argument))  # bytes may not be longer than 1,024

    def prepare(self, base: Any) -> None:
        filled = self.folder / "origin" / "tree"
        self.base = filled
        super().prepare(base)
        self.snap(self.folder / "origin", "base", readonly=True)
        self.commit()

    def snap(self, source: Path | str, name: str, *, readonly: bool = False) -> str:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = _SUBVOL_RDONLY if readonly else 0
            packed = struct.pack("=qQQ32s4040s", fd, 0, flags, b"", name.encode())
            self._ioctl(_SNAP_CREATE_V2, packed)
        finally:
            os.close(fd)
        return f"{self.folder}/{name}"

    def destroy(self, name: str) -> None:
        self._ioctl(_SNAP_DESTROY, struct.pack("=q4088s", 0, name.encode()))

    def create(self) -> Box:
        name = self.next_name()
        return _BtrfsBox(self, name, self.snap(self.folder / "base", name))

    def sent_changes(self, snapshot: str) -> int:
        """Commands of the stream that `btrfs send --no-data` makes against the base."""
        if self._send is None:
            raise Unsupported("btrfs-progs are not installed")
        done = subprocess.run(
            [self._send, "send", "--quiet", "--no-data", "-p", f"{self.folder}/base", snapshot],
            capture_output=True,
            check=True,
        )
        return len(done.stdout)


class _BtrfsBox(HostBox):
    def __init__(self, subject: Btrfs, name: str, where: str) -> None:
        super().__init__(f"{where}/tree")
        self._subject, self._name, self._where = subject, name, where

    def fork(self) -> Box:
        name = self._subject.next_name()
        return _BtrfsBox(self._subject, name, self._subject.snap(self._where, name))

    def snapshot(self) -> Any:
        name = self._subject.next_name()
        self._subject.snap(self._where, name, readonly=True)
        return name

    def rollback(self, snapshot: Any) -> None:
        self._subject.destroy(self._name)
        self._subject.snap(f"{self._subject.folder}/{snapshot}", self._name)

    def drop(self, snapshot: Any) -> None:
        self._subject.destroy(snapshot)

    def delete(self) -> None:
        self._subject.destroy(self._name)

    def changes(self) -> int:
        kept = self.snapshot()
        try:
            return self._subject.sent_changes(f"{self._subject.folder}/{kept}")
        finally:
            self.drop(kept)


# ---- Copies


class Copies(HostSubject):
    """A container is a copy of the base: of all bytes ("vfs"), or sharing them (reflink=always)."""

    copies_all = True
    _WORKS = "create delete rollback first_small first_1mib first_64mib first_big second chmod_big walk".split()
    _WORKS_OF_ALL_BYTES = "create delete first_big walk".split()

    def leaves_out(self, work: str) -> str:
        if work in (self._WORKS if self._reflink == "always" else self._WORKS_OF_ALL_BYTES):
            return ""
        return "a copy, as create" if work in ("fork", "snapshot", "rollback") else "as the file system it lies on"

    def __init__(self, name: str, folder: Path, base: Path, reflink: str) -> None:
        super().__init__(folder, base)
        self.name = name
        self._reflink = reflink

    def copy(self, source: str, to: str) -> None:
        subprocess.run(["cp", "-a", f"--reflink={self._reflink}", source, to], check=True)

    def create(self) -> Box:
        return self.copied(str(self.base))

    def copied(self, source: str) -> Box:
        to = f"{self.folder}/{self.next_name()}"
        self.copy(source, to)
        return _Copy(self, to)


class _Copy(HostBox):
    def __init__(self, subject: Copies, root: str) -> None:
        super().__init__(root)
        self._subject = subject

    def fork(self) -> Box:
        return self._subject.copied(self.root)

    def snapshot(self) -> Any:
        to = f"{self._subject.folder}/{self._subject.next_name()}"
        self._subject.copy(self.root, to)
        return to

    def rollback(self, snapshot: Any) -> None:
        self.delete()
        self._subject.copy(snapshot, self.root)

    def drop(self, snapshot: Any) -> None:
        subprocess.run(["rm", "-rf", snapshot], check=True)

    def delete(self) -> None:
        subprocess.run(["rm", "-rf", self.root], check=True)


# ---- All of them


class _Places:
    """The file systems below, each made once."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._made: dict[str, Path | Unsupported] = {}

    def get(self, kind: str) -> Path:
        if kind not in self._made:
            try:
                self._made[kind] = self._make(kind)
            except Unsupported as reason:
                self._made[kind] = reason
        made = self._made[kind]
        if isinstance(made, Unsupported):
            raise made
        return made

    def _make(self, kind: str) -> Path:
        if kind == "ext4":
            if _file_system(self.workshop.folder) == "ext4":
                place = self.workshop.folder / "ext4"
                place.mkdir()
                return place
            mkfs = [find_program("mkfs.ext4", "e2fsprogs"), "-q", "-F"]
        elif kind == "xfs":
            mkfs = [find_program("mkfs.xfs", "xfsprogs"), "-q", "-f", "-m", "reflink=1"]
        else:
            mkfs = [find_program("mkfs.btrfs", "btrfs-progs"), "-q", "-f"]
        return self.workshop.image(kind, mkfs, kind, IMAGE_BYTES)


def _file_system(path: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=False)
    return "ext4" if done.stdout.strip() == "ext2/ext3" else done.stdout.strip()


def _need_root() -> None:
    if not is_root():
        raise Unsupported("mounting needs root")


def _overlay_ext4(places: _Places) -> Subject:
    _need_root()
    ext4 = places.get("ext4")
    return Overlay("overlay, ext4", places.workshop, ext4 / "overlay", ext4 / "base")


def _overlay_xfs(places: _Places) -> Subject:
    xfs = places.get("xfs")
    return Overlay("overlay, XFS", places.workshop, xfs / "overlay", xfs / "base")


def _fuse_overlay(places: _Places) -> Subject:
    _need_root()
    ext4 = places.get("ext4")
    return FuseOverlay("fuse-overlayfs", places.workshop, ext4 / "fuse", ext4 / "base")


def _btrfs(places: _Places) -> Subject:
    return Btrfs("btrfs", places.get("btrfs"))


def _copy(places: _Places) -> Subject:
    ext4 = places.get("ext4")
    return Copies("copy (vfs)", ext4 / "copies", ext4 / "base", "never")


def _reflink(places: _Places) -> Subject:
    xfs = places.get("xfs")
    return Copies("cp --reflink, XFS", xfs / "copies", xfs / "base", "always")


PEERS: dict[str, Callable[[_Places], Subject]] = {
    "overlay, ext4": _overlay_ext4,
    "overlay, XFS": _overlay_xfs,
    "btrfs": _btrfs,
    "fuse-overlayfs": _fuse_overlay,
    "cp --reflink, XFS": _reflink,
    "copy (vfs)": _copy,
}


def make_peers(workshop: Workshop) -> tuple[list[Subject], dict[str, str]]:
    """The peers that this machine can run, and for the others the reason why it cannot."""
    places = _Places(workshop)
    able: list[Subject] = []
    unable: dict[str, str] = {}
    for name, make in PEERS.items():
        try:
            subject = make(places)
            workshop.undo_with(f"open folder of {name}", subject.close)
            able.append(subject)
        except (Unsupported, OSError) as reason:
            unable[name] = str(reason)
    return able, unable

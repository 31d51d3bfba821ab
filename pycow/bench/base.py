# SPDX-License-Identifier: Apache-2.0
"""The base tree that all subjects hold: a root file system as a tar, and four files of fixed sizes.

The root file system is Debian's minbase when debootstrap and root are there, otherwise a synthetic one of the same
number of entries and bytes. Contents are pseudo-random text, which compresses somewhat like real files.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

__all__ = ["BIG", "FOLDER", "MIB", "SIZES", "Base", "make_base", "piece"]

MIB = 1 << 20
FOLDER = "bench"  # where the sized files are
SIZES = {"small": 4096, "1MiB": MIB, "64MiB": 64 * MIB}
BIG = f"{FOLDER}/big"


@dataclasses.dataclass(frozen=True)
class Base:
    """tars by compression ("plain" always, "gzip" and "zstd" when asked for)."""

    origin: str
    tars: dict[str, Path]
    entries: int
    content_bytes: int
    big_bytes: int

    def files(self) -> Iterator[tuple[str, int]]:
        """The sized files: (path, bytes)."""
        for name, size in SIZES.items():
            yield f"{FOLDER}/{name}", min(size, self.big_bytes)
        yield BIG, self.big_bytes


def piece(seed: int, length: int = MIB) -> bytes:
    """Bytes that do not repeat from one seed to the next."""
    return np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8).tobytes()


def make_base(
    folder: Path, *, big_bytes: int, root: Path | str | None = None, folders: int = 500, compressed: bool = True
) -> Base:
    """root: a directory with a root file system, "debian" (debootstrap), or None for the synthetic one."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "root.tar"
    if root is None:
        origin = "synthetic root file system"
        _synthetic(plain, folders)
    elif root == "debian":
        origin = _debian(folder, plain)
    else:
        origin = "root file system"
        _pack(Path(root), plain)
    entries, content = _count(plain)
    tars = {"plain": plain}
    if compressed:
        tars |= {"gzip": _compress(plain, "gz"), "zstd": _compress(plain, "zst")}
    return Base(origin, tars, entries, content, big_bytes)


def _debian(folder: Path, tar: Path) -> str:
    program = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        _synthetic(tar)
        return "synthetic root file system (no debootstrap, or not root)"
    tree = folder / "debian"
    done = subprocess.run([program, "--variant=minbase", _suite(), str(tree)], capture_output=True, check=False)
    try:
        if done.returncode != 0:
            _synthetic(tar)
            return "synthetic root file system (debootstrap failed)"
        _pack(tree, tar)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return f"Debian {_suite()} minbase"


def _suite() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return "stable"


def _pack(tree: Path, tar: Path) -> None:
    command = ["tar", "--format=pax", "--numeric-owner", "--sort=name", "--exclude=./dev/*", "-C", str(tree)]
    subprocess.run([*command, "-cf", str(tar), "."], check=True)


def _synthetic(path: Path, folders: int = 500) -> None:
    """Ten files to a directory; sizes as in a root file system: most small, a few large."""
    random = np.random.default_rng(1)
    words = [random.bytes(6).hex().encode() for _ in range(4096)]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in range(folders):
            info = tarfile.TarInfo(f"usr/d{folder // 25}/e{folder}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
            for number in range(10):
                size = int(min(4_000_000, random.lognormal(8.0, 1.9)))
                chosen = random.integers(0, len(words), size // 13 + 1)
                data = b" ".join(words[i] for i in chosen)[:size]
                info = tarfile.TarInfo(f"usr/d{folder // 25}/e{folder}/file-{number}")
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, BytesIO(data))


def _count(tar: Path) -> tuple[int, int]:
    with tarfile.open(tar) as members:
        sizes = [member.size if member.isreg() else 0 for member in members]
    return len(sizes), sum(sizes)


def _compress(tar: Path, kind: str) -> Path:
    to = tar.with_name(f"{tar.name}.{kind}")
    if kind == "gz":
        import gzip

        with tar.open("rb") as source, gzip.open(to, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, MIB)
    else:
        import zstandard

        with tar.open("rb") as source, to.open("wb") as target:
            zstandard.ZstdCompressor(level=3).copy_stream(source, target)
    return to

# SPDX-License-Identifier: Apache-2.0
"""Makes the frozen store of this format version: ``python tests/compat/make_store.py`` writes v1.tar.xz beside itself.

Run it once for a format version, never again: the archive is the promise. ``fill`` says what is in it, and
tests/python/test_compat.py compares.
"""

from __future__ import annotations

import random
import tarfile
import tempfile
from pathlib import Path

import pycow

ARCHIVE = Path(__file__).resolve().parent / "v1.tar.xz"


def contents() -> dict[str, bytes]:
    """Files of the volume: inline, one block, many, and nothing."""
    rng = random.Random(1)
    return {f"d{i % 3}/file {i}": rng.randbytes(size) for i, size in enumerate((0, 5, 1900, 1901, 4096, 9000, 50_000))}


def fill(store: pycow.Store) -> None:
    """A volume with every kind of item, a sealed fork of it (the last tree) that differs, and a deletion."""
    fs = store.volumes.create("data").fs
    for i in range(3):
        (fs / f"d{i}").mkdir()
    for name, content in contents().items():
        (fs / name).write_bytes(content)
    (fs / "link").symlink_to("d0/file 0")
    (fs / "long").symlink_to("x" * 3000)
    (fs / "hard").hardlink_to(fs / "d2" / "file 5")
    (fs / "d1" / "file 4").setxattr("user.colour", b"green")
    with (fs / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    store.commit()
    other = store.volumes.create("gone").fs
    (other / "a").write_bytes(random.Random(2).randbytes(30_000))
    store.commit()
    store.volumes.get("gone").remove()
    store.commit()
    fork = store.volumes.get("data").tree.fork()
    fork.seal()
    (fs / "d0" / "file 6").write_bytes(b"changed after the fork")
    store.commit()


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def main() -> None:
    if ARCHIVE.exists():
        raise SystemExit(f"{ARCHIVE} is there already and is not made again")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        with pycow.open(path, commit_interval=0) as store:
            fill(store)
        with tarfile.open(ARCHIVE, "x:xz", preset=9) as archive:
            archive.add(path, "v1", filter=anonymous)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()

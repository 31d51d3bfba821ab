# SPDX-License-Identifier: Apache-2.0
"""A really full disk: a small tmpfs that fills up.

Writes fail with NoSpaceError, what is there stays readable, deleting and committing deletions work, the space comes
back and can be written again, and nothing is damaged.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pycow

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        if os.environ.get("CI") == "true" and not Path("/.dockerenv").exists():
            pytest.fail(f"root, but no tmpfs: {mounted.stderr}")
        pytest.skip(f"no tmpfs: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(write: Callable[[int], object], limit: int = 100_000) -> int:
    """Calls write(0), write(1), ... until there is no space; how many worked."""
    for n in range(limit):
        try:
            write(n)
        except pycow.NoSpaceError:
            return n
    pytest.fail("the disk never got full")


def content(n: int, size: int) -> bytes:
    return n.to_bytes(4, "little") * (size // 4)


@pytest.mark.parametrize("size", [1_000, 3_000, 300_000])  # inline, small, large
@pytest.mark.parametrize("commits", [False, True], ids=["one commit", "commits"])
def test_fills_and_recovers(small_disk: Path, size: int, commits: bool) -> None:
    path = small_disk / "store"
    with pycow.open(path, commit_interval=0) as store:
        volume = store.volumes.create("vol")
        other = store.volumes.create("other").fs
        (other / "file").write_bytes(content(7, 50_000))
        store.commit()

        def write(n: int) -> None:
            (volume.fs / f"f{n}").write_bytes(content(n, size))
            if commits and n % 16 == 0:
                store.commit()

        written = fill(write)
        assert written > 10

        # Full: reading works, all of it; more writing does not, and says so again.
        for n in range(written):
            assert (volume.fs / f"f{n}").read_bytes() == content(n, size)
        with pytest.raises(pycow.NoSpaceError):
            for n in range(1000):
                (volume.fs / f"more{n}").write_bytes(content(n, 300_000))

        # What was written can be committed, deletions too, and their space is there again.
        store.commit()
        for n in range(written // 2):
            (volume.fs / f"f{n}").unlink()
        store.commit()
        for entry in list(volume.fs.root.iterdir()):
            if entry.name.startswith("more"):
                entry.unlink()
        store.commit()
        again = fill(lambda n: (volume.fs / f"again{n}").write_bytes(content(n, size)))
        assert again >= written // 2 * 0.8
        store.commit()
        assert store.check().errors == ()

    with pycow.open(path, commit_interval=0) as store:
        volume = store.volumes.get("vol")
        for n in range(written // 2, written):
            assert (volume.fs / f"f{n}").read_bytes() == content(n, size)
        assert (store.volumes.get("other").fs / "file").read_bytes() == content(7, 50_000)
        volume.remove()
        store.commit()
        store.volumes.create("next")
        refilled = fill(lambda n: (store.volumes.get("next").fs / f"f{n}").write_bytes(content(n, size)))
        assert refilled >= written * 0.8
        store.commit()
        assert store.check().errors == ()


def test_host_full_of_other_files(small_disk: Path) -> None:
    """Somebody else takes the last byte: what the store reserved must do for reading, deleting and committing."""
    path, ballast = small_disk / "store", small_disk / "ballast"
    with pycow.open(path, commit_interval=0) as store:
        fs = store.volumes.create("vol").fs
        for n in range(40):
            (fs / f"f{n}").write_bytes(content(n, 100_000))
        store.commit()
        with ballast.open("wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(4096))
            except OSError:
                pass
        for n in range(40):
            assert (fs / f"f{n}").read_bytes() == content(n, 100_000)
        fill(lambda n: (fs / f"x{n}").write_bytes(content(n, 200_000)))
        store.commit()
        for n in range(40):
            (fs / f"f{n}").unlink()
        store.commit()
        (fs / "small").write_bytes(content(1, 100_000))  # into what was given back
        store.commit()
        for n in range(20):  # whole trees come and go
            store.volumes.create(f"tree{n}")
            if n:
                store.volumes.get(f"tree{n - 1}").remove()
            store.commit()
        assert store.check().errors == ()
    ballast.unlink()
    with pycow.open(path, commit_interval=0) as store:
        assert (store.volumes.get("vol").fs / "small").read_bytes() == content(1, 100_000)
        assert store.check().errors == ()


def test_transaction_and_fork_on_a_full_disk(small_disk: Path) -> None:
    """A transaction that runs out of space is taken back as a whole; the store goes on."""
    with pycow.open(small_disk / "store", commit_interval=0) as store:
        volume = store.volumes.create("vol")
        (volume.fs / "kept").write_bytes(content(1, 1 * MIB))
        store.commit()
        with pytest.raises(pycow.NoSpaceError):
            with store.transaction():
                (volume.fs / "kept").unlink()
                fill_until_error(volume)
        assert (volume.fs / "kept").read_bytes() == content(1, 1 * MIB)
        assert [entry.name for entry in volume.fs.root.iterdir()] == ["kept"]
        store.commit()
        written = fill(lambda n: (volume.fs / f"f{n}").write_bytes(content(n, 200_000)))
        store.commit()
        assert written > 10
        assert store.check().errors == ()


def fill_until_error(volume: pycow.Volume) -> None:
    for n in range(10_000):
        (volume.fs / f"t{n}").write_bytes(content(n, 200_000))

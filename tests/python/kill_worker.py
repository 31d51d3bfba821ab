# SPDX-License-Identifier: Apache-2.0
"""The process that test_kill.py kills: kill_worker.py STORE FIRST_ROUND SEED PIPE.

Each round is one durable transaction over a volume, containers, a snapshot and deletions; its number goes to the pipe
after the commit returned. Between rounds it does what leaves no trace: transactions that are taken back, images that
are loaded and removed.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tarfile
import threading
import time
from pathlib import Path

import pycow


class Undo(Exception):
    """Ends a transaction that is to be taken back."""


def layer(folder: Path, name: str, size: int) -> Path:
    """A tar with one file."""
    path = folder / f"{name}.tar"
    info = tarfile.TarInfo(name)
    info.size = size
    with tarfile.open(path, "w") as tar:
        tar.addfile(info, io.BytesIO(name.encode() * (size // len(name) + 1)))
    return path


def prepare(store: pycow.Store, folder: Path) -> None:
    """Round 0: what all rounds work on. It may be cut off and done again."""
    if "base:latest" not in store.images:
        store.images.build_on(None, [layer(folder, "base", 4000)], "base:latest")
    if "main" in store.containers:
        return
    with store.transaction():
        journal = store.volumes.create("journal").fs
        (journal / "round").write_text("0")
        (journal / "data").write_bytes(b"")
        main = store.containers.create("base:latest", name="main")
        (main.fs / "number").write_text("0")
        main.snapshot("s0")


def one_round(store: pycow.Store, number: int, rng: random.Random) -> None:
    with store.transaction():
        journal = store.volumes.get("journal").fs
        (journal / "round").write_text(str(number))
        (journal / "data").write_bytes(number.to_bytes(8, "little") * rng.choice([1, 100, 1000, 40_000]))
        main = store.containers.get("main")
        (main.fs / "number").write_text(str(number))
        fork = main.fork(name=f"round-{number}")
        (fork.fs / "proof").write_text(f"round-{number}")
        for snapshot in main.snapshots():
            snapshot.remove()
        main.snapshot(f"s{number}")
        if number > 5:
            store.containers.get(f"round-{number - 5}").remove()


def no_trace(store: pycow.Store, folder: Path, rng: random.Random) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        try:
            with store.transaction():
                (store.volumes.get("journal").fs / "aborted").write_bytes(bytes(rng.randrange(200_000)))
                raise Undo
        except Undo:
            pass
    elif kind == 1:
        container = store.containers.create("base:latest", name=f"scratch-{rng.randrange(10**9)}")
        for i in range(rng.randrange(40)):
            (container.fs / f"file{i}").write_bytes(bytes(rng.randrange(5000)))
        container.remove()
    else:
        large = layer(folder, f"layer{rng.randrange(10**9)}", rng.choice([10_000, 5_000_000]))
        store.images.remove(store.images.build_on("base:latest", [large], "extra:latest"))
        large.unlink()


def scribble(store: pycow.Store) -> None:
    """Another thread that writes all the time, with commits in the background."""
    names = [volume.name for volume in store.volumes.list()]
    volume = store.volumes.get("scribble") if "scribble" in names else store.volumes.create("scribble")
    rng = random.Random(0)
    with volume.fs.open("noise", "wb") as noise:
        while True:
            noise.pwrite(rng.randrange(1 << 20), os.urandom(rng.randrange(1, 20_000)))
            time.sleep(0.002)


def main() -> None:
    path, first, seed, pipe = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng, folder = random.Random(seed), Path(path).parent
    with pycow.open(path, commit_interval=0.01) as store:
        prepare(store, folder)
        os.write(pipe, f"{first - 1}\n".encode())
        threading.Thread(target=scribble, args=(store,), daemon=True).start()
        number = first
        while True:
            one_round(store, number, rng)
            os.write(pipe, f"{number}\n".encode())
            number += 1
            if rng.randrange(3) == 0:
                no_trace(store, folder, rng)


if __name__ == "__main__":
    main()

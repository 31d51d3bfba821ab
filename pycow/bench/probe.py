# SPDX-License-Identifier: Apache-2.0
"""Disk and memory of many containers, in a process of its own: python -m pycow.bench.probe STORE COUNT.

Makes a store with a sealed tree that has a file of 1 MiB, then COUNT forks of it with one changed 4 KiB block each, and
commits. Prints JSON: {"time": us, "disk": KiB, "memory": KiB}, each for one fork; disk is what the host file system
charges, memory the growth of the resident set, with the handles closed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pycow._native import NativeStore
from pycow.bench.base import MIB, piece
from pycow.bench.own import REGULAR
from pycow.bench.subject import BLOCK
from pycow.bench.works._work import Clock

__all__ = ["main"]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * BLOCK


def main(path: str, count: int) -> dict[str, float]:
    store = NativeStore(path, commit_interval_ms=0)
    base = store.create_tree()
    ino = base.make(1, "1MiB", REGULAR)
    base.write(ino, 0, piece(1, MIB))
    base.seal()
    store.commit()
    with base.fork(base=True) as first:  # what is made once for all
        first.write(ino, BLOCK, b"f" * BLOCK)
    store.commit()
    disk, memory = store.stats()["host_bytes"], _resident_bytes()
    with Clock() as clock:
        for _ in range(count):
            with base.fork(base=True) as box:
                box.write(ino, BLOCK, b"f" * BLOCK)
        store.commit()
    memory = _resident_bytes() - memory
    disk = store.stats()["host_bytes"] - disk
    base.close()
    store.close()
    return {"time": clock.us / count, "disk": disk / count / 1024, "memory": memory / count / 1024}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))

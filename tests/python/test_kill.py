# SPDX-License-Identifier: Apache-2.0
"""Real process death: a worker is killed with SIGKILL at random moments; what it acknowledged is there.

The worker does mixed work through the public API and writes a line to a pipe after each commit that returned. Whoever
opens the store afterwards must find every acknowledged commit, nothing that was never begun, and a clean check. The
same store goes through all deaths of a test. PYCOW_KILLS=300 makes it longer (make crash).
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pycow

WORKER = Path(__file__).with_name("kill_worker.py")
KILLS = int(os.environ.get("PYCOW_KILLS", "24"))
SEED = int(os.environ.get("PYCOW_SEED", "1"))
PATIENCE = 60.0  # seconds that a worker may take for its first commit


def acknowledged(pipe: int, worker: subprocess.Popen[bytes], lifetime: float, early: bool) -> list[int]:
    """Reads the worker's lines and kills it when its time is over: that begins with its first line, or at once (early:
    it may then die while it opens the store)."""
    data, deadline = b"", time.monotonic() + (lifetime if early else PATIENCE)
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        piece = os.read(pipe, 65536)
        if not piece:
            break
        if not data and not early:
            deadline = time.monotonic() + lifetime
        data += piece
    worker.send_signal(signal.SIGKILL)
    while rest := os.read(pipe, 65536):  # what it wrote before it died
        data += rest
    lines = [int(line) for line in data.split(b"\n")[:-1]]
    assert lines or early, "the worker never acknowledged anything"
    return lines


def run_and_kill(store: Path, last: int, seed: int, lifetime: float, early: bool) -> int:
    """The last round that was acknowledged, by this worker or (last) one before."""
    read_end, write_end = os.pipe()
    command = [sys.executable, str(WORKER), str(store), str(last + 1), str(seed), str(write_end)]
    with subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.PIPE) as worker:
        os.close(write_end)
        try:
            lines = acknowledged(read_end, worker, lifetime, early)
        finally:
            worker.kill()
            os.close(read_end)
        _, errors = worker.communicate()
        assert worker.returncode == -signal.SIGKILL, errors.decode()
    return lines[-1] if lines else last


def inspect(store: pycow.Store, acknowledged: int) -> int:
    """Checks what the rounds left behind, and gives the last one that is there."""
    assert store.check().errors == ()
    volume = store.volumes.get("journal").fs
    last = int((volume / "round").read_text())
    assert acknowledged <= last <= acknowledged + 1, "a commit is lost, or one came from nowhere"
    # Each round's content and names go together with its number: all of it or nothing.
    data = (volume / "data").read_bytes()
    assert data == last.to_bytes(8, "little") * (len(data) // 8)
    kept = {name for name in (c.name for c in store.containers.list()) if name.startswith("round-")}
    assert kept == {f"round-{n}" for n in range(max(last - 4, 1), last + 1)}
    for name in kept:
        assert (store.containers.get(name).fs / "proof").read_text() == name
    assert [s.name for s in store.containers.get("main").snapshots()] == [f"s{last}"]
    assert (store.containers.get("main").fs / "number").read_text() == str(last)
    assert not (volume / "aborted").exists()
    return last


@pytest.mark.slow
def test_acknowledged_commits_survive_kill(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rng = random.Random(SEED)
    last = 0
    for death in range(KILLS):
        early = death % 4 == 3
        lifetime = rng.uniform(0.05, 0.5) if early else rng.uniform(0.0, 0.25)
        promised = run_and_kill(path, last, SEED * 1000 + death, lifetime, early)
        with pycow.open(path, commit_interval=0, create=False) as store:
            last = inspect(store, promised)
    assert last >= KILLS

# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own parts: each subject does what its box says, nothing is left behind, tables tell losses."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pycow.bench.base import BIG, FOLDER, MIB, Base, make_base
from pycow.bench.mounts import Workshop, is_root
from pycow.bench.own import TreeSubject
from pycow.bench.peers import PEERS, make_peers
from pycow.bench.report import Figure, Report, human
from pycow.bench.run import measure
from pycow.bench.subject import BLOCK, Subject
from pycow.bench.tables import markdown, ratio_text, terminal_rows
from pycow.bench.works import BLOCKS, OWN, TREES, Scale


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"), big_bytes=MIB, folders=4)


def check_box(subject: Subject, base: Base) -> None:
    """A box keeps to itself; forks, snapshots and rollbacks have the content that they should."""
    subject.prepare(base)
    box, other = subject.create(), subject.create()
    box.create("new", b"new")
    box.mkdir("folder")
    assert box.read("new") == b"new"
    assert box.list("folder") == 0
    entries = other.walk()
    assert box.walk() == entries + 2
    file = box.open(BIG)
    original = bytearray(BLOCK)
    file.reader()(BLOCK, original)
    file.writer()(BLOCK, b"c" * BLOCK)
    rows = np.zeros((2, BLOCK), dtype=np.uint8)
    file.read_many(np.array([1, 0], dtype=np.uint64), rows)
    assert bytes(rows[0]) == b"c" * BLOCK
    file.write_many(np.array([3, 2], dtype=np.uint64), rows)
    file.sync()
    file.close()
    untouched = other.open(BIG)
    found = bytearray(BLOCK)
    untouched.reader()(BLOCK, found)
    untouched.close()
    assert found == original
    if not subject.leaves_out("fork"):
        snapshot = box.snapshot()
        box.remove("new")
        box.create("later", b"")
        twin = box.fork()
        box.rollback(snapshot)
        assert box.read("new") == b"new"
        assert twin.walk() == box.walk()
        with pytest.raises(FileNotFoundError):
            twin.read("new")
        box.drop(snapshot)
        twin.delete()
    box.chmod(f"{FOLDER}/small", 0o600)
    assert box.stat(f"{FOLDER}/small").st_mode & 0o777 == 0o600
    assert other.stat(f"{FOLDER}/small").st_mode & 0o777 == 0o644
    assert box.read_all(FOLDER) == sum(size for _, size in base.files())
    box.delete()
    other.delete()
    subject.commit()


def test_pycow_as_a_subject(tmp_path: Path, base: Base) -> None:
    subject = TreeSubject(tmp_path)
    try:
        check_box(subject, base)
    finally:
        subject.close()


@pytest.mark.slow
def test_the_peers_do_the_same(tmp_path: Path, base: Base) -> None:
    with Workshop(tmp_path / "w") as workshop:
        peers, missing = make_peers(workshop)
        assert {peer.name for peer in peers} | set(missing) == set(PEERS)
        assert all(missing.values())
        for peer in peers:
            check_box(peer, base)
            peer.close()
    assert not (tmp_path / "w").exists()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.slow
def test_all_works_of_pycow_run(tmp_path: Path, base: Base) -> None:
    tiny = Scale(
        rounds=1, boxes=2, big_bytes=MIB, area_bytes=MIB, ops=1024, files=20, depths=(1, 120), changes=(1,),
        entries=(1000,), forks=(10,), threads=(1,), overwrites=100, sync_seconds=0.01,
    )  # fmt: skip
    with Workshop(tmp_path / "w") as workshop:
        report = measure(workshop, base, tiny, compare=False)
    assert len({work.key for work in (*TREES, *BLOCKS, *OWN)}) == len((*TREES, *BLOCKS, *OWN))
    for work in ("create", "first_big", "files_read", "lookup_120", "import_zstd", "overwrites_read", "fsync_8"):
        assert report.value(work), work
    for figure in report.figures:
        assert figure.value is not None or figure.note
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json").as_dict() == report.as_dict()
    assert "| Containers | unit |" in markdown(report)


_HANGS = """
    import sys, time
    from pathlib import Path
    from pycow.bench.mounts import Workshop
    with Workshop(Path(sys.argv[1])) as workshop:
        if sys.argv[2] == "mount":
            from pycow.bench.peers import make_peers
            make_peers(workshop)
        (workshop.folder / "file").write_bytes(b"x")
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("what", ["plain", pytest.param("mount", marks=pytest.mark.slow)])
def test_nothing_is_left_when_it_is_stopped(tmp_path: Path, number: signal.Signals, what: str) -> None:
    folder = tmp_path / "w"
    command = [sys.executable, "-c", textwrap.dedent(_HANGS), str(folder), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) != 0
    until = time.monotonic() + 10
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists()
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    if is_root():
        backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not [line for line in backing if str(folder) in line]


def figures() -> Iterator[Figure]:
    for work, more, own, peer in (("create", False, 2.0, 100.0), ("read", True, 50.0, 200.0)):
        yield Figure("T", work, work, "pycow", "us", "", more, own, own, own, 1)
        yield Figure("T", work, work, "other", "us", "", more, peer, peer, peer, 1)
    yield Figure("T", "fork", "fork", "pycow", "us", "committed", False, 1.0, 1.0, 1.0, 1)
    yield Figure("T", "fork", "fork", "other", "us", "committed", False, None, note="cannot")


def test_ratios_and_losses() -> None:
    report = Report({}, {}, list(figures()))
    assert report.ratio("create") == 50.0
    assert report.ratio("read") == 0.25
    assert report.ratio("fork") is None
    text = markdown(report)
    assert "| create | us | 2.00 | 100 | 50x other |" in text
    assert "| read | us | 50.0 | 200 | **loses: 0.25x other** |" in text
    assert "| fork *(committed)* | us | 1.00 | - |  |" in text
    assert "Not measured: other: cannot." in text
    ((topic, rows),) = terminal_rows(report)
    assert topic == "T"
    assert rows[1] == ("read", "", "us", "50.0", "200", "other", "0.25x")


def test_numbers() -> None:
    assert [human(value, "us") for value in (0.1234, 1.234, 12.34, 1234.5, None)] == [
        "0.123 us",
        "1.23 us",
        "12.3 us",
        "1,234 us",
        "-",
    ]
    assert [ratio_text(value) for value in (0.123, 1.0, 12.3, 12345.0, None)] == ["0.12x", "1.0x", "12x", "12,345x", ""]

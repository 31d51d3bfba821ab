# SPDX-License-Identifier: Apache-2.0
"""What a damaged medium does, seen from Python: CorruptError names what is affected, everything else still reads."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pycow
from pycow._native import NativeStore

BLOCK = 4096


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """A closed store with one volume and what its files hold."""
    rng = random.Random(5)
    files = {f"dir{i % 4}/file{i}": rng.randbytes(rng.choice([0, 10, 1900, 5000, 70_000])) for i in range(40)}
    path = tmp_path / "store"
    with pycow.open(path, commit_interval=0) as store:
        fs = store.volumes.create("vv").fs
        for i in range(4):
            (fs / f"dir{i}").mkdir()
        for name, content in files.items():
            (fs / name).write_bytes(content)
    return path, files


def flip(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def readable(store: pycow.Store, files: dict[str, bytes]) -> int:
    """How many files read right; the others must raise CorruptError."""
    count = 0
    for name, content in files.items():
        try:
            assert (store.volumes.get("vv").fs / name).read_bytes() == content
            count += 1
        except pycow.CorruptError:
            continue
    return count


def block_of(path: Path, content: bytes) -> tuple[Path, int]:
    """Where the first block of content lies."""
    for segment in (path / "segments").iterdir():
        at = segment.read_bytes().find(content[:BLOCK])
        if at >= 0:
            return segment, at
    raise AssertionError("it is in no segment")


def test_a_bit_of_a_file(built: tuple[Path, dict[str, bytes]]) -> None:
    path, files = built
    name = next(name for name, content in files.items() if len(content) == 70_000)
    segment, at = block_of(path, files[name])
    flip(segment, at + 77)
    with pycow.open(path, commit_interval=0) as store:
        with pytest.raises(pycow.CorruptError, match=r"segment 1 block \d+") as caught:
            (store.volumes.get("vv").fs / name).read_bytes()
        assert caught.value.errno == errno.EIO
        assert readable(store, files) == len(files) - 1
        with (store.volumes.get("vv").fs / name).open() as file:  # the rest of it
            file.seek(BLOCK)
            assert file.read() == files[name][BLOCK:]
        (finding,) = store.check().findings
        assert (finding.kind, finding.path, finding.file_block, finding.block_count) == ("data", f"/{name}", 0, 1)
        assert (finding.segment, finding.block) == (int(segment.name, 16), at // BLOCK)
        report = store.scrub()
        assert not report and report.damaged == 1
        assert [(f.kind, f.path) for f in report.findings] == [("data", f"/{name}")]


def test_neighbours_are_one_finding(built: tuple[Path, dict[str, bytes]]) -> None:
    path, files = built
    name = next(name for name, content in files.items() if len(content) == 70_000)
    segment, at = block_of(path, files[name])
    for block in (2, 3, 4, 9):
        flip(segment, at + block * BLOCK)
    with pycow.open(path, commit_interval=0) as store:
        found = [(f.path, f.file_block, f.block_count) for f in store.check().findings]
        assert found == [(f"/{name}", 2, 3), (f"/{name}", 9, 1)]
        assert [(f.path, f.file_block, f.block_count) for f in store.scrub().findings] == found


def test_scrub_names_every_tree_that_shares_the_damage(store: pycow.Store, image: pycow.Image) -> None:
    boxes = [store.containers.create(image, name=f"box{i}") for i in range(3)]
    (boxes[0].fs / "big.bin").write_bytes(b"other")
    store.commit()
    path = Path(store.path)
    seen: list[tuple[int, int]] = []
    report = store.scrub(progress=lambda done, total: seen.append((done, total)))
    assert report and report.blocks > 200 and seen[-1][0] == report.blocks * BLOCK
    segment, at = block_of(path, b"\xaa" * BLOCK)
    flip(segment, at + 1)
    report = store.scrub()
    assert report.damaged == 1
    # the layer, the image's second layer and two containers still have it
    trees = {f.tree for f in report.findings}
    assert {boxes[1].tree.info().id, boxes[2].tree.info().id} <= trees and boxes[0].tree.info().id not in trees
    assert {f.path for f in report.findings} == {"/big.bin"}
    flip(segment, at + 1)
    assert store.scrub()


def test_scrub_beside_a_writer_finds_nothing(store: pycow.Store, image: pycow.Image) -> None:
    """Blocks that are overwritten, freed, punched and used again meanwhile are not taken for damage."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        rng = random.Random(3)
        try:
            while not stop.is_set():
                box = store.containers.create(image, name="box")
                for i in range(10):
                    (box.fs / f"f{i % 3}").write_bytes(rng.randbytes(rng.choice([100, 5000, 200_000])))
                    if i % 3 == 0:
                        store.commit()
                box.remove()
                store.commit()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            report = store.scrub()
            assert report.ok, report
    finally:
        stop.set()
        thread.join()
    assert not failures


def test_scrub_keeps_its_rate(store: pycow.Store, fs: pycow.FileSystem) -> None:
    (fs / "a").write_bytes(random.Random(1).randbytes(1 << 20))
    store.commit()
    start = time.monotonic()
    assert store.scrub(rate=4 << 20)
    assert 0.15 < time.monotonic() - start < 5
    with pytest.raises(pycow.InvalidError):
        store.scrub(rate=-1)


def cut_meta(path: Path) -> None:
    with (path / "meta").open("r+b") as file:
        file.truncate(20 * BLOCK)


def lose_segment(path: Path) -> None:
    (path / "segments" / "00000001").unlink()


def cut_segment(path: Path) -> None:
    with (path / "segments" / "00000001").open("r+b") as file:
        file.truncate(10 * BLOCK)


def lose_journals(path: Path) -> None:
    (path / "journal.0").unlink()
    (path / "journal.1").unlink()


def flip_journal(path: Path) -> None:
    flip(path / "journal.0", BLOCK + 99)


def lose_space(path: Path) -> None:
    shutil.rmtree(path / "space")
    (path / "space").mkdir()


def flip_supers(path: Path) -> None:
    flip(path / "meta", 80)
    flip(path / "meta", BLOCK + 80)


@pytest.mark.parametrize(
    "harm", [cut_meta, lose_segment, cut_segment, lose_journals, flip_journal, lose_space, flip_supers]
)
def test_files_cut_short_and_missing(
    built: tuple[Path, dict[str, bytes]], harm: Callable[[Path], None], tmp_path: Path
) -> None:
    path, files = built
    harm(path)
    for mode in ("r", "rw"):
        copy = tmp_path / mode
        shutil.copytree(path, copy)
        try:
            with pycow.open(copy, mode, commit_interval=0) as store:  # type: ignore[arg-type]
                readable(store, files)
                store.check()
        except pycow.CorruptError:
            continue


@pytest.mark.parametrize("harm", [lose_segment, cut_segment, lose_journals, flip_journal])
def test_repair(built: tuple[Path, dict[str, bytes]], harm: Callable[[Path], None]) -> None:
    path, files = built
    harm(path)
    report = pycow.repair(path)
    assert report.found and report.repaired
    with pycow.open(path, commit_interval=0) as store:
        count = readable(store, files)
        assert count == len(files) or harm in (lose_segment, cut_segment)
        assert {f.kind for f in store.check().findings} <= {"data"}
        fs = store.volumes.get("vv").fs
        for name in files:
            (fs / name).unlink()
        (fs / "after").write_bytes(b"works" * 5000)
        store.commit()
        assert store.check()
    with pycow.open(path) as store:
        assert (store.volumes.get("vv").fs / "after").read_bytes() == b"works" * 5000


def test_repair_of_nothing_changes_nothing(built: tuple[Path, dict[str, bytes]]) -> None:
    path, files = built
    report = pycow.repair(path)
    assert report and report.found == 0
    with pycow.open(path) as store:
        assert readable(store, files) == len(files)
        assert store.check(whole=True)
        with pytest.raises(pycow.LockedError):
            pycow.repair(path)
    with pytest.raises(pycow.NotFoundError):
        pycow.repair(path / "nothing")


def test_repair_saves_what_is_left_of_a_tree(built: tuple[Path, dict[str, bytes]]) -> None:
    path, files = built
    saved = 0
    data = (path / "meta").read_bytes()
    leaves = [
        at
        for at in range(16 * BLOCK, len(data), BLOCK)
        if data[at : at + 4] == b"COWN" and data[at + 6] == 0 and int.from_bytes(data[at + 8 : at + 10], "little") > 20
    ]
    assert leaves
    for number, at in enumerate(leaves):
        copy = path.parent / f"copy{number}"
        shutil.copytree(path, copy)
        flip(copy / "meta", at + 2000)
        with pycow.open(copy, "r") as store:
            used = not store.check(verify_data=False)
        report = pycow.repair(copy)
        assert bool(report.lost) == used, report
        saved += used
        with pycow.open(copy, commit_interval=0) as store:
            assert {f.kind for f in store.check(whole=True).findings} <= {"data"}
            for name in store.volumes.list() and files:
                try:
                    assert (store.volumes.get("vv").fs / name).read_bytes() == files[name]
                except (pycow.CorruptError, pycow.NotFoundError):
                    assert report.lost
    assert saved


def test_check_during_an_import_is_clean(tmp_path: Path) -> None:
    """A large file is laid out before its content is written; that is no damage."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("big")
        member.size = 6 << 20
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    store = NativeStore(str(tmp_path / "s"), readonly=False, create=True, commit_interval_ms=0)
    tree = store.create_tree(temp=True)
    with tree.untar() as untar:
        untar.feed(data.getvalue()[: 2 << 20])
        report, findings = store.check(True)
        assert report["errors"] == 0, findings
    tree.close()
    store.close()

# SPDX-License-Identifier: Apache-2.0
"""Mounted trees: what a program waits for. The host's file system does the same beside it, where that makes sense."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pycow
from pycow._cow import lib

BLOCK = 4096
BIG_BYTES = int(os.environ.get("PYCOW_BENCH_BIG", str(1 << 30)))
FILES = int(os.environ.get("PYCOW_BENCH_FILES", "10000"))

if lib.cow_mount_available() != 0 or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("nothing can be mounted here", allow_module_level=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pycow.Store]:
    with pycow.open(tmp_path_factory.mktemp("bench") / "store", commit_interval=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def base(store: pycow.Store) -> pycow.Volume:
    """A sealed-looking base: a file of BIG_BYTES, a small one, and FILES names."""
    volume = store.volumes.create("base")
    with volume.fs.open("/big", "wb") as file:
        for _ in range(BIG_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    (volume.fs / "small").write_bytes(b"s" * 100)
    for i in range(FILES):
        if i % 100 == 0:
            (volume.fs / f"d{i // 100}").mkdir()
        (volume.fs / f"d{i // 100}" / f"f{i}").write_bytes(b"x" * 100)
    store.commit()
    return volume


@pytest.fixture(scope="module")
def image(store: pycow.Store, base: pycow.Volume) -> pycow.Image:
    with store.transaction():
        tree = base.tree.fork()
    tar = Path(store.path).parent / "base.tar"
    with tar.open("wb") as file:
        for part in tree.tar():
            file.write(part)
    tree.delete()
    made = store.images.build_on(None, [tar], "bench:1")
    tar.unlink()
    return made


@pytest.fixture(scope="module")
def whole(store: pycow.Store, image: pycow.Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    point = tmp_path_factory.mktemp("mnt")
    with store.mount(point):
        yield point / "containers"


@pytest.fixture
def place(
    request: pytest.FixtureRequest, store: pycow.Store, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An empty directory: in a volume mounted by itself, or the host's."""
    if request.param == "host":
        yield tmp_path
        return
    volume = store.volumes.create(f"place-{random.randrange(1 << 40)}")
    point = tmp_path_factory.mktemp("place")
    with store.mount(point, volume, write_through=request.param == "mount-write-through"):
        yield point


both = pytest.mark.parametrize("place", ["mount", "host"], indirect=True)


def test_create_and_see(benchmark: Any, store: pycow.Store, image: pycow.Image, whole: Path) -> None:
    """A container is made, and a file in it is there."""
    count = iter(range(1 << 30))

    def work() -> None:
        name = f"box-{next(count)}"
        store.containers.create(image, name=name)
        os.stat(whole / name / "small")

    benchmark.pedantic(work, rounds=500)


@pytest.mark.parametrize("name", ["big", "small"])
def test_first_write(benchmark: Any, store: pycow.Store, image: pycow.Image, whole: Path, name: str) -> None:
    """One block of a file of the image, written through to the store (O_DIRECT would say the same for the big one)."""
    count = iter(range(1 << 30))

    def fresh() -> tuple[tuple[int], dict[str, Any]]:
        box = store.containers.create(image, name=f"w-{name}-{next(count)}")
        return (os.open(whole / box.name / name, os.O_WRONLY),), {}

    def work(fd: int) -> None:
        os.pwrite(fd, b"w", 50)
        os.close(fd)  # writes back

    benchmark.pedantic(work, setup=fresh, rounds=200)


@both
def test_random_writes(benchmark: Any, place: Path) -> None:
    """4 KiB each in a file of 256 MiB, as write(2) takes them."""
    fd = os.open(place / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 256 << 20)
    offsets = [random.randrange(65536) * BLOCK for _ in range(50_000)]
    data = os.urandom(BLOCK)

    def work() -> None:
        for offset in offsets:
            os.pwrite(fd, data, offset)

    benchmark.pedantic(work, rounds=2)
    benchmark.extra_info["writes_per_s"] = round(len(offsets) / benchmark.stats["min"])
    os.close(fd)


@both
def test_hot_reads(benchmark: Any, place: Path) -> None:
    (place / "f").write_bytes(os.urandom(64 << 20))
    fd = os.open(place / "f", os.O_RDONLY)
    offsets = [random.randrange(16384) * BLOCK for _ in range(50_000)]

    def work() -> None:
        for offset in offsets:
            os.pread(fd, BLOCK, offset)

    benchmark.pedantic(work, rounds=3, warmup_rounds=1)
    benchmark.extra_info["reads_per_s"] = round(len(offsets) / benchmark.stats["min"])
    os.close(fd)


def _fill(place: Path) -> None:
    for i in range(FILES):
        if i % 100 == 0:
            (place / f"d{i // 100}").mkdir()
        (place / f"d{i // 100}" / f"f{i}").write_bytes(b"x" * 100)


def _walk(place: Path) -> int:
    return sum(entry.stat().st_size for top, _, _ in os.walk(place) for entry in os.scandir(top))


def _per_file(benchmark: Any) -> None:
    benchmark.extra_info["us_per_file"] = round(benchmark.stats["min"] / FILES * 1e6, 2)


@both
def test_many_small_files(benchmark: Any, place: Path) -> None:
    benchmark.pedantic(_fill, args=(place,), rounds=1)
    _per_file(benchmark)


@both
def test_hot_walk(benchmark: Any, place: Path) -> None:
    _fill(place)
    benchmark.pedantic(_walk, args=(place,), rounds=3, warmup_rounds=1)
    _per_file(benchmark)


@both
def test_remove_all(benchmark: Any, place: Path) -> None:
    _fill(place)

    def work() -> None:
        for child in list(place.iterdir()):
            shutil.rmtree(child)

    benchmark.pedantic(work, rounds=1)
    _per_file(benchmark)


@both
def test_small_synced_writes(benchmark: Any, place: Path) -> None:
    fd = os.open(place / "f", os.O_RDWR | os.O_CREAT)

    def work() -> None:
        os.pwrite(fd, b"x" * 100, 0)
        os.fsync(fd)

    benchmark.pedantic(work, rounds=100)
    os.close(fd)


def test_fork_of_a_mounted_container(
    benchmark: Any, store: pycow.Store, image: pycow.Image, whole: Path, request: pytest.FixtureRequest
) -> None:
    """With the kernel asked to write back first, when it holds nothing."""
    box = store.containers.create(image, name="to-fork")
    os.stat(whole / "to-fork")
    fork: Callable[[], object] = box.fork
    benchmark.pedantic(fork, rounds=200)

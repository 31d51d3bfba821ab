# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import pycow
from pycow import Change, Image, Store

BIG_BYTES = 1 << 20  # of /big.bin in the image


class TestCreate:
    def test_attributes(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box", command=["/bin/sh"], labels={"a": "b"})
        assert re.fullmatch(r"[0-9a-f]{64}", box.id)
        assert box.short_id == box.id[:12]
        assert (box.name, box.command, box.labels, box.forked_from) == ("box", ("/bin/sh",), {"a": "b"}, None)
        assert box.image_id == image.id
        assert box.image.id == image.id
        assert box.created > 0
        assert (box.fs / "etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
        assert store.containers.get("box") == box

    def test_by_reference(self, store: Store, image: Image) -> None:
        assert store.containers.create("test:latest").image_id == image.id
        assert store.containers.create(image.id).image_id == image.id
        with pytest.raises(pycow.NotFoundError):
            store.containers.create("nope")

    def test_names(self, store: Store, image: Image) -> None:
        names = {store.containers.create(image).name for _ in range(20)}
        assert len(names) == 20
        store.containers.create(image, name="box")
        with pytest.raises(pycow.ExistsError, match="box"):
            store.containers.create(image, name="box")
        for name in ("", "a", ".a", "a b", "a/b", "a\n"):
            with pytest.raises(pycow.InvalidError):
                store.containers.create(image, name=name)
        assert len(store.containers) == 21

    def test_a_failed_create_leaves_nothing(self, store: Store, image: Image) -> None:
        store.containers.create(image, name="box")
        trees = store.stats().trees
        with pytest.raises(pycow.ExistsError):
            store.containers.create(image, name="box")
        assert store.stats().trees == trees


class TestGet:
    def test_prefixes(self, store: Store, image: Image) -> None:
        boxes = [store.containers.create(image) for _ in range(20)]
        for box in boxes:
            assert store.containers.get(box.id) == box
            assert store.containers.get(box.short_id) == box
        with pytest.raises(pycow.NotFoundError, match="no such container: nope"):
            store.containers.get("nope")
        first = [box.id[0] for box in boxes]
        shared = next(c for c in first if first.count(c) > 1)
        with pytest.raises(pycow.AmbiguousError):
            store.containers.get(shared)
        assert "nope" not in store.containers
        assert boxes[0].name in store.containers

    def test_a_name_that_looks_like_an_id(self, store: Store, image: Image) -> None:
        one = store.containers.create(image)
        two = store.containers.create(image, name=one.id[:12])
        assert store.containers.get(one.id[:12]) == two
        assert store.containers.get(one.id) == one

    def test_newest_first(self, store: Store, image: Image) -> None:
        boxes = [store.containers.create(image) for _ in range(3)]
        assert list(store.containers) == store.containers.list() == boxes[::-1]


class TestUsage:
    def test_sizes_as_docker_shows_them(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box")
        assert (box.usage().size, box.usage().virtual_size) == (0, image.size)
        (box.fs / "out.txt").write_bytes(b"hello")
        assert box.usage().size == 5
        with box.fs.open("/big.bin", "r+b") as f:
            f.seek(28672)
            f.write(b"x")
        usage = box.usage()
        assert usage.size == 5 + 4096
        assert usage.virtual_size == 5 + 4096 + image.size
        assert 4096 <= usage.exclusive < 64 * 4096
        assert usage.shared >= BIG_BYTES - 4096

    def test_a_twin_counts_the_same(self, store: Store, image: Image) -> None:
        box = store.containers.create(image)
        (box.fs / "f").write_bytes(b"x" * 8192)
        twin = box.fork()
        assert twin.usage().size == box.usage().size == 8192
        (twin.fs / "g").write_bytes(b"x" * 4096)
        assert (twin.usage().size, box.usage().size) == (12288, 8192)

    def test_removing_gives_back(self, store: Store, image: Image) -> None:
        box = store.containers.create(image)
        (box.fs / "f").write_bytes(b"x" * 8192)
        (box.fs / "f").unlink()
        assert box.usage().size == 0
        (box.fs / "big.bin").unlink()
        assert box.usage().size == 0


class TestDiff:
    def test_as_docker_shows_it(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box")
        assert box.diff() == []
        (box.fs / "out.txt").write_bytes(b"hello")
        with box.fs.open("/big.bin", "r+b") as f:
            f.seek(28672)
            f.write(b"x")
        diff = box.diff()
        assert diff == [Change("C", "/big.bin"), Change("A", "/out.txt")]
        assert diff[0].blocks == ((7, 1),)
        assert str(diff[1]) == "A /out.txt"
        assert "blocks" not in repr(diff[0])

    def test_directories(self, store: Store, image: Image) -> None:
        box = store.containers.create(image)
        (box.fs / "etc/new").mkdir()
        (box.fs / "etc/new/f").touch()
        (box.fs / "etc/passwd").unlink()
        (box.fs / "opt").rmtree()
        assert box.diff() == [
            Change("C", "/etc"),
            Change("A", "/etc/new"),
            Change("A", "/etc/new/f"),
            Change("D", "/etc/passwd"),
            Change("D", "/opt"),
        ]

    def test_attributes_and_renames(self, store: Store, image: Image) -> None:
        box = store.containers.create(image)
        (box.fs / "etc/hosts").chmod(0o600)
        (box.fs / "big.bin").rename("small.bin")
        assert box.diff() == [
            Change("D", "/big.bin"),
            Change("C", "/etc"),  # as the directory above a change
            Change("C", "/etc/hosts"),
            Change("A", "/small.bin"),
        ]


class TestForkAndSnapshot:
    def test_fork_of_a_live_container(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box", labels={"a": "b"})
        (box.fs / "f").write_bytes(b"box")
        twin = box.fork("twin")
        (twin.fs / "f").write_bytes(b"twin")
        (box.fs / "g").write_bytes(b"later")
        assert (box.fs / "f").read_bytes() == b"box"
        assert (twin.fs / "f").read_bytes() == b"twin"
        assert not (twin.fs / "g").exists()
        assert (twin.name, twin.forked_from, twin.labels, twin.image_id) == ("twin", box.id, {"a": "b"}, image.id)
        assert {box.name for box in store.containers} == {"box", "twin"}
        with pytest.raises(pycow.ExistsError):
            box.fork("twin")
        box.remove()
        assert (twin.fs / "f").read_bytes() == b"twin"

    def test_rollback(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box")
        (box.fs / "f").write_bytes(b"one")
        snap = box.snapshot("before")
        usage, diff = box.usage(), box.diff()
        (box.fs / "f").write_bytes(b"two" * 1000)
        (box.fs / "etc").rmtree()
        (box.fs / "opt/app/run").chmod(0o600)
        box.rollback(snap)
        assert (box.fs / "f").read_bytes() == b"one"
        assert (box.fs / "etc/hosts").exists()
        assert box.diff() == diff
        assert box.usage().size == usage.size
        (box.fs / "f").write_bytes(b"three")
        assert (snap.fs / "f").read_bytes() == b"one"
        box.rollback("before")  # again, by name
        assert (box.fs / "f").read_bytes() == b"one"

    def test_snapshots(self, store: Store, image: Image) -> None:
        box, other = store.containers.create(image), store.containers.create(image)
        one, two = box.snapshot("one"), box.snapshot("two")
        other.snapshot("one")
        assert box.snapshots() == [one, two]
        assert box.get_snapshot("two") == two
        assert one.usage().size == 0
        with pytest.raises(pycow.ExistsError):
            box.snapshot("one")
        with pytest.raises(pycow.InvalidError):
            box.snapshot("o:ne")
        with pytest.raises(pycow.NotFoundError, match="nope"):
            box.rollback("nope")
        with pytest.raises(pycow.InvalidError):
            other.rollback(one)
        with pytest.raises(pycow.ReadOnlyError):
            (one.fs / "x").touch()
        one.remove()
        assert box.snapshots() == [two]
        with pytest.raises(pycow.NotFoundError):
            one.remove()

    def test_removing_a_container_removes_its_snapshots(self, store: Store, image: Image) -> None:
        trees = store.stats().trees
        box = store.containers.create(image)
        box.snapshot("s1")
        box.snapshot("s2")
        box.remove()
        assert store.stats().trees == trees
        assert store._catalog.keys("snapshots") == []

    def test_open_files_over_a_rollback(self, store: Store, image: Image) -> None:
        box = store.containers.create(image)
        snap = box.snapshot("s1")
        f = box.fs.open("new", "w+b")
        f.write(b"x" * 10000)
        box.rollback(snap)
        with pytest.raises(pycow.Error):
            f.read()
        f.close()


class TestLife:
    def test_rename(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="one")
        store.containers.create(image, name="taken")
        box.rename("two")
        assert box.name == "two"
        assert store.containers.get("two") == box
        assert store.containers.get(box.id).name == "two"
        with pytest.raises(pycow.NotFoundError):
            store.containers.get("one")
        with pytest.raises(pycow.ExistsError):
            box.rename("taken")
        with pytest.raises(pycow.InvalidError):
            box.rename("t w o")
        store.containers.create(image, name="one")

    def test_remove(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, name="box")
        other = store.containers.get("box")
        box.remove()
        assert len(store.containers) == 0
        with pytest.raises(pycow.NotFoundError):
            box.remove()
        with pytest.raises(pycow.NotFoundError):
            other.remove()
        with pytest.raises((pycow.StaleError, pycow.NotFoundError)):
            other.fs.root.stat()
        store.containers.create(image, name="box")

    def test_all_of_it_lasts(self, store: Store, image: Image, tmp_path: Path) -> None:
        box = store.containers.create(image, name="box")
        (box.fs / "f").write_bytes(b"x" * 10000)
        box.snapshot("snap")
        (box.fs / "f").write_bytes(b"y")
        diff, usage = box.diff(), box.usage()
        store.close()
        with pycow.open(tmp_path / "store") as again:
            box = again.containers.get("box")
            assert box.diff() == diff
            assert box.usage() == usage
            box.rollback("snap")
            assert (box.fs / "f").read_bytes() == b"x" * 10000
            assert again.check().errors == ()


def test_the_story(store: Store, image: Image) -> None:
    """The calls of the README, in their order."""
    box = store.containers.create(image, name="box")
    (box.fs / "out.txt").write_bytes(b"hello")
    with box.fs.open("/big.bin", "r+b") as f:
        f.seek(28672)
        f.write(b"x")
    assert box.usage().size == 5 + 4096
    twin = box.fork("twin")
    snap = box.snapshot("before")
    (box.fs / "out.txt").unlink()
    box.rollback(snap)
    image2 = box.commit("acme/changed:1.0", message="the story")
    assert len(image2.layers) == len(image.layers) + 1
    history = store.images.get("acme/changed:1.0").history()
    assert history[0].comment == "the story"
    assert len(history) == 3
    again = store.containers.create("acme/changed:1.0")
    assert (again.fs / "out.txt").read_bytes() == b"hello"
    assert (again.fs / "big.bin").read_bytes() == (twin.fs / "big.bin").read_bytes()
    assert store.check().ok
    assert store.stats().copy_ups >= 1


def test_many_forks(store: Store, image: Image) -> None:
    box = store.containers.create(image)
    (box.fs / "data").write_bytes(os.urandom(50_000))
    before = store.stats()
    forks = [box.fork() for _ in range(200)]
    store.commit()
    after = store.stats()
    assert after.data_bytes - before.data_bytes <= 200 * 4096
    assert after.copy_ups == before.copy_ups
    for fork in forks[::2]:
        fork.remove()
    assert len(store.containers) == 101


def test_what_fails_half_way_leaves_nothing(store: pycow.Store, image: pycow.Image) -> None:
    box = store.containers.create(image, name="box")
    box.snapshot("one")
    before = (store.stats().trees, sorted(store._catalog.keys("names")), len(store.containers))
    with pytest.raises(pycow.ExistsError):
        store.containers.create(image, name="box")
    with pytest.raises(pycow.ExistsError):
        box.fork("box")
    with pytest.raises(pycow.ExistsError):
        box.snapshot("one")
    assert (store.stats().trees, sorted(store._catalog.keys("names")), len(store.containers)) == before
    assert store.check().ok


class TestQuota:
    def test_it_bounds_what_the_container_holds(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, quota=8192)
        assert box.usage().quota == 8192
        file = box.fs / "f"
        file.write_bytes(bytes(8192))
        with pytest.raises(pycow.QuotaError, match="8192 bytes"), file.open("ab") as opened:
            opened.write(b"x")
        with pytest.raises(pycow.QuotaError), (box.fs / "big.bin").open("r+b") as opened:
            opened.write(b"x")  # copies a block of the image
        assert box.usage().size == 8192
        file.write_bytes(b"small")
        store.containers.set_quota(box.name, 2)
        assert box.usage().quota == 2
        with file.open("r+b") as opened:
            opened.write(b"SMALL")
        with pytest.raises(pycow.QuotaError):
            (box.fs / "g").write_bytes(b"xxx")
        file.unlink()
        box.set_quota(None)
        assert (box.usage().quota, box.usage().size) == (None, 0)

    def test_copies(self, store: Store, image: Image) -> None:
        box = store.containers.create(image, quota=5)
        snapshot = box.snapshot("s1")
        assert box.fork().usage().quota == 5
        assert snapshot.usage().quota == 5
        box.set_quota(7)
        box.rollback("s1")
        assert box.usage().quota == 7
        assert store.containers.create(box.commit()).usage().quota is None

    @pytest.mark.parametrize("quota", [0, -1, 2**63, 1.5, "10", True])
    def test_what_is_no_quota(self, store: Store, image: Image, quota: Any) -> None:
        with pytest.raises(pycow.InvalidError):
            store.containers.create(image, quota=quota)
        box = store.containers.create(image)
        with pytest.raises(pycow.InvalidError):
            box.set_quota(quota)

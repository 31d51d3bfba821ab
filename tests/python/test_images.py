# SPDX-License-Identifier: Apache-2.0
"""Images in a store: load, build, commit, names, history, removal; and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archives
import pytest
from archives import CREATED_NS, Entry, ImageSpec, Members, file, folder, hardlink, symlink

import pycow
from pycow import HistoryEntry, Image, Store

CONTENT = random.Random(7).randbytes(300_000)
BASE = archives.make_tar(
    [folder("etc"), file("etc/hosts", b"localhost\n"), file("etc/passwd", b"root"), file("big", CONTENT)]
)
MIDDLE = archives.make_tar([folder("app"), file("app/run", b"#!/bin/sh\n", mode=0o755), symlink("sh", "app/run")])
TOP = archives.make_tar([folder("etc"), file("etc/.wh.passwd"), file("etc/hosts", b"other\n")])


def write(tmp_path: Path, *specs: ImageSpec, make: Callable[..., Members] = archives.docker_members) -> Path:
    return archives.write_tar(tmp_path / "image.tar", make(*specs))


def load(store: Store, tmp_path: Path, *layers: bytes, tag: str = "test/image:1", **more: Any) -> Image:
    return store.images.load(write(tmp_path, ImageSpec(layers, tags=[tag], **more)))


def tree_count(store: Store) -> int:
    return store.stats().trees


class TestLoad:
    @pytest.mark.parametrize("make", [archives.docker_members, archives.oci_members])
    @pytest.mark.parametrize("compression", ["plain", "gzip", "zstd", "gzip-members", "zstd-frames"])
    def test_content(self, store: Store, tmp_path: Path, make: Callable[..., Members], compression: str) -> None:
        spec = ImageSpec([BASE, MIDDLE, TOP], compression=compression)
        image = store.images.load(write(tmp_path, spec, make=make))
        assert image.id == spec.id
        assert image.tags == ("test/image:1",)
        assert image.layers == tuple(f"sha256:{archives.sha256(layer)}" for layer in (BASE, MIDDLE, TOP))
        assert image.created == CREATED_NS
        assert image.config == json.loads(spec.config_bytes())
        assert (image.fs / "big").read_bytes() == CONTENT
        assert (image.fs / "etc/hosts").read_bytes() == b"other\n"
        assert not (image.fs / "etc/passwd").exists()
        assert (image.fs / "sh").read_bytes() == b"#!/bin/sh\n"
        assert (image.fs / "app/run").stat().permissions == 0o755
        assert image.size == len(CONTENT) + 10 + 4 + 10 + 6
        assert [layer.size for layer in store.layers] == [len(CONTENT) + 14, 10, 6]
        assert image.tree().info().sealed
        with pytest.raises(pycow.ReadOnlyError):
            (image.fs / "x").write_bytes(b"")

    def test_survives_reopening(self, tmp_path: Path) -> None:
        with pycow.open(tmp_path / "store") as store:
            image = load(store, tmp_path, BASE, TOP)
        with pycow.open(tmp_path / "store", mode="r") as store:
            assert store.images.get("test/image:1").id == image.id
            assert (store.images.get(image.id).fs / "big").read_bytes() == CONTENT
            assert len(store.layers) == 2

    def test_is_durable_when_it_returns(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE)
        with pycow.open(store.path, mode="r") as reader:
            assert (reader.images.get(image.id).fs / "big").read_bytes() == CONTENT

    def test_known_layers_are_not_read(self, store: Store, tmp_path: Path) -> None:
        load(store, tmp_path, BASE, MIDDLE)
        members = archives.docker_members(ImageSpec([BASE, MIDDLE, TOP], tags=["other"]))
        for layer in (BASE, MIDDLE):  # what is in these members now would be refused
            members[f"{archives.sha256(layer)}/layer.tar"] = b"rubbish"
        stages: list[str] = []
        path = archives.write_tar(tmp_path / "other.tar", members)
        image = store.images.load(path, progress=lambda stage, done, total: stages.append(stage))
        assert set(stages) == {f"layer 3/3 {archives.sha256(TOP)[:12]}"}
        assert len(store.layers) == 3
        assert (image.fs / "big").read_bytes() == CONTENT

    def test_same_image_again(self, store: Store, tmp_path: Path) -> None:
        first = load(store, tmp_path, BASE)
        trees = tree_count(store)
        again = load(store, tmp_path, BASE, tag="second")
        assert again == first and hash(again) == hash(first)
        assert again.tags == ("second:latest", "test/image:1")
        assert tree_count(store) == trees and len(store.images) == 1

    def test_the_same_layer_on_another_one(self, store: Store, tmp_path: Path) -> None:
        load(store, tmp_path, BASE, MIDDLE)
        load(store, tmp_path, MIDDLE, tag="other")
        assert len(store.layers) == 3
        chains = {layer.chain_id for layer in store.layers}
        assert len(chains) == 3

    def test_the_same_layer_twice(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, MIDDLE, MIDDLE)
        assert len(image.layers) == 2 and len(store.layers) == 2

    def test_no_layers(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path)
        assert (image.layers, image.size, image.history()) == ((), 0, [])
        assert list(image.fs.root.iterdir()) == []
        other = load(store, tmp_path, tag="other", architecture="s390x")
        assert other.tree().id == image.tree().id
        box = store.containers.create(image)
        (box.fs / "x").write_bytes(b"12345")
        made = box.commit("from/nothing:1")
        assert (made.fs / "x").read_bytes() == b"12345"
        assert made.size == 5

    def test_several_images(self, store: Store, tmp_path: Path) -> None:
        specs = [ImageSpec([BASE], tags=["a"]), ImageSpec([BASE, TOP], tags=["b"]), ImageSpec([BASE, MIDDLE], tags=[])]
        path = write(tmp_path, *specs)
        images = store.images.load_all(path, tag="mine:1")
        assert [image.id for image in images] == [spec.id for spec in specs]
        assert [image.tags for image in images] == [("a:latest",), ("b:latest",), ("mine:1",)]
        assert len(store.layers) == 3
        assert store.images.load(path) == images[-1]

    def test_tag_takes_the_place_of_names(self, store: Store, tmp_path: Path) -> None:
        image = store.images.load(write(tmp_path, ImageSpec([BASE], tags=["a", "b"])), tag="docker.io/library/mine")
        assert image.tags == ("mine:latest",)

    def test_bad_tag(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(pycow.BadReferenceError):
            store.images.load(write(tmp_path, ImageSpec([BASE])), tag="B A D")
        assert len(store.layers) == 0

    def test_a_name_moves(self, store: Store, tmp_path: Path) -> None:
        old = load(store, tmp_path, BASE)
        new = load(store, tmp_path, BASE, TOP)
        assert (old.tags, new.tags) == ((), ("test/image:1",))
        assert store.images.get("test/image:1") == new

    def test_progress(self, store: Store, tmp_path: Path) -> None:
        calls: list[tuple[str, int, int]] = []
        path = write(tmp_path, ImageSpec([BASE, TOP], compression="gzip"))
        store.images.load(path, progress=lambda *call: calls.append(call))
        blobs = [len(archives.compress(layer, "gzip")) for layer in (BASE, TOP)]
        last = {stage: (done, total) for stage, done, total in calls}
        assert list(last.values()) == [(size, size) for size in blobs]

    def test_oci_and_docker_give_the_same_image(self, store: Store, tmp_path: Path) -> None:
        spec = ImageSpec([BASE, TOP], tags=["x:1"])
        first = store.images.load(write(tmp_path, spec))
        trees = tree_count(store)
        folder_path = archives.write_folder(tmp_path / "layout", archives.oci_members(spec))
        assert store.images.load(folder_path) == first
        assert tree_count(store) == trees

    def test_config_is_kept_byte_for_byte(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, config={"author": 'é "\\ \u2028 \U0001f600', "x-more": [1, {"b": None}]})
        assert archives.sha256(store._catalog.get("images", image.id[7:])["config"].encode()) == image.id[7:]
        assert image.config["x-more"] == [1, {"b": None}]

    def test_read_only_store(self, store: Store, tmp_path: Path) -> None:
        store.commit()
        with pycow.open(store.path, mode="r") as reader, pytest.raises(pycow.ReadOnlyError):
            reader.images.load(write(tmp_path, ImageSpec([BASE])))

    def test_inside_of_a_transaction_that_fails(self, store: Store, tmp_path: Path) -> None:
        path = write(tmp_path, ImageSpec([BASE, TOP]))
        with pytest.raises(KeyError), store.transaction():
            store.images.load(path)
            raise KeyError
        assert len(store.images) == 0 and len(store.layers) == 0
        assert (store.images.load(path).fs / "big").read_bytes() == CONTENT


GOOD = [folder("d"), file("d/f", b"content")]


def size_lies(size: bytes) -> bytes:
    """A member whose header, with a right checksum, gives another size than it has."""
    head = bytearray(archives.make_tar([file("x", b"x")], tarfile.USTAR_FORMAT)[:512])
    head[124:136] = size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x".ljust(512, b"\0") + bytes(1024)


#: Layers that must be refused, and what the error says.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "dot-dot": (archives.make_tar([*GOOD, file("../x", b"x")]), "leads upwards"),
    "dot-dot-inside": (archives.make_tar([*GOOD, file("d/../../x", b"x")]), "leads upwards"),
    "bare-whiteout": (archives.make_tar([*GOOD, file("d/.wh.")]), "whiteout without a name"),
    "whiteout-of-dot-dot": (archives.make_tar([*GOOD, file("d/.wh...")]), "whiteout of"),
    "link-to-outside": (archives.make_tar([*GOOD, hardlink("l", "../../etc/passwd")]), "leads upwards"),
    "link-to-nothing": (archives.make_tar([*GOOD, hardlink("l", "nothing")]), "does not exist"),
    "through-a-link": (archives.make_tar([symlink("s", "/etc"), file("s/x", b"x")]), "symlink|symbolic link|directory"),
    "absolute": (archives.make_tar([*GOOD, file("/etc/x", b"x")]), "absolute"),
    "cut-off": (archives.make_tar([*GOOD, file("x", bytes(100_000))])[:50_000], "cut off"),
    "rubbish": (b"rubbish" * 1000, "not a tar header"),
    "size-lies": (size_lies(b"00000010000\0"), "cut off"),
    "size-lies-a-lot": (size_lies(b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7), "size is no number"),
    "negative-size": (size_lies(b"\xff" * 12), "size is no number"),
    "not-a-tar-at-the-end": (archives.make_tar(GOOD)[:1536] + b"x" * 512, "not a tar header"),
}


class TestAtomic:
    """Nothing is left of a load that fails, wherever it does."""

    def refuse(self, store: Store, path: Path, message: str = "", kind: type[BaseException] = pycow.ImageError) -> None:
        store.commit()
        before = store.stats()
        images, layers = store.images.list(), store.layers.list()
        files = sorted(os.listdir(store.path))
        with pytest.raises(kind, match=message or None):
            store.images.load_all(path)
        assert (store.images.list(), store.layers.list()) == (images, layers)
        assert store.stats().trees == before.trees
        store.commit()
        assert sorted(os.listdir(store.path)) == files
        assert store.check().errors == ()

    @pytest.mark.parametrize("name", HOSTILE)
    @pytest.mark.parametrize("make", [archives.docker_members, archives.oci_members])
    def test_hostile_layers(self, store: Store, tmp_path: Path, make: Callable[..., Members], name: str) -> None:
        layer, message = HOSTILE[name]
        self.refuse(store, write(tmp_path, ImageSpec([BASE, layer, TOP], compression="gzip"), make=make), message)

    def test_wrong_diff_id(self, store: Store, tmp_path: Path) -> None:
        diff_ids = [f"sha256:{archives.sha256(layer)}" for layer in (BASE, TOP)]
        diff_ids[1] = "sha256:" + "0" * 64
        self.refuse(store, write(tmp_path, ImageSpec([BASE, TOP], diff_ids=diff_ids)), "wrong diffID")

    def test_wrong_blob_digest(self, store: Store, tmp_path: Path) -> None:
        members = archives.oci_members(ImageSpec([BASE, TOP]))
        members[f"blobs/sha256/{archives.sha256(TOP)}"] = TOP[:-1] + b"x"
        self.refuse(store, archives.write_tar(tmp_path / "x.tar", members), "wrong digest")

    def test_damaged_blob(self, store: Store, tmp_path: Path) -> None:
        spec = ImageSpec([BASE, MIDDLE], compression="gzip")
        members = archives.docker_members(spec)
        name = f"{archives.sha256(spec.blobs()[1])}/layer.tar"
        blob = members[name]
        assert isinstance(blob, bytes)
        members[name] = blob[:-8] + bytes(8)
        self.refuse(store, archives.write_tar(tmp_path / "x.tar", members), "damaged")

    def test_bad_second_image(self, store: Store, tmp_path: Path) -> None:
        specs = [ImageSpec([BASE], tags=["good"]), ImageSpec([BASE, HOSTILE["rubbish"][0]], tags=["bad"])]
        self.refuse(store, write(tmp_path, *specs))

    def test_compressed_as_a_whole(self, store: Store, tmp_path: Path) -> None:
        members = archives.docker_members(ImageSpec([BASE, HOSTILE["rubbish"][0]]))
        self.refuse(store, archives.write_tar(tmp_path / "x.tar.gz", members, "gzip"))

    def test_beside_what_is_there(self, store: Store, tmp_path: Path) -> None:
        load(store, tmp_path, BASE)
        self.refuse(store, write(tmp_path, ImageSpec([BASE, HOSTILE["dot-dot"][0]])))
        assert (store.images.get("test/image:1").fs / "big").read_bytes() == CONTENT

    def test_interrupted(self, store: Store, tmp_path: Path) -> None:
        path = write(tmp_path, ImageSpec([BASE, MIDDLE, TOP]))
        for stop in range(1, 4):

            def progress(stage: str, done: int, total: int, stop: int = stop) -> None:
                if stage.startswith(f"layer {stop}/"):
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                store.images.load(path, progress=progress)
            assert tree_count(store) == 1 and len(store.layers) == 0
        assert threading.active_count() < 10

    def test_killed(self, tmp_path: Path) -> None:
        """A store that is left in the middle of a load: what was there is dropped when it is next opened."""
        path = write(tmp_path, ImageSpec([BASE, TOP]))
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                store = pycow.open(tmp_path / "store", commit_interval=0)

                def progress(stage: str, done: int, total: int) -> None:
                    store.commit()
                    if stage.startswith("layer 2/2"):
                        os._exit(7)

                store.images.load(path, progress=progress)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pycow.open(tmp_path / "store") as store:
            assert len(store.images) == 0 and len(store.layers) == 0
            assert store.check().errors == ()
            assert tree_count(store) == 1
            assert (store.images.load(path).fs / "big").read_bytes() == CONTENT


class TestConcurrent:
    def test_loads_of_the_same_and_of_others(self, store: Store, tmp_path: Path) -> None:
        paths = []
        for n, layers in enumerate([[BASE, MIDDLE], [BASE, MIDDLE], [BASE, TOP], [BASE, MIDDLE, TOP]]):
            members = archives.docker_members(ImageSpec(layers, tags=[f"image{n}"]))
            paths.append(archives.write_tar(tmp_path / f"{n}.tar", members))
        failures: list[BaseException] = []

        def run(path: Path) -> None:
            try:
                for _ in range(3):
                    store.images.load(path)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store.layers) == 4 and len(store.images) == 3
        assert tree_count(store) == 5
        assert (store.images.get("image3").fs / "etc/hosts").read_bytes() == b"other\n"

    def test_loads_against_removals(self, store: Store, tmp_path: Path) -> None:
        path = archives.write_tar(tmp_path / "top.tar", archives.docker_members(ImageSpec([BASE, TOP], tags=["top"])))
        base = write(tmp_path, ImageSpec([BASE], tags=["base"]))
        stop = threading.Event()
        failures: list[BaseException] = []

        def churn() -> None:
            try:
                while not stop.is_set():
                    store.images.load(base)
                    store.images.remove("base")
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(15):
                image = store.images.load(path)
                assert (image.fs / "big").read_bytes() == CONTENT
                store.images.remove("top")
        finally:
            stop.set()
            thread.join()
        assert failures == []
        assert tree_count(store) == 1 and len(store.layers) == 0


class TestFind:
    def test_get(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, tag="acme/app:1.0")
        for key in ("acme/app:1.0", "docker.io/acme/app:1.0", image.id, image.id[7:], image.short_id, image.id[:12]):
            assert store.images.get(key) == image
            assert key in store.images
        for key in ("acme/app", "nope", "f" * 64, "sha256:" + "f" * 64):
            with pytest.raises(pycow.NotFoundError, match="no such image"):
                store.images.get(key)
            assert key not in store.images
        with pytest.raises(FileNotFoundError):
            store.images.get("nope")
        with pytest.raises(pycow.BadReferenceError):
            store.images.get("Not A Reference")

    def test_ambiguous(self, store: Store, tmp_path: Path) -> None:
        ids: dict[str, str] = {}
        for n in range(17):  # two of them begin alike
            image = load(store, tmp_path, MIDDLE, tag=f"t{n}", config={"n": n})
            first = image.id[7]
            if first in ids:
                with pytest.raises(pycow.AmbiguousError, match="2 images"):
                    store.images.get(first)
                assert store.images.get(image.id[7:]) == image
                return
            ids[first] = image.id
        raise AssertionError

    def test_a_name_goes_before_an_id(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, tag="a")
        other = load(store, tmp_path, TOP, tag=image.short_id)
        assert store.images.get(image.short_id) == other
        assert store.images.get(image.id[: 7 + 12]) == image

    def test_list(self, store: Store, tmp_path: Path) -> None:
        old = load(store, tmp_path, BASE, tag="old", config={"created": "2001-01-01T00:00:00Z"})
        new = load(store, tmp_path, BASE, TOP, tag="new")
        assert store.images.list() == [new, old] == list(store.images)
        assert [image.tags for image in store.images] == [("new:latest",), ("old:latest",)]
        listed = store.images.list()[0]
        listed.tag("more")
        assert listed.tags == ("more:latest", "new:latest")
        assert len(store.images) == 2

    def test_layers(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, TOP)
        below, top = store.layers.list()
        assert image.chain_ids == (below.chain_id, top.chain_id)
        assert image.layers == (below.diff_id, top.diff_id)
        assert (below.parent, top.parent) == (None, below)
        assert (below.tar_bytes, top.tar_bytes) == (len(BASE), len(TOP))
        assert (below.fs / "etc/hosts").read_bytes() == b"localhost\n"
        assert (top.fs / "etc/hosts").read_bytes() == b"other\n"
        for key in (top.chain_id, top.chain_id[7:], top.chain_id[7:27]):
            assert store.layers.get(key) == top and key in store.layers
        for key in ("f" * 64, "", "x"):
            with pytest.raises(pycow.NotFoundError, match="no such layer"):
                store.layers.get(key)


class TestTag:
    def test_tag(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE)
        other = load(store, tmp_path, TOP, tag="other")
        assert image.tag("docker.io/library/mine") == "mine:latest"
        assert image.tags == ("mine:latest", "test/image:1")
        assert store.images.tag("other", "mine") == "mine:latest"
        assert (image.tags, other.tags) == (("test/image:1",), ("mine:latest", "other:latest"))

    def test_errors(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE)
        with pytest.raises(pycow.BadReferenceError):
            image.tag("B A D")
        with pytest.raises(pycow.BadReferenceError):
            image.tag(image.id)
        with pytest.raises(pycow.NotFoundError):
            store.images.tag("nope", "x")
        store.images.remove(image)
        with pytest.raises(pycow.NotFoundError):
            image.tag("x")


class TestRemove:
    def test_all_goes(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, TOP)
        chains = image.chain_ids
        done = store.images.remove("test/image:1")
        assert done == ["Untagged: test/image:1", f"Deleted: {image.id}", f"Deleted: {chains[1]}",
                        f"Deleted: {chains[0]}"]  # fmt: skip
        assert (len(store.images), len(store.layers), tree_count(store)) == (0, 0, 1)
        with pytest.raises(pycow.NotFoundError):
            store.images.remove("test/image:1")
        with pytest.raises(pycow.NotFoundError):
            store.images.get(image.id).tree()
        store.commit()
        assert store.stats().data_bytes == 0

    def test_shared_layers_stay(self, store: Store, tmp_path: Path) -> None:
        load(store, tmp_path, BASE, MIDDLE, TOP, tag="a")
        other = load(store, tmp_path, BASE, MIDDLE, tag="b")
        assert len(store.images.remove("a")) == 3
        assert len(store.layers) == 2
        assert (other.fs / "big").read_bytes() == CONTENT
        store.images.remove("b")
        assert len(store.layers) == 0

    def test_other_names(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, tag="a")
        image.tag("b")
        image.tag("c")
        assert store.images.remove("a") == ["Untagged: a:latest"]
        with pytest.raises(pycow.InUseError, match="several names"):
            store.images.remove(image.id)
        assert image.tags == ("b:latest", "c:latest")
        done = store.images.remove(image, force=True)
        assert done[:2] == ["Untagged: b:latest", "Untagged: c:latest"] and len(done) == 4

    def test_in_use(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE)
        box = store.containers.create(image, name="box")
        with pytest.raises(pycow.InUseError, match="container box"):
            store.images.remove("test/image:1")
        assert image.tags == ("test/image:1",)
        assert store.images.remove("test/image:1", force=True) == ["Untagged: test/image:1"]
        assert box.image == image and box.usage().virtual_size == image.size
        box.remove()
        assert len(store.images.remove(image.id)) == 2
        assert tree_count(store) == 1

    def test_in_use_by_name(self, store: Store, tmp_path: Path) -> None:
        """A name more than one may go, whoever uses the image."""
        image = load(store, tmp_path, BASE)
        image.tag("other")
        store.containers.create(image)
        assert store.images.remove("other") == ["Untagged: other:latest"]


class TestBuildOn:
    def test_steps(self, store: Store, tmp_path: Path) -> None:
        base = load(store, tmp_path, BASE)
        (tmp_path / "middle.tar").write_bytes(MIDDLE)
        (tmp_path / "top.tar.gz").write_bytes(archives.compress(TOP, "gzip"))
        steps = [tmp_path / "middle.tar", None, tmp_path / "top.tar.gz", None]
        image = store.images.build_on(
            "test/image:1",
            steps,
            "acme/app:1.0",
            created_by=["COPY app /app", "ENV A=b", "RUN change", 'CMD ["/app/run"]'],
            config={"Cmd": ["/app/run"], "Env": ["A=b"]},
            author="me",
            created=CREATED_NS + 1,
        )
        assert image.layers == (*base.layers, f"sha256:{archives.sha256(MIDDLE)}", f"sha256:{archives.sha256(TOP)}")
        assert image.tags == ("acme/app:1.0",)
        assert image.size == base.size + 10 + 6
        assert image.config["config"] == {"Cmd": ["/app/run"], "Env": ["A=b"]}
        rows = [(entry.id, entry.created_by, entry.size, entry.empty_layer) for entry in image.history()]
        assert rows == [
            (image.short_id, 'CMD ["/app/run"]', 0, True),
            ("<missing>", "RUN change", 6, False),
            ("<missing>", "ENV A=b", 0, True),
            ("<missing>", "COPY app /app", 10, False),
            ("<missing>", "step 0", base.size, False),
        ]
        assert image.created == CREATED_NS + 1
        assert (image.fs / "etc/hosts").read_bytes() == b"other\n"

    def test_the_same_again_is_the_same_image(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "l.tar").write_bytes(MIDDLE)
        made = [store.images.build_on(None, [tmp_path / "l.tar"], f"x:{n}", created=1) for n in range(2)]
        assert made[0] == made[1] and len(store.layers) == 1

    def test_from_nothing(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "l.tar").write_bytes(archives.compress(BASE, "zstd"))
        image = store.images.build_on(None, [tmp_path / "l.tar"])
        assert image.layers == (f"sha256:{archives.sha256(BASE)}",) and image.tags == ()
        assert image.config["os"] == "linux" and image.config["architecture"]
        empty = store.images.build_on(None, [], "empty:1")
        assert empty.layers == () and list(empty.fs.root.iterdir()) == []

    def test_errors(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "good.tar").write_bytes(MIDDLE)
        (tmp_path / "bad.tar").write_bytes(b"rubbish" * 1000)
        with pytest.raises(pycow.ImageError, match=r"bad\.tar"):
            store.images.build_on(None, [tmp_path / "good.tar", tmp_path / "bad.tar"], "x")
        with pytest.raises(FileNotFoundError):
            store.images.build_on(None, [tmp_path / "none.tar"], "x")
        with pytest.raises(pycow.NotFoundError):
            store.images.build_on("none", [], "x")
        with pytest.raises(pycow.BadReferenceError):
            store.images.build_on(None, [], "X")
        with pytest.raises(pycow.InvalidError):
            store.images.build_on(None, [], "x", created_by=["a"])
        assert (len(store.images), len(store.layers), tree_count(store)) == (0, 0, 1)


class TestCommit:
    def test_commit(self, store: Store, tmp_path: Path) -> None:
        base = load(store, tmp_path, BASE)
        box = store.containers.create(base, name="box", command=["/bin/sh", "-c", "make"])
        (box.fs / "new").write_bytes(b"12345")
        (box.fs / "etc/passwd").unlink()
        image = box.commit("acme/changed:1.0", message="why", author="me")
        assert image == store.images.get("acme/changed:1.0")
        assert image.layers[:1] == base.layers and len(image.layers) == 2
        assert (image.fs / "new").read_bytes() == b"12345"
        assert not (image.fs / "etc/passwd").exists()
        assert image.size == base.size + 5
        top = image.history()[0]
        assert top == HistoryEntry(image.short_id, image.created, "/bin/sh -c make", 5, "why", False)
        assert image.config["author"] == "me"
        assert image.config["config"] == base.config["config"]
        assert image.inspect()["Comment"] == "why"
        # The container goes on as it was.
        (box.fs / "new").write_bytes(b"x")
        assert (image.fs / "new").read_bytes() == b"12345"
        assert box.image == base

    def test_layer_is_the_tar_of_the_changes(self, store: Store, tmp_path: Path) -> None:
        base = load(store, tmp_path, BASE)
        box = store.containers.create(base)
        (box.fs / "etc/passwd").unlink()
        (box.fs / "new").write_bytes(CONTENT)
        image = box.commit()
        tar = b"".join(image.tree().tar(base.tree()))
        assert image.layers[1] == f"sha256:{archives.sha256(tar)}"
        assert store.layers.get(image.chain_ids[1]).tar_bytes == len(tar)
        # Applied to the base elsewhere, it gives the same.
        (tmp_path / "l.tar").write_bytes(tar)
        with pycow.open(tmp_path / "other") as other:
            load(other, tmp_path, BASE)
            copy = other.images.build_on("test/image:1", [tmp_path / "l.tar"])
            assert copy.layers == image.layers
            assert (copy.fs / "new").read_bytes() == CONTENT
            assert not (copy.fs / "etc/passwd").exists()
            assert copy.size == image.size

    def test_twice(self, store: Store, tmp_path: Path) -> None:
        box = store.containers.create(load(store, tmp_path, BASE))
        (box.fs / "new").write_bytes(b"12345")
        first, second = box.commit("a"), box.commit("b", command="sh -c x")
        assert first.layers == second.layers and first.id != second.id
        assert len(store.layers) == 2
        assert second.history()[0].created_by == "sh -c x"

    def test_no_changes(self, store: Store, tmp_path: Path) -> None:
        base = load(store, tmp_path, BASE)
        image = store.containers.create(base).commit("same")
        assert len(image.layers) == 2 and image.size == base.size
        assert [entry.size for entry in image.history()] == [0, base.size]

    def test_of_a_commit(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE)
        for n in range(5):
            box = store.containers.create(image)
            (box.fs / f"f{n}").write_bytes(bytes(n))
            image = box.commit(f"app:{n}")
            box.remove()
        assert len(image.layers) == 6 and len(image.history()) == 6
        assert {path.name for path in image.fs.root.iterdir()} == {"etc", "big", *(f"f{n}" for n in range(5))}
        for n in range(5):
            store.images.remove(f"app:{n}")
        assert len(store.layers) == 1

    def test_errors(self, store: Store, tmp_path: Path) -> None:
        box = store.containers.create(load(store, tmp_path, BASE))
        trees = tree_count(store)
        with pytest.raises(pycow.BadReferenceError):
            box.commit("B A D")
        assert tree_count(store) == trees


class TestInspect:
    def test_shape(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, TOP, config={"variant": "v2", "author": "me"})
        found = image.inspect()
        assert json.loads(json.dumps(found)) == found
        assert found["Id"] == image.id
        assert found["RepoTags"] == ["test/image:1"]
        assert found["RootFS"] == {"Type": "layers", "Layers": list(image.layers)}
        assert found["Config"] == {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}
        assert found["Created"] == archives.CREATED
        assert (found["Architecture"], found["Os"], found["Variant"]) == ("amd64", "linux", "v2")
        assert (found["Size"], found["Author"]) == (image.size, "me")

    def test_history_with_steps_without_layers(self, store: Store, tmp_path: Path) -> None:
        history = [
            {"created_by": "ADD"},
            {"created_by": "ENV", "empty_layer": True},
            {"created_by": "RUN", "comment": "buildkit", "created": archives.CREATED},
        ]
        image = load(store, tmp_path, BASE, TOP, history=history)
        assert image.history() == [
            HistoryEntry(image.short_id, CREATED_NS, "RUN", 6, "buildkit", False),
            HistoryEntry("<missing>", 0, "ENV", 0, "", True),
            HistoryEntry("<missing>", 0, "ADD", image.size - 6, "", False),
        ]

    def test_no_history(self, store: Store, tmp_path: Path) -> None:
        image = load(store, tmp_path, BASE, TOP, history=[])
        assert [(entry.id, entry.size) for entry in image.history()] == [
            (image.short_id, 6),
            ("<missing>", image.size - 6),
        ]
        assert image.inspect()["Comment"] == ""


class TestManyLayers:
    def test_120_layers(self, store: Store, tmp_path: Path) -> None:
        layers = [archives.make_tar([file(f"f{n}", bytes([n])), file("same", bytes([n]) * 100)]) for n in range(120)]
        image = load(store, tmp_path, *layers)
        assert len(image.layers) == 120
        assert (image.fs / "same").read_bytes() == bytes([119]) * 100
        assert len(list(image.fs.root.iterdir())) == 121
        assert image.size == 120 * 101
        store.images.remove(image)
        assert tree_count(store) == 1


def test_entries_of_all_kinds(store: Store, tmp_path: Path) -> None:
    entries = [
        folder("d", mode=0o1777, uid=5, gid=6),
        file("d/f", b"x" * 5000, mode=0o4755, uid=1000, gid=100, xattrs={"user.a": b"\x00\xff"}, mtime=1.5),
        hardlink("d/g", "d/f"),
        symlink("s", "d/f"),
        archives.device("null", 1, 3, mode=0o666),
        archives.device("sda", 8, 0, block=True),
        Entry("pipe", kind=b"6"),
        file("n" * 200, b"long"),
        file("é", b"utf"),
    ]
    image = load(store, tmp_path, archives.make_tar(entries))
    f = (image.fs / "d/f").stat()
    assert (f.permissions, f.uid, f.gid, f.nlink, f.size, f.mtime_ns) == (0o4755, 1000, 100, 2, 5000, 1_500_000_000)
    assert (image.fs / "d/g").stat().ino == f.ino
    assert (image.fs / "d/f").getxattr("user.a") == b"\x00\xff"
    assert (image.fs / "s").readlink() == "d/f"
    assert (image.fs / "null").stat().rdev == os.makedev(1, 3)
    assert (image.fs / "sda").stat().rdev == os.makedev(8, 0)
    assert (image.fs / "d").stat().permissions == 0o1777
    assert (image.fs / ("n" * 200)).read_bytes() == b"long"
    assert (image.fs / "é").read_bytes() == b"utf"
    assert image.size == 5007

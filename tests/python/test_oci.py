# SPDX-License-Identifier: Apache-2.0
"""Formats: what is in an archive, what is refused. Nothing here needs a store."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archives
import pytest
from archives import CREATED, CREATED_NS, Entry, ImageSpec, Members, file, folder, symlink

from pycow.errors import BadReferenceError, Error, ImageError, InvalidError
from pycow.oci import compression
from pycow.oci.archive import read_archive
from pycow.oci.config import ImageConfig, Step, format_time, parse_time
from pycow.oci.digest import chain_id, chain_ids, parse_digest
from pycow.oci.documents import render
from pycow.oci.files import Blob, file_blob
from pycow.oci.platform import host_architecture
from pycow.oci.reference import normalize, repository_of, repository_word
from pycow.oci.source import ImageSource
from pycow.oci.stream import LayerStream

BASE = archives.make_tar([folder("etc"), file("etc/hosts", b"localhost\n")])
TOP = archives.make_tar([file("big", os.urandom(3_000_000)), file("etc/.wh.hosts")])


def nothing(stage: str, done: int, total: int) -> None:
    pass


def read(path: Path, scratch: Path | None = None) -> list[ImageSource]:
    """The archive's images, with every layer read and compared with its diffID."""
    with read_archive(str(path), str(scratch or path.parent), nothing) as images:
        for image in images:
            for layer in image.layers:
                with LayerStream(layer.blob, layer.digest) as stream:
                    for _ in stream:
                        pass
                assert stream.diff_id == layer.diff_id
        return images


def refuse(path: Path, message: str) -> None:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    before = set(path.parent.iterdir())
    with pytest.raises(ImageError, match=message):
        read(path, scratch)
    assert set(path.parent.iterdir()) == before
    assert list(scratch.iterdir()) == []


class TestReference:
    @pytest.mark.parametrize(
        ("reference", "normal"),
        [
            ("busybox", "busybox:latest"),
            ("busybox:1.36", "busybox:1.36"),
            ("docker.io/library/busybox", "busybox:latest"),
            ("docker.io/busybox", "busybox:latest"),
            ("index.docker.io/library/busybox:1", "busybox:1"),
            ("library/busybox", "library/busybox:latest"),
            ("docker.io/acme/app:1.0", "acme/app:1.0"),
            ("acme/app", "acme/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("registry.example.com:443/a/b/c:v1", "registry.example.com:443/a/b/c:v1"),
            ("Registry.Example/app", "Registry.Example/app:latest"),
            ("[::1]:5000/app:x", "[::1]:5000/app:x"),
            ("a__b/c-d.e_f--g:T.a-g_", "a__b/c-d.e_f--g:T.a-g_"),
        ],
    )
    def test_normal_form(self, reference: str, normal: str) -> None:
        assert normalize(reference) == normal
        assert normalize(normal) == normal

    @pytest.mark.parametrize(
        "reference",
        [
            "", ":", ":tag", "Busybox", "busy box", "busybox:", "busybox:-x", "busybox:" + "t" * 129, "a//b", "/a",
            "a/", "a/../b", "..", "a_-b", "-a", "a-", "http://x/y", "busybox@sha256:" + "0" * 64, "0" * 64,
            "sha256:" + "0" * 64, "a:b:c",
            "x" * 256, "a\n", "a\0", "host:port/app", "é",
        ],
    )  # fmt: skip
    def test_refused(self, reference: str) -> None:
        with pytest.raises(BadReferenceError):
            normalize(reference)

    def test_parts(self) -> None:
        assert repository_of("localhost:5000/app:1") == "localhost:5000/app"
        assert repository_word("My Image_1") == "my-image_1"
        assert repository_word("...") is None


class TestDigest:
    def test_chains(self) -> None:
        # From the image-spec's formula, worked out with sha256sum.
        a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
        assert chain_ids([]) == ()
        assert chain_ids([a]) == ("a" * 64,)
        assert chain_ids([a, b])[1] == archives.sha256(f"{a} {b}".encode())
        assert chain_id(chain_ids([a, b])[1], a) == chain_ids([a, b, a])[2]

    @pytest.mark.parametrize(
        "text",
        [None, 5, "", "sha256", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "md5:" + "0" * 32,
         "sha256:../../../etc/passwd", "sha256:" + "0" * 64 + "\n"],
    )  # fmt: skip
    def test_refused(self, text: Any) -> None:
        with pytest.raises(ImageError, match="digest"):
            parse_digest(text, "x")


class TestTime:
    @pytest.mark.parametrize(
        ("text", "ns"),
        [
            ("1970-01-01T00:00:00Z", 0),
            (CREATED, CREATED_NS),
            ("2024-05-06T07:08:09.5Z", 1_714_979_289_500_000_000),
            ("2024-05-06T09:08:09+02:00", 1_714_979_289_000_000_000),
            ("2024-05-06T03:38:09-03:30", 1_714_979_289_000_000_000),
            ("1969-12-31T23:59:59Z", -1_000_000_000),
            ("0001-01-01T00:00:00Z", 0),
        ],
    )
    def test_parse(self, text: str, ns: int) -> None:
        assert parse_time(text) == ns

    @pytest.mark.parametrize(
        "text", ["", "now", "2024-05-06", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-05-06T24:00:00Z",
                 "2024-05-06T00:60:00Z", "2024-05-06T00:00:00", "2024-05-06T00:00:00Z "]
    )  # fmt: skip
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse_time(text)

    def test_round_trip(self) -> None:
        for ns in (0, CREATED_NS, 1_500_000_000, -1):
            assert parse_time(format_time(ns)) == ns
        assert format_time(CREATED_NS) == CREATED


class TestConfig:
    def test_parse(self) -> None:
        spec = ImageSpec([BASE, TOP])
        config = ImageConfig.parse(spec.config_bytes())
        assert f"sha256:{config.id}" == spec.id
        assert config.created == CREATED_NS
        assert [step.created_by for step in config.steps] == ["step 0", "step 1"]
        assert len(config.chains) == 2

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b'{"rootfs": NaN}', "not JSON"),
            (b"[]", "object"),
            (b"{}", "rootfs"),
            (b'{"rootfs": {"type": "other"}}', "rootfs"),
            (b'{"rootfs": {"type": "layers", "diff_ids": "x"}}', "diff_ids"),
            (b'{"rootfs": {"type": "layers", "diff_ids": [7]}}', "diff_ids"),
            (b'{"rootfs": {"type": "layers", "diff_ids": ["sha256:0"]}}', "diff_ids"),
            (b'{"rootfs": {"type": "layers", "diff_ids": ["sha512:' + b"0" * 128 + b'"]}}', "diff_ids"),
            (b'{"rootfs": {"type": "layers"}, "history": {}}', "history"),
            (b'{"rootfs": {"type": "layers"}, "history": [1]}', "history"),
            (b'{"rootfs": {"type": "layers"}, "history": [{"empty_layer": "no"}]}', "empty_layer"),
            (b'{"rootfs": {"type": "layers"}, "history": [{"created_by": []}]}', "created_by"),
            (b'{"rootfs": {"type": "layers"}, "history": [{"created": "soon"}]}', "created"),
            (b'{"rootfs": {"type": "layers"}, "created": 5}', "created"),
            (b'{"rootfs": {"type": "layers"}, "config": []}', "config"),
            (b'{"rootfs": {"type": "layers"}, "os": 1}', "os"),
        ],
    )
    def test_refused(self, raw: bytes, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            ImageConfig.parse(raw)

    def test_nulls_are_as_good_as_missing(self) -> None:
        raw = b'{"rootfs":{"type":"layers","diff_ids":null},"history":null,"config":null,"created":null,"author":null}'
        config = ImageConfig.parse(raw)
        assert (config.diff_ids, config.steps, config.created) == ((), (), 0)

    def test_extended(self) -> None:
        more = {"container": "x", "container_config": {}, "variant": "v8"}
        base = ImageConfig.parse(ImageSpec([BASE], config=more).config_bytes())
        diff_id = "sha256:" + "d" * 64
        steps = [Step("ADD x", "why", "me", CREATED_NS), Step("CMD x", created=CREATED_NS, empty_layer=True)]
        made = base.extended([diff_id], steps, created=CREATED_NS, author="me", overrides={"Cmd": ["x"]})
        assert made.raw == render(made.document)
        assert made.diff_ids == (*base.diff_ids, diff_id)
        assert made.steps == (*base.steps, *steps)
        assert made.document["config"] == {"Cmd": ["x"], "Env": ["PATH=/bin"]}
        assert made.document["created"] == CREATED
        assert made.document["author"] == "me"
        assert made.document["variant"] == "v8"
        assert not {"container", "container_config"} & made.document.keys()

    def test_extended_keeps_steps_at_their_layers(self) -> None:
        """A base whose history says less than it has layers."""
        base = ImageConfig.parse(ImageSpec([BASE, TOP], history=[]).config_bytes())
        made = base.extended(["sha256:" + "d" * 64], [Step("new")], created=1)
        assert [(step.created_by, size) for step, size in made.sized_steps([1, 2, 4])] == [("", 1), ("", 2), ("new", 4)]

    def test_sizes_go_to_steps_with_layers(self) -> None:
        history = [{"created_by": "a"}, {"created_by": "env", "empty_layer": True}, {"created_by": "b"}]
        config = ImageConfig.parse(ImageSpec([BASE] * 3, history=history).config_bytes())
        rows = [(step.created_by, size) for step, size in config.sized_steps([10, 20, 30])]
        assert rows == [("a", 10), ("env", 0), ("b", 20), ("", 30)]


class TestStream:
    @pytest.mark.parametrize("kind", ["plain", "gzip", "zstd", "gzip-members", "zstd-frames"])
    def test_content(self, tmp_path: Path, kind: str) -> None:
        data = os.urandom(1 << 20) + bytes(5_000_000) + b"end"
        path = tmp_path / "blob"
        path.write_bytes(archives.compress(data, kind))
        digest = parse_digest(f"sha256:{archives.sha256(path.read_bytes())}", "x")
        found = bytearray()
        with LayerStream(file_blob(str(path)), digest) as stream:
            for chunk in stream:
                assert len(chunk) <= 1 << 20
                found += chunk
                assert 0 < stream.done <= path.stat().st_size
        assert bytes(found) == data
        assert stream.diff_id == f"sha256:{archives.sha256(data)}"
        assert stream.done == path.stat().st_size

    def test_without_isal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compression, "_gzip_file", gzip.GzipFile)
        self.test_content(tmp_path, "gzip-members")

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    @pytest.mark.parametrize("kind", ["plain", "gzip"])
    def test_wrong_digest(self, tmp_path: Path, kind: str, algorithm: str) -> None:
        path = tmp_path / "blob"
        path.write_bytes(archives.compress(b"x" * 100, kind))
        digest = parse_digest(f"{algorithm}:{'0' * (64 if algorithm == 'sha256' else 128)}", "x")
        with pytest.raises(ImageError, match="wrong digest"), LayerStream(file_blob(str(path)), digest) as stream:
            list(stream)

    @pytest.mark.parametrize("kind", ["gzip", "zstd"])
    def test_damage(self, tmp_path: Path, kind: str) -> None:
        data = bytearray(archives.compress(os.urandom(300_000), kind))
        data[20:40] = bytes(20)
        path = tmp_path / "blob"
        path.write_bytes(data)
        with pytest.raises(ImageError, match="damaged|wrong digest"), LayerStream(file_blob(str(path)), None) as stream:
            list(stream)
            assert stream.diff_id
            raise ImageError("wrong digest")  # the frame's checksum is optional; the diffID would tell

    def test_cut_off_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(archives.compress(os.urandom(300_000), "gzip")[:-100])
        with pytest.raises(ImageError, match="damaged"), LayerStream(file_blob(str(path))) as stream:
            list(stream)

    def test_shrinking_file(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(b"x" * 100)
        with pytest.raises(ImageError, match="100 bytes"), LayerStream(Blob("b", 101, str(path))) as stream:
            list(stream)

    def test_other_compressions(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(b"\xfd7zXZ\x00more")
        with pytest.raises(ImageError, match="xz"), LayerStream(file_blob(str(path))) as stream:
            list(stream)

    def test_the_thread_ends_with_the_context(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(bytes(20 << 20))
        before = threading.active_count()
        with pytest.raises(KeyError), LayerStream(file_blob(str(path))) as stream:
            for _ in stream:
                raise KeyError
        assert threading.active_count() == before

    def test_not_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidError):
            file_blob(str(tmp_path))
        with pytest.raises(FileNotFoundError), LayerStream(Blob("b", 1, str(tmp_path / "none"))) as stream:
            list(stream)

    def test_a_bomb_stays_small_in_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(archives.compress(bytes(200 << 20), "zstd"))
        with LayerStream(file_blob(str(path))) as stream:
            assert sum(len(chunk) for chunk in stream) == 200 << 20
            assert stream._full.qsize() + stream._free.qsize() <= 4


def docker_modern(*images: ImageSpec) -> Members:
    return archives.docker_members(*images, modern=True)


def docker_25(*images: ImageSpec) -> Members:
    """Both formats in one, as docker writes it since version 25."""
    return {**archives.oci_members(*images), **docker_modern(*images)}


MAKERS: list[Callable[..., Members]] = [archives.docker_members, docker_modern, docker_25, archives.oci_members]


class TestArchive:
    @pytest.mark.parametrize("make", MAKERS)
    @pytest.mark.parametrize("layers", ["plain", "gzip", "zstd"])
    @pytest.mark.parametrize("outer", ["plain", "gzip", "zstd"])
    def test_formats(self, tmp_path: Path, make: Callable[..., Members], layers: str, outer: str) -> None:
        spec = ImageSpec([BASE, TOP], compression=layers)
        (tmp_path / "scratch").mkdir()
        [image] = read(archives.write_tar(tmp_path / "image.tar", make(spec), outer), tmp_path / "scratch")
        assert f"sha256:{image.config.id}" == spec.id
        assert image.tags == ("test/image:1",)
        assert list((tmp_path / "scratch").iterdir()) == []

    @pytest.mark.parametrize("make", MAKERS)
    def test_folder(self, tmp_path: Path, make: Callable[..., Members]) -> None:
        spec = ImageSpec([BASE, TOP])
        [image] = read(archives.write_folder(tmp_path / "image", make(spec)))
        assert f"sha256:{image.config.id}" == spec.id

    @pytest.mark.parametrize("make", MAKERS)
    def test_several_images(self, tmp_path: Path, make: Callable[..., Members]) -> None:
        specs = [ImageSpec([BASE], tags=["a/b:1", "a/b:2"]), ImageSpec([BASE, TOP], tags=["c/d:1"])]
        images = read(archives.write_tar(tmp_path / "x.tar", make(*specs)))
        assert [f"sha256:{image.config.id}" for image in images] == [spec.id for spec in specs]
        assert [image.tags for image in images] == [("a/b:1", "a/b:2"), ("c/d:1",)]

    @pytest.mark.parametrize("make", MAKERS)
    def test_no_layers_and_no_tags(self, tmp_path: Path, make: Callable[..., Members]) -> None:
        [image] = read(archives.write_tar(tmp_path / "x.tar", make(ImageSpec([], tags=[]))))
        assert (image.layers, image.tags) == ((), ())

    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_tar_formats(self, tmp_path: Path, format: int) -> None:
        members = archives.docker_members(ImageSpec([BASE]))
        entries = [file("./" + name, data) for name, data in members.items() if isinstance(data, bytes)]
        (tmp_path / "x.tar").write_bytes(archives.make_tar([folder("."), *entries], format))
        assert len(read(tmp_path / "x.tar")) == 1

    def test_a_pipe(self, tmp_path: Path) -> None:
        data = archives.tar_of(archives.docker_members(ImageSpec([BASE])))
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
        writer.start()
        assert len(read(tmp_path / "pipe")) == 1
        writer.join()

    def test_progress_of_decompression(self, tmp_path: Path) -> None:
        path = archives.write_tar(tmp_path / "x.tar", archives.docker_members(ImageSpec([TOP])), "gzip")
        calls: list[tuple[str, int, int]] = []
        with read_archive(str(path), str(tmp_path), lambda *call: calls.append(call)):
            pass
        assert calls[-1] == ("decompress", path.stat().st_size, path.stat().st_size)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "not an image archive"),
            (b"x" * 2000, "not an image archive"),
            (archives.tar_of({}), "not an image archive"),
            (archives.tar_of({"manifest.json": b"[]"}), "no image"),
            (b"BZh9xxxxxxx", "bzip2"),
            (gzip.compress(b"hello"), "not an image archive"),
            (gzip.compress(os.urandom(99_999))[:50_000], "damaged"),
        ],
    )
    def test_other_files(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "x").write_bytes(data)
        refuse(tmp_path / "x", message)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


class TestHostileOuterTar:
    def members(self) -> Members:
        return archives.docker_members(ImageSpec([BASE]))

    @pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
    def test_names_that_lead_out(self, tmp_path: Path, name: str) -> None:
        refuse(archives.write_tar(tmp_path / "x.tar", {**self.members(), "bad": file(name, b"x")}), "leads out")

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
    @pytest.mark.parametrize("make", [symlink, archives.hardlink])
    def test_links_that_lead_out(self, tmp_path: Path, make: Callable[..., Entry], target: str) -> None:
        refuse(archives.write_tar(tmp_path / "x.tar", {**self.members(), "bad": make("a/l", target)}), "leads out")

    def test_manifest_that_leads_out(self, tmp_path: Path) -> None:
        manifest = json.dumps([{"Config": "../../etc/passwd", "Layers": []}]).encode()
        refuse(archives.write_tar(tmp_path / "x.tar", {"manifest.json": manifest}), "leads out")

    def test_directory_links_that_lead_out(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"{}")
        path = archives.write_folder(tmp_path / "x", {"manifest.json": b'[{"Config": "config"}]'})
        (path / "config").symlink_to("../secret")
        refuse(path, "leads out")

    def test_duplicates(self, tmp_path: Path) -> None:
        members = {**self.members(), "again": file("./manifest.json", b"[]")}
        refuse(archives.write_tar(tmp_path / "x.tar", members), "twice")

    def test_devices(self, tmp_path: Path) -> None:
        refuse(archives.write_tar(tmp_path / "x.tar", {**self.members(), "d": archives.device("d", 1, 3)}), "neither")

    def test_link_loop(self, tmp_path: Path) -> None:
        loop = {"a": symlink("manifest.json", "b"), "b": symlink("b", "manifest.json")}
        refuse(archives.write_tar(tmp_path / "x.tar", loop), "without an end")

    def test_cut_off(self, tmp_path: Path) -> None:
        data = archives.tar_of({"manifest.json": b"[]", "big": bytes(100_000)})
        for length in (600, 1500, 20_000):
            (tmp_path / "x.tar").write_bytes(data[:length])
            refuse(tmp_path / "x.tar", "not an image archive|cut off|no image|unexpected end")

    def test_size_lies(self, tmp_path: Path) -> None:
        for size in (1 << 40, (1 << 63) - 1, -1, -512, -(1 << 40)):
            info = file("manifest.json").info()
            info.size = size
            head = info.tobuf(tarfile.GNU_FORMAT)
            (tmp_path / "x.tar").write_bytes(head + bytes(10240))
            refuse(tmp_path / "x.tar", "not an image archive|cut off|damaged|too large")

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
    def test_huge_or_negative_headers(self, tmp_path: Path, kind: bytes) -> None:
        for size in (1 << 30, -512, -(1 << 33)):
            info = tarfile.TarInfo("x")
            info.type, info.size = kind, size
            with (tmp_path / "x.tar").open("wb") as out:
                out.write(info.tobuf(tarfile.GNU_FORMAT))
                out.truncate(1 << 31)
            refuse(tmp_path / "x.tar", "too large|not an image archive|damaged")

    def test_headers_upon_headers(self, tmp_path: Path) -> None:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4
        (tmp_path / "x.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"abc".ljust(512, b"\0")) * 20_000)
        refuse(tmp_path / "x.tar", "not an image archive")

    def test_sparse_members(self, tmp_path: Path) -> None:
        entry = file("s", b"", pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"})
        refuse(archives.write_tar(tmp_path / "x.tar", {**self.members(), "s": entry}), "neither|not an image")


class TestDocker:
    def change(self, tmp_path: Path, change: Callable[[dict[str, Any]], None], spec: ImageSpec | None = None) -> Path:
        """An archive whose only manifest entry was changed."""
        members = archives.docker_members(spec or ImageSpec([BASE, TOP]))
        manifest = json.loads(io.BytesIO(members["manifest.json"]).read())  # type: ignore[arg-type]
        change(manifest[0])
        members["manifest.json"] = json.dumps(manifest).encode()
        return archives.write_tar(tmp_path / "x.tar", members)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"Config": None}, "no 'Config'"),
            ({"Config": "none.json"}, "lacks 'none.json'"),
            ({"Config": 5}, "Config"),
            ({"Config": "manifest.json"}, "object"),
            ({"Layers": ["none"]}, "lacks 'none'"),
            ({"Layers": []}, "0 layers, but the config has 2"),
            ({"Layers": None}, "0 layers"),
            ({"Layers": "x"}, "Layers"),
            ({"Layers": [None]}, "Layers"),
            ({"RepoTags": ["Bad Name"]}, "invalid reference"),
            ({"RepoTags": [1]}, "RepoTags"),
        ],
    )
    def test_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        refuse(self.change(tmp_path, lambda entry: entry.update(change)), message)

    @pytest.mark.parametrize("manifest", [b"{}", b"[1]", b"{", b'"x"'])
    def test_bad_manifest(self, tmp_path: Path, manifest: bytes) -> None:
        refuse(archives.write_tar(tmp_path / "x.tar", {"manifest.json": manifest}), "manifest.json")

    @pytest.mark.parametrize("modern", [False, True])
    def test_config_that_is_not_what_its_name_says(self, tmp_path: Path, modern: bool) -> None:
        members = archives.docker_members(ImageSpec([BASE]), modern=modern)
        name = next(iter(members))
        members[name] = ImageSpec([BASE], config={"author": "other"}).config_bytes()
        refuse(archives.write_tar(tmp_path / "x.tar", members), "wrong digest")

    def test_config_with_another_name(self, tmp_path: Path) -> None:
        spec = ImageSpec([BASE])
        members = archives.docker_members(spec)
        members["c.json"] = members.pop(next(iter(members)))
        members["manifest.json"] = json.dumps([{"Config": "c.json", "Layers": [next(iter(members))]}]).encode()
        assert read(archives.write_tar(tmp_path / "x.tar", members))[0].config.id == spec.id.removeprefix("sha256:")

    def test_modern_layer_that_is_not_what_its_name_says(self, tmp_path: Path) -> None:
        members = docker_modern(ImageSpec([BASE]))
        members[f"blobs/sha256/{archives.sha256(BASE)}"] = TOP
        refuse(archives.write_tar(tmp_path / "x.tar", members), "wrong digest")

    def test_linked_layers(self, tmp_path: Path) -> None:
        """Old versions of docker write a layer once, and links to it."""
        members = archives.docker_members(ImageSpec([BASE, BASE, BASE]))
        real = f"{archives.sha256(BASE)}/layer.tar"
        members["s"] = symlink("other/layer.tar", f"../{real}")
        members["h"] = archives.hardlink("third.tar", "other/layer.tar")
        manifest = json.loads(members["manifest.json"])  # type: ignore[arg-type]
        manifest[0]["Layers"] = [real, "other/layer.tar", "./third.tar"]
        members["manifest.json"] = json.dumps(manifest).encode()
        [image] = read(archives.write_tar(tmp_path / "x.tar", members))
        assert len(image.layers) == 3


class TestLayout:
    def write(self, tmp_path: Path, members: Members) -> Path:
        return archives.write_tar(tmp_path / "box.tar.gz", members, "gzip")

    def indexed(self, tmp_path: Path, members: Members, *manifests: dict[str, Any]) -> Path:
        layout: Members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', **members}
        return self.write(tmp_path, {**layout, "index.json": archives.oci_index(manifests)})

    @pytest.mark.parametrize(
        ("annotations", "tags"),
        [
            ({}, ()),
            ({archives.REF_NAME: "latest"}, ("box:latest",)),
            ({archives.REF_NAME: "v1.0"}, ("box:v1.0",)),
            ({archives.REF_NAME: "acme/app:2"}, ("acme/app:2",)),
            ({archives.REF_NAME: "docker.io/library/app:2"}, ("app:2",)),
            ({archives.REF_NAME: "a+b"}, ()),
            ({archives.FULL_NAME: "docker.io/library/x:1", archives.REF_NAME: "1"}, ("x:1",)),
        ],
    )
    def test_names(self, tmp_path: Path, annotations: dict[str, str], tags: tuple[str, ...]) -> None:
        members: Members = {}
        manifest = archives.oci_manifest(members, ImageSpec([BASE]), annotations=annotations)
        [image] = read(self.indexed(tmp_path, members, manifest))
        assert image.tags == tags

    def platforms(self, members: Members, *names: str, **more: Any) -> list[dict[str, Any]]:
        return [
            archives.oci_manifest(
                members,
                ImageSpec([BASE], architecture=name),
                platform={"os": "linux", "architecture": name.partition("/")[0], "variant": name.partition("/")[2]},
                **more,
            )
            for name in names
        ]

    def test_the_platform_of_this_machine(self, tmp_path: Path) -> None:
        own = host_architecture()
        members: Members = {}
        manifests = self.platforms(members, "s390x", f"{own}/v9", own, "riscv64")
        attestation = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        manifests += self.platforms(members, own, **attestation)
        inner = archives.descriptor(members, archives.oci_index(manifests), archives.OCI_INDEX)
        outer = archives.descriptor(members, archives.oci_index([inner]), archives.OCI_INDEX)
        [image] = read(self.indexed(tmp_path, members, outer))
        assert image.config.document["architecture"] == own
        [image] = read(self.indexed(tmp_path, members, *manifests))
        assert image.config.document["architecture"] == own

    def test_the_only_platform(self, tmp_path: Path) -> None:
        members: Members = {}
        inner = archives.oci_index(self.platforms(members, "s390x"))
        [image] = read(self.indexed(tmp_path, members, archives.descriptor(members, inner, archives.OCI_INDEX)))
        assert image.config.document["architecture"] == "s390x"

    def test_no_platform_fits(self, tmp_path: Path) -> None:
        members: Members = {}
        inner = archives.oci_index(self.platforms(members, "s390x", "mips"))
        path = self.indexed(tmp_path, members, archives.descriptor(members, inner, archives.OCI_INDEX))
        refuse(path, "no image for linux/.*s390x")

    def test_indexes_in_indexes(self, tmp_path: Path) -> None:
        members: Members = {}
        inner = archives.oci_manifest(members, ImageSpec([BASE]))
        for _ in range(9):
            inner = archives.descriptor(members, archives.oci_index([inner]), archives.OCI_INDEX)
        refuse(self.indexed(tmp_path, members, inner), "too many indexes")

    def test_one_image_with_two_names(self, tmp_path: Path) -> None:
        [image] = read(self.write(tmp_path, archives.oci_members(ImageSpec([BASE], tags=["a:1", "b:1"]))))
        assert image.tags == ("a:1", "b:1")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("oci-layout", b"{}", "version"),
            ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "version"),
            ("oci-layout", b"x", "not JSON"),
            ("index.json", b"{}", "schemaVersion"),
            ("index.json", b'{"schemaVersion":1,"manifests":[]}', "schemaVersion"),
            ("index.json", b'{"schemaVersion":2,"manifests":{}}', "manifests"),
            ("index.json", b'{"schemaVersion":2,"manifests":[]}', "no image"),
            ("index.json", b'{"schemaVersion":2,"manifests":[7]}', "object"),
            ("index.json", b'{"schemaVersion":2,"manifests":[{}]}', "media type"),
        ],
    )
    def test_bad_documents(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        members = archives.oci_members(ImageSpec([BASE]))
        members[name] = content
        refuse(self.write(tmp_path, members), message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"mediaType": "text/plain"}, "media type"),
            ({"size": -1}, "size"),
            ({"size": True}, "size"),
            ({"size": "5"}, "size"),
            ({"size": 1 << 40}, "descriptor says"),
            ({"digest": "sha256:" + "0" * 64}, "lacks"),
            ({"digest": "sha256:../../x"}, "digest"),
            ({"digest": None}, "digest"),
            ({"platform": []}, "platform"),
            ({"annotations": {archives.FULL_NAME: "B A D"}}, "invalid reference"),
        ],
    )
    def test_bad_descriptors(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        members: Members = {}
        manifest = archives.oci_manifest(members, ImageSpec([BASE]))
        refuse(self.indexed(tmp_path, members, {**manifest, **change}), message)

    def changed(self, tmp_path: Path, change: Callable[[dict[str, Any], Members], None]) -> Path:
        """A layout whose only manifest was changed."""
        members: Members = {}
        name = archives.oci_manifest(members, ImageSpec([BASE]))["digest"].replace("sha256:", "blobs/sha256/")
        manifest = json.loads(members.pop(name))  # type: ignore[arg-type]
        change(manifest, members)
        return self.indexed(tmp_path, members, archives.descriptor(members, json.dumps(manifest).encode(),
                                                                   archives.OCI_MANIFEST))  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m, _: m.update(schemaVersion=1), "schemaVersion"),
            (lambda m, _: m.update(mediaType=archives.OCI_INDEX), "media type"),
            (lambda m, _: m["layers"].append(m["layers"][0]), "2 layers, but the config has 1"),
            (lambda m, _: m["layers"].clear(), "0 layers"),
            (lambda m, _: m["layers"][0].update(mediaType="application/vnd.oci.empty.v1+json"), "media type"),
            (lambda m, _: m["layers"][0].update(mediaType=archives.OCI_LAYER + "+encrypted"), "media type"),
            (lambda m, _: m["layers"][0].update(size=5), "descriptor says 5"),
            (lambda m, _: m["config"].update(mediaType="application/vnd.oci.empty.v1+json"), "media type"),
            (lambda m, _: m.update(config=None), "object"),
            (lambda m, all: m.update(config=archives.descriptor(all, b"{}", archives.OCI_CONFIG)), "rootfs"),
        ],
    )
    def test_bad_manifests(
        self, tmp_path: Path, change: Callable[[dict[str, Any], Members], None], message: str
    ) -> None:
        refuse(self.changed(tmp_path, change), message)

    def test_changed_blobs(self, tmp_path: Path) -> None:
        """Each blob's digest is checked."""
        whole = archives.oci_members(ImageSpec([BASE], compression="gzip"))
        names = [name for name in whole if name.startswith("blobs/")]
        assert len(names) == 3
        for name in names:
            content = whole[name]
            assert isinstance(content, bytes)
            # In gzip's header a byte may change without a trace in the content.
            place = 4 if content[:2] == b"\x1f\x8b" else content.index(b":") + 1
            changed = content[:place] + bytes([content[place] ^ (1 if place == 4 else 2)]) + content[place + 1 :]
            if place != 4:
                changed = content.replace(b'": ', b'" :', 1)  # the same JSON in other bytes
            refuse(self.write(tmp_path, {**whole, name: changed}), "wrong digest")

    def test_missing_blobs(self, tmp_path: Path) -> None:
        whole = archives.oci_members(ImageSpec([BASE]))
        for name in [name for name in whole if name.startswith("blobs/")]:
            refuse(self.write(tmp_path, {n: c for n, c in whole.items() if n != name}), "lacks")

    def test_too_large_document(self, tmp_path: Path) -> None:
        members = archives.oci_members(ImageSpec([BASE]))
        members["index.json"] = b" " * (17 << 20)
        refuse(self.write(tmp_path, members), "too large")


def test_errors_are_pycow_errors() -> None:
    assert issubclass(ImageError, Error) and issubclass(ImageError, ValueError)
